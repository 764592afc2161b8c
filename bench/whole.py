"""(k) Handlers that take many entities in one call, against one call for each,
and against PgQ's consumer, which is made for such work."""
import peer
from drain import STATE_SUM, expected_sum, wait_for_sum
from report import Result, Target
from server import Database
from versus import drain_peer, seconds_since

EACH = 200000                   # entities with one message
TEN = 50000                     # entities with ten


def measure(server, plan, report):
    if plan.floors_only:
        return
    if not supported(server):
        report.append(Result('whole', 'handlers for many entities', '-', (),
                             'skipped: this build has none'))
        return
    one_message(server, plan, report)
    ten_messages(server, plan, report)


def supported(server):
    server.configure()
    with Database(server, 'bench_whole', extension=True) as database, \
            database.session() as session:
        return session.query("SELECT 1 FROM pg_type"
                             " WHERE typname = 'actornot_batch'") != []


# Handlers that do the same work: of many entities a call, and of one.
PAIRS = (
    ('state in the mailbox', 'counter_whole', 'counter_sum', 1000),
    ('the same handler', 'counter_whole', 'counter_whole', 1),
    ('sums in a table', 'counter_table', 'counter_table_single', 1000),
)


def one_message(server, plan, report):
    configure(server, 1)
    for label, many, single, batch_size in PAIRS:
        result = Result('whole', 'one message an entity, ' + label,
                        'messages/s', [Target('ratio', '>=', 3)],
                        'both are actornot, 1 worker: "floor" is one call for '
                        'each entity')
        report.append(result)
        for round_no in range(plan.rounds(3)):
            for side in ('ours', 'floor') if round_no % 2 == 0 else (
                    'floor', 'ours'):
                result.add(side, drain_one(
                    server, many if side == 'ours' else single,
                    1000 if side == 'ours' else batch_size))


def ten_messages(server, plan, report):
    """Ours with one worker and with two, against PgQ with its one consumer."""
    def line(case, targets=(), note=''):
        report.append(Result('whole', 'ten messages an entity, ' + case,
                             'messages/s', targets, note))
        return report[-1]

    note = "floor: PgQ's consumer: batch, GROUP BY, upsert, one transaction"
    lines = {('counter_whole', 1): line('1 worker',
                                        [Target('ratio', '>=', 1.2)], note),
             ('counter_whole', 2): line('2 workers',
                                        [Target('ratio', '>=', 1.8)], note),
             ('counter_table', 1): line('1 worker, sums in a table', (), note)}
    two = line('2 workers, against two queues', (),
               'floor: PgQ with a queue and a consumer for each half')
    for round_no in range(plan.rounds(3)):
        for side in plan.sides(round_no):
            if side == 'floor':
                rates = [drain_peer(server, plan, other, TEN)[0]
                         for other in (peer.PGQ, peer.PGQ_TWO)]
                for result in lines.values():
                    result.add(side, rates[0])
                two.add(side, rates[1])
                continue
            for (handler, workers), result in lines.items():
                configure(server, workers)
                result.add(side, drain_ten(server, plan, handler))
    two.ours = lines['counter_whole', 2].ours


def configure(server, workers):
    server.configure(actornot__max_workers=workers, track_commit_timestamp='on')


def drain_one(server, handler, batch_size):
    """Of a message for each entity."""
    return drain(server, handler, EACH, 'CALL post_each(%d)' % EACH,
                 batch_size)


def drain_ten(server, plan, handler):
    """Of ten messages for each entity, on the average."""
    return drain(server, handler, plan.backlog,
                 'CALL post_piece(1, %d, %d)' % (plan.backlog, TEN), 1000)


def drain(server, handler, count, post, batch_size):
    """Messages a second by background workers."""
    table = ('total' if handler.startswith('counter_table')
             else 'actornot.mailbox')
    with Database(server, 'bench_whole',
                  ['drain_ours.sql', 'whole_ours.sql', 'whole_post.sql'],
                  extension=True) as database, \
            database.session('off') as session:
        session.query("SELECT actornot_register('bench', '%s',"
                      " batch_size => %d)" % (handler, batch_size))
        session.query("SELECT actornot_pause('bench')")
        session.query(post)
        session.query('CHECKPOINT')
        expected = expected_sum(session, handler, count)
        cpu = server.cpu_time(session)
        start = session.value('SELECT clock_timestamp()')
        session.query("SELECT actornot_resume('bench')")
        wait_for_sum(session, expected, STATE_SUM + table)
        server.note_cpu(session, cpu, count)
        return count / seconds_since(session, start, table)
