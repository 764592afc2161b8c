"""Values that are sampled once a second in a run, as CSV and as plots."""
import collections
import csv
import os
import subprocess
import time

Sample = collections.namedtuple('Sample', 'second posted processed bytes cpu')

LOAD = ('postgres', 'pgbench')  # the processes that do the work
TICKS = os.sysconf('SC_CLK_TCK')

SAMPLE = '''
    SELECT extract(epoch FROM clock_timestamp()), %s,
           (SELECT last_value FROM done_0)
           + (SELECT last_value FROM done_1), %s'''


class ProcessorTime:
    """Processor time of the load's processes, also of those that ended."""

    def __init__(self):
        self.used = {}          # by (pid, start): ticks

    def seconds(self):
        """All time since the first sample."""
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open('/proc/%s/stat' % pid, encoding='utf-8') as file:
                    # Between parentheses is the name, which may hold anything.
                    name, _, rest = file.read().partition('(')[2].rpartition(')')
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name in LOAD:
                # See proc(5): of what follows the name, utime is the 12th.
                fields = rest.split()
                self.used[pid, fields[19]] = int(fields[11]) + int(fields[12])
        return sum(self.used.values()) / TICKS


class Series:
    """One run: a sample each second."""

    def __init__(self, plot, label, posted='0',
                 size='pg_database_size(current_database())'):
        self.plot, self.label = plot, label
        self.sql = SAMPLE % (posted, size)
        self.samples = []
        self.start = None
        self.processor = ProcessorTime()

    def sample(self, session):
        now, posted, processed, size = map(float, session.query(self.sql)[0])
        if self.start is None:
            self.start = now
        self.samples.append(Sample(now - self.start, posted, processed, size,
                                   self.processor.seconds()))
        return self.samples[-1]

    def watch(self, session, seconds, interval=1, until=None):
        """Samples for that time, or until a condition on the last one holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            last = self.sample(session)
            if until and until(last):
                return True
            time.sleep(max(0, interval - time.monotonic() % interval))
        return False

    def _ends(self, start, end):
        """The first and the last sample between two seconds of the run."""
        inside = [sample for sample in self.samples
                  if start <= sample.second <= end]
        return inside[0], inside[-1]

    def rate(self, start, end):
        """Messages processed a second between two seconds of the run."""
        first, last = self._ends(start, end)
        return (last.processed - first.processed) / (last.second - first.second)

    def yield_of_cpu(self, start, end):
        """Messages processed for each second of processor time that the server
        and its clients had."""
        first, last = self._ends(start, end)
        return (last.processed - first.processed) / (last.cpu - first.cpu)

    def cores(self, start, end):
        """How many cores the server and its clients used."""
        first, last = self._ends(start, end)
        return (last.cpu - first.cpu) / (last.second - first.second)

    def rates(self, width):
        """(second, messages processed a second) for each stretch of the run."""
        points, first = [], self.samples[0]
        for sample in self.samples[1:]:
            if sample.second - first.second >= width:
                points.append((sample.second, (sample.processed
                                               - first.processed)
                               / (sample.second - first.second)))
                first = sample
        return points


def write_series(directory, runs):
    """series.csv, and for each plot its SVGs."""
    if not runs:
        return
    with open(os.path.join(directory, 'series.csv'), 'w', newline='') as file:
        out = csv.writer(file)
        out.writerow(('plot', 'run') + Sample._fields)
        for run in runs:
            for sample in run.samples:
                out.writerow((run.plot, run.label, '%.2f' % sample.second)
                             + tuple('%.12g' % value for value in sample[1:]))
    for name in dict.fromkeys(run.plot for run in runs):
        chosen = [run for run in runs if run.plot == name and
                  len(run.samples) > 2]
        if not chosen:
            continue
        longest = chosen[0].samples[-1].second
        plot(directory, name, 'messages processed a second',
             [(run.label, run.rates(max(1, longest / 120))) for run in chosen])
        plot(directory, name + '-size', 'MB on disk',
             [(run.label, [(sample.second, sample.bytes / 1e6)
                           for sample in thin(run.samples)])
              for run in chosen])


def thin(samples):
    """At most some 200 of them: a plot has no room for more."""
    return samples[::len(samples) // 200 + 1]


def plot(directory, name, unit, lines):
    """One SVG, by gnuplot."""
    script = ["set terminal svg size 720,400 font 'sans-serif,12' background"
              " 'white'",
              "set output '%s'" % os.path.join(directory, name + '.svg'),
              "set xlabel 'seconds'", "set ylabel '%s'" % unit,
              'set key outside below', 'set grid', 'set yrange [0:*]',
              "set format y '%.0f'"]
    for number, (_, points) in enumerate(lines):
        script += ['$line%d << EOD' % number]
        script += ['%.1f %.1f' % point for point in points]
        script += ['EOD']
    script += ['plot ' + ', '.join(
        "$line%d with lines lw 2 title '%s'" % (number, label)
        for number, (label, _) in enumerate(lines))]
    subprocess.run(['gnuplot'], input='\n'.join(script) + '\n', text=True,
                   check=True)
