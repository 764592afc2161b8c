"""A restart with many pending entities, and no hint of any.

They are posted to a server without the library preloaded, which gives no
hints.  The time is measured from the start of the next server's postmaster to
the first and to the last commit of the worker; once with the default size of
the ready queue, once with the smallest one, which overflows all the time.
"""
from backlog import Memory, wait_for_messages
from report import Result
from server import Database

QUEUES = (65536, 1024)


def measure(server, plan, report):
    if plan.floors_only:
        return
    count = pending(plan)
    for queue in QUEUES:
        label = title(count, queue)
        lines = {what: Result('sweep', '%s, until the %s has run'
                              % (label, what), 'ms')
                 for what in ('first', 'last')}
        lines['manager'] = Result('sweep', label + ', manager, private', 'kB')
        report += lines.values()
        for _ in range(plan.rounds(3)):
            for name, number in one_restart(server, count, queue).items():
                lines[name].add('ours', number)


def pending(plan):
    return 100000 if plan.quick else 1000000


def title(count, queue):
    return '%s pending, ready queue of %s' % (format(count, ','),
                                              format(queue, ','))


def one_restart(server, count, queue):
    """Milliseconds from the start of the server."""
    server.configure(shared_preload_libraries='')
    with Database(server, 'bench_backlog', ['backlog.sql'],
                  extension=True) as database:
        with database.session('off') as session:
            session.query("SELECT actornot_register('bench', 'counter_sum')")
            session.query('CALL post_bulk(%d, %d)' % (count, count))
        server.configure(actornot__max_workers=1, track_commit_timestamp='on',
                         actornot__ready_queue_size=queue)
        memory = Memory(server)
        with database.session() as session:
            wait_for_messages(session, count, memory)
            server.note_cpu(session, 0, count)
            first, last = session.query(
                'SELECT extract(epoch FROM min(t) - s) * 1000,'
                ' extract(epoch FROM max(t) - s) * 1000'
                ' FROM (SELECT pg_xact_commit_timestamp(xmin) AS t,'
                ' pg_postmaster_start_time() AS s FROM actornot.mailbox) m'
                ' GROUP BY s')[0]
    return {'first': float(first), 'last': float(last),
            'manager': memory.highest['manager']}
