"""(e) The memory of a worker while millions of messages pass.

"Anonymous" of /proc/PID/smaps_rollup is the private memory of the process.
Its RSS also grows with each page of the shared buffers that it touches for
the first time, and is of no use here.  The server's total of the memory
contexts is measured, too.
"""
import re
import time

from drain import expected_sum, wait_for_sum
from report import Result
from server import BenchError, Database, wait_until

ENTITIES = 10000
FLAT = 512                      # kB of growth that are allowed: malloc's noise
PIECE = 1000000


class Flat:
    """The target of this part, with the interface of Target."""

    def __str__(self):
        return 'growth <= %d kB' % FLAT

    def reached(self, result):
        return growth(result) <= FLAT if len(result.ours) > 1 else None


def growth(result):
    """Growth from the end of the first million to the highest one after it."""
    return max(result.ours[1:]) - result.ours[0]


def measure(server, plan, report):
    if plan.floors_only:
        return
    server.configure(actornot__max_workers=1)
    lines = {
        'Anonymous': Result('memory', 'worker, private', 'kB', [Flat()]),
        'Contexts': Result('memory', 'worker, memory contexts', 'kB', [Flat()]),
        'Rss': Result('memory', 'worker, RSS with shared buffers', 'kB'),
        'Rate': Result('memory', 'posting and processing at once',
                       'messages/s'),
    }
    report += lines.values()
    with Database(server, 'bench_memory', ['drain_ours.sql'],
                  extension=True) as database:
        pass_messages(database, plan.memory_millions, lines)
    for line in lines.values():
        line.note = ('after each million messages: '
                     + ' '.join('%d' % value for value in line.ours))


def pass_messages(database, millions, lines):
    """Posts a million at a time beside the worker, and measures after each."""
    with database.session('off') as session:
        session.query("SELECT actornot_register('bench', 'counter_sum')")
        worker = None
        for million in range(1, millions + 1):
            start = time.monotonic()
            session.query('CALL post_piece(%d, %d, %d)' % (
                (million - 1) * PIECE + 1, PIECE, ENTITIES))
            wait_for_sum(session, expected_sum(session, 'counter_sum',
                                               million * PIECE))
            lines['Rate'].add('ours', PIECE / (time.monotonic() - start))
            pid = worker_pid(session)
            if worker not in (None, pid):
                raise BenchError('the worker was replaced: %d, %d'
                                 % (worker, pid))
            worker = pid
            for name, value in memory_of(database, session, worker).items():
                lines[name].add('ours', value)


def worker_pid(session):
    pids = session.query("SELECT pid FROM pg_stat_activity"
                         " WHERE backend_type ~ '^actornot.*worker'"
                         " AND datname = current_database()")
    if len(pids) != 1:
        raise BenchError('%d workers instead of one' % len(pids))
    return int(pids[0][0])


def memory_of(database, session, pid):
    """kB by kind."""
    sizes = {}
    with open('/proc/%d/smaps_rollup' % pid) as rollup:
        for line in rollup:
            found = re.match(r'(Rss|Anonymous): +(\d+) kB', line)
            if found:
                sizes[found.group(1)] = int(found.group(2))
    sizes['Contexts'] = context_bytes(database.server, session, pid) // 1024
    return sizes


def context_bytes(server, session, pid):
    """The grand total of the contexts, which the worker logs on request."""
    offset = server.log_size()
    session.query('SELECT pg_log_backend_memory_contexts(%d)' % pid)
    total = []

    def written():
        total[:] = re.findall(r'Grand total: (\d+) bytes',
                              server.log_after(offset))
        return total

    if not wait_until(written, 10, 0.05):
        raise BenchError('the worker did not log its memory contexts')
    return int(total[0])
