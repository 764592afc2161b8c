# A process that has often found nothing in a sealed segment builds a filter of
# what is there, and does not look again while the segment is the same one.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => 'actornot.segment_size = 128kB');

$node->start;
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION actornot;
-- No worker runs for it, so that nothing is run but by our session.
CREATE ROLE nobody NOLOGIN;
GRANT EXECUTE ON FUNCTION actornot_register TO nobody;
CREATE FUNCTION count_up(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(coalesce(state::int, 0) + jsonb_array_length(messages))
$$;
SET ROLE nobody;
SELECT actornot_register('waiting', 'public.count_up'), actornot_register('r', 'public.count_up');
RESET ROLE;
CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
BEGIN
	CALL move_on($x$SELECT actornot_post('waiting', 'e' || $1 % 50, to_jsonb(repeat('x', 300)))$x$);
END
$$;
-- How many scans of the segments' indexes there have been.
CREATE FUNCTION scans() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(pg_stat_get_numscans(oid) + pg_stat_get_xact_numscans(oid))
	  FROM pg_class WHERE relname ~ '^message_\d+_key$'
$$;
CREATE FUNCTION look(first int, last int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before	bigint := scans();
BEGIN
	PERFORM actornot_run('r', 'absent' || n) FROM generate_series(first, last) n;
	RETURN scans() - before;
END
$$;
});
install_move_on($node, 'postgres');

# Three that stay, because all that is in them waits.
$node->safe_psql('postgres', q{SELECT actornot_post('r', 'early', '1')});
$node->safe_psql('postgres', 'CALL fill()') foreach (1 .. 3);
wait_for_value($node, 'postgres',
	q{SELECT count(*) FROM actornot.segment WHERE sealed AND upper <> '1' AND done IS NULL},
	3, 'three are sealed');

my $session = $node->background_psql('postgres');
$session->query_safe('SET ROLE nobody');
is($session->query_safe('SELECT look(1, 1000)'), 4000,
	'at first it looks into all');
$session->query_safe('SELECT look(1001, 11000)');
my $few = $session->query_safe('SELECT look(11001, 12000)');
cmp_ok($few, '>=', 1000, 'later into the one that is written to');
cmp_ok($few, '<', 1100, "and no more into those where nothing was: $few");
is($session->query_safe(q{SELECT actornot_run('r', 'early')}), 1,
	'what is there is found');

# The segment becomes current again, and gets something of one that it had
# nothing of.
my $drain = $node->background_psql('postgres');
$drain->query_safe('SET ROLE nobody');
for my $try (1 .. 200)
{
	$drain->query_safe(q{CALL actornot_drain('waiting')});
	$node->safe_psql('postgres', 'CALL fill()');
	last if $node->safe_psql('postgres', 'SELECT current_segment()') == 0;
}
$node->safe_psql('postgres', q{SELECT actornot_post('r', 'absent5', '1')});
$node->safe_psql('postgres', 'CALL fill()');
wait_for_value($node, 'postgres',
	q{SELECT turn >= 16, sealed, done IS NULL FROM actornot.segment WHERE number = 0},
	't|t|t', 'the first one is sealed again');
is($session->query_safe(q{SELECT actornot_run('r', 'absent5')}), 1,
	'what came to it since is found');
$_->quit foreach ($session, $drain);
$node->stop;
done_testing();
