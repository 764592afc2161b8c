# Messages of a paused entity are copied from segment to segment while an old
# snapshot keeps all of these: each segment has a later one that holds them,
# and none is done because of an earlier one.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => 'actornot.segment_size = 128kB');

$node->start;
install_recorder($node, 'postgres');
install_move_on($node, 'postgres');
$node->safe_psql(
	'postgres', q{
SELECT actornot_pause('recorder', 'paused');
SELECT actornot_post('recorder', 'paused', to_jsonb(n)) FROM generate_series(1, 5) n;
});

my $reader = $node->background_psql('postgres');
$reader->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM actornot.message});
foreach my $time (1 .. 3)
{
	$node->safe_psql('postgres', q{
		CALL move_on($$SELECT actornot_post('recorder', 'e' || $1 % 10, to_jsonb(repeat('x', 300)))$$)});
	wait_for_value($node, 'postgres', q{
		SELECT count(*) FROM actornot.segment WHERE NOT current AND upper IS DISTINCT FROM '1' AND done IS NULL},
		0, "a segment is done ($time)");
	is( $node->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT id)
		  FROM actornot.message WHERE entity = 'paused'}),
		5 * ($time + 1) . '|5',
		"what is paused has been copied ($time)");
	is($node->safe_psql('postgres', q{SELECT actornot_pending('recorder', 'paused')}),
		5, "and is pending once ($time)");
}
$reader->query_safe('COMMIT');
$reader->quit;
wait_for_value($node, 'postgres',
	q{SELECT count(*) FROM actornot.segment WHERE upper IS DISTINCT FROM '1'},
	1, 'behind the snapshot the segments are emptied');
is($node->safe_psql('postgres', q{SELECT actornot_pending('recorder', 'paused')}),
	5, 'and what is paused is still there');
$node->safe_psql('postgres', q{SELECT actornot_resume('recorder', 'paused')});
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')},
	0, 'all is processed');
is( $node->safe_psql('postgres', q{
	SELECT string_agg(payload::text, ' ' ORDER BY place), bool_and(posted.n = place)
	  FROM recorded CROSS JOIN LATERAL (SELECT payload::text::int AS n) posted
	 WHERE entity = 'paused'}),
	'1 2 3 4 5|t', 'in order, and once');
$node->stop;
done_testing();
