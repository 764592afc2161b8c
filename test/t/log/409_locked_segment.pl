# A session locks a segment of the log.  Only entities with messages in this
# segment wait: the manager sweeps later, and does the rest of its maintenance.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => 'actornot.segment_size = 128kB');

$node->start;
install_recorder($node, 'postgres', 'recorder');
install_move_on($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE FUNCTION fail_once(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF messages[1].payload = '"bad"' AND messages[1].attempt = 1 THEN
			RAISE 'bad luck';
		END IF;
		RETURN coalesce(state::int, 0) + 1;
	END $$;
	SELECT actornot_register('retried', 'fail_once', retry_delay => '2 s');
	SELECT actornot_pause('recorder');
	CALL move_on($$SELECT actornot_post('recorder', 'e' || $1 / 5, to_jsonb(repeat('x', 300)))$$)});
wait_until($node, 'postgres', q{SELECT sealed FROM actornot.segment WHERE number = 0},
	'a segment is left');

# After that it is of no interest any more to this entity.
$node->safe_psql('postgres', q{SELECT actornot_post('retried', 'e', '"good"')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('retried', 'e')}, '1',
	'an entity has come to the next one');

my $holder = $node->background_psql('postgres', timeout => 300);
$holder->query_safe('BEGIN; LOCK TABLE actornot.message_0');
$node->safe_psql('postgres', q{
	SELECT actornot_resume('recorder');
	SELECT actornot_post('retried', 'e', '"bad"')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('retried', 'e')}, '2',
	'back-offs end while a segment is locked', 150);
is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM pg_stat_activity
		 WHERE backend_type = 'actornot manager' AND wait_event_type = 'Lock'}),
	0, 'the manager waits for no lock');
$holder->quit;
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')}, '0',
	'then what is in it is found');
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
