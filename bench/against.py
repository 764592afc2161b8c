"""Two builds of actornot: this tree's, and another commit's.

Each has a server of its own, of which one runs at a time.  The rounds
alternate between them as those of actornot and a floor do.  The processor time
is that of all processes of the server, but for the session that waits for the
end: other work on the machine disturbs it less than it does the throughput.
"""
from collections import namedtuple

import drain
import latency
import post
import sweep
import whole
from report import Result

# settings: of the server; run(server): a dictionary of what it measured, by the
# names in lines, which tell case and unit of each.
Case = namedtuple('Case', 'part lines settings run')

CPU = 'us of cpu/message'
DRAINS = ((1, 100000), (1, 1000), (1, 1), (2, 100000), (2, 1000))


class Pair(Result):
    sides = ('this', 'that')


def measure(this, that, plan, part, report):
    this.stop()
    for case in PARTS[part](plan):
        lines = {name: Pair(case.part, label, unit)
                 for name, (label, unit) in case.lines.items()}
        report += lines.values()
        for round_no in range(plan.rounds(3)):
            for side in plan.sides(round_no):
                server = this if side == 'ours' else that
                server.configure(**case.settings)
                for name, value in case.run(server).items():
                    lines[name].add(side, value)
                server.stop()


def rate(part, label, settings, run):
    """A case whose run tells messages a second."""
    return Case(part, {'rate': (label, 'messages/s'), 'cpu': (label, CPU)},
                settings,
                lambda server: {'rate': run(server), 'cpu': server.cpu_each})


def post_cases(plan):
    for paused in (False, True):
        for commit in post.TARGETS:
            yield rate('post', '8 clients, synchronous_commit %s%s'
                       % (commit, ', paused' if paused else ''), {},
                       lambda server, commit=commit, paused=paused: post.post(
                           server, 'ours', commit, plan.seconds, paused))


def drain_cases(plan):
    for workers, entities in DRAINS:
        yield rate('drain', '%s, %s' % (drain.people(workers),
                                        drain.mailboxes(entities)),
                   worker_settings(workers),
                   lambda server, entities=entities: drain.drain_ours(
                       server, plan, entities))


def whole_cases(plan):
    def one(label, handler, batch_size):
        return rate('whole', 'one message an entity, ' + label,
                    worker_settings(1),
                    lambda server: whole.drain_one(server, handler, batch_size))

    yield one('one call for each', 'counter_sum', 1000)
    for label, handler, _, _ in whole.PAIRS:
        if handler != 'counter_whole' or label == whole.PAIRS[0][0]:
            yield one(label, handler, 1000)
    yield rate('whole', 'ten messages an entity', worker_settings(1),
               lambda server: whole.drain_ten(server, plan, 'counter_whole'))


def latency_cases(plan):
    for commit in ('off', 'on'):
        label = 'poster synchronous_commit ' + commit
        names = list(latency.COLUMNS)
        lines = {name: ('%s, %s' % (name, label), 'ms') for name in names}

        def run(server, commit=commit):
            times = latency.latency_ours(server, plan, commit)
            return dict(zip(names, times), cpu=server.cpu_each)

        yield Case('latency', dict(lines, cpu=(label, CPU)),
                   dict(track_commit_timestamp='on'), run)


def sweep_cases(plan):
    count = sweep.pending(plan)
    for queue in sweep.QUEUES:
        label = sweep.title(count, queue)

        def run(server, queue=queue):
            numbers = sweep.one_restart(server, count, queue)
            return {'first': numbers['first'], 'last': numbers['last'],
                    'cpu': server.cpu_each}

        yield Case('sweep', {'first': (label + ', until the first has run', 'ms'),
                             'last': (label + ', until the last has run', 'ms'),
                             'cpu': (label, CPU)}, {}, run)


def worker_settings(workers):
    return dict(actornot__max_workers=workers, track_commit_timestamp='on')


PARTS = {'post': post_cases, 'drain': drain_cases, 'latency': latency_cases,
         'whole': whole_cases, 'sweep': sweep_cases}
