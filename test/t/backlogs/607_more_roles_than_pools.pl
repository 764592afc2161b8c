# Many roles have more to be run than the queue holds, and are slow: a sweep goes
# on without each of them, and finds all of it in the end.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main',
	conf => "actornot.max_workers = 4\nactornot.ready_queue_size = 1024");

$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION actornot;
	CREATE FUNCTION slow(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(0.005);
		RETURN '1';
	END $$;
	DO $$
	BEGIN
		FOR i IN 1 .. 12 LOOP
			EXECUTE format('CREATE ROLE p%s LOGIN', i);
			EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO p%s', i);
			EXECUTE format('SET ROLE p%s', i);
			PERFORM actornot_register('r' || i, 'public.slow');
			PERFORM actornot_pause('r' || i);
			RESET ROLE;
		END LOOP;
	END $$;
	SELECT count(actornot_post('r' || p, 'e' || n)) FROM generate_series(1, 700) n, generate_series(1, 12) p});
my $offset = log_offset($node);
$node->safe_psql('postgres', q{
	SELECT count(actornot_resume('r' || p)) FROM generate_series(1, 12) p});
wait_for_value($node, 'postgres', q{SELECT count(*) FROM actornot.mailbox WHERE state IS NOT NULL},
	'8400', 'all is run');
is(count_in_log($node, $offset, qr/actornot manager.* exited with exit code [^0]/),
	0, 'the manager lives on');
unlike(log_since($node, $offset), qr/ERROR|PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
