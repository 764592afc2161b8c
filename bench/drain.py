"""(c) Draining a backlog, against a loop with FOR UPDATE SKIP LOCKED.

Ours is measured from just before the resume of a paused runner to the commit
of the last batch, by the server's commit timestamps: no frequent polling is
needed, and start and end are exact.  The sum of the states proves each time
that every message was processed, and once.
"""
import time

from report import Result, Target
from server import BenchError, Database, pgbench

ENTITIES = (100000, 1000, 1)
GOAL = {100000: 300000, 1000: 700000}
STALLED = 20                    # seconds without progress, then it is an error
STATE_SUM = "SELECT coalesce(sum((state->>'n')::bigint), 0) FROM "


def measure(server, plan, report):
    for workers in (1, 2):
        compare(server, plan, workers, report)
    by_hundreds(server, plan, report)
    if not plan.floors_only:
        variants(server, plan, report)
        whole(server, plan, report)
        calls(server, plan, report)


def compare(server, plan, workers, report):
    """The pairs that the targets are about."""
    configure(server, workers)
    results = {}
    for entities in ENTITIES:
        targets = []
        if workers == 1:
            targets = [Target('ratio', '>=', 10)]
            if entities in GOAL:
                targets.insert(0, Target('value', '>=', GOAL[entities]))
        results[entities] = Result(
            'drain', '%s, %s' % (people(workers), mailboxes(entities)),
            'messages/s', targets)
    results[ENTITIES[0]].note = (
        'floor: one message a transaction, synchronous_commit off, backlog of '
        '%s only' % format(plan.floor_backlog, ','))
    report += results.values()
    for round_no in range(plan.rounds(3)):
        for entities, result in results.items():
            for side in plan.sides(round_no):
                rate = (drain_ours(server, plan, entities)
                        if side == 'ours' else
                        drain_floor(server, plan, entities, workers))
                result.add(side, rate)
    if workers == 1:
        report.append(hot_entity(results[1], results[1000]))


def hot_entity(one, thousand):
    result = Result('drain', '1 worker, 1 entity against 1,000', 'messages/s',
                    [Target('ratio', '>=', 1)],
                    'both are actornot: "floor" is the 1,000')
    result.ours, result.floor = one.ours, thousand.ours
    return result


def by_hundreds(server, plan, report):
    """Against the best loop that one can write by hand; no target."""
    configure(server, workers=1)
    result = Result('drain', '1 worker, 100,000 entities, 100 by hand',
                    'messages/s', (), 'floor: 100 messages a transaction, set '
                    'by set, without a handler')
    report.append(result)
    for round_no in range(plan.rounds(3)):
        for side in plan.sides(round_no):
            rate = (drain_ours(server, plan, 100000) if side == 'ours' else
                    drain_floor(server, plan, 100000, 1, 'drain_hundred'))
            result.add(side, rate)


def variants(server, plan, report):
    """Other numbers worth knowing; no floors and no targets."""
    configure(server, workers=1)
    for label, options in (
            ('handler with a loop', dict(handler='counter_foreach')),
            ('handler that only counts', dict(handler='counter_count')),
            ('posted one a transaction', dict(singly=True))):
        for entities in (100000, 1000):
            result = Result('drain', '1 worker, %s, %s'
                            % (mailboxes(entities), label), 'messages/s')
            report.append(result)
            for _ in range(plan.rounds(3)):
                result.add('ours', drain_ours(server, plan, entities,
                                              **options))


def whole(server, plan, report):
    """Handlers that take many entities in a call, against one entity a call."""
    configure(server, workers=1)
    for entities, each in ((100000, 1), (10000, 10)):
        for single, many in (('counter_sum', 'whole_sum'),
                             ('single_upsert', 'whole_upsert')):
            result = Result(
                'drain', '1 worker, %s, %d each, %s' % (mailboxes(entities),
                                                        each, many),
                'messages/s', [Target('ratio', '>=', 3)] if each == 1 else (),
                'both are actornot: "floor" is %s, one entity a call' % single)
            report.append(result)
            for round_no in range(plan.rounds(3)):
                for side in plan.sides(round_no):
                    result.add(side, drain_evenly(
                        server, entities, each,
                        many if side == 'ours' else single))


def calls(server, plan, report):
    """CALL actornot_drain() on a server without the library preloaded."""
    server.configure(shared_preload_libraries='')
    for entities in ENTITIES:
        result = Result('drain', 'CALL actornot_drain(), '
                        + mailboxes(entities), 'messages/s', (),
                        'not preloaded')
        report.append(result)
        for _ in range(plan.rounds(3)):
            result.add('ours', drain_by_call(server, plan, entities))


def people(workers):
    return '1 worker' if workers == 1 else '%d workers' % workers


def mailboxes(entities):
    return '1 entity' if entities == 1 else format(entities, ',') + ' entities'


# -------------------------------------------------------------------- ours

def configure(server, workers):
    server.configure(actornot__max_workers=workers, track_commit_timestamp='on')


