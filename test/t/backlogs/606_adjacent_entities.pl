# Many entities that are neighbours in the indexes, as workers run them in the
# order of their hashes.  Two runners, of which one takes many in a call; some
# entities have many messages that are done, some have many versions of their
# rows, and most have nothing new.
#
# The oracle is the table "posted": each message must be recorded once, and
# each entity's in order.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $entities = 6000;

# The queue is small, so that most of what is found waits in the sweep.
my $node = new_server('main', conf => q{
actornot.ready_queue_size = 1024
actornot.max_workers = 2
});
$node->start;
$node->safe_psql('postgres', q{
CREATE EXTENSION actornot;
CREATE TABLE posted (runner text, entity text, id bigint);
CREATE TABLE recorded (place serial, runner text, entity text, id bigint, n int);

CREATE FUNCTION single(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO recorded (runner, entity, id, n)
		SELECT 'single', entity, m.id, coalesce(state::int, 0) + ord
		  FROM unnest(messages) WITH ORDINALITY AS m(id, payload, headers,
				posted_at, attempt, ord);
	SELECT to_jsonb(coalesce(state::int, 0) + cardinality(messages));
$$;
CREATE FUNCTION whole(batches actornot_batch[]) RETURNS SETOF actornot_state_of
LANGUAGE sql AS $$
	INSERT INTO recorded (runner, entity, id, n)
		SELECT 'whole', b.entity, m.id, coalesce(b.state::int, 0) + m.ord
		  FROM unnest(batches) b, unnest(b.messages) WITH ORDINALITY AS
			   m(id, payload, headers, posted_at, attempt, ord);
	SELECT b.entity, to_jsonb(coalesce(b.state::int, 0) + cardinality(b.messages))
	  FROM unnest(batches) b;
$$;
SELECT actornot_register('single', 'single'), actornot_register('whole', 'whole');

-- Posts "each" messages to each of these entities, in one array.
CREATE FUNCTION post_to(runner text, numbers int[], each int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	names text[] := (SELECT array_agg('e' || n) FROM unnest(numbers) n,
						generate_series(1, each));
BEGIN
	INSERT INTO posted SELECT runner, u.name, u.id
		FROM unnest(names, actornot_post_many(runner, names)) AS u(name, id);
END
$$;
});

# Posts for these entities to both runners, and waits until they are done.
sub round_of
{
	my ($name, $numbers, $each) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('postgres', qq{
BEGIN;
SELECT actornot_pause(r) FROM unnest('{single,whole}'::text[]) r;
COMMIT;
SELECT post_to(r, ARRAY(SELECT $numbers), $each)
  FROM unnest('{single,whole}'::text[]) r;
SELECT actornot_resume(r) FROM unnest('{single,whole}'::text[]) r;
});
	wait_for_value($node, 'postgres',
		q{SELECT count(*) FROM recorded},
		$node->safe_psql('postgres', q{SELECT count(*) FROM posted}),
		"$name: all are recorded");
	is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM (SELECT runner, entity, id FROM posted
			EXCEPT ALL SELECT runner, entity, id FROM recorded) lost}),
		0, "$name: none is lost or recorded twice");
	is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM (
			SELECT id < lag(id) OVER w OR n <> row_number() OVER w AS wrong
			  FROM recorded WINDOW w AS (PARTITION BY runner, entity
				ORDER BY place)) r
		 WHERE wrong}),
		0, "$name: in order, with the state of those before");
}

round_of('new entities', "generate_series(1, $entities)", 1);
round_of('a hundred messages for some',
	"n FROM generate_series(1, $entities, 40) n", 100);
round_of('known entities', "generate_series(1, $entities)", 2);

# Versions that must stay, in the table and in its index.
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$reader->query_safe('SELECT count(*) FROM pg_class');
for my $i (1 .. 12)
{
	$node->safe_psql('postgres', qq{
SELECT post_to(r, ARRAY(SELECT generate_series(1, $entities, 15)), 1)
  FROM unnest('{single,whole}'::text[]) r});
}
round_of('rows of many versions', "generate_series(1, $entities, 3)", 1);
round_of('old and new ones', "generate_series(1, @{[2 * $entities]}, 2)", 1);
$reader->query_safe('COMMIT');
$reader->quit;

$node->restart;
round_of('after a restart', "generate_series(1, @{[2 * $entities]})", 1);
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.mailbox m JOIN actornot.runner r ON r.id = m.runner
	  JOIN (SELECT runner, entity, count(*) AS n FROM posted GROUP BY 1, 2) p
		ON p.runner = r.name AND p.entity = m.entity
	 WHERE m.state::int = p.n}),
	4 * $entities, 'each entity has one row, with the right state');
is($node->safe_psql('postgres', q{SELECT count(*) FROM actornot.mailbox}),
	4 * $entities, 'and there are no others');

$node->stop;
done_testing();
