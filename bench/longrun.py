"""(h) The long run: posters and workers at full speed beside a held snapshot.

Another session has a REPEATABLE READ transaction open all the time, so that
the server cannot remove any row version that was alive at its start or since.
The first minute ("floor") is compared with the last one ("actornot").

The load begins before that.  Half a minute after the first write the kernel
begins to write back the server's pages and needs a share of the cores; so the
load begins early enough that it does in both minutes.
"""
import contextlib
import time

import peer
from drain import check_sum, mailboxes
from post import CLIENTS, PAYLOAD
from report import Result, Target
from series import Series
from server import BenchError, Database, load_beside, wait_until

PEERS = (peer.PGQ, peer.HAND, peer.GRAPHILE, peer.PGBOSS)
LEAD = 60                       # seconds of load before the snapshot is taken
WARM_UP = 5                     # seconds that belong to neither minute
PROBES = 50                     # a second, for the latency
DELTA = 3                       # of PAYLOAD
ENTITIES = 1000                 # of the peers


def measure(server, plan, report):
    server.configure(track_commit_timestamp='on')
    if not plan.floors_only:
        for entities in (1000, 1):
            for held in (True, False):
                ours(server, plan, report, entities, held)
    if not plan.ours_only:
        for other in PEERS:
            theirs(server, plan, report, other)


@contextlib.contextmanager
def snapshot(database, held=True):
    """A session that holds a snapshot, as a report or a dump would."""
    if not held:
        yield
        return
    with database.session() as session:
        session.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
        session.query('SELECT count(*) FROM pg_class')
        yield session
        session.query('COMMIT')


def minutes(seconds):
    """The (from, to) of the first minute and of the last, or of shorter ones."""
    width = min(60, seconds // 4)
    return (WARM_UP, WARM_UP + width), (seconds - width, seconds)


def pair(report, case, unit, values, targets=(), note=''):
    """A line that compares the last minute with the first."""
    result = Result('longrun', case, unit, targets, note)
    report.append(result)
    first, last = values
    result.add('floor', first)
    result.add('ours', last)


def ours(server, plan, report, entities, held):
    name = '%s, %s' % (mailboxes(entities),
                       'a snapshot held' if held else 'none held')
    seconds = plan.long_seconds if held else plan.short_seconds
    series = Series('longrun', name)
    plan.series.append(series)
    with Database(server, 'bench_long', ['peer_common.sql', 'long_ours.sql'],
                  extension=True) as database, database.session() as session:
        session.query("SELECT actornot_register('bench', 'counter_seen'),"
                      " actornot_register('probe', 'note_effect')")
        with load_beside(database, 'long_post.sql', LEAD + seconds, '-c',
                         CLIENTS, '-j', 2, '-D', 'entities=%d' % entities,
                         '-D', 'payload=' + PAYLOAD) as loads, \
                load_beside(database, 'long_probe.sql', LEAD + seconds,
                            '-R', PROBES):
            time.sleep(LEAD)
            with snapshot(database, held):
                series.watch(session, seconds)
        settle(session)
        check_sum(session, 'actornot.mailbox', DELTA * loads[0].transactions)
        if held and entities == ENTITIES:
            beside_peers(plan, series)
        spans = minutes(seconds)
        pair(report, name, 'messages/s',
             [series.rate(*span) for span in spans],
             [Target('ratio', '>=', 0.9)],
             'both are actornot: "floor" is the first minute, the other the '
             'last of %d s' % seconds)
        pair(report, name + ', for each second of processor time', 'messages',
             [series.yield_of_cpu(*span) for span in spans], (),
             'of which the server and its clients had %.2f cores in the first '
             'minute and %.2f in the last'
             % tuple(series.cores(*span) for span in spans))
        pair(report, name + ', latency p99', 'ms',
             [latency_p99(session, series, span) for span in spans],
             [Target('ratio', '<=', 1.5)],
             'of %d posts a second to a second runner, beside the load'
             % PROBES)


def beside_peers(plan, series):
    """Puts the beginning of our run into the plot of the peers."""
    copy = Series('longrun-peers', 'actornot')
    copy.samples = [sample for sample in series.samples
                    if sample.second <= plan.short_seconds]
    plan.series.append(copy)


def settle(session):
    """Waits until nothing is pending, which must be soon after the posts."""
    if not wait_until(lambda: session.value(
            "SELECT actornot_pending('bench') + actornot_pending('probe')")
            == '0', 120, 0.5):
        raise BenchError('still pending two minutes after the last post')


def latency_p99(session, series, span):
    """p99 of the probes posted in that time, in ms from commit to commit."""
    return float(session.value('''
        SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY ms)
          FROM (SELECT extract(epoch FROM posted) AS at,
                       extract(epoch FROM done - posted) * 1000 AS ms
                  FROM (SELECT pg_xact_commit_timestamp(p.xmin) AS posted,
                               pg_xact_commit_timestamp(e.xmin) AS done
                          FROM posted p LEFT JOIN effect e USING (n)) t) t
         WHERE at BETWEEN %f AND %f''' % (series.start + span[0],
                                          series.start + span[1])))


def theirs(server, plan, report, other):
    """The same with a peer, for a shorter time: enough to see the trend."""
    seconds = plan.short_seconds
    series = Series('longrun-peers', other.label)
    plan.series.append(series)
    options = ['-R', other.pace] if other.pace else []
    with other.database(server, plan) as database, \
            database.session() as session, \
            other.helpers(database, plan), \
            other.working(database, plan, 'forever'):
        with load_beside(database, 'post_%s.sql' % other.name, LEAD + seconds,
                         '-c', CLIENTS, '-j', 2, '-D', 'entities=%d' % ENTITIES,
                         '-D', 'payload=' + PAYLOAD, *options):
            time.sleep(LEAD)
            with snapshot(database):
                series.watch(session, seconds)
        pair(report, other.label + ', a snapshot held', 'messages/s',
             [series.rate(*span) for span in minutes(seconds)], (),
             'both are %s, %s; of %d s' % (
                 other.label, 'posts at full speed' if not other.pace else
                 '%d posts a second' % other.pace, seconds))