def drain_ours(server, plan, entities, handler='counter_sum', singly=False):
    """Messages a second by background workers."""
    with Database(server, 'bench_drain', ['drain_ours.sql'],
                  extension=True) as database:
        with database.session() as session:
            session.query("SELECT actornot_register('bench', '%s')" % handler)
            session.query("SELECT actornot_pause('bench')")
            count = post_backlog(database, session, plan, entities, singly)
            expected = expected_sum(session, handler, count)
            session.query('CHECKPOINT')
            cpu = server.cpu_time(session)
            start = session.value('SELECT clock_timestamp()')
            session.query("SELECT actornot_resume('bench')")
            wait_for_sum(session, expected)
            server.note_cpu(session, cpu, count)
            return count / float(session.value(
                "SELECT extract(epoch FROM"
                " max(pg_xact_commit_timestamp(xmin)) - '%s')"
                " FROM actornot.mailbox" % start))


def drain_evenly(server, entities, each, handler):
    """Messages a second where every entity has the same number of them."""
    total = STATE_SUM + 'actornot.mailbox'
    if handler.endswith('upsert'):
        total = 'SELECT coalesce(sum(n), 0) FROM account'
    with Database(server, 'bench_drain', ['drain_ours.sql'],
                  extension=True) as database:
        with database.session() as session:
            session.query("SELECT actornot_register('bench', '%s',"
                          " batch_size => 1000)" % handler)
            session.query("SELECT actornot_pause('bench')")
            session.query('CALL post_evenly(%d, %d)' % (entities, each))
            expected = session.number('SELECT bench_expected(%d)'
                                      % (entities * each))
            session.query('CHECKPOINT')
            start = session.value('SELECT clock_timestamp()')
            session.query("SELECT actornot_resume('bench')")
            wait_for_sum(session, expected, total)
            return entities * each / float(session.value(
                "SELECT extract(epoch FROM"
                " max(pg_xact_commit_timestamp(xmin)) - '%s')"
                " FROM actornot.mailbox" % start))


def drain_by_call(server, plan, entities):
    """Messages a second by a session that calls actornot_drain()."""
    with Database(server, 'bench_drain', ['drain_ours.sql'],
                  extension=True) as database:
        with database.session() as session:
            session.query("SELECT actornot_register('bench', 'counter_sum')")
            count = post_backlog(database, session, plan, entities, False)
            session.query('CHECKPOINT')
            start = time.perf_counter()
            processed = session.number('CALL actornot_drain()')
            seconds = time.perf_counter() - start
            check_sum(session, 'actornot.mailbox',
                      expected_sum(session, 'counter_sum', count))
            if processed != count:
                raise BenchError('drain says %d of %d' % (processed, count))
            return count / seconds


def post_backlog(database, session, plan, entities, singly):
    if singly:
        return pgbench(database, 'drain_post.sql', '-c', 4, '-t',
                       plan.backlog // 4, '-D', 'entities=%d' % entities
                       ).transactions
    session.query('CALL post_piece(1, %d, %d)' % (plan.backlog, entities))
    return plan.backlog


def expected_sum(session, handler, count):
    if handler == 'counter_count':
        return count
    return session.number('SELECT bench_expected(%d)' % count)


def wait_for_sum(session, expected, query=STATE_SUM + 'actornot.mailbox'):
    """Waits until all is done, with cheap questions while there is work.

    Adding up the states costs as much as some thousand messages.  The WAL's
    position costs nothing, and does not move when no worker works.
    """
    position, total, grown = None, None, time.monotonic()
    while True:
        time.sleep(0.2)
        before, position = position, session.value(
            'SELECT pg_current_wal_insert_lsn()')
        stalled = time.monotonic() > grown + STALLED
        if position != before and not stalled:
            continue
        before, total = total, session.number(query)
        if total == expected:
            return
        if total != before:
            grown = time.monotonic()
        elif stalled:
            raise BenchError('nothing happens any more: states add up to %d '
                             'of %d' % (total, expected))


def check_sum(session, table, expected):
    got = session.number(STATE_SUM + table)
    if got != expected:
        raise BenchError('states add up to %d instead of %d' % (got, expected))


# --------------------------------------------------------------- the floor

def drain_floor(server, plan, entities, workers, procedure='drain_single'):
    """Messages a second of the loop by hand, in "workers" sessions at once."""
    with Database(server, 'bench_floor', ['drain_floor.sql']) as database:
        with database.session('off') as session:
            session.query('CALL post_backlog(%d, %d)'
                          % (plan.floor_backlog, entities))
            session.query('VACUUM ANALYZE queue')
            session.query('CHECKPOINT')
            seconds = call_at_once(database, workers, procedure)
            check_sum(session, 'account', session.number(
                'SELECT bench_expected(%d)' % plan.floor_backlog))
    return plan.floor_backlog / seconds


def call_at_once(database, workers, procedure):
    """Seconds until all of them have found the queue empty."""
    sessions = [database.session('off') for _ in range(workers)]
    for session in sessions:
        session.query('SELECT 1')
    start = time.perf_counter()
    for session in sessions:
        session.send('CALL %s()' % procedure)
    for session in sessions:
        session.receive()
    seconds = time.perf_counter() - start
    for session in sessions:
        session.__exit__()
    return seconds
