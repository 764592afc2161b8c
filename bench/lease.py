"""(f) Leases: many clients, one that waits, a backlog, and a crowd beside.

The clients of the first case each take ten entities in one transaction and
save them in another; the sum of the states proves that every message was
processed, and once.  The floor is a loop with FOR UPDATE SKIP LOCKED, by as
many clients.
"""
import subprocess
import time

from drain import check_sum
from latency import SEGMENTS, percentiles
from report import Result, Target
from server import BenchError, Database, pgbench, script_path

CLIENTS = 8
ENTITIES = 10000
TAKEN = 10                      # by a call of actornot_acquire
SPARE = 1.2                     # factor of the calls: some get fewer than ten
RATE = 100                      # posts a second to the client that waits
CROWD = 10000
TIMES = 2000


def measure(server, plan, report):
    clients(server, plan, report)
    if not plan.floors_only:
        waiting(server, plan, report)
        backlog(server, plan, report)
        crowd(server, plan, report)


# ------------------------------------------------------------- many clients

def clients(server, plan, report):
    server.configure()
    loop = Result('lease', '8 clients, 10 a call, 10,000 entities',
                  'messages/s', [Target('value', '>=', 15000),
                                 Target('ratio', '>=', 3)],
                  'floor: a loop of 8 clients with FOR UPDATE SKIP LOCKED, one '
                  'message a transaction; synchronous_commit off on both sides')
    results = {'lease_floor_loop.sql': loop}
    for script, label, note in (
            ('single', '1 by hand', 'one message a statement'),
            ('ten', '10 by hand', 'ten messages a statement')):
        results['lease_floor_%s.sql' % script] = Result(
            'lease', '8 clients, ' + label, 'messages/s', (),
            'floor: %s, which computes the state itself; ours as above' % note)
    report += results.values()
    for round_no in range(plan.rounds(3)):
        for side in plan.sides(round_no):
            if side == 'ours':
                loop.add('ours', take(server, plan, side, 'lease_take.sql',
                                      TAKEN))
                continue
            for script, result in results.items():
                result.add(side, take(server, plan, side, script,
                                      TAKEN if 'ten' in script else 1))
    for result in results.values():
        result.ours = loop.ours


def take(server, plan, side, script, taken):
    """Messages a second, over some fills of one message for each entity."""
    ours = side == 'ours'
    calls = ENTITIES / taken * (SPARE if taken > 1 else 1)
    seconds = 0
    with Database(server, 'bench_lease', ['lease_%s.sql' % side],
                  extension=ours) as database:
        with database.session('off') as session:
            if ours:
                session.query("SELECT actornot_register('bench')")
            for _ in range(plan.fills):
                session.query('CALL fill(%d)' % ENTITIES)
                load = pgbench(database, script, '-c', CLIENTS, '-j', 2,
                               '-t', int(calls / CLIENTS))
                seconds += load.transactions / load.rate
            check_sum(session, 'actornot.mailbox' if ours else 'account',
                      plan.fills * ENTITIES)
    return plan.fills * ENTITIES / seconds


# ------------------------------------------------------------ one that waits

def waiting(server, plan, report):
    server.configure(track_commit_timestamp='on')
    columns = {'p50': [Target('value', '<=', 2)], 'p99': [], 'max': []}
    results = [Result('lease', '%s until a waiting acquirer has it' % name,
                      'ms', targets) for name, targets in columns.items()]
    results[0].note = ("from the post's commit to the acquirer's; %d posts a "
                       'second, synchronous_commit off' % RATE)
    report += results
    for _ in range(plan.rounds(3)):
        for result, time_taken in zip(results, wait_for_posts(server, plan)):
            result.add('ours', time_taken)


def wait_for_posts(server, plan):
    """[p50, p99, max] in ms."""
    posts = RATE * plan.latency_seconds
    with Database(server, 'bench_lease', ['lease_ours.sql'],
                  extension=True) as database:
        with database.session() as session:
            session.query("SELECT actornot_register('bench')")
        acquirer = subprocess.Popen(
            ['pgbench', '-n', '-M', 'prepared', '-t', str(posts),
             '-f', script_path('lease_wait.sql'), database.name],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=server.environment('off'))
        try:
            pgbench(database, 'latency_ours.sql', '-t', posts, '-R', RATE)
            _, errors = acquirer.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            raise BenchError('the acquirer did not get all posts')
        finally:
            acquirer.kill()
            acquirer.wait()
        if acquirer.returncode:
            raise BenchError('pgbench: ' + errors)
        posted = ' UNION ALL '.join(
            "SELECT (payload->>'n')::bigint AS n, xmin FROM actornot.message_%d"
            % segment for segment in range(SEGMENTS))
        return percentiles(database, posted, posts)


# --------------------------------------------------------------- a backlog

def backlog(server, plan, report):
    server.configure()
    count = plan.lease_backlog
    result = Result('lease', 'a message of a backlog of %s of one entity'
                    % format(count, ','), 'us', [Target('ratio', '<=', 1.2)],
                    'leases of 100 messages, each in its transaction; both are '
                    'actornot: "floor" is a backlog of a quarter')
    report.append(result)
    for round_no in range(plan.rounds(3)):
        for side in plan.sides(round_no):
            result.add(side, work_off(
                server, count if side == 'ours' else count // 4))


def work_off(server, count):
    """Microseconds a message."""
    with Database(server, 'bench_lease', ['lease_ours.sql'],
                  extension=True) as database:
        with database.session('off') as session:
            session.query("SELECT actornot_register('bench')")
            session.query('CALL fill_one(%d)' % count)
            session.query('CHECKPOINT')
            start = time.perf_counter()
            session.query('CALL work_off_one()')
            seconds = time.perf_counter() - start
            check_sum(session, 'actornot.mailbox', count)
    return seconds / count * 1e6


# ----------------------------------------------------------- a crowd beside

def crowd(server, plan, report):
    server.configure()
    result = Result('lease', 'acquire one beside 10,000 leased, 10,000 waiting',
                    'us', [Target('ratio', '<=', 1.2)],
                    'both are actornot: "floor" is with none beside')
    report.append(result)
    for round_no in range(plan.rounds(3)):
        for side in plan.sides(round_no):
            result.add(side, acquire_beside(server,
                                            CROWD if side == 'ours' else 0))


def acquire_beside(server, others):
    """Microseconds of acquiring the one entity that is ready."""
    with Database(server, 'bench_lease', ['lease_ours.sql'],
                  extension=True) as database:
        with database.session('off') as session:
            session.query("SELECT actornot_register('bench')")
            if others:
                session.query('CALL crowd(%d)' % others)
                check_crowd(session, others)
            session.query('CALL acquire_ready(%d)' % TIMES)
            return float(session.value(
                'SELECT avg(us) FROM taken WHERE us <= (SELECT'
                ' percentile_disc(0.95) WITHIN GROUP (ORDER BY us)'
                ' FROM taken)'))


def check_crowd(session, others):
    got = session.query('SELECT count(*) FILTER (WHERE lease_until > now()),'
                        ' count(*) FILTER (WHERE wake_at > now())'
                        ' FROM actornot.mailbox')[0]
    if got != [str(others)] * 2:
        raise BenchError('%s leased, %s waiting' % tuple(got))
