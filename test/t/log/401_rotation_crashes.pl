# A crash at each step of rotation, of copying and of advancing the clock: what
# is done again afterwards loses nothing and does nothing twice.
#
# The steps are taken by actornot_drain(), for without shared_preload_libraries
# nobody else takes them; actornot.debug_stop_at says where its process dies.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main',
	preload => 0,
	conf => 'actornot.segment_size = 128kB');
my $posted = 0;

$node->start;
need_test_hooks($node);
install_recorder($node, 'postgres', 'recorder', "batch_size => 7");
$node->safe_psql(
	'postgres', q{
CREATE TABLE posted (entity text, id bigint);
CREATE PROCEDURE post(entity text, bytes int DEFAULT 300) LANGUAGE sql AS $$
	INSERT INTO posted SELECT entity, actornot_post('recorder', entity,
		to_jsonb(string_agg(md5(n::text), '')))
	  FROM generate_series(1, bytes / 32) n
$$;
-- More than a segment, of some entities, one of them paused, one lent.
CREATE PROCEDURE post_many() LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1 .. 400 LOOP
		CALL post('e' || n % 20);
	END LOOP;
	CALL post('paused', 2560);
	CALL post('lent');
END
$$;
CALL post('lent');
SELECT actornot_pause('recorder', 'paused');
});
my $token = $node->safe_psql('postgres',
	q{SELECT token FROM actornot_acquire('recorder', 'lent', '1 hour')});

# Nothing is lost and nothing twice, but for what waits.
sub check_all
{
	my ($what, $waiting) = @_;

	is( $node->safe_psql('postgres', qq{
		SELECT count(*) FROM (SELECT entity, id FROM posted WHERE entity NOT IN ($waiting)
			EXCEPT ALL SELECT entity, id FROM recorded) lost}),
		0, "$what: nothing is lost");
	is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM (SELECT entity, id FROM recorded
			EXCEPT ALL SELECT entity, id FROM posted) extra}),
		0, "$what: nothing is done twice");
	is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM (SELECT id, place, lag(id, 1, 0::bigint) OVER e AS last,
				row_number() OVER e AS row FROM recorded
			WINDOW e AS (PARTITION BY entity ORDER BY place)) s
		 WHERE id <= last OR place <> row}),
		0, "$what: everything is in order");
	is( $node->safe_psql('postgres', q{
		SELECT actornot_pending('recorder') = count(*) AND
			actornot_pending('recorder', 'paused') = count(*) FILTER (WHERE entity = 'paused') AND
			actornot_pending('recorder', 'lent') = count(*) FILTER (WHERE entity = 'lent')
		  FROM (SELECT entity, id FROM posted EXCEPT SELECT entity, id FROM recorded) left_over}),
		't', "$what: what is pending is counted once");
	return;
}

# Where a process kills itself all of the server starts anew.
sub crash_at
{
	my ($step, $command) = @_;
	my $offset = log_offset($node);
	my ($status) = $node->psql('postgres',
		"SET actornot.debug_stop_at = '$step'; $command");

	is($status, 2, "$step: the process dies there");
	$node->wait_for_log(qr/terminated by signal 9.*database system is ready/s, $offset);
	wait_until($node, 'postgres', 'SELECT true', "$step: the server is back");
	return;
}

my $state = 0;
foreach my $step (
	'moved', 'left, committed', 'sealed', 'sealed, committed',
	'marked as copied', 'copied one', 'copied, committed', 'done',
	'done, committed', 'truncated', 'emptied', 'emptied, committed',
	'advance: sequences', 'advance: segments', 'advance: clock')
{
	my $again = 'CALL actornot_drain()';

	$node->safe_psql('postgres', 'CALL post_many()');
	if ($step =~ /advance/)
	{
		$again = 'SELECT actornot_advance_clock()';
		crash_at($step, $again);
		$node->safe_psql('postgres', "$again; CALL post('e1')");
	}
	else
	{
		crash_at($step, $again);
	}
	# What was copied and not committed stays, but counts for nothing.
	check_all("$step, at once", q{SELECT entity FROM posted});
	$node->safe_psql('postgres', 'CALL actornot_drain()');
	check_all("$step, in the end", q{'paused', 'lent'});
	is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM actornot.segment WHERE upper IS DISTINCT FROM '1'}),
		1, "$step: the log has one segment");
}

# Those that have been copied from one segment to the next all the time.
$node->safe_psql('postgres', q{SELECT actornot_resume('recorder', 'paused');
	CALL actornot_drain()});
check_all('paused no more', q{'lent'});
$node->safe_psql('postgres', qq{
	WITH leased AS (SELECT messages FROM actornot_acquire('recorder', 'lent') LIMIT 0)
	SELECT 1;
	INSERT INTO recorded SELECT 'lent', row_number() OVER (ORDER BY id), id
	  FROM posted WHERE entity = 'lent' ORDER BY id LIMIT 1;
	SELECT count(*) FROM actornot_update_locked('recorder', 'lent', $token, '{"n": 1}',
		max_messages => 0);
	CALL actornot_drain()});
check_all('lent no more', q{'nobody'});
is( $node->safe_psql('postgres', q{
	SELECT count(*), count(DISTINCT payload), bool_and(payload #>> '{}' =
			(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 80) n))
	  FROM recorded WHERE entity = 'paused'}),
	'15|1|t', 'long payloads have come along');
unlike(log_since($node, 0), qr/TRAP|PANIC|signal 6|signal 11/,
	'nothing crashed by itself');
$node->stop;
done_testing();
