# Where managers are short, one that cannot leave, because it waits for a lock,
# keeps no database without.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Two managers.
my $node = new_server('main', conf => q{
max_worker_processes = 6
max_logical_replication_workers = 0
actornot.max_workers = 2
actornot.ready_queue_size = 1024
});
my @databases = ('stuck', 'busy', 'waits');

$node->start;
foreach my $db (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, q{
		CREATE EXTENSION actornot;
		CREATE FUNCTION slow(entity text, state jsonb, messages actornot_message[])
		RETURNS jsonb LANGUAGE plpgsql AS $$
		BEGIN
			IF entity <> 'quick' THEN
				PERFORM pg_sleep(0.1);
			END IF;
			RETURN '1';
		END $$;
		SELECT actornot_register('slow', 'slow')});
}

# One cannot sweep, the other sweeps for long: more is pending than fits into
# the queue.
my $holder = $node->background_psql('stuck', timeout => 300);
$holder->query_safe('BEGIN; LOCK TABLE actornot.mailbox');
$node->safe_psql('stuck', q{SELECT actornot_pause('slow'); SELECT actornot_resume('slow')});
wait_until($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	 WHERE backend_type = 'actornot manager' AND datname = 'stuck' AND wait_event_type = 'Lock'},
	'a manager waits for a lock');
$node->safe_psql('busy', q{
	SELECT actornot_pause('slow');
	SELECT count(actornot_post('slow', 'e' || n)) FROM generate_series(1, 4000) n;
	SELECT actornot_resume('slow')});
wait_until($node, 'postgres', q{
	SELECT count(*) FILTER (WHERE datname = 'busy') = 1 AND count(*) = 2
	  FROM pg_stat_activity WHERE backend_type = 'actornot manager'},
	'there is one more');
$node->safe_psql('waits', q{SELECT actornot_post('slow', 'quick', '2')});
wait_for_value($node, 'waits', q{SELECT actornot_pending('slow')}, '0',
	'the third database has its turn', 150);
$holder->quit;
$node->stop;
done_testing();
