# A handler that ends its own process, by whatever means, does not do so for
# ever; one that an administrator ends is no suspect.  And the schema of the
# extension can be dropped while workers run.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');

$node->start;
install_recorder($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE ROLE strict LOGIN SUPERUSER;
	ALTER ROLE strict SET exit_on_error = on;
	CREATE FUNCTION ends(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF messages[1].payload = '"bad"' THEN
			PERFORM pg_terminate_backend(pg_backend_pid());
			PERFORM pg_sleep(600);
		END IF;
		RETURN coalesce(state::int, 0) + 1;
	END $$;
	CREATE FUNCTION exits(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		SET exit_on_error = on;
		IF messages[1].payload = '"bad"' THEN
			RAISE 'bad luck';
		END IF;
		RETURN coalesce(state::int, 0) + 1;
	END $$;
	CREATE FUNCTION fails(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'bad luck'; END $$;
	SELECT actornot_register('ends', 'ends', batch_size => 1);
	SELECT actornot_register('exits', 'exits', batch_size => 1);
	SET ROLE strict;
	SELECT actornot_register('strict', 'fails', max_attempts => 2, retry_delay => '10 ms');
	RESET ROLE;
	SELECT count(actornot_post(r, e, p)) FROM unnest('{ends,exits}'::text[]) r,
		(VALUES ('e', '1'::jsonb), ('e', '"bad"'), ('e', '2'), ('f', '1')) v(e, p);
	SELECT actornot_post('strict', 'e')});

foreach my $runner ('ends', 'exits')
{
	wait_for_value($node, 'postgres', qq{
		SELECT actornot_state('$runner', 'e'), actornot_state('$runner', 'f'), actornot_pending('$runner'),
			(SELECT count(*) FROM actornot.dead_letters WHERE runner = '$runner' AND payload = '"bad"')},
		'2|1|0|1', "$runner: the message is given up, the others are processed");
}
wait_for_value($node, 'postgres', q{
	SELECT count(*), min(attempts), min(message) FROM actornot.dead_letters WHERE runner = 'strict'},
	'1|2|bad luck', 'exit_on_error of the role is not the worker\'s');

# An administrator ends a worker in the middle of a batch, more than twice.
my $holder = lock_session($node, 'postgres', 1);
$node->safe_psql('postgres', q{SELECT actornot_post('recorder', 'innocent', '{"wait": 1}')});
for my $time (1 .. 4)
{
	wait_until($node, 'postgres', q{
		SELECT count(*) > 0 FROM pg_stat_activity
		 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'},
		"a batch is being run ($time)");
	$node->safe_psql('postgres', q{
		SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
		 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'});
}
$holder->quit;
wait_for_value($node, 'postgres', q{SELECT actornot_state('recorder', 'innocent')},
	'{"n": 1}', 'what an administrator has ended is run in the end');
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.dead_letters WHERE runner = 'recorder'}),
	0, 'and was never given up');

# The extension's schema goes, while workers are busy with it.
$node->safe_psql('postgres', 'CREATE DATABASE app');
{
	my $db = 'app';

	$node->safe_psql($db, q{
		CREATE SCHEMA ext; CREATE SCHEMA play; CREATE EXTENSION actornot SCHEMA ext;
		CREATE FUNCTION play.slow(entity text, state jsonb, messages jsonb)
		RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(pg_sleep(0.01)::text) $$;
		SET search_path = ext;
		SELECT actornot_register('slow', 'play.slow');
		SELECT cardinality(actornot_post_many('slow', ARRAY(SELECT 'e' || n FROM generate_series(1, 3000) n)))});
	wait_until($node, $db, q{
		SELECT count(*) > 0 FROM pg_stat_activity
		 WHERE backend_type = 'actornot worker' AND datname = current_database() AND state = 'active'},
		"$db: workers are busy");
}
my $offset = log_offset($node);
$node->safe_psql('app', 'DROP SCHEMA ext CASCADE');
is($node->safe_psql('app', q{SELECT count(*) FROM pg_extension WHERE extname = 'actornot'}),
	0, 'the schema can be dropped');
unlike(log_since($node, $offset), qr/deadlock/, 'and there was no deadlock');

unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
