# A transaction that wrote long ago and is still open, also a prepared one,
# makes no batch read what is already done; and hundreds of them do not make
# the rows of mailboxes so large that they are toasted.

use strict;
use warnings;

use ActornotTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $writers = 500;
my $batches = 50;
my $node = new_server('main', conf => q{
max_connections = 600
});
$node->start;

# What runs of runner "counter" cost is measured in our own session: its owner
# cannot log in, so that no worker comes.
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION actornot;
CREATE ROLE quiet NOLOGIN;
GRANT CREATE ON SCHEMA public TO quiet;
GRANT EXECUTE ON FUNCTION actornot_register TO quiet;
SET ROLE quiet;
CREATE FUNCTION count_and_sum(entity text, state jsonb,
	messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN jsonb_build_object(
		'n', coalesce((state->>'n')::bigint, 0) + cardinality(messages),
		'sum', coalesce((state->>'sum')::bigint, 0) +
			(SELECT sum(m.payload::bigint) FROM unnest(messages) m));
END
$$;
SELECT actornot_register('counter', 'count_and_sum', batch_size => 200);
CREATE TABLE cost (entity text, batch int, blocks bigint);
CREATE PROCEDURE run_one(entity text, batch int) LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
		SELECT actornot_run(%L, %L)', 'counter', entity) INTO plan;
	INSERT INTO cost VALUES (entity, batch,
		(plan #>> '{0,Plan,Shared Hit Blocks}')::bigint +
		(plan #>> '{0,Plan,Shared Read Blocks}')::bigint);
	COMMIT;
END
$$;
CREATE PROCEDURE run_batches(entity text, n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR batch IN 1 .. n LOOP
		PERFORM actornot_post('counter', entity, to_jsonb(m))
		   FROM generate_series(1, 200) m;
		COMMIT;
		CALL run_one(entity, batch);
	END LOOP;
END
$$;
});

# A number of runs after each other in a session; answers what the late ones
# read at most.
sub run_batches
{
	my ($entity, $n) = @_;

	return $node->safe_psql('postgres', qq{
SET ROLE quiet;
CALL run_batches('$entity', $n);
SELECT max(blocks) FROM cost WHERE entity = '$entity' AND batch > $n - 10});
}

# What a run reads that finds only what the writer posted: its own session
# first runs another entity, so that its caches are full.
sub run_last
{
	my ($entity) = @_;

	return $node->safe_psql('postgres', qq{
SET ROLE quiet;
CALL run_batches('to fill the caches', 1);
CALL run_one('$entity', 1000);
SELECT blocks FROM cost WHERE entity = '$entity' AND batch = 1000});
}

# --------------------------------------------------------- one that is old

my $post = sub {
	my ($entity) = @_;
	return qq{SELECT actornot_post('counter', '$entity', '1000000');
		SELECT pg_current_xact_id();};
};

# Without any: the bounds for the others.
my $normal = run_batches('without', $batches);
$node->safe_psql('postgres', $post->('without'));
my $normal_last = run_last('without');
note("without a writer: $normal blocks, the last $normal_last");

sub check_writer
{
	my ($entity, $end) = @_;
	my $read = run_batches($entity, $batches);
	my $n = $batches * 200;
	my $sum = $batches * 20100;

	note("$entity: $read blocks");
	cmp_ok($read, '<=', $normal * 1.2,
		"$entity: a batch reads no more than without it");
	is( $node->safe_psql('postgres', qq{
		SELECT actornot_state('counter', '$entity') = '{"n": $n, "sum": $sum}'}),
		't', "$entity: all is processed but its own");
	$end->();
	my $last = run_last($entity);
	note("$entity: the last $last blocks");
	cmp_ok($last, '<=', $normal_last * 1.2 + 10,
		"$entity: when it ends, nothing is read again");
	$n += 1;
	$sum += 1000000;
	is( $node->safe_psql('postgres', qq{
		SET ROLE quiet;
		SELECT coalesce(actornot_run('counter', '$entity'), 0),
			actornot_state('counter', '$entity') = '{"n": $n, "sum": $sum}'}),
		'0|t', "$entity: what it posted is processed, once");
	return;
}

my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; ' . $post->('open'));
check_writer('open', sub { $writer->query_safe('COMMIT'); $writer->quit; });

$node->safe_psql('postgres',
	'BEGIN; ' . $post->('prepared') . " PREPARE TRANSACTION 'old'");
check_writer('prepared',
	sub { $node->safe_psql('postgres', "COMMIT PREPARED 'old'") });

# ---------------------------------------------------------------- hundreds

# Each transaction posts, and stays open until the lock of its number is
# released.  As in a busy server, their ids are far apart: so far that a
# distance takes two bytes.
$node->safe_psql(
	'postgres', q{
CREATE TABLE seen (entity text, n int);
CREATE FUNCTION note(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload = '"fail"' THEN
			RAISE 'no';
		END IF;
		INSERT INTO seen VALUES (note.entity, m.payload::int);
	END LOOP;
	RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
END
$$;
SELECT actornot_register('crowd', 'note', retry_delay => '1 h');
CREATE TABLE used ();
CREATE PROCEDURE use_ids(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		BEGIN
			INSERT INTO used DEFAULT VALUES;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
END
$$;
});
my $gate = $node->background_psql('postgres', timeout => 500);
$gate->query_safe("SELECT count(pg_advisory_lock(41, n))
	FROM generate_series(0, $writers - 1) n");
my $script = PostgreSQL::Test::Utils::tempdir() . '/writer.sql';
append_to_file($script, q{
SELECT pg_advisory_lock(42);
CALL use_ids(150);
BEGIN;
SELECT actornot_post('crowd', 'crowd ' || :client_id % 20, to_jsonb(:client_id));
SELECT pg_advisory_unlock(42);
SELECT pg_advisory_xact_lock_shared(41, :client_id);
COMMIT;
});
my ($out, $err) = ('', '');
my $crowd = IPC::Run::start(
	[
		'pgbench', '-n', '-c', $writers, '-t', '1', '-f', $script,
		'-h', $node->host, '-p', $node->port, 'postgres'
	],
	'<', \undef, '>', \$out, '2>', \$err);
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM pg_stat_activity
	 WHERE backend_xid IS NOT NULL AND wait_event = 'advisory'},
	$writers, "$writers writers are open");

# The first message of "stuck" gives it a cursor with all of them, the second
# one, which fails, a target with all of them, too.
sub check_going_on
{
	my ($what, $n) = @_;

	foreach my $i (1 .. $n)
	{
		$node->safe_psql('postgres',
			"SELECT actornot_post('crowd', '$what', '$i')");
		wait_for_value($node, 'postgres',
			"SELECT count(*) FROM seen WHERE entity = '$what'",
			$i, "$what: batch $i is run");
	}
	return;
}

check_going_on('first', 3);
check_going_on('stuck', 1);
$node->safe_psql('postgres', q{SELECT actornot_post('crowd', 'stuck', '"fail"')});
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.mailbox
	 WHERE entity = 'stuck' AND target IS NOT NULL AND attempts = 1},
	1, 'one has failed and keeps its target');

my $sizes = q{
SELECT max(octet_length(done)), max(octet_length(target))
  FROM actornot.mailbox WHERE entity IN ('first', 'stuck')};
note('octets of done, target: ' . $node->safe_psql('postgres', $sizes));
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.mailbox
	 WHERE entity IN ('first', 'stuck') AND cardinality(string_to_array(
		split_part(actornot.cursor_text(done), ':', 3), ',')) < 500}),
	0, 'the cursors hold all of them');
