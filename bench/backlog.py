"""Backlogs that are posted in bulk: of one entity, and of an entity a message.

Two sizes of each: the cost of a message must not depend on the number of
messages, nor must the memory of the processes.  Measured are the times of the
posting, one transaction of a session, and of the draining by one worker, from
just before the resume to the last commit.  The memory is the highest private
memory of the processes (RssAnon of /proc/PID/status).
"""
import re
import time

from report import Result, Target
from server import BenchError, Database

SHAPES = (('one entity', lambda count: 1), ('an entity each', lambda count: count))
MEMORY = 65536                  # kB that the settings' defaults allow for
STALLED = 60                    # seconds without progress, then it is an error
ROLES = ('poster', 'manager', 'worker')


def measure(server, plan, report):
    if plan.floors_only:
        return
    server.configure(actornot__max_workers=1, track_commit_timestamp='on')
    small = 100000 if plan.quick else 1000000
    for shape, entities in SHAPES:
        lines = make_lines(shape, small)
        report += lines.values()
        for _ in range(plan.repeat or 1):
            for side, count in (('floor', small), ('ours', 10 * small)):
                numbers = one_backlog(server, count, entities(count))
                for name, number in numbers.items():
                    lines[name].add(side, number)


def make_lines(shape, small):
    label = '%s messages, %s' % (format(10 * small, ','), shape)
    lines = {verb: Result('backlog', '%s, to %s one' % (label, verb), 'us',
                          [Target('ratio', '<=', 1.2)],
                          '"floor": a tenth of the messages')
             for verb in ('post', 'drain')}
    for role in ROLES:
        lines[role] = Result('backlog', '%s, %s, private' % (label, role), 'kB',
                             [Target('value', '<=', MEMORY)])
    return lines


def one_backlog(server, count, entities):
    """Microseconds a message, and the highest kB of each process."""
    with Database(server, 'bench_backlog', ['backlog.sql'],
                  extension=True) as database, \
            database.session('off') as session:
        session.query("SELECT actornot_register('bench', 'counter_sum')")
        session.query("SELECT actornot_pause('bench')")
        memory = Memory(server)
        start = time.monotonic()
        session.send('CALL post_bulk(%d, %d)' % (count, entities))
        memory.watch_while(lambda: not session.ready())
        session.receive()
        posted = time.monotonic() - start
        session.query('CHECKPOINT')
        resumed = session.value('SELECT clock_timestamp()')
        session.query("SELECT actornot_resume('bench')")
        wait_for_messages(session, count, memory)
        drained = float(session.value(
            "SELECT extract(epoch FROM"
            " max(pg_xact_commit_timestamp(xmin)) - '%s')"
            ' FROM actornot.mailbox' % resumed))
    return dict(memory.highest, post=posted / count * 1e6,
                drain=drained / count * 1e6)


class Memory:
    """The highest private memory of the processes of each kind."""

    def __init__(self, server):
        self.server = server
        self.highest = dict.fromkeys(ROLES, 0)

    def look(self):
        for pid in self.server.processes()[1]:
            role, size = look_at(pid)
            if role in self.highest:
                self.highest[role] = max(self.highest[role], size)

    def watch_while(self, condition):
        while condition():
            self.look()
            time.sleep(0.1)


def look_at(pid):
    """The role of a process, if it is one of ROLES, and its kB.  It may have
    ended."""
    try:
        with open('/proc/%s/cmdline' % pid) as file:
            title = file.read()
        with open('/proc/%s/status' % pid) as file:
            found = re.search(r'RssAnon:\s+(\d+) kB', file.read())
    except OSError:
        return None, 0
    role = None
    if 'actornot manager' in title:
        role = 'manager'
    elif 'actornot worker' in title:
        role = 'worker'
    elif 'bench_backlog' in title and 'CALL' in title:
        role = 'poster'
    return role, int(found.group(1)) if found else 0


def wait_for_messages(session, count, memory):
    """Waits until all are done.  The WAL's position does not move when no
    worker works, and reading it costs nothing."""
    position, total, grown = None, None, time.monotonic()
    while True:
        time.sleep(0.1)
        memory.look()
        before, position = position, session.value(
            'SELECT pg_current_wal_insert_lsn()')
        if position != before:
            continue
        before, total = total, session.number(
            "SELECT coalesce(sum((state->>'n')::bigint), 0)"
            ' FROM actornot.mailbox')
        if total == count:
            return
        if total != before:
            grown = time.monotonic()
        elif time.monotonic() > grown + STALLED:
            raise BenchError('nothing happens any more: %d of %d messages'
                             % (total, count))
