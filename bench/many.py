"""(b) actornot_post_many against INSERT ... SELECT."""
from report import Result, Target
from server import BenchError, Database, pgbench

ARRAY = 1000


def measure(server, plan, report):
    server.configure()
    result = Result('many', 'arrays of 1,000, 1 client', 'messages/s',
                    [Target('ratio', '>=', 0.8)],
                    'synchronous_commit off on both sides; the floor fills the '
                    'columns and the index of a message')
    report.append(result)
    for round_no in range(plan.rounds(5)):
        for side in plan.sides(round_no):
            result.add(side, post_many(server, side, plan.seconds))


def post_many(server, side, seconds):
    ours = side == 'ours'
    setup = ['many_setup.sql'] + ([] if ours else ['many_floor_setup.sql'])
    with Database(server, 'bench_many', setup, extension=ours) as database:
        with database.session() as session:
            if ours:
                session.query("SELECT actornot_register('bench')")
            session.query('CHECKPOINT')
            load = pgbench(database, 'many_%s.sql' % side, '-c', 1,
                           '-T', seconds)
            kept = session.number('SELECT count(*) FROM ' +
                                  ('actornot.message' if ours else 'floor'))
    if kept != load.transactions * ARRAY:
        raise BenchError('%d posted, %d in the table'
                         % (load.transactions * ARRAY, kept))
    return load.rate * ARRAY
