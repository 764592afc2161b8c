# Rotation under load: small segments, posters, workers, programs outside that
# lease entities, handlers that fail now and then, entities that are paused for
# a while, an old reader, and processes that are killed.  In the end each
# message has been processed once, in order, and the log is one segment.
#
#	ACTORNOT_SEED     the random numbers of an earlier run
#	ACTORNOT_ROUNDS   how often to do every kind of harm (1)
#	ACTORNOT_BITS     of an entity's hash (64; fewer: entities share them)

use strict;
use warnings;

use ActornotTest;
use LeaseOracle;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $rounds = $ENV{ACTORNOT_ROUNDS} // 1;
my $bits = $ENV{ACTORNOT_BITS} // 64;
my $seed = $ENV{ACTORNOT_SEED} // int(rand(1 << 30));
my $folder = PostgreSQL::Test::Utils::tempdir;

note("ACTORNOT_SEED=$seed");
srand($seed);

my $node = new_server('main', conf => qq{
actornot.segment_size = 256kB
actornot.debug_hash_bits = $bits
log_min_messages = log
});
$node->start;
need_test_hooks($node);
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql(
	'app', q{
CREATE EXTENSION actornot;
CREATE TABLE posted (entity text, id bigint, xid xid8, seen pg_snapshot);
CREATE TABLE processed (entity text, place int, id bigint, PRIMARY KEY (entity, place));
CREATE PROCEDURE post(entity text) LANGUAGE sql AS $$
	INSERT INTO posted
	SELECT entity, actornot_post('oracle', entity,
			to_jsonb(repeat(md5(random()::text), CASE WHEN random() < 0.01 THEN 100 ELSE 6 END))),
		   pg_current_xact_id(), pg_current_snapshot()
$$;
CREATE FUNCTION handle(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO processed
		SELECT $1, coalesce(state::int, 0) + o, m.id
		  FROM unnest(messages) WITH ORDINALITY m (id, payload, headers, at, try, o);
	IF random() < 0.02 THEN
		RAISE EXCEPTION 'bad luck';
	END IF;
	RETURN to_jsonb(coalesce(state::int, 0) + cardinality(messages));
END
$$;
-- A program outside; sometimes too late.  Then it may be in a worker's way until
-- it is told so, and one of the two be the victim of a deadlock.
CREATE PROCEDURE lease() LANGUAGE plpgsql AS $$
DECLARE
	l		actornot_lease;
BEGIN
	FOR l IN SELECT * FROM actornot_acquire('oracle', lease => '200 ms', max_messages => 3) LOOP
		COMMIT;
		PERFORM pg_sleep(0.25 * random());
		INSERT INTO processed
			SELECT l.entity, coalesce(l.state::int, 0) + o, (m->>'id')::bigint
			  FROM jsonb_array_elements(l.messages) WITH ORDINALITY m (m, o);
		PERFORM actornot_update_locked('oracle', l.entity, l.token,
			to_jsonb(coalesce(l.state::int, 0) + jsonb_array_length(l.messages)),
			max_messages => 0);
		COMMIT;
	END LOOP;
END
$$;
SELECT actornot_register('oracle', 'handle', batch_size => 5, max_attempts => NULL,
	retry_delay => '100 ms', retry_delay_max => '8 s');
-- Some wait from the beginning to the end.
SELECT actornot_pause('oracle', 'p' || n) FROM generate_series(1, 3) n;
});

# ---------------------------------------------------------------- the clients

my $app = $node->connstr('app');

sub post_script
{
	my $script = '';

	for my $transaction (1 .. 10)
	{
		my $kind = rand();
		my $gid = "g$$" . int(rand(1 << 30));

		$script .= "BEGIN;\n";
		foreach (1 .. 1 + int(rand(12)))
		{
			my $entity = rand() < 0.02 ? 'p' . (1 + int(rand(3))) : 'e' . int(60 * rand()**2);
			my $savepoint = rand() < 0.1;

			$script .= "SAVEPOINT s;\n" if $savepoint;
			$script .= "CALL post('$entity');\n";
			$script .= "ROLLBACK TO SAVEPOINT s;\n" if $savepoint && rand() < 0.5;
		}
		$script .=
		    $kind < 0.05 ? "ROLLBACK;\n"
		  : $kind < 0.10 ? "PREPARE TRANSACTION '$gid';\nCOMMIT PREPARED '$gid';\n"
		  : "COMMIT;\n";
	}
	return $script;
}

my @children = map { fork_child($folder, "poster$_", sub {
	run_script($app, post_script());
	usleep(150_000);
	return 'on';
}) } (1 .. 3);
push @children, fork_child($folder, 'leases', sub {
	run_script($app, "CALL lease();\n" x 10);
	return 'on';
});
push @children, fork_child($folder, 'pauses', sub {
	my $entity = 'e' . int(60 * rand()**2);

	run_script($app, "SELECT actornot_pause('oracle', '$entity', force => true);\n"
		. "SELECT pg_sleep(1);\nSELECT actornot_resume('oracle', '$entity');\n");
	run_script($app, "SELECT count(actornot_resume('oracle', 'e' || n)) FROM generate_series(0, 59) n;\n");
	return 'on';
});
# What a crash left prepared keeps its segment, and so in the end the whole
# ring, from moving on.
push @children, fork_child($folder, 'settler', sub {
	run_script($app, q{SELECT pg_sleep(1);
		SELECT format('COMMIT PREPARED %L', gid) FROM pg_prepared_xacts
		 WHERE prepared < now() - interval '1 s' \gexec
	});
	return 'on';
});
# What an old snapshot sees it sees to its end.
push @children, fork_child($folder, 'reader', sub {
	my @errors = run_script($app, q{
		BEGIN ISOLATION LEVEL REPEATABLE READ;
		SELECT count(*) AS n, coalesce(sum(hashint8(id)), 0) AS sum FROM actornot.message \gset
		SELECT pg_sleep(1.5);
		SELECT 1 / (count(*) = :n AND coalesce(sum(hashint8(id)), 0) = :sum)::int FROM actornot.message;
		COMMIT;
	});
	# Emptying needs a moment without a reader.
	usleep(int(rand(1_000_000)));
	return grep({ $_ eq '22012' } @errors) ? 'changed' : 'on';
});

# --------------------------------------------------------------- the harm

# All clients are back when the log has moved on.
sub wait_for_progress
{
	my ($what) = @_;
	my $turn = 'SELECT max(turn) FROM actornot.segment';

	return wait_for_more($node, 'app', $turn, "SELECT ($turn) > %s + 2",
		"after $what the log rotates")
	  || diag(ask($node, 'app', q{SELECT jsonb_pretty(jsonb_build_object(
			'segments', (SELECT jsonb_agg(s ORDER BY turn) FROM actornot.segment s),
			'prepared', (SELECT jsonb_agg(p) FROM pg_prepared_xacts p),
			'old', (SELECT jsonb_agg(a) FROM pg_stat_activity a
					WHERE coalesce(backend_xmin, backend_xid) IS NOT NULL)))})
		  // 'no answer');
}

my %harm = (
	'kill of a worker' => sub { signal_one($node, 'KILL', 'worker') },
	'kill of a manager' => sub { signal_one($node, 'KILL', 'manager') },
	'second kill of a manager' => sub { signal_one($node, 'KILL', 'manager') },
	'end of a manager' => sub { signal_processes('TERM', pids_of($node, 'manager')) },
	'kill of the postmaster' => sub { $node->kill9; start_again($node) },
	'immediate stop' => sub { $node->stop('immediate'); start_again($node) },);

wait_for_progress('the start');
for my $round (1 .. $rounds)
{
	my %rank = map { $_ => rand() } sort keys %harm;

	foreach my $kind (sort { $rank{$a} <=> $rank{$b} } keys %rank)
	{
		note("round $round: $kind");
		$harm{$kind}->();
		wait_for_progress($kind);
	}
}
my %said = end_children($folder, @children);
is($said{changed} // 0, 0, 'old readers see what they saw');

# ------------------------------------------------------------- the oracle

foreach my $gid (split /\n/, $node->safe_psql('app', 'SELECT gid FROM pg_prepared_xacts'))
{
	$node->safe_psql('app', "COMMIT PREPARED '$gid'");
}
cmp_ok($node->safe_psql('app', q{
	SELECT sum(actornot_pending('oracle', 'p' || n)) FROM generate_series(1, 3) n}),
	'==', $node->safe_psql('app', q{SELECT count(*) FROM posted WHERE entity LIKE 'p%'}),
	'paused ones have all that was posted to them');
$node->safe_psql('app', q{
	SELECT count(actornot_resume('oracle', b.entity)) FROM actornot.mailbox b WHERE b.paused});
wait_for_value($node, 'app', q{SELECT actornot_pending('oracle')},
	0, 'in the end everything is drained');
note($node->safe_psql('app', q{
	SELECT format('%s messages, %s moves', count(*), (SELECT max(turn) FROM actornot.segment)) FROM posted}));
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (SELECT entity, id FROM posted
		EXCEPT ALL SELECT entity, id FROM processed) lost}),
	0, 'nothing is lost');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (SELECT entity, id FROM processed
		EXCEPT ALL SELECT entity, id FROM posted) extra}),
	0, 'nothing is processed twice, or without having been posted');
is(count_overtaken($node, 'app', 'processed'),
	0, 'what was committed before is processed before');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (SELECT entity, count(*) AS n, max(place) AS last
			FROM processed GROUP BY entity) s
	 WHERE actornot_state('oracle', entity) IS DISTINCT FROM to_jsonb(n) OR n <> last}),
	0, 'the states are what the log says');
wait_for_value($node, 'app', q{
	SELECT count(*) FROM actornot.segment WHERE upper IS DISTINCT FROM '1'},
	1, 'the log is one segment');
unlike(log_since($node, 0),
	qr/TRAP|PANIC|signal 6|signal 11|could not rotate|actornot worker.*duplicate key/,
	'nothing crashed by itself, and no entity had two holders at a time');
$node->stop;
done_testing();
