# Without shared_preload_libraries there are no processes; everything else
# works, and actornot_drain() does the work.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Settings that the server does not know yet must not keep it from starting.
my $node = new_server('main',
	preload => 0,
	conf => q{
actornot.max_workers = 3
actornot.ready_queue_size = 2048
actornot.group_time = 7ms
});
$node->start;
install_recorder($node, 'postgres');
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION fail(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE division_by_zero USING MESSAGE = 'bad luck';
END
$$;
SELECT actornot_register('fail', 'fail', max_attempts => 2,
	retry_delay => '10 ms')});

# All in one session, as cron would have it.
is( $node->safe_psql(
		'postgres', q{
SELECT count(actornot_post('recorder', 'e' || n % 10, to_jsonb(n)))
  FROM generate_series(1, 100) n;
SELECT cardinality(actornot_post_many('recorder',
	ARRAY['e1', 'e2', 'e3'], ARRAY['1', '2', '3']::jsonb[]));
SELECT actornot_pending('recorder'), actornot_pending('recorder', 'e1');
SELECT actornot_run('recorder', 'e1');
SELECT actornot_state('recorder', 'e1');
CALL actornot_drain();
SELECT actornot_pending('recorder'), actornot_state('recorder', 'e2');
CALL actornot_drain();
CALL actornot_drain('recorder');
}), "100\n3\n103|11\n11\n{\"n\": 11}\n92\n0|{\"n\": 11}\n0\n0",
	'posting and draining');
is( $node->safe_psql('postgres',
		'SELECT count(*), count(DISTINCT id) FROM recorded'),
	'103|103',
	'each is processed once');

# Failures, back-off, dead letters.
$node->safe_psql('postgres', q{SELECT actornot_post('fail', 'e', '"x"')});
my ($status, $stdout, $stderr) =
  $node->psql('postgres', 'CALL actornot_drain()');
like($stderr, qr/WARNING:.*"fail".*"e".*bad luck/, 'a failure is a warning');
is($node->safe_psql('postgres', q{SELECT actornot_pending('fail')}),
	1, 'the message stays');
for (1 .. 300)
{
	$node->safe_psql('postgres', 'CALL actornot_drain()');
	last unless $node->safe_psql('postgres', q{SELECT actornot_pending('fail')});
}
is( $node->safe_psql('postgres',
		'SELECT runner, entity, attempts, sqlstate FROM actornot.dead_letters'),
	'fail|e|2|22012',
	'drain by drain it becomes a dead letter');

# Mending.
is( $node->safe_psql(
		'postgres', q{
CREATE OR REPLACE FUNCTION fail(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"good"'::jsonb $$;
SELECT actornot_redrive_all('fail');
CALL actornot_drain('fail');
SELECT actornot_state('fail', 'e');
SELECT actornot_set_state('fail', 'e', '"set"');
SELECT actornot_state('fail', 'e');
SELECT count(actornot_post('fail', 'e')) FROM generate_series(1, 3);
SELECT actornot_pause('fail', 'e');
CALL actornot_drain();
SELECT actornot_resume('fail', 'e');
SELECT actornot_pause('fail');
CALL actornot_drain();
SELECT actornot_resume('fail');
SELECT actornot_skip('fail', 'e') > 0;
SELECT actornot_pending('fail');
SELECT actornot_purge('fail', 'e');
SELECT actornot_pending('fail'), actornot_state('fail', 'e');
SELECT actornot_wake('fail', 'e');
SELECT actornot_start();
SELECT actornot_unregister('fail');
}), "1\n1\n\"good\"\n\n\"set\"\n3\n\n0\n\n\n0\n\nt\n2\n2\n0|\n\n\n",
	'all that can be mended can be mended');

# Prepared transactions, savepoints, temporary tables.
is( $node->safe_psql(
		'postgres', q{
BEGIN;
SELECT actornot_post('recorder', '2PC') > 0;
PREPARE TRANSACTION 'open';
CALL actornot_drain();
COMMIT PREPARED 'open';
CALL actornot_drain();
SELECT actornot_state('recorder', '2PC');
}), "t\n0\n1\n{\"n\": 1}", 'prepared transactions');
fails_with($node, 'postgres', '25001', 'BEGIN; CALL actornot_drain()',
	'drain wants to commit');

# Settings are there in a session that has the library, as placeholders in
# others.
is( $node->safe_psql('postgres', 'SHOW actornot.group_time'),
	'7ms', 'a setting before the library is there');
is( $node->safe_psql('postgres', q{
	SELECT actornot_pending('recorder');
	SHOW actornot.group_time;
	SHOW actornot.max_workers;
	SHOW actornot.ready_queue_size}) =~ s/^0\n//r,
	"7ms\n3\n2048", 'and after');
is( $node->safe_psql('postgres', q{LOAD 'actornot'; SELECT 1}),
	1, 'LOAD does no harm');
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'actornot%'}),
	0, 'there are no processes');

# Names of databases and extensions go as with any other.
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template1');
$node->safe_psql('copy', 'CREATE EXTENSION actornot; DROP EXTENSION actornot');
$node->safe_psql('postgres', 'DROP DATABASE copy');

# What has been posted is processed when the processes come, and the other
# way round.
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('recorder', 'then')) FROM generate_series(1, 10)});
$node->append_conf('postgresql.conf', q{shared_preload_libraries = 'actornot'});
$node->restart;
wait_for_value($node, 'postgres', q{SELECT actornot_state('recorder', 'then')},
	'{"n": 10}', 'what was posted before is processed when workers come');
$node->stop;
done_testing();
