# Dump and restore into another cluster: what was pending is processed there,
# once, what was done not again, and nothing before actornot is started there.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = new_server('old');
my $new = new_server('new');
my $folder = PostgreSQL::Test::Utils::tempdir;

$old->start;
$new->start;
foreach my $node ($old, $new)
{
	$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN; CREATE DATABASE app');
}

# Ticks of the old cluster are far ahead of the new one's.
$old->safe_psql('postgres', q{
	DO $$
	BEGIN
		FOR i IN 1 .. 5000 LOOP
			PERFORM pg_current_xact_id();
			COMMIT;
		END LOOP;
	END
	$$});

install_recorder($old, 'app');
$old->safe_psql('app', q{
	SELECT actornot_register('failing', 'nobody_there') } =~ s/.*//sr
	  . q{
	CREATE FUNCTION fail(entity text, state jsonb, messages jsonb)
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		RAISE 'bad luck';
	END
	$$;
	SELECT actornot_register('fail', 'fail', max_attempts => 1);
	SELECT actornot_register('other', 'record');
	SELECT actornot_grant('recorder', 'alice');
	SELECT actornot_post('fail', 'e', '"dead"');
	SELECT count(actornot_post('recorder', 'e' || n % 10, to_jsonb(n)))
	  FROM generate_series(1, 100) n;
});
wait_for_value($old, 'app', 'SELECT count(*) FROM recorded',
	100, 'the old one has done something');
wait_for_value($old, 'app', 'SELECT count(*) FROM actornot.dead_letters',
	1, 'and given up something');

# Pending: of entities with a state, of new ones, of a paused entity, and of
# one in the middle of its work.
my $holder = lock_session($old, 'app', 1);
$old->safe_psql('app', q{
	SELECT actornot_pause('recorder', 'e1');
	SELECT count(actornot_post('recorder', 'e' || n % 20, '{"wait": 1}'))
	  FROM generate_series(1, 100) n;
	SELECT actornot_post('recorder', 'e2', '{}');
	SELECT actornot_post('other', 'e2', '{"wait": 1}');
	BEGIN;
	SELECT actornot_post('recorder', 'e2', '"prepared, and lost"');
	PREPARE TRANSACTION 'open';
});
wait_until($old, 'postgres', q{
	SELECT count(*) > 0 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'},
	'the old one is busy');
my $pending = $old->safe_psql('app', q{
	SELECT actornot_pending('recorder'), actornot_pending('other')});
is($pending, '101|1', 'messages are pending');

foreach my $format ('plain', 'directory')
{
	my $db = "restored_$format";
	my $dump = "$folder/$format";

	$new->safe_psql('postgres', "CREATE DATABASE $db");
	if ($format eq 'plain')
	{
		$old->command_ok(
			[ 'pg_dump', '-f', $dump, '-d', $old->connstr('app') ],
			"$format: dump");
		$new->command_ok(
			[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
				'-d', $new->connstr($db), '-f', $dump ],
			"$format: restore");
	}
	else
	{
		$old->command_ok(
			[ 'pg_dump', '-Fd', '-j2', '-f', $dump, '-d', $old->connstr('app') ],
			"$format: dump");
		$new->command_ok(
			[ 'pg_restore', '-e', '-j2', '-d', $new->connstr($db), $dump ],
			"$format: restore");
	}
	$new->wait_for_log(qr/actornot does nothing in database "$db"/);
	is(recorded($new, $db), 100, "$format: nothing is run by itself");
	is( $new->safe_psql($db, q{
		SELECT actornot_state('recorder', 'e1'), actornot_state('recorder', 'e15')}),
		'{"n": 10}|', "$format: states are there");

	# The first call that writes adopts it.
	$new->safe_psql($db, $format eq 'plain'
		? 'SELECT actornot_start()'
		: q{SELECT actornot_post('recorder', 'adopted')});
	wait_for_value($new, $db, q{
		SELECT count(*), count(DISTINCT id) FROM recorded
		 WHERE payload = '{"wait": 1}'},
		'96|96', "$format: what was pending is processed");
	$new->safe_psql($db, q{SELECT actornot_resume('recorder', 'e1')});
	wait_for_value($new, $db, q{
		SELECT actornot_pending('recorder') + actornot_pending('other')},
		0, "$format: what was paused goes on when resumed");
	is( $new->safe_psql($db, q{
		SELECT count(*), count(DISTINCT id) FROM recorded
		 WHERE entity <> 'adopted'}),
		'202|202', "$format: each was processed once");
	is( $new->safe_psql($db, q{
		SELECT count(*) FROM (
			SELECT entity, count(*) AS n FROM recorded
			 WHERE entity <> 'e2' GROUP BY entity) AS log
		 WHERE actornot_state('recorder', entity) <> jsonb_build_object('n', n)}),
		0, "$format: the states are what the log says");
	is( $new->safe_psql($db, q{
		SELECT runner, entity, payload FROM actornot.dead_letters}),
		'fail|e|"dead"', "$format: dead letters are there");
	is( $new->safe_psql($db, q{
		SELECT actornot_post('recorder', 'e1') > (SELECT max(id) FROM recorded)}),
		't', "$format: ids go on growing");
	wait_for_value($new, $db, q{SELECT actornot_state('recorder', 'e1')},
		'{"n": 16}', "$format: entities go on");
	is( $new->safe_psql($db,
			q{SELECT actornot_post('recorder', 'by alice') > 0},
			extra_params => [ '-U', 'alice' ]),
		't', "$format: grants are there");
}

# The old one has not suffered.
$holder->quit;
$old->safe_psql('app', q{
	ROLLBACK PREPARED 'open';
	SELECT actornot_resume('recorder', 'e1')});
wait_for_value($old, 'app',
	'SELECT count(*), count(DISTINCT id) FROM recorded',
	'202|202', 'the old one goes on, too');

# Restored once more in the old cluster, under another name: the same ticks
# count there, but not its clock.
$old->safe_psql('postgres', 'CREATE DATABASE again');
$old->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
		'-d', $old->connstr('again'), '-f', "$folder/plain" ],
	'restore in the same cluster');
is(recorded($old, 'again'), 100, 'nothing is run by itself there');
$old->safe_psql('again', q{
	SELECT actornot_start();
	SELECT actornot_resume('recorder', 'e1')});
wait_for_value($old, 'again',
	'SELECT count(*), count(DISTINCT id) FROM recorded',
	'202|202', 'each is processed once there');

foreach my $node ($old, $new)
{
	unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
		'nothing crashed');
	$node->stop;
}
done_testing();
