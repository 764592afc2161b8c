# A handler that does not come back is cancelled at its timeout; one that
# swallows the cancel is terminated ten seconds later, and its message is
# given up in the end, although it never fails by itself.  Others go on.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => 'actornot.max_workers = 3');
$node->start;
install_recorder($node, 'postgres');
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION loop(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		NULL;
	END LOOP;
END
$$;
CREATE FUNCTION sleep(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	SELECT '1'::jsonb FROM pg_sleep(1000)
$$;
CREATE FUNCTION swallow(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF messages->0->'payload' ? 'swallow' THEN
		LOOP
			BEGIN
				PERFORM pg_sleep(1000);
			EXCEPTION WHEN query_canceled THEN
				RAISE LOG 'swallowed by %', entity;
			END;
		END LOOP;
	END IF;
	RETURN '"done"';
END
$$;
-- What it swallows once only does not save it from having taken too long.
CREATE FUNCTION late(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM pg_sleep(1000);
	EXCEPTION WHEN query_canceled THEN
		NULL;
	END;
	RETURN '"late"';
END
$$;
SELECT actornot_register('loop', 'loop', timeout => '300 ms', max_attempts => 2,
		retry_delay => '50 ms'),
	actornot_register('sleep', 'sleep', timeout => '300 ms', max_attempts => 2,
		retry_delay => '50 ms'),
	actornot_register('late', 'late', timeout => '300 ms', max_attempts => 2,
		retry_delay => '50 ms'),
	actornot_register('swallow', 'swallow', timeout => '300 ms',
		max_attempts => NULL);
});

# The first to be cancelled must not leave anything to the next.
my $seconds = stopwatch();
$node->safe_psql(
	'postgres', q{
SELECT actornot_post('swallow', 'e', '{"swallow": 1}'),
	actornot_post('swallow', 'e', '{}'),
	actornot_post('swallow', 'other', '{}'),
	actornot_post('loop', 'e'), actornot_post('sleep', 'e'),
	actornot_post('late', 'e');
SELECT count(actornot_post('recorder', 'e' || n % 20, '{}'))
  FROM generate_series(1, 200) n;
});
wait_for_value($node, 'postgres', 'SELECT count(*) FROM recorded',
	200, 'others are run');
wait_for_value($node, 'postgres', q{
	SELECT string_agg(runner || ' ' || sqlstate || ' ' || attempts, ', '
					  ORDER BY runner)
	  FROM actornot.dead_letters WHERE runner IN ('loop', 'sleep')},
	'loop 57014 2, sleep 57014 2', 'what does not end is cancelled, and given up');
like($node->safe_psql('postgres',
		q{SELECT message FROM actornot.dead_letters WHERE runner = 'loop'}),
	qr/longer than its timeout/, 'and it is said why');
wait_for_value($node, 'postgres', q{SELECT actornot_pending('late')},
	0, 'one that swallows the cancel once is done with');
note('late: ', $node->safe_psql('postgres', q{
	SELECT coalesce(actornot_state('late', 'e')::text, sqlstate)
	  FROM (SELECT) AS one LEFT JOIN actornot.dead_letters ON runner = 'late'}));
wait_for_value($node, 'postgres', q{SELECT actornot_state('swallow', 'other')},
	'"done"', 'another entity of the bad runner is run');
cmp_ok($seconds->(), '<', 10, 'all that before a process is terminated');

# Terminated, and not for ever.
$node->wait_for_log(qr/swallowed by e/);
wait_for_value($node, 'postgres', q{SELECT actornot_state('swallow', 'e')},
	'"done"', 'the entity goes on behind it');
my $took = $seconds->();
is( $node->safe_psql('postgres',
		q{SELECT entity, payload FROM actornot.dead_letters WHERE runner = 'swallow'}),
	'e|{"swallow": 1}', 'what swallows for ever is given up');
my $terminated = count_in_log($node, 0, qr/swallowed by e/);
note("$terminated times in $took seconds");
cmp_ok($terminated, '<=', 3, 'after three times at most');
cmp_ok($took, '<', $terminated * 14 + 5,
	'terminated about ten seconds after the timeout');
unlike(log_since($node, 0), qr/terminated by signal/, 'the server goes on');

# All slots can be had again.
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('recorder', 'after ' || n, '{}'))
	  FROM generate_series(1, 50) n});
wait_for_value($node, 'postgres', 'SELECT count(*) FROM recorded',
	250, 'others are run afterwards');
$node->stop;
done_testing();
