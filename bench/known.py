"""(j) Ten million known entities against ten thousand.

A known entity has had a message, and has a row with its state.  Each side is
one database for all rounds, because making ten million takes a while; the
rounds go in turns.  The backlog is for ten thousand of them on both sides.
"""
import contextlib
import time

from drain import STATE_SUM, expected_sum, wait_for_sum
from post import CLIENTS, PAYLOAD
from report import Result, Target
from server import Database, pgbench
from versus import wait_for_count

FEW = 10000
ACTIVE = 10000                  # entities that a backlog is for
IDLE = 2                        # seconds, after which a worker leaves
PATIENCE = 600                  # seconds; a resume may have a long log to search
PIECE = 1000000


def measure(server, plan, report):
    if plan.floors_only:
        return
    server.configure(actornot__max_workers=1, track_commit_timestamp='on',
                     actornot__worker_idle_timeout='%ds' % (IDLE - 1))
    many = plan.known
    note = ('both are actornot: "floor" is %s known entities, the other %s'
            % (format(FEW, ','), format(many, ',')))
    lines = {
        'post': Result('known', 'posting, 8 clients, to any of them',
                       'messages/s', [Target('ratio', '>=', 0.8)], note),
        'drain': Result('known', 'draining, messages for %s of them'
                        % format(ACTIVE, ','), 'messages/s',
                        [Target('ratio', '>=', 0.7)],
                        '1 worker; entities that had messages before, since '
                        'the last checkpoint'),
        'cold': Result('known', 'the same, the first since a checkpoint',
                       'messages/s', [Target('ratio', '>=', 0.7)],
                       'each row that is touched brings an image of its page '
                       'into the WAL: 10,000 pages, or those few that 10,000 '
                       'rows fill'),
        'spread': Result('known', 'draining, messages for any of them',
                         'messages/s', (), 'what was posted in the first line: '
                         'almost each for another one where there are many'),
        'first': Result('known', 'from the resume to the first batch', 's', (),
                        'of the second line: the search for what waits is in '
                        'its speed'),
    }
    report += lines.values()
    with contextlib.ExitStack() as stack:
        sides = {side: stack.enter_context(known(server, number, side))
                 for side, number in (('ours', many), ('floor', FEW))}
        for round_no in range(plan.rounds(3)):
            for side in ('ours', 'floor') if round_no % 2 == 0 else (
                    'floor', 'ours'):
                for line, value in measure_side(plan, *sides[side]).items():
                    lines[line].add(side, value)


@contextlib.contextmanager
def known(server, number, side):
    """A database with that number of known entities, each posted to and run."""
    with Database(server, 'bench_known_' + side, ['peer_common.sql',
                  'long_ours.sql', 'known.sql'], extension=True) as database:
        with database.session('off') as session:
            session.query("SELECT actornot_register('bench', 'counter_seen')")
            for first in range(1, number + 1, PIECE):
                session.query('CALL make_known(%d, %d)'
                              % (first, min(PIECE, number - first + 1)))
            wait_for_count(session, number, PATIENCE)
            wait_for_sum(session, number)
            session.query('VACUUM ANALYZE actornot.mailbox')
        yield database, number


def measure_side(plan, database, number):
    with database.session('off') as session:
        total = session.number(STATE_SUM + 'actornot.mailbox')
        session.query("SELECT actornot_pause('bench')")
        session.query('CHECKPOINT')
        load = pgbench(database, 'known_post.sql', '-c', CLIENTS, '-j', 2, '-T',
                       plan.seconds, '-D', 'payload=' + PAYLOAD,
                       '-D', 'known=%d' % number)
        total += 3 * load.transactions
        session.query('CHECKPOINT')
        spread, _ = drain(session, total, load.transactions)
        session.query('CHECKPOINT')
        total, cold, _ = backlog(session, plan, number, total)
        total, warm, first = backlog(session, plan, number, total)
        return {'post': load.rate, 'drain': warm, 'cold': cold,
                'spread': spread, 'first': first}


def backlog(session, plan, number, total):
    """Posts a backlog and drains it: the new total, and what drain() returns."""
    session.query("SELECT actornot_pause('bench')")
    session.query('CALL post_known(%d, %d, %d)'
                  % (plan.backlog, ACTIVE, number))
    total += expected_sum(session, 'counter_sum', plan.backlog)
    return (total, *drain(session, total, plan.backlog))


def drain(session, total, count):
    """Messages a second of the one worker, which has to be started; and the
    time to the first commit that is still visible in a row."""
    time.sleep(IDLE)            # the other side's worker leaves
    done = session.number('SELECT last_value FROM done_0')
    start = session.value('SELECT clock_timestamp()')
    session.query("SELECT actornot_resume('bench')")
    wait_for_count(session, done + count, PATIENCE)
    wait_for_sum(session, total)
    first, last = map(float, session.query(
        "SELECT extract(epoch FROM min(at) - '%s'),"
        " extract(epoch FROM max(at) - '%s')"
        ' FROM (SELECT pg_xact_commit_timestamp(xmin) AS at'
        " FROM actornot.mailbox) m WHERE at >= '%s'"
        % (start, start, start))[0])
    return count / last, first
