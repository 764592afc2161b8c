# Handlers that take many entities in one call, with workers: clients post to
# random entities, in transactions that commit or roll back, while handlers
# fail at random, and workers, a server and its postmaster are killed.
#
# The oracle is the table "posted", to which each transaction writes what it
# posts.  Each effect must be there once and in order, each state must be what
# the effects say.  A few messages are poison for good: they, and nothing else,
# must be found among the dead letters.
#
#	ACTORNOT_SEED     the random numbers of an earlier run
#	ACTORNOT_ROUNDS   how often to do every kind of harm (1)

use strict;
use warnings;

use ActornotTest;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $posters = 3;
my $rounds = $ENV{ACTORNOT_ROUNDS} // 1;
my $seed = $ENV{ACTORNOT_SEED} // int(rand(1 << 30));
my $folder = PostgreSQL::Test::Utils::tempdir;
my $parent = $$;

note("ACTORNOT_SEED=$seed");
srand($seed);

my $node = new_server('main', conf => qq{
log_min_messages = log
actornot.max_workers = 3
});
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql(
	'app', q{
CREATE EXTENSION actornot;
CREATE TABLE posted (entity text, id bigint, poison boolean, xid xid8,
	seen pg_snapshot);
CREATE TABLE processed (call int, entity text, place int, id bigint);
CREATE TABLE totals (entity text PRIMARY KEY, n bigint, sum bigint);
CREATE TABLE calls (call serial, entities int, messages int);

-- Transactions of some posts each; some roll back.
CREATE PROCEDURE post_some(transactions int) LANGUAGE plpgsql AS $$
DECLARE
	poison boolean;
	name text;
BEGIN
	FOR t IN 1 .. transactions LOOP
		FOR m IN 1 .. 1 + (random() * 8)::int LOOP
			-- Some entities are much busier than others.
			name := 'e' || (400 * random() ^ 3)::int;
			poison := random() < 0.002;
			INSERT INTO posted SELECT name, actornot_post('whole', name,
					jsonb_build_object('poison', poison)),
				poison, pg_current_xact_id(), pg_current_snapshot();
		END LOOP;
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END
$$;

-- Set by set: writes down each message, adds them up in a table of its own,
-- and keeps the number of an entity's messages as its state.
CREATE FUNCTION handle(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
DECLARE
	this int;
BEGIN
	INSERT INTO calls (entities, messages)
	SELECT cardinality(batches), sum(cardinality(b.messages))
	  FROM unnest(batches) b
	RETURNING call INTO this;
	INSERT INTO processed
	SELECT this, b.entity, coalesce(b.state::int, 0) + m.place, m.id
	  FROM unnest(batches) b, unnest(b.messages) WITH ORDINALITY
		AS m(id, payload, headers, posted_at, attempt, place);
	INSERT INTO totals AS t
	SELECT b.entity, count(*), sum(m.id)
	  FROM unnest(batches) b, unnest(b.messages) m GROUP BY b.entity
		ON CONFLICT (entity) DO UPDATE
		SET n = t.n + excluded.n, sum = t.sum + excluded.sum;
	IF EXISTS (SELECT FROM unnest(batches) b, unnest(b.messages) m
			WHERE (m.payload->>'poison')::boolean) THEN
		RAISE EXCEPTION 'poison';
	ELSIF random() < 0.03 THEN
		RAISE EXCEPTION 'bad luck' USING ERRCODE = '40001';
	END IF;
	RETURN QUERY
	SELECT b.entity,
		to_jsonb(coalesce(b.state::int, 0) + cardinality(b.messages))
	  FROM unnest(batches) b;
END
$$;
SELECT actornot_register('whole', 'handle', batch_size => 40,
	max_attempts => 2, retry_delay => '10 ms', retry_delay_max => '50 ms');
});

# ------------------------------------------------------------ the posters

sub post_for_ever
{
	until (-e "$folder/stop" || getppid() != $parent)
	{
		ask($node, 'app', 'CALL post_some(30)');
		usleep(30_000);
	}
	return;
}

my @children;
for my $poster (1 .. $posters)
{
	my $pid = fork();
	BAIL_OUT("could not fork: $!") unless defined $pid;
	if ($pid == 0)
	{
		eval { post_for_ever(); 1 } or warn $@;
		POSIX::_exit(0);
	}
	push @children, $pid;
}

# --------------------------------------------------------------- the harm

# Messages have been processed that were posted since.
sub wait_for_progress
{
	my ($what) = @_;

	return wait_for_more($node, 'app',
		'SELECT coalesce(max(id), 0) FROM posted',
		'SELECT count(*) > 100 FROM processed WHERE id > %s',
		"after $what all is back at work");
}

sub signal_worker
{
	my ($signal) = @_;

	signal_one($node, $signal, 'worker')
	  or fail('there was no worker to be killed');
	return;
}

my %harm = (
	'kill of a worker' => sub { signal_worker('KILL') },
	'end of a worker' => sub { signal_worker('TERM') },
	'cancel of a worker' => sub { signal_worker('INT') },
	'kill of the postmaster' => sub { $node->kill9; start_again($node) },
	'fast restart' => sub { $node->stop('fast'); start_again($node) },);

wait_for_progress('the start');
for my $round (1 .. $rounds)
{
	# In an order that is this seed's.
	my %rank = map { $_ => rand() } sort keys %harm;

	foreach my $kind (sort { $rank{$a} <=> $rank{$b} } keys %rank)
	{
		note("round $round: $kind");
		$harm{$kind}->();
		wait_for_progress($kind);
	}
}
append_to_file("$folder/stop", "stop\n");
waitpid($_, 0) foreach @children;

# ------------------------------------------------------------- the oracle

wait_for_value($node, 'app', q{SELECT actornot_pending('whole')},
	0, 'in the end everything is drained');
note($node->safe_psql('app', q{
	SELECT format('%s messages posted, %s poison; %s calls, largest of %s entities and %s messages, %s of one entity',
		(SELECT count(*) FROM posted), (SELECT count(*) FROM posted WHERE poison),
		count(*), max(entities), max(messages), count(*) FILTER (WHERE entities = 1))
	  FROM calls}));
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (SELECT entity, id FROM posted WHERE NOT poison
		EXCEPT ALL SELECT entity, id FROM processed) lost}),
	0,
	'nothing is lost');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (SELECT entity, id FROM processed
		EXCEPT ALL SELECT entity, id FROM posted WHERE NOT poison) extra}),
	0,
	'nothing is processed twice, or without having been posted');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (
		(SELECT entity, id FROM posted WHERE poison EXCEPT ALL
		 SELECT entity, id FROM actornot.dead_letters)
		UNION ALL
		(SELECT entity, id FROM actornot.dead_letters EXCEPT ALL
		 SELECT entity, id FROM posted WHERE poison)) wrong}),
	0,
	'poison, and nothing else, was given up');
is(count_overtaken($node, 'app', 'processed'),
	0,
	'what was committed before is processed before');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (
		SELECT id, lag(id) OVER (PARTITION BY entity, xid ORDER BY place) AS last
		  FROM posted JOIN processed USING (entity, id)) AS sequence
	 WHERE id <= last}),
	0,
	'messages of one transaction keep their order');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (
		SELECT entity, count(*) AS n, sum(id) AS sum, max(place) AS last
		  FROM processed GROUP BY entity) AS log
		FULL JOIN totals USING (entity)
	 WHERE actornot_state('whole', entity) IS DISTINCT FROM to_jsonb(log.n) OR
		   log.n <> last OR totals.n IS DISTINCT FROM log.n OR
		   totals.sum IS DISTINCT FROM log.sum}),
	0,
	'states and totals are what the log says');
is( $node->safe_psql('app', 'SELECT count(*) FROM calls WHERE messages > 40'),
	0,
	'no call was larger than batch_size');
is( $node->safe_psql('app', 'SELECT max(entities) > 10 FROM calls'),
	't', 'entities shared calls');
unlike(log_since($node, 0), qr/TRAP|PANIC|signal 6|signal 11/,
	'nothing crashed by itself');
$node->stop;
done_testing();
