"""The benchmarks' own server and its clients: psql, pgbench.

The server is managed by scripts/lib.sh; this module only calls it.
"""
import contextlib
import os
import re
import select
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LIB = os.path.join(HERE, '..', 'scripts', 'lib.sh')
TICK = 1000000 // os.sysconf('SC_CLK_TCK')


class BenchError(Exception):
    """A measurement that cannot be trusted or did not end."""


class Server:
    """One temporary instance, restarted with other settings where needed."""

    def __init__(self, directory, with_extension, programs=None):
        self.directory = directory
        self.with_extension = with_extension
        self.programs = programs or os.environ['PGBIN']
        self.cpu_each = None    # us a message, of what was measured last
        self.host = None
        self.changes = None

    def configure(self, **changes):
        """Runs with bench/server.conf and these settings on top of it."""
        if not self.with_extension:
            changes['shared_preload_libraries'] = ''
        if self.host and changes == self.changes:
            return
        self.stop()
        lines = base_settings()
        lines += ["%s = '%s'" % (name.replace('__', '.'), value)
                  for name, value in changes.items()]
        options = [part for line in lines for part in ('-o', line)]
        answer = self._lib('server_start "$@"; echo "$PGHOST"', *options)
        self.host = answer.strip().splitlines()[-1]
        self.changes = changes

    def stop(self, mode='fast'):
        if self.host:
            self.host = None
            self._lib('server_stop "$@"', mode)

    def environment(self, synchronous_commit=None):
        env = dict(os.environ, PGHOST=self.host, PGPORT='5432',
                   PGUSER='postgres')
        if synchronous_commit:
            env['PGOPTIONS'] = '-c synchronous_commit=' + synchronous_commit
        return env

    def log_size(self):
        return os.path.getsize(self.log_path())

    def log_after(self, offset):
        with open(self.log_path(), errors='replace') as log:
            log.seek(offset)
            return log.read()

    def log_path(self):
        return os.path.join(self.directory, 'server.log')

    def _lib(self, script, *arguments):
        """Runs a line of bash with scripts/lib.sh at hand."""
        done = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', '. "$0"; ' + script, LIB,
             self.directory, *arguments], stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, PGBIN=self.programs))
        if done.returncode:
            raise BenchError('the server could not be started or stopped')
        return done.stdout

    def processes(self):
        """The postmaster's process id, and those of its children."""
        with open(os.path.join(self.directory, 'data/postmaster.pid')) as file:
            postmaster = file.readline().strip()
        with open('/proc/%s/task/%s/children'
                  % (postmaster, postmaster)) as file:
            return postmaster, file.read().split()

    def cpu_time(self, session):
        """Microseconds since the server's start, but for a session's own."""
        own = session.value('SELECT pg_backend_pid()')
        while True:
            postmaster, children = self.processes()
            before = cpu_times(postmaster)
            total = sum(before) + sum(cpu_times(pid)[0] for pid in children
                                      if pid != own)
            # A child that ends meanwhile is counted twice or not at all.
            if cpu_times(postmaster)[1] == before[1]:
                return total

    def note_cpu(self, session, before, messages):
        """What was measured since "before" ends here."""
        self.cpu_each = (self.cpu_time(session) - before) / messages


