# Each ready entity gets its turn: also beside entities that are always ready,
# of which the only worker takes many at a time, and beside entities that wait
# for the end of a back-off and cannot be run.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main',
	conf => "actornot.max_workers = 1\nactornot.ready_queue_size = 1024");

$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION actornot;
	CREATE FUNCTION loop(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM actornot_post('loop', entity);
		RETURN coalesce(state::int, 0) + 1;
	END $$;
	CREATE FUNCTION slow(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(0.02);
		RETURN coalesce(state::int, 0) + 1;
	END $$;
	SELECT actornot_register('loop', 'loop');
	SELECT actornot_register('slow', 'slow');
	SELECT actornot_post('slow', 'pace')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('slow', 'pace')},
	'1', 'the worker knows that a runner is slow');

# More than a group takes, all of them always ready.
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('loop', 'e' || n)) FROM generate_series(1, 200) n});
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.mailbox WHERE entity LIKE 'e%' AND state::int >= 10},
	'200', 'of many that are always ready each is run');
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('slow', 's' || n)) FROM generate_series(1, 3) n});
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.mailbox WHERE entity LIKE 's_'},
	'3', 'and so are those that cannot share a transaction with them', 150);
$node->safe_psql('postgres', q{SELECT actornot_pause('loop')});

# Ended back-offs of more entities than the queue holds, which stay in the table
# because their runner is paused.
$node->safe_psql('postgres', q{
	CREATE FUNCTION fails(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF entity <> 'once' OR messages[1].attempt = 1 THEN
			RAISE 'bad luck';
		END IF;
		RETURN '"done"';
	END $$;
	SELECT actornot_register('bad', 'fails', retry_delay => '5 s', max_attempts => NULL);
	SELECT actornot_register('better', 'fails', retry_delay => '1 s');
	SELECT count(actornot_post('bad', 'b' || n)) FROM generate_series(1, 1500) n});
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.mailbox WHERE entity LIKE 'b%' AND attempts > 0},
	'1500', 'many have failed');
$node->safe_psql('postgres', q{SELECT actornot_pause('bad')});
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.mailbox WHERE wake_at < clock_timestamp()},
	'1500', 'the back-offs of all are over');
$node->safe_psql('postgres', q{SELECT actornot_post('better', 'once')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('better', 'once')},
	'"done"', 'they delay no other entity', 150);

unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
