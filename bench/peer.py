"""The other queues (peers): how each one is set up, filled and run.

Each peer is configured as its documentation recommends for speed; see
doc/benchmarks.md for the configuration, and for what each of them guarantees.
All keep their states in the table "account" and count the messages that they
have processed in sequences (sql/peer_common.sql).
"""
import contextlib
import os
import subprocess

from server import BenchError, Database

NODE = os.path.join('node_modules', 'node', 'bin', 'node')


class Peer:
    """A peer, in one configuration."""

    def __init__(self, name, label, workers=1, in_order=True, backlog=1,
                 pace=None):
        self.name = name            # of its SQL scripts
        self.label = label          # in the tables
        self.workers = workers      # sessions that work at once
        self.in_order = in_order    # one message of an entity at a time
        self.backlog = backlog      # as a part of ours, to take some seconds
        self.pace = pace            # posts a second in the long run; None: all

    @contextlib.contextmanager
    def database(self, server, plan, extra=()):
        """A new database with all that this peer needs in it."""
        with Database(server, 'bench_peer', ['peer_common.sql']) as database:
            self.prepare(database, plan)
            with database.session() as session:
                session.script('peer_%s.sql' % self.name)
                for script in extra:
                    session.script(script)
                # Workers commit asynchronously, as ours do.
                session.query('ALTER DATABASE %s SET synchronous_commit = off'
                              % database.name)
            yield database

    def prepare(self, database, plan):
        """Runs before the peer's SQL script."""

    def fill(self, session, count, entities):
        session.query('CALL post_piece(1, %d, %d)' % (count, entities))

    @contextlib.contextmanager
    def helpers(self, database, plan, latency=False):
        """Processes that have to run beside posters and workers."""
        yield


class SqlPeer(Peer):
    """A peer whose workers are sessions that CALL a procedure."""

    @contextlib.contextmanager
    def working(self, database, plan, task):
        """Workers that begin at once; "drain": until nothing is left."""
        sessions = [database.session('off') for _ in range(self.workers)]
        try:
            for session in sessions:
                session.query('SELECT 1')
            for number, session in enumerate(sessions):
                session.send('CALL work(%d, %s, %s)' % (
                    number, task != 'drain', task == 'latency'))
            yield
            if task == 'drain':
                for session in sessions:
                    session.receive()
        finally:
            for session in sessions:
                session.psql.kill()
                session.psql.wait()


class Hand(SqlPeer):
    """SKIP LOCKED by hand, as pgmq does it."""


class PgQ(SqlPeer):
    def fill(self, session, count, entities):
        session.query('CALL post_piece(1, %d, %d, %d)'
                      % (count, entities, self.workers))
        session.query('CALL tick()')

    @contextlib.contextmanager
    def helpers(self, database, plan, latency=False):
        """pgqd: a tick a second, the default; for the latency one after each
        10 ms with an event in it."""
        path = os.path.join(plan.work, 'pgqd.ini')
        with open(path, 'w') as ini:
            ini.write('[pgqd]\nbase_connstr = host=%s port=5432 user=postgres\n'
                      'initial_database = %s\ndatabase_list = %s\nsyslog = 0\n'
                      'check_period = 1\nticker_period = %s\n'
                      % (database.server.host, database.name, database.name,
                         '0.01' if latency else '1'))
        if latency:
            with database.session() as session:
                session.query("SELECT pgq.set_queue_config('bench0',"
                              " 'ticker_max_count', '1')")
        with background(['pgqd', '-q', path]):
            yield


class NodePeer(Peer):
    """A peer that is a library of Node.js: one process, many connections."""

    def prepare(self, database, plan):
        done = subprocess.run(
            self.command(plan, 'setup-in-order' if self.in_order else 'setup'),
            **self.options(database, plan), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        if done.returncode:
            raise BenchError('%s: %s' % (self.label, done.stderr))

    def fill(self, session, count, entities):
        session.query('CALL post_piece(1, %d, %d, %s)'
                      % (count, entities, self.in_order))

    @contextlib.contextmanager
    def working(self, database, plan, task):
        log = open(os.path.join(plan.work, 'peer.log'), 'w+')
        process = subprocess.Popen(
            self.command(plan, task), **self.options(database, plan),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            if process.stdout.readline().strip() != 'ready':
                log.seek(0)
                raise BenchError('%s: %s' % (self.label, log.read()))
            process.stdin.write('go\n')
            process.stdin.flush()
            yield
        finally:
            process.kill()
            process.wait()
            log.seek(0)
            errors = log.read()
            log.close()
        if errors:
            raise BenchError('%s: %s' % (self.label, errors))

    def command(self, plan, task):
        return [os.path.join(plan.peers, NODE), 'peer.js', self.name, task]

    def options(self, database, plan):
        """Runs as the ordinary user, because it is foreign code."""
        environment = database.server.environment()
        environment.update(PGDATABASE=database.name, HOME=plan.work)
        options = dict(cwd=plan.peers, env=environment, text=True)
        if os.geteuid() == 0:
            user = os.environ['RUN_USER']
            options.update(user=user, group=user, extra_groups=[])
        return options


@contextlib.contextmanager
def background(command):
    """A program that runs meanwhile, and must still run at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
        if process.poll() is not None:
            raise BenchError('%s stopped with status %d'
                             % (command[0], process.returncode))
    finally:
        process.terminate()
        process.wait()


PGQ = PgQ('pgq', 'PgQ, one consumer')
PGQ_TWO = PgQ('pgq', 'PgQ, two queues', workers=2)
HAND = Hand('hand', 'SKIP LOCKED by hand', workers=2, in_order=False,
            backlog=0.4, pace=10000)
GRAPHILE = NodePeer('graphile', 'graphile-worker', in_order=False,
                    backlog=0.1, pace=1000)
GRAPHILE_ORDER = NodePeer('graphile', 'graphile-worker, a queue an entity',
                          backlog=0.04)
PGBOSS = NodePeer('pgboss', 'pg-boss', in_order=False, backlog=0.1, pace=2000)
PGBOSS_ORDER = NodePeer('pgboss', 'pg-boss, key_strict_fifo', backlog=0.04)
