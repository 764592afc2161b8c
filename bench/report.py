"""Results: what was measured, medians and spreads, table, CSV, the machine."""
import csv
import os
import statistics
import subprocess
import sys
import time


class Target:
    """A target for a value of ours, or for its ratio to the floor."""

    def __init__(self, subject, relation, limit):
        assert subject in ('value', 'ratio') and relation in ('>=', '<=')
        self.subject, self.relation, self.limit = subject, relation, limit

    def __str__(self):
        name = 'ratio ' if self.subject == 'ratio' else ''
        return '%s%s %s' % (name, self.relation, show(self.limit))

    def reached(self, result):
        got = (median(result.ours) if self.subject == 'value'
               else median(result.ratios()))
        if got is None:
            return None
        return got >= self.limit if self.relation == '>=' else got <= self.limit


class Result:
    """One line of the table: the rounds of a pair (ours, floor)."""

    sides = ('actornot', 'floor')

    def __init__(self, part, case, unit, targets=(), note=''):
        self.part, self.case, self.unit = part, case, unit
        self.targets, self.note = list(targets), note
        self.ours, self.floor = [], []

    def add(self, side, value):
        """Adds a round's value, and prints it at once for those who watch."""
        getattr(self, side).append(value)
        name = self.sides[side == 'floor']
        print('  %s: %s: %s %s' % (self.case, name, show(value), self.unit),
              file=sys.stderr, flush=True)

    def ratios(self):
        """Ratios round by round: the two values of a round share the noise."""
        return [a / b for a, b in zip(self.ours, self.floor) if b]

    def verdict(self):
        answers = [target.reached(self) for target in self.targets]
        if not answers or None in answers:
            return '-'
        return 'yes' if all(answers) else 'NO'


def median(values):
    return statistics.median(values) if values else None


def show(value):
    """As many digits as the measurement deserves."""
    if value is None:
        return '-'
    if abs(value) >= 100:
        return format(value, ',.0f')
    return '%.3g' % value


def spread(values):
    if not values:
        return '-'
    if len(values) == 1:
        return show(values[0])
    return '%s (%s..%s)' % (show(median(values)), show(min(values)),
                            show(max(values)))


QUIET = 0.25                    # load of a core below which it counts as idle


def table(results):
    sides = results[0].sides if results else Result.sides
    rows = [('case', 'unit', *sides, 'ratio', 'target', 'reached')]
    for result in results:
        rows.append(('%s: %s' % (result.part, result.case), result.unit,
                     spread(result.ours), spread(result.floor),
                     spread(result.ratios()),
                     ', '.join(map(str, result.targets)) or '-',
                     result.verdict()))
    widths = [max(len(row[column]) for row in rows)
              for column in range(len(rows[0]))]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths))
             .rstrip() for row in rows]
    lines.insert(1, '  '.join('-' * width for width in widths))
    notes = ['%s: %s: %s' % (result.part, result.case, result.note)
             for result in results if result.note]
    return '\n'.join(lines + ([''] + notes if notes else []))


def write_csv(directory, results):
    """results.csv: a line for each case; rounds.csv: a line for each round."""
    with open(os.path.join(directory, 'results.csv'), 'w', newline='') as file:
        out = csv.writer(file)
        out.writerow(('part', 'case', 'unit', 'ours', 'ours_min', 'ours_max',
                      'floor', 'floor_min', 'floor_max', 'ratio', 'ratio_min',
                      'ratio_max', 'rounds', 'target', 'reached', 'note'))
        for result in results:
            out.writerow(
                (result.part, result.case, result.unit)
                + summary(result.ours) + summary(result.floor)
                + summary(result.ratios())
                + (max(len(result.ours), len(result.floor)),
                   ', '.join(map(str, result.targets)), result.verdict(),
                   result.note))
    with open(os.path.join(directory, 'rounds.csv'), 'w', newline='') as file:
        out = csv.writer(file)
        out.writerow(('part', 'case', 'unit', 'side', 'round', 'value'))
        for result in results:
            for side in ('ours', 'floor'):
                for number, value in enumerate(getattr(result, side), 1):
                    out.writerow((result.part, result.case, result.unit, side,
                                  number, value))


def summary(values):
    return (median(values), min(values), max(values)) if values else ('',) * 3


# ------------------------------------------------------------- the machine

def cpu_times():
    """(all, stolen) ticks since the machine's start."""
    with open('/proc/stat') as stat:
        fields = list(map(int, stat.readline().split()[1:9]))
    return sum(fields), fields[7]


def flush_time(directory):
    """Median milliseconds of a write and fdatasync of 8 kB."""
    path = os.path.join(directory, 'flush.tmp')
    times = []
    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    for _ in range(200):
        start = time.perf_counter()
        os.write(file, b'x' * 8192)
        os.fdatasync(file)
        times.append((time.perf_counter() - start) * 1000)
    os.close(file)
    os.unlink(path)
    return statistics.median(times)


def field_of(path, name):
    with open(path) as file:
        for line in file:
            if line.startswith(name):
                return line.split(':', 1)[1].strip()
    return 'unknown'


def load():
    """With a warning if other processes were at work."""
    averages = os.getloadavg()
    return '%.2f %.2f %.2f%s' % (
        *averages, ' (NOT QUIET: do not quote these numbers)'
        if averages[0] > QUIET * os.cpu_count() else '')


def commit_id(checkout):
    def git(*arguments):
        return subprocess.run(['git', '-C', checkout, *arguments], text=True,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL).stdout.strip()
    changed = ' with uncommitted changes' if git('status', '--porcelain') else ''
    return (git('rev-parse', '--short=12', 'HEAD') or 'unknown') + changed


def machine(work, checkout):
    """Facts that a reader needs to compare these numbers with others."""
    return [
        ('date', time.strftime('%Y-%m-%d %H:%M %Z')),
        ('commit', commit_id(checkout)),
        ('cpu', field_of('/proc/cpuinfo', 'model name')),
        ('cores', str(os.cpu_count())),
        ('memory', field_of('/proc/meminfo', 'MemTotal')),
        ('kernel', ' '.join((os.uname().sysname, os.uname().release,
                             os.uname().machine))),
        ('flush of 8 kB', '%.2f ms' % flush_time(work)),
        ('load at the start', load()),
    ]


def server_facts(session):
    settings = session.query(
        "SELECT name || ' = ' || current_setting(name) FROM pg_settings "
        "WHERE (source NOT IN ('default', 'client', 'override')"
        " OR name LIKE 'actornot.%')"
        " AND name !~ '^(lc_|unix_|log_timezone|TimeZone|DateStyle"
        "|default_text|log_line_prefix|dynamic_)' ORDER BY name")
    return [('PostgreSQL', session.value('SHOW server_version')),
            ('settings', ', '.join(row[0] for row in settings))]
