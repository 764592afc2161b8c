"""(g) The same work done by other queues; WAL by all of them.

Each line of the report compares one peer ("floor") with actornot in one value.
All of them run one after the other in each round; the first one changes from
round to round.
"""
import contextlib
import time

import latency
import peer
from drain import check_sum, expected_sum, mailboxes, wait_for_sum
from post import CLIENTS, PAYLOAD
from report import Result, Target
from server import BenchError, Database, pgbench

POSTERS = (peer.PGQ, peer.HAND, peer.GRAPHILE, peer.PGBOSS)
DRAINERS = (peer.PGQ, peer.PGQ_TWO, peer.HAND, peer.GRAPHILE,
            peer.GRAPHILE_ORDER, peer.PGBOSS, peer.PGBOSS_ORDER)
ENTITIES = (100000, 1000)
ARRAY = 1000
STALLED = 60                    # seconds without progress, then it is an error


def measure(server, plan, report):
    posting(server, plan, report)
    for entities in ENTITIES:
        draining(server, plan, report, entities)
    waiting(server, plan, report)


def turns(plan, peers, round_no):
    """Ours (None) and the peers; each round begins with another one."""
    order = ([] if plan.floors_only else [None]) + (
        [] if plan.ours_only else list(peers))
    start = round_no % len(order)
    return order[start:] + order[:start]


class Column:
    """One case, measured for ours and for each peer: a result for each pair."""

    def __init__(self, report, case, unit, relation, peers, note=''):
        self.results = {other: Result(
            'peers', '%s, against %s' % (case, other.label), unit,
            [Target('ratio', relation, 1)]) for other in peers}
        self.results[peers[0]].note = note
        self.ours = Result('peers', case, unit)
        report += self.results.values()

    def add(self, other, value):
        if other:
            self.results[other].add('floor', value)
            return
        self.ours.add('ours', value)
        for result in self.results.values():
            result.ours.append(value)


# ------------------------------------------------------------------ posting

def posting(server, plan, report):
    server.configure()
    columns = {'post': Column(report, 'posting, 8 clients', 'messages/s', '>=',
                              POSTERS, 'one message a transaction, '
                              'synchronous_commit off'),
               'many': Column(report, 'posting arrays of 1,000', 'messages/s',
                              '>=', POSTERS, '1 client, synchronous_commit off')}
    for round_no in range(plan.rounds(3)):
        for kind, column in columns.items():
            for other in turns(plan, POSTERS, round_no):
                column.add(other, post(server, plan, kind, other))


@contextlib.contextmanager
def new_database(server, plan, other, scripts):
    """A database for one side; ours has its runner without a handler."""
    if other:
        with other.database(server, plan, scripts) as database:
            yield database
        return
    with Database(server, 'bench_ours', scripts, extension=True) as database:
        with database.session() as session:
            session.query("SELECT actornot_register('bench')")
        yield database


def post(server, plan, kind, other):
    """Messages a second; no worker runs meanwhile."""
    many = kind == 'many'
    options = (['-c', 1] if many else
               ['-c', CLIENTS, '-j', 2, '-D', 'payload=' + PAYLOAD,
                '-D', 'entities=100000'])
    script = '%s_%s.sql' % (kind, other.name if other else 'ours')
    with new_database(server, plan, other,
                      ['many_setup.sql'] if many else []) as database:
        with database.session() as session:
            session.query('CHECKPOINT')
        return (ARRAY if many else 1) * pgbench(
            database, script, *options, '-T', plan.seconds).rate


# ----------------------------------------------------------------- draining

def draining(server, plan, report, entities):
    """A backlog, with a state for each entity; and the WAL that it writes."""
    server.configure(actornot__max_workers=2, track_commit_timestamp='on')
    name = mailboxes(entities)
    columns = (
        Column(report, 'draining, ' + name, 'messages/s', '>=', DRAINERS,
               'actornot: 2 workers'),
        Column(report, 'WAL of a post, ' + name, 'bytes', '<=', DRAINERS,
               'posted 1,000 a transaction'),
        Column(report, 'WAL of processing, ' + name, 'bytes', '<=', DRAINERS),
        Column(report, 'WAL of both, ' + name, 'bytes', '<=', DRAINERS,
               'full page images included; the checkpoint before each round '
               'leaves few'))
    for round_no in range(plan.rounds(3)):
        for other in turns(plan, DRAINERS, round_no):
            rate, posted, worked = (drain_peer(server, plan, other, entities)
                                    if other else
                                    drain_ours(server, plan, entities))
            for column, value in zip(columns, (rate, posted, worked,
                                               posted + worked)):
                column.add(other, value)


