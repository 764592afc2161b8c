# A page of a segment is damaged: it is named, its own messages wait, and all
# the others are processed and their segments emptied.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main',
	extra => ['--data-checksums'],
	conf => 'actornot.segment_size = 128kB');

$node->start;
install_recorder($node, 'postgres', 'recorder', q{retry_delay => '1 hour'});
install_move_on($node, 'postgres');
$node->safe_psql(
	'postgres', q{
-- Neighbours are of one entity.
CREATE PROCEDURE fill(n int) LANGUAGE plpgsql AS $$
BEGIN
	CALL move_on(format(
		$x$SELECT actornot_post('recorder', 'e' || %s * 1000 + $1 / 5, to_jsonb(repeat('x', 300)))$x$, n));
END
$$;
SELECT actornot_pause('recorder');
CALL fill(0);
CALL fill(1);
CALL fill(2);
});
wait_for_value($node, 'postgres',
	q{SELECT count(*) FROM actornot.segment WHERE sealed AND upper > '1'},
	3, 'three segments are sealed');
my @harmed = split /\n/, $node->safe_psql('postgres', q{
	SELECT DISTINCT entity FROM actornot.message_1
	 WHERE (ctid::text::point)[0] = 2});
my $all = $node->safe_psql('postgres', 'SELECT count(*) FROM actornot.message');
my $harmed = "'" . join("', '", @harmed) . "'";
my $waiting = $node->safe_psql('postgres',
	"SELECT count(*) FROM actornot.message WHERE entity IN ($harmed)");
my $file = $node->safe_psql('postgres',
	q{SELECT pg_relation_filepath('actornot.message_1')});

cmp_ok(scalar(@harmed), '>', 1, 'entities have messages in the page');
$node->stop;
open my $page, '+<', $node->data_dir . "/$file" or die $!;
binmode $page;
seek $page, 2 * 8192 + 4000, 0;
print $page 'damaged ' x 20;
close $page;
my $offset = log_offset($node);
$node->start;
$node->safe_psql('postgres', q{SELECT actornot_resume('recorder')});

wait_for_value($node, 'postgres',
	"SELECT count(*) FROM recorded WHERE entity NOT IN ($harmed)",
	$all - $waiting, 'all others are processed');
$node->wait_for_log(
	qr/WARNING:  could not read block 2 of segment "actornot.message_1": invalid page in block 2/,
	$offset);
$node->wait_for_log(
	qr/WARNING:  could not rotate segment "actornot.message_1": invalid page in block 2/,
	$offset);
wait_for_value($node, 'postgres', q{
	SELECT string_agg(number::text, ' ') FROM actornot.segment
	 WHERE NOT current AND upper > '1'},
	1, 'the other segments are emptied');

# The log goes on around it.
$node->safe_psql('postgres', 'CALL fill(3); CALL fill(4); CALL fill(5)');
wait_for_value($node, 'postgres', q{
	SELECT string_agg(number::text, ' ') FROM actornot.segment
	 WHERE NOT current AND upper > '1'},
	1, 'and so are later ones');

# Given up by hand, what can be read of it is processed.
is( $node->safe_psql('postgres', "SELECT count(*) FROM recorded WHERE entity IN ($harmed)"),
	0, 'what is damaged waits');
$node->safe_psql('postgres', qq{
	SET zero_damaged_pages = on;
	SET client_min_messages = error;
	SELECT count(*) FROM actornot.message_1;
	SELECT count(actornot_wake('recorder', entity)) FROM unnest(ARRAY[$harmed]) entity;
	CHECKPOINT;
});
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')},
	0, 'what was left of it is processed');
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.segment WHERE NOT current AND upper > '1'},
	0, 'then its segment is emptied');
unlike(log_since($node, $offset), qr/TRAP|PANIC|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
