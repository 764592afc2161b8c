"""(i) The size of the log: flat without a held snapshot, soon small after one.

An hour's traffic of a thousand messages a second is posted at full speed while
workers process it.  The size of the messages that are not yet processed is
subtracted; the rest is compared with the size of a segment.
"""
import time

from drain import check_sum, expected_sum
from latency import SEGMENTS
from longrun import snapshot
from report import Result, Target
from series import Series
from server import BenchError, Database

SEGMENT_MB = 64                 # set for this part, so that many are filled
ENTITIES = 10000
CALIBRATION = 20000             # messages, posted to measure their size
FLAT = 3                        # segments
SMALL = 2                       # segments: one being written, one before it
PATIENCE = 90                   # seconds for emptying, after a snapshot
LOG = '(SELECT sum(pg_total_relation_size(n::regclass))' \
    ' FROM unnest(ARRAY[%s]) n)' % ', '.join(
        "'actornot.message_%d'" % number for number in range(SEGMENTS))
POSTED = '(SELECT last_value FROM posted_n)'


def measure(server, plan, report):
    if plan.floors_only:
        return
    server.configure(actornot__segment_size='%dMB' % SEGMENT_MB)
    with Database(server, 'bench_disk', ['peer_common.sql', 'long_ours.sql'],
                  extension=True) as database, \
            database.session('off') as session:
        note = ('' if rotates(session) else
                'this build has no actornot.segment_size: its log only grows')
        session.query("SELECT actornot_register('bench', 'counter_seen')")
        traffic = Traffic(database, session, plan.traffic)
        flat(traffic, plan, report, note)
        held(traffic, plan, report, note)


def rotates(session):
    return session.query("SELECT 1 FROM pg_settings"
                         " WHERE name = 'actornot.segment_size'") != []


class Traffic:
    """The posts to one database, and the size of its log meanwhile."""

    def __init__(self, database, session, count):
        self.database, self.session, self.count = database, session, count
        self.posted = 0
        self.message = self.calibrate()

    def calibrate(self):
        """Bytes that a message takes, with its index entry."""
        before = self.log_size()
        self.session.query("SELECT actornot_pause('bench')")
        self.session.query('CALL post_traffic(1, %d, %d)'
                           % (CALIBRATION, ENTITIES))
        self.posted = CALIBRATION
        after = self.log_size()
        self.session.query("SELECT actornot_resume('bench')")
        return (after - before) / CALIBRATION

    def log_size(self):
        return self.session.number('SELECT ' + LOG)

    def run(self, series):
        """Posts it all; returns when it is processed, each message once."""
        target = self.posted + self.count
        with self.database.session('off') as poster:
            poster.send('CALL post_traffic(%d, %d, %d)'
                        % (self.posted + 1, self.count, ENTITIES))
            if not series.watch(self.session, 3600, 0.25,
                                lambda last: last.processed >= target):
                raise BenchError('the traffic was not processed in an hour')
            poster.receive()
        self.posted = target
        time.sleep(1)           # the last batch may not have committed
        check_sum(self.session, 'actornot.mailbox', expected_sum(
            self.session, 'counter_sum', self.posted))

    def segments(self, sample):
        """Size of the log without the messages that are not yet processed."""
        pending = max(0, sample.posted - sample.processed) * self.message
        return (sample.bytes - pending) / (SEGMENT_MB << 20)


def flat(traffic, plan, report, note):
    series = Series('disk', 'no snapshot held', POSTED, LOG)
    plan.series.append(series)
    result = Result('disk', 'largest log, without what is pending', 'segments',
                    [Target('value', '<=', FLAT)],
                    note or '%s messages of %d bytes while they were posted and '
                    'processed; segments of %d MB' % (
                        format(traffic.count, ','), traffic.message,
                        SEGMENT_MB))
    report.append(result)
    traffic.run(series)
    result.add('ours', max(map(traffic.segments, series.samples)))


def held(traffic, plan, report, note):
    """With a snapshot that is held meanwhile and then ended."""
    series = Series('disk', 'a snapshot held until all was processed', POSTED,
                    LOG)
    plan.series.append(series)
    before = traffic.log_size()
    with snapshot(traffic.database):
        traffic.run(series)
        grown = traffic.log_size() - before
    result = Result('disk', 'growth while a snapshot is held, of what was '
                    'written', 'ratio', (), note)
    report.append(result)
    result.add('ours', grown / (traffic.count * traffic.message))
    result = Result('disk', 'until the log is small again, after the snapshot',
                    's', [Target('value', '<=', 60)],
                    note or 'at most %d segments' % SMALL)
    report.append(result)
    start = time.monotonic()
    small = series.watch(traffic.session, PATIENCE, 0.25, lambda last:
                         traffic.segments(last) <= SMALL)
    result.add('ours', time.monotonic() - start if small else PATIENCE)
    if not small:
        result.note += '; given up after %d s' % PATIENCE
