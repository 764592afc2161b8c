# Entities end and come back while the log is rotated and their rows are
# removed: every message is processed once and in order, whatever a removed
# row had known.  At the end no row of an ended entity is left, and those with
# a state, a pause or a back-off are all there.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_server('main', conf => q{
actornot.max_workers = 3
actornot.segment_size = 256kB
});
$node->start;
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION actornot;
-- What was committed, in the order of each entity, and what was processed.
CREATE TABLE posted (entity text, n int, PRIMARY KEY (entity, n));
CREATE TABLE enough ();
CREATE TABLE seen (at bigserial, entity text, n int);
-- Ends at each second message; others keep a count since then.
CREATE FUNCTION mortal(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		INSERT INTO seen (entity, n) VALUES (mortal.entity, m.payload::int);
		state := CASE WHEN m.payload::int % 2 <> 0
			THEN to_jsonb(coalesce(state::int, 0) + 1) END;
	END LOOP;
	RETURN state;
END
$$;
CREATE FUNCTION failing(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
SELECT actornot_register('mortal', 'mortal', batch_size => 3),
	actornot_register('failing', 'failing', max_attempts => NULL,
		retry_delay => '1 h', retry_delay_max => '1 h');
-- These rows have no state, and stay.
SELECT actornot_pause('mortal', 'paused'),
	actornot_post('failing', 'failed', '1');
-- One transaction for each number: the order of an entity is the order of n.
CREATE PROCEDURE post_life(client int) LANGUAGE plpgsql AS $$
DECLARE
	e text;
	k int;
BEGIN
	WHILE to_regclass('enough') IS NOT NULL LOOP
		e := 'e' || client || '.' || (random() * 20000)::int;
		SELECT coalesce(max(n), 0) + 1 INTO k FROM posted WHERE entity = e;
		INSERT INTO posted VALUES (e, k);
		PERFORM actornot_post('mortal', e, to_jsonb(k),
			jsonb_build_object('filler', repeat('x', 200)));
		COMMIT;
	END LOOP;
END $$;
});

my @sessions;
foreach my $client (1 .. 3)
{
	my $session = $node->background_psql('postgres', timeout => 300);

	$session->query_until(qr/begun/, qq{
\\echo begun
SET synchronous_commit = off;
CALL post_life($client);
});
	push @sessions, $session;
}

# Rows are removed while entities come back.
wait_until(
	$node, 'postgres', q{
	SELECT pg_stat_get_tuples_deleted('actornot.mailbox'::regclass) > 20},
	'rows are removed meanwhile');
$node->safe_psql('postgres', 'DROP TABLE enough');
$_->quit foreach @sessions;

wait_for_value(
	$node, 'postgres', q{
	SELECT (SELECT count(*) FROM seen) >= (SELECT count(*) FROM posted)},
	't', 'all is processed');
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM (SELECT entity, n FROM posted
		EXCEPT ALL SELECT entity, n FROM seen) AS lost}),
	0, 'nothing is lost or done twice');
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM (
		SELECT n, lag(n, 1, 0) OVER (PARTITION BY entity ORDER BY at) AS last
		  FROM seen) AS s
	 WHERE n <> last + 1}),
	0, 'each entity in order');
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM (SELECT entity, max(n) % 2 AS state
		  FROM posted GROUP BY entity) AS p
	 WHERE coalesce(actornot_state('mortal', entity)::int, 0) <> state}),
	0, 'every state is that of its last life');

# When the log has moved on, the rows that say nothing are gone.
my $left = q{SELECT count(*) <= 1 FROM actornot.mailbox
	WHERE state IS NULL AND NOT paused AND attempts = 0};
sub post_filler
{
	$node->safe_psql('postgres', q{
		SELECT count(actornot_post('mortal', 'filler', '2',
				jsonb_build_object('filler', repeat('y', 500))))
		  FROM generate_series(1, 500)});
	return;
}
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
until ((ask($node, 'postgres', $left) // '') eq 't' || time() > $deadline)
{
	post_filler();
	usleep(100_000);
}
is(ask($node, 'postgres', $left), 't',
	'no row of an ended entity is left but that of the last messages');
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM (SELECT entity FROM posted GROUP BY entity
		HAVING max(n) % 2 <> 0) AS p
	 WHERE NOT EXISTS (SELECT FROM actornot.mailbox m WHERE m.entity = p.entity)}),
	0, 'an entity with a state has a row');
is( $node->safe_psql('postgres', q{
	SELECT string_agg(entity, ' ' ORDER BY entity) FROM actornot.mailbox
	 WHERE entity IN ('paused', 'failed')}),
	'failed paused', 'a paused entity and one in back-off, too');

# A row stays as long as a segment holds a message that it has consumed, also
# if that one is done and only waits for an old snapshot: a dump taken now would
# have the message, and must have the row.
sub current_segment
{
	return $node->safe_psql('postgres',
		'SELECT number FROM actornot.segment WHERE current');
}

sub move_on
{
	my $from = current_segment();

	while (current_segment() eq $from)
	{
		post_filler();
	}
	return;
}

sub post_and_wait
{
	my ($entity) = @_;

	$node->safe_psql('postgres', "SELECT actornot_post('mortal', '$entity', '2')");
	wait_until($node, 'postgres',
		"SELECT count(*) = 1 FROM seen WHERE entity = '$entity'");
	return;
}

# One that is nearly empty, so that the log will not move on while we look: the
# last filler may have gone into the new segment, and half filled that, too.
sub fresh_segment
{
	wait_until($node, 'postgres', q{
		SELECT pg_relation_size('actornot.message_' || number) < 100000 OR
			actornot_post('mortal', 'filler', '2',
				jsonb_build_object('filler', repeat('y', 1500))) < 0
		  FROM actornot.segment WHERE current});
	return current_segment();
}

my $first = fresh_segment();
post_and_wait('early');
my $reader = $node->background_psql('postgres');
$reader->query_safe("BEGIN; LOCK TABLE actornot.message_$first IN ACCESS SHARE MODE");
move_on();
my $second = fresh_segment();
my $done = 'SELECT done IS NOT NULL FROM actornot.segment WHERE number = ';
wait_until($node, 'postgres', "$done $first");
# Now only a session that began later holds it; it was locked all the time.
my $later = $node->background_psql('postgres');
$later->query_safe("BEGIN; LOCK TABLE actornot.message_$first IN ACCESS SHARE MODE");
$reader->quit;
wait_until($node, 'postgres', "
	SELECT pg_snapshot_xmin(pg_current_snapshot()) > done
	  FROM actornot.segment WHERE number = $first");
my $holder = $node->background_psql('postgres');
$holder->query_safe(
	'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM posted');
post_and_wait('late');
move_on();
wait_until($node, 'postgres', "$done $second");
$later->quit;
wait_for_value($node, 'postgres',
	q{SELECT count(*) FROM actornot.mailbox WHERE entity = 'early'},
	0, 'the row goes with the last segment');
is( $node->safe_psql('postgres', q{
	SELECT (SELECT count(*) FROM actornot.mailbox WHERE entity = 'late'),
		(SELECT count(*) FROM actornot.message WHERE entity = 'late')}),
	'1|1', 'it stays with a message that is done');
$holder->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|could not rotate/,
	'nothing went wrong');
$node->stop;
done_testing();