def base_settings():
    with open(os.path.join(HERE, 'server.conf')) as conf:
        lines = [line.strip() for line in conf
                 if line.strip() and not line.startswith('#')]
    return lines + ['shared_buffers = %dMB' % (memory_size() // 4 >> 20)]


def memory_size():
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def cpu_times(pid):
    """Microseconds: a process's own, and those of its children that ended."""
    try:
        with open('/proc/%s/stat' % pid) as file:
            fields = file.read().rpartition(')')[2].split()
    except OSError:
        return 0, 0             # it has just ended
    user, system, ended_user, ended_system = (
        int(field) * TICK for field in fields[11:15])
    return user + system, ended_user + ended_system


class Session:
    """A psql that stays connected, so that a question costs no new process."""

    END = '--end-of-answer--'

    def __init__(self, server, database, synchronous_commit=None):
        self.errors = tempfile.TemporaryFile('w+')
        self.psql = subprocess.Popen(
            ['psql', '-XqAt', '-F', '\t', '-v', 'ON_ERROR_STOP=1',
             '-d', database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, env=server.environment(synchronous_commit))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.psql.stdin.close()
        self.psql.wait()

    def send(self, sql):
        """Sends without waiting; receive() must follow."""
        try:
            self.psql.stdin.write('%s;\n\\echo %s\n' % (sql, self.END))
            self.psql.stdin.flush()
        except BrokenPipeError:
            pass                # receive() reports the reason

    def ready(self):
        """Is there something to receive?"""
        return bool(select.select([self.psql.stdout], [], [], 0)[0])

    def receive(self):
        rows = []
        for line in self.psql.stdout:
            if line.rstrip('\n') == self.END:
                return rows
            rows.append(line.rstrip('\n').split('\t'))
        self.errors.seek(0)
        raise BenchError('psql: ' + self.errors.read().strip())

    def query(self, sql):
        self.send(sql)
        return self.receive()

    def value(self, sql):
        return self.query(sql)[0][0]

    def number(self, sql):
        return int(self.value(sql))

    def script(self, name):
        self.query('\\i ' + script_path(name) + '\nSELECT 1')


class Database:
    """A new database for one round, so that every round starts equal."""

    def __init__(self, server, name, scripts=(), extension=False):
        self.server = server
        self.name = name
        self.scripts = scripts
        self.extension = extension

    def __enter__(self):
        self._admin('DROP DATABASE IF EXISTS %s WITH (FORCE)' % self.name,
                    'CREATE DATABASE ' + self.name)
        with self.session() as session:
            if self.extension:
                session.query('CREATE EXTENSION actornot')
            session.script('common.sql')
            for script in self.scripts:
                session.script(script)
        return self

    def __exit__(self, *_):
        self._admin('DROP DATABASE IF EXISTS %s WITH (FORCE)' % self.name)

    def session(self, synchronous_commit=None):
        return Session(self.server, self.name, synchronous_commit)

    def _admin(self, *statements):
        with Session(self.server, 'postgres') as session:
            for statement in statements:
                session.query(statement)


def script_path(name):
    return os.path.join(HERE, 'sql', name)


class Load:
    """The results of a pgbench run."""

    def __init__(self, report):
        self.transactions = int(search(
            r'number of transactions actually processed: (\d+)', report))
        self.rate = float(search(
            r'tps = ([\d.]+) \(without initial connection time\)', report))
        failed = int(search(r'number of failed transactions: (\d+)', report))
        if failed:
            raise BenchError('pgbench: %d transactions failed' % failed)


def search(pattern, text):
    found = re.search(pattern, text)
    if not found:
        raise BenchError('not found: %s in: %s' % (pattern, text))
    return found.group(1)


def pgbench(database, script, *options, synchronous_commit='off'):
    """Runs a script of bench/sql by the prepared protocol."""
    done = subprocess.run(
        ['pgbench', '-n', '-M', 'prepared', '-f', script_path(script),
         *map(str, options), database.name],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=database.server.environment(synchronous_commit))
    if done.returncode:
        raise BenchError('pgbench: ' + done.stderr)
    return Load(done.stdout)


@contextlib.contextmanager
def load_beside(database, script, seconds, *options):
    """A pgbench that runs meanwhile, with asynchronous commits.  Yields a
    list, which has its results afterwards."""
    process = subprocess.Popen(
        ['pgbench', '-n', '-M', 'prepared', '-f', script_path(script),
         '-T', str(seconds), *map(str, options), database.name],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=database.server.environment('off'))
    loads = []
    try:
        yield loads
        output, errors = process.communicate()
        if process.returncode:
            raise BenchError('pgbench: ' + errors)
        loads.append(Load(output))
    finally:
        process.kill()
        process.wait()


def wait_until(condition, timeout, interval):
    """Polls a condition; true if it became true in time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True
