# A dump that is stopped in the middle while the log goes on and segments are
# emptied: what it restores to is what its snapshot saw, and each message that
# was pending then is processed once.

use strict;
use warnings;

use ActornotTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = new_server('old', conf => 'actornot.segment_size = 128kB');
my $new = new_server('new');
my $folder = PostgreSQL::Test::Utils::tempdir;

$_->start foreach ($old, $new);
install_recorder($old, 'postgres');
install_move_on($old, 'postgres');
$old->safe_psql(
	'postgres', q{
CREATE TABLE posted (entity text, id bigint);
CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
BEGIN
	CALL move_on($x$
		INSERT INTO posted SELECT entity, actornot_post('recorder', entity, to_jsonb(repeat('x', 300)))
		  FROM (VALUES ('e' || $1 % 10)) e (entity)$x$);
END
$$;
CREATE PROCEDURE post(entity text) LANGUAGE sql AS $$
	INSERT INTO posted SELECT entity, actornot_post('recorder', entity, '1')
$$;
});
my $done = q{SELECT actornot_pending('recorder') - count(*) FROM posted WHERE entity = 'paused'};
my $in_use = q{SELECT count(*) FROM actornot.segment WHERE upper IS DISTINCT FROM '1'};

# Something done, something pending, and something paused that will be copied.
$old->safe_psql('postgres', q{
	SELECT actornot_pause('recorder', 'paused');
	CALL post('paused'); CALL post('paused');
	CALL fill()});
wait_for_value($old, 'postgres', $done, 0, 'all but the paused one is done');
wait_for_value($old, 'postgres', $in_use, 1, 'its segment is emptied');
$old->safe_psql('postgres', q{CALL fill(); CALL post('paused'); SELECT actornot_pause('recorder')});
$old->safe_psql('postgres', q{DO $$ BEGIN FOR n IN 1 .. 30 LOOP CALL post('e' || n % 10); END LOOP; END $$});

# The dump waits at a table that comes before mailbox and log, at a segment, or
# at a table that comes after them; no other session needs these now.
foreach my $table ('dedup', 'message', 'timer')
{
	my $lock = $old->background_psql('postgres');
	my $locked = $table eq 'message' ? "message_" . $old->safe_psql('postgres',
		'SELECT (current_segment() + 9) % 16') : $table;
	$lock->query_safe("BEGIN; LOCK TABLE actornot.$locked IN ACCESS EXCLUSIVE MODE");

	my $dump = IPC::Run::start([ 'pg_dump', '-f', "$folder/$table",
		'-d', $old->connstr('postgres') ]);
	wait_until($old, 'postgres', qq{
		SELECT count(*) = 1 FROM pg_stat_activity
		 WHERE backend_type = 'client backend' AND wait_event_type = 'Lock'},
		"$table: the dump waits");

	# Meanwhile all that it sees as pending is processed, or copied, and more is
	# posted.
	$old->safe_psql('postgres', q{SELECT actornot_resume('recorder'); CALL fill()});
	wait_for_value($old, 'postgres', $done, 0, "$table: all is done meanwhile");
	wait_for_value($old, 'postgres', q{
		SELECT count(*) FROM actornot.segment WHERE NOT current AND upper IS DISTINCT FROM '1' AND done IS NULL},
		0, "$table: segments are found done");
	cmp_ok($old->safe_psql('postgres', $in_use), '>', 1,
		"$table: and stay for the dump");
	$lock->query_safe('COMMIT');
	$lock->quit;
	ok($dump->finish, "$table: the dump is made");
	$old->safe_psql('postgres', q{SELECT actornot_resume('recorder')});
	wait_for_value($old, 'postgres', $done, 0, "$table: the old one goes on");
	wait_for_value($old, 'postgres', $in_use, 1, "$table: and empties its log");

	$new->safe_psql('postgres', "CREATE DATABASE $table");
	$new->command_ok(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
			'-d', $new->connstr($table), '-f', "$folder/$table" ],
		"$table: restored");
	my $before = $new->safe_psql($table, 'SELECT count(*) FROM recorded');
	my $all = $new->safe_psql($table, 'SELECT count(*) FROM posted');
	cmp_ok($before, '<', $all, "$table: something was pending");
	$new->safe_psql($table, q{SELECT actornot_start()});
	is($new->safe_psql($table, q{SELECT actornot_pending('recorder', 'paused') = count(*)
			FROM posted WHERE entity = 'paused'}), 't',
		"$table: what was copied is pending once");
	$new->safe_psql($table, q{
		SELECT actornot_resume('recorder'), actornot_resume('recorder', 'paused')});
	wait_for_value($new, $table, q{SELECT actornot_pending('recorder')},
		0, "$table: what was pending is processed");
	is($new->safe_psql($table, q{
		SELECT count(*) FROM (SELECT entity, id FROM posted
			EXCEPT ALL SELECT entity, id FROM recorded) lost}),
		0, "$table: nothing is lost");
	is($new->safe_psql($table, q{
		SELECT count(*) FROM (SELECT entity, id FROM recorded
			EXCEPT ALL SELECT entity, id FROM posted) extra}),
		0, "$table: nothing is done twice");
	is($new->safe_psql($table, q{
		SELECT count(*) FROM (SELECT id, place, lag(id, 1, 0::bigint) OVER e AS last,
				row_number() OVER e AS row FROM recorded
			WINDOW e AS (PARTITION BY entity ORDER BY place)) s
		 WHERE id <= last OR place <> row}),
		0, "$table: everything is in order");

	# Pending again, for the next one.
	$old->safe_psql('postgres', q{SELECT actornot_pause('recorder')});
	$old->safe_psql('postgres', q{DO $$ BEGIN FOR n IN 1 .. 30 LOOP CALL post('e' || n % 10); END LOOP; END $$;
		CALL post('paused'); CALL fill()});
}

# Processes of pg_dump -j lock NOWAIT, and the first one locks no table of an
# extension: while a snapshot is exported nothing is locked, though all
# snapshots see that the segment is done.  A snapshot of another database does not
# matter.
$old->safe_psql('postgres', q{SELECT actornot_resume('recorder'), actornot_resume('recorder', 'paused')});
wait_for_value($old, 'postgres', q{SELECT actornot_pending('recorder')},
	0, 'exported: all is done');
my $current = $old->safe_psql('postgres', 'SELECT current_segment()');
my ($reader, $dumper) = map { $old->background_psql('postgres') } 1 .. 2;
my $other = $old->background_psql('template1');
my $export = 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_export_snapshot()';
$reader->query_safe("BEGIN; LOCK TABLE actornot.message_$current IN ACCESS SHARE MODE");
$old->safe_psql('postgres', 'CALL fill()');
my $is_done = "SELECT done IS NOT NULL FROM actornot.segment WHERE number = $current";
wait_for_value($old, 'postgres', $is_done, 't', 'exported: a segment is done');
$_->query_safe($export) foreach ($dumper, $other);
$reader->query_safe('COMMIT');
$old->safe_psql('postgres', qq{
	DO \$\$ BEGIN FOR n IN 1 .. 600 LOOP
		LOCK TABLE actornot.message_$current IN ACCESS SHARE MODE NOWAIT;
		COMMIT;
		PERFORM pg_sleep(0.005);
	END LOOP; END \$\$});
is($old->safe_psql('postgres', $is_done), 't', 'exported: it stays');
$dumper->query_safe('COMMIT');
wait_for_value($old, 'postgres', $in_use, 1, 'exported: then it is emptied');
$_->quit foreach ($reader, $dumper, $other);
$_->stop foreach ($old, $new);
done_testing();