is( $node->safe_psql('postgres', "
	SELECT bool_and(octet_length(done) BETWEEN 2 * $writers AND 3 * $writers)
	  FROM actornot.mailbox WHERE entity IN ('first', 'stuck')"),
	't', 'in few bytes each');
my $toast = q{
SELECT pg_relation_size(reltoastrelid) FROM pg_class
 WHERE oid = 'actornot.mailbox'::regclass};
is($node->safe_psql('postgres', $toast), 0, 'no row is toasted');
is( $node->safe_psql('postgres',
		"SELECT count(*) FROM seen WHERE entity LIKE 'crowd%'"),
	0, 'what they have posted is not processed');

# They end in another order than they began, and between them others are run.
sub release
{
	my ($from, $to) = @_;

	$gate->query_safe("SELECT count(pg_advisory_unlock(41, n)) FROM
		(SELECT n FROM generate_series(0, $writers - 1) n
		  WHERE n * 7919 % $writers BETWEEN $from AND $to - 1
		  ORDER BY n * 104729 % $writers) AS s");
	wait_for_value($node, 'postgres', q{
		SELECT count(*), count(DISTINCT n) FROM seen
		 WHERE entity LIKE 'crowd%'},
		"$to|$to", "$to have ended: what they posted is processed, once");
	return;
}

release(0, 250);
check_going_on('second', 3);
release(250, 300);
check_going_on('third', 3);
release(300, $writers);
check_going_on('fourth', 3);
ok($crowd->finish, 'all writers have ended well');
$gate->quit;
is($node->safe_psql('postgres', $toast), 0, 'still no row is toasted');
is( $node->safe_psql('postgres', q{SELECT actornot_pending('crowd')}),
	1, 'nothing is pending but what failed');
$node->stop;
done_testing();
