# A failure is counted for the message that failed, also if its visit began
# under an older target of which nothing was left but what was rolled back.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');

$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION actornot;
	CREATE SEQUENCE calls;
	CREATE FUNCTION handle(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF messages[1].payload = '"bad"' THEN
			PERFORM nextval('calls');
			RAISE 'bad luck';
		END IF;
		PERFORM pg_advisory_xact_lock(1);
		RETURN '1';
	END $$;
	SELECT actornot_register('r', 'handle', max_attempts => 1, batch_size => 1);
	SELECT actornot_pause('r');
	SELECT actornot_post('r', 'e', '"good"');
	BEGIN;
	SELECT actornot_post('r', 'e', '"gone"');
	ROLLBACK});

# The first visit takes so long that it ends after its first batch.
my $holder = lock_session($node, 'postgres', 1);
$node->safe_psql('postgres', q{SELECT actornot_resume('r')});
wait_until($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'},
	'a batch is being run');
$node->safe_psql('postgres', q{SELECT actornot_post('r', 'e', '"bad"')});
$holder->quit;
wait_for_value($node, 'postgres', q{SELECT actornot_pending('r')}, '0',
	'nothing is left');
is( $node->safe_psql('postgres', q{
		SELECT last_value, (SELECT string_agg(payload::text || ' ' || attempts, ', ')
			FROM actornot.dead_letters) FROM calls}),
	'1|"bad" 1', 'what failed was tried once');
$node->stop;
done_testing();
