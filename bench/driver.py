"""Measures what bench/run is asked for, and prints and keeps the results."""
import argparse
import os
import shutil
import signal
import sys
import time

import against
import backlog
import disk
import drain
import known
import latency
import lease
import longrun
import many
import memory
import post
import sweep
import versus
import whole
from report import cpu_times, machine, server_facts, table, write_csv
from series import write_series
from server import HERE, BenchError, Server, Session

PARTS = {'post': post, 'many': many, 'drain': drain, 'latency': latency,
         'lease': lease, 'memory': memory, 'backlog': backlog,
         'sweep': sweep, 'peers': versus, 'whole': whole,
         'known': known, 'disk': disk, 'longrun': longrun}


class Plan:
    """How much of everything is measured."""

    def __init__(self, options):
        quick = options.quick
        self.repeat = options.repeat
        self.quick = quick
        self.work = options.work
        self.peers = os.path.join(options.work or '', 'peers')
        self.floors_only = options.floors
        self.ours_only = options.ours
        self.seconds = 3 if quick else 10
        self.latency_seconds = 6 if quick else 21
        self.backlog = 500000
        self.floor_backlog = 10000 if quick else 20000
        self.memory_millions = 2 if quick else 10
        self.fills = 3 if quick else 10
        self.lease_backlog = 200000 if quick else 1000000
        self.known = 1000000 if quick else 10000000
        self.traffic = 1000000 if quick else 3600000
        self.long_seconds = options.duration or (120 if quick else 600)
        self.short_seconds = max(60, self.long_seconds // 5)
        self.series = []

    def rounds(self, usual):
        if self.repeat:
            return self.repeat
        return min(usual, 3) if self.quick else usual

    def sides(self, round_no):
        """The side that goes first changes each round, so that a drift of the
        machine favours neither."""
        if self.floors_only:
            return ('floor',)
        if self.ours_only:
            return ('ours',)
        return ('ours', 'floor') if round_no % 2 == 0 else ('floor', 'ours')


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog='bench/run',
        description='Measures actornot against floors and other queues on a '
        'temporary server: posting one by one (post) and in arrays (many), '
        'draining a backlog (drain), latency, leases, the memory of a worker; '
        'the same work by other queues (peers), handlers for many entities '
        '(whole), many known entities (known), the size on disk, and long '
        'runs. About two hours. Results are kept in bench/results/.')
    parser.add_argument('--quick', action='store_true',
                        help='shorter rounds and fewer of them; noisier')
    parser.add_argument('--only', metavar='PART,...',
                        help='of %s; with --against of %s'
                        % (', '.join(PARTS), ', '.join(against.PARTS)))
    parser.add_argument('--repeat', type=int, metavar='N',
                        help='rounds of each pair (3; post and many without '
                        '--against: 5)')
    parser.add_argument('--duration', type=int, metavar='SECONDS',
                        help='of each long run (600; peers: a fifth)')
    side = parser.add_mutually_exclusive_group()
    side.add_argument('--floors', action='store_true',
                      help='only floors and peers; the extension is not '
                      'even built')
    side.add_argument('--ours', action='store_true',
                      help='only actornot')
    side.add_argument('--against', metavar='COMMIT',
                      help='this tree ("this") and another commit of the '
                      'repository ("that"), in turns')
    parser.add_argument('--results', metavar='DIR',
                        default=os.path.join(HERE, 'results'))
    parser.add_argument('--work', help=argparse.SUPPRESS)
    parser.add_argument('--check', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--parts', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--other', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    parts = against.PARTS if options.against else PARTS
    options.only = options.only.split(',') if options.only else list(parts)
    unknown = set(options.only) - set(parts)
    if unknown:
        parser.error('unknown part: ' + ', '.join(sorted(unknown)))
    if options.repeat is not None and options.repeat < 1:
        parser.error('--repeat must be at least 1')
    if options.duration is not None and options.duration < 60:
        parser.error('--duration must be at least 60')
    return options


def make_servers(options):
    """One, and for two builds another one with the other's programs."""
    servers = [Server(os.path.join(options.work, 'server'),
                      not options.floors)]
    if options.against:
        servers.append(Server(os.path.join(options.work, 'other', 'server'),
                              True, os.environ['OTHER_PGBIN']))
    return servers


def measure(servers, plan, parts):
    """All parts.  A part that fails keeps its results so far, and the others
    go on."""
    results, failures = [], []
    for part in parts:
        print('measuring %s' % part, file=sys.stderr, flush=True)
        try:
            if len(servers) == 2:
                against.measure(*servers, plan, part, results)
            else:
                PARTS[part].measure(*servers, plan, results)
        except BenchError as error:
            failures.append('%s: %s' % (part, error))
            print(failures[-1], file=sys.stderr, flush=True)
            stop(servers)       # one may still be working
        except KeyboardInterrupt:
            failures.append('%s: interrupted' % part)
            stop(servers)
            break
    return results, failures


def stop(servers):
    for server in servers:
        server.stop('immediate')


def write_results(directory, facts, results, series, failures, servers):
    """Prints the report; keeps it with its numbers, and the log of a failure."""
    os.makedirs(directory)
    names = ('server.log', 'other_server.log')
    for server, name in zip(servers, names) if failures else ():
        if os.path.exists(server.log_path()):   # else it was never started
            shutil.copyfile(server.log_path(), os.path.join(directory, name))
    width = max(len(name) for name, _ in facts)
    text = '\n'.join(['%s  %s' % (name.ljust(width), value)
                      for name, value in facts] + ['', table(results)]
                     + ['failed: ' + failure for failure in failures])
    with open(os.path.join(directory, 'report.txt'), 'w') as file:
        file.write(text + '\n')
    write_csv(directory, results)
    write_series(directory, series)
    print(text)
    print('\nkept in %s' % os.path.relpath(directory), file=sys.stderr)


def main(arguments):
    options = parse_options(arguments)
    if options.parts:
        print('\n'.join(options.only))
    if options.other:
        print(options.against or '')
    if options.check or options.parts or options.other:
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(options)
    facts = machine(options.work, os.path.join(HERE, '..'))
    if options.against:
        facts.append(('against', os.environ['OTHER_COMMIT']))
    all_before, stolen_before = cpu_times()
    began = time.time()
    servers = make_servers(options)
    servers[0].configure()
    with Session(servers[0], 'postgres') as session:
        facts += server_facts(session)
    results, failures = measure(servers, plan, options.only)
    servers[0].stop()
    all_after, stolen_after = cpu_times()
    facts += [('took', '%d s' % (time.time() - began)),
              ('cpu stolen meanwhile', '%.1f %%' % (
                  100 * (stolen_after - stolen_before)
                  / max(1, all_after - all_before)))]
    write_results(os.path.join(options.results,
                               time.strftime('%Y%m%d-%H%M%S')),
                  facts, results, plan.series, failures, servers)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