class Wal:
    """Bytes of WAL of each message, step by step."""

    def __init__(self, session, count):
        session.query('CHECKPOINT')
        self.session, self.count = session, count
        self.position = session.value('SELECT pg_current_wal_insert_lsn()')

    def step(self):
        before, self.position = self.position, self.session.value(
            'SELECT pg_current_wal_insert_lsn()')
        return int(self.session.value("SELECT pg_wal_lsn_diff('%s', '%s')::int8"
                                      % (self.position, before))) / self.count


def drain_ours(server, plan, entities):
    """(messages a second, WAL of posting, WAL of processing)"""
    count = plan.backlog
    with Database(server, 'bench_ours', ['drain_ours.sql'],
                  extension=True) as database:
        with database.session() as session:
            session.query("SELECT actornot_register('bench', 'counter_sum')")
            session.query("SELECT actornot_pause('bench')")
            wal = Wal(session, count)
            session.query('CALL post_piece(1, %d, %d)' % (count, entities))
            posted = wal.step()
            start = session.value('SELECT clock_timestamp()')
            session.query("SELECT actornot_resume('bench')")
            wait_for_sum(session, expected_sum(session, 'counter_sum', count))
            return (count / seconds_since(session, start, 'actornot.mailbox'),
                    posted, wal.step())


def drain_peer(server, plan, other, entities):
    """The same with a peer; its backlog is so short that it drains in time."""
    count = int(plan.backlog * other.backlog * (0.5 if plan.quick else 1))
    with other.database(server, plan) as database, \
            database.session('off') as session:
        with other.helpers(database, plan):
            wal = Wal(session, count)
            other.fill(session, count, entities)
            posted = wal.step()
            session.query('ANALYZE')
            wal.step()
            start = session.value('SELECT clock_timestamp()')
            with other.working(database, plan, 'drain'):
                # A worker in Node.js has connected by now.
                start = max(start, session.value('SELECT clock_timestamp()')
                            if isinstance(other, peer.NodePeer) else start)
                wait_for_count(session, count)
            worked = wal.step()
            check_sum(session, 'account', session.number(
                'SELECT bench_expected(%d)' % count))
            return (count / seconds_since(session, start, 'account'),
                    posted, worked)


def seconds_since(session, start, table):
    """Seconds from the start to the last commit of a state."""
    return float(session.value(
        "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)) - '%s')"
        ' FROM %s' % (start, table)))


def wait_for_count(session, count, patience=STALLED):
    """Waits until count messages are done; the polling costs almost nothing."""
    done, grown = 0, time.monotonic()
    while done < count:
        time.sleep(0.2)
        before, done = done, session.number(
            'SELECT (SELECT last_value FROM done_0)'
            ' + (SELECT last_value FROM done_1)')
        if done != before:
            grown = time.monotonic()
        elif time.monotonic() > grown + patience:
            raise BenchError('nothing happens any more: %d of %d'
                             % (done, count))
    time.sleep(0.5)             # some peers mark messages as done a bit later


# ------------------------------------------------------------------ latency

def waiting(server, plan, report):
    """Latency from the post's commit to the effect's."""
    server.configure(track_commit_timestamp='on')
    columns = [Column(report, 'latency, ' + name, 'ms', '<=', POSTERS, note)
               for name, note in (
                   ('p50', '500 posts a second; all commits asynchronous'),
                   ('p99', ''))]
    for round_no in range(plan.rounds(3)):
        for other in turns(plan, POSTERS, round_no):
            times = (latency_peer(server, plan, other) if other else
                     latency.latency_ours(server, plan, 'off'))
            for column, value in zip(columns, times):
                column.add(other, value)


def latency_peer(server, plan, other):
    """[p50, p99, max] in ms."""
    with other.database(server, plan) as database:
        with other.helpers(database, plan, latency=True), \
                other.working(database, plan, 'latency'):
            load = latency.poster(database, plan,
                                  'latency_%s.sql' % other.name, 'off')
            return latency.percentiles(database, 'SELECT n, xmin FROM posted',
                                       load.transactions)
