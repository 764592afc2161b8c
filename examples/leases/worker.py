"""worker.py - books, by leases.  Run any number; kill them when you like."""
import json, operator, os, signal, sys, time
import psycopg2, psycopg2.extras

SECONDS = float(os.environ.get('LEASE_SECONDS', 30))
LEASE = '%s s' % SECONDS
db, leases, stopping = None, [], []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))  # after this batch

def query(sql, *values):
    with db, db.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()

def process_batch(runner, entity, token, state, messages, expires_at):
    lease, renewed = (runner, entity, token), time.monotonic()
    total = (state or {}).get('total', 0)
    try:
        for message in messages:
            total += operator.index(message['payload']['delta'])
            time.sleep(message['payload'].get('ms', 0) / 1000)
            if time.monotonic() > renewed + SECONDS / 3:
                query('SELECT actornot_renew(%s, %s, %s, %s)', *lease, LEASE)
                renewed = time.monotonic()
        return query("""WITH b AS (INSERT INTO ledger SELECT id, %s, (payload->'delta')::bigint
                FROM jsonb_to_recordset(%s) AS m (id bigint, payload jsonb))
            SELECT * FROM actornot_update_locked(%s, %s, %s, %s, %s, %s)""", entity, json.dumps(messages),
            *lease, json.dumps({'total': total}), LEASE, 0 if stopping else None)
    except (LookupError, TypeError, ValueError, psycopg2.DataError, psycopg2.IntegrityError) as error:
        query('SELECT actornot_fail(%s, %s, %s, %s)', *lease, repr(error))  # the message's fault
        return []

while leases or not stopping:
    try:
        db = db if db and not db.closed else psycopg2.connect('')
        leases = process_batch(**leases[0]) if leases else query(
            "SELECT * FROM actornot_acquire('booking', lease => %s, wait => '5 s')", LEASE)
    except psycopg2.Error as error:  # 55AN1: too slow, another program has it
        leases = time.sleep(0 if error.pgcode == '55AN1' else 1) or []
        print(error, file=sys.stderr)
