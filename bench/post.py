"""(a) Posting, one message a transaction, against a plain INSERT."""
from report import Result, Target
from server import BenchError, Database, pgbench

CLIENTS = 8
PAYLOAD = ('{"kind": "deposit", "delta": 3, "currency": "EUR", '
           '"reference": "INV-000000001738"}')
TARGETS = {'off': 0.85, 'on': 0.9}


def measure(server, plan, report):
    server.configure()
    results = {commit: Result('post', '8 clients, synchronous_commit ' + commit,
                              'messages/s', [Target('ratio', '>=', target)])
               for commit, target in TARGETS.items()}
    report += results.values()
    for round_no in range(plan.rounds(5)):
        for commit, result in results.items():
            for side in plan.sides(round_no):
                result.add(side, post(server, side, commit, plan.seconds))


def post(server, side, commit, seconds, paused=False):
    """Messages a second of one side, in a new database; "paused": the runner
    has a handler, and is paused."""
    ours = side == 'ours'
    with Database(server, 'bench_post', extension=ours) as database:
        with database.session() as session:
            session.query(
                # Without a handler, so no worker runs meanwhile.
                "SELECT actornot_register('bench')" if ours else
                'CREATE TABLE floor (id bigserial PRIMARY KEY, payload jsonb)')
            if paused:
                session.script('drain_ours.sql')
                session.query("SELECT actornot_register('bench',"
                              " 'counter_sum')")
                session.query("SELECT actornot_pause('bench')")
            session.query('CHECKPOINT')
            cpu = server.cpu_time(session)
            load = pgbench(database, 'post_%s.sql' % side, '-c', CLIENTS,
                           '-j', 2, '-T', seconds, '-D', 'payload=' + PAYLOAD,
                           synchronous_commit=commit)
            server.note_cpu(session, cpu, load.transactions)
            kept = session.number('SELECT count(*) FROM ' +
                                  ('actornot.message' if ours else 'floor'))
    if kept != load.transactions:
        raise BenchError('%d posted, %d in the table'
                         % (load.transactions, kept))
    return load.rate
