"""(d) From the post's commit to the effect's commit, against LISTEN/NOTIFY.

Both commits are read from the server's own commit timestamps: of the message's
(the floor: the posted row's) transaction and of the transaction that inserted
the effect.  Neither a client's clock nor polling is part of the number.
"""
import os
import subprocess

from report import Result, Target
from server import BenchError, Database, pgbench, wait_until

RATE = 500
WARM_UP = 1                     # seconds left out, on both sides
SEGMENTS = 16
COLUMNS = {'p50': [Target('value', '<=', 1), Target('ratio', '<=', 2)],
           'p99': [Target('value', '<=', 5)],
           'max': []}


NOTES = {
    'off': 'poster at %d a second; the effect is committed asynchronously on '
           'both sides' % RATE,
    'on': "the commit's time is taken before its flush to disk, so the "
          "poster's flush is in these numbers, on both sides"}


def measure(server, plan, report):
    server.configure(track_commit_timestamp='on')
    for commit in ('off', 'on'):
        compare(server, plan, commit, report)


def compare(server, plan, commit, report):
    """Both sides, with this synchronous_commit of the poster."""
    results = {column: Result(
        'latency', '%s, poster synchronous_commit %s' % (column, commit), 'ms',
        targets if commit == 'off' else ())
        for column, targets in COLUMNS.items()}
    results['p50'].note = NOTES[commit]
    report += results.values()
    for round_no in range(plan.rounds(3)):
        for side in plan.sides(round_no):
            times = (latency_ours if side == 'ours' else latency_floor)(
                server, plan, commit)
            for column, time in zip(COLUMNS, times):
                results[column].add(side, time)


def latency_ours(server, plan, commit):
    with Database(server, 'bench_latency', ['latency_ours_setup.sql'],
                  extension=True) as database:
        with database.session() as session:
            session.query("SELECT actornot_register('bench', 'note_effect')")
            cpu = server.cpu_time(session)
            load = poster(database, plan, 'latency_ours.sql', commit)
            server.note_cpu(session, cpu, load.transactions)
        posted = ' UNION ALL '.join(
            "SELECT (payload->>'n')::bigint AS n, xmin FROM actornot.message_%d"
            % segment for segment in range(SEGMENTS))
        return percentiles(database, posted, load.transactions)


def latency_floor(server, plan, commit):
    with Database(server, 'bench_notify',
                  ['latency_floor_setup.sql']) as database:
        listener = start_listener(database, plan)
        try:
            load = poster(database, plan, 'latency_floor.sql', commit)
            return percentiles(database, 'SELECT n, xmin FROM posted',
                               load.transactions)
        finally:
            listener.terminate()
            listener.wait()


def poster(database, plan, script, commit):
    return pgbench(database, script, '-c', 2, '-T', plan.latency_seconds,
                   '-R', RATE, synchronous_commit=commit)


def start_listener(database, plan):
    """A client that answers each notification with an INSERT."""
    listener = subprocess.Popen(
        [os.path.join(plan.work, 'listener'), 'dbname=' + database.name],
        stdout=subprocess.PIPE, text=True,
        env=database.server.environment('off'))
    if listener.stdout.readline().strip() != 'listening':
        raise BenchError('the listener did not start')
    return listener


def percentiles(database, posted, expected):
    """[p50, p99, max] in milliseconds, once every post has its effect."""
    with database.session() as session:
        if not wait_until(lambda: session.number(
                'SELECT count(*) FROM effect') >= expected, 30, 0.2):
            raise BenchError('%s of %d posts had their effect'
                             % (session.value('SELECT count(*) FROM effect'),
                                expected))
        row = session.query('''
            WITH times AS (
                SELECT pg_xact_commit_timestamp(p.xmin) AS posted,
                       pg_xact_commit_timestamp(e.xmin) AS done
                  FROM (%s) p JOIN effect e USING (n)
            ), warm AS (
                SELECT extract(epoch FROM done - posted) * 1000 AS ms
                  FROM times, (SELECT min(posted) AS start FROM times) s
                 WHERE posted > start + interval '%d s'
            )
            SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ms),
                   percentile_disc(0.99) WITHIN GROUP (ORDER BY ms), max(ms),
                   (SELECT count(*) FROM times)
              FROM warm''' % (posted, WARM_UP))[0]
    if int(row[3]) != expected:
        raise BenchError('%s effects of %d posts' % (row[3], expected))
    return [float(time) for time in row[:3]]
