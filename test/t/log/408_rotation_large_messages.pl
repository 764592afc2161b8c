# One large message that waits in each segment: it is a small part of the
# segment, but not of its table, for the payloads are beside it.  It is copied,
# the segments are emptied, and the log stays small.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => 'actornot.segment_size = 2MB');
my $rounds = 24;    # more than there are segments

$node->start;
install_recorder($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE FUNCTION large(kb int) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
		SELECT to_jsonb(string_agg(md5(random()::text), '')) FROM generate_series(1, kb * 32)
	$$;
	SELECT actornot_register('waits', 'record')});

# A payload of 100 kB that cannot be compressed waits, twenty go by.
for my $round (1 .. $rounds)
{
	my $turn = $node->safe_psql('postgres', qq{
		SELECT actornot_pause('waits', 'e$round');
		SELECT actornot_post('waits', 'e$round', large(100));
		SELECT max(turn) FROM actornot.segment});
	($turn) = $turn =~ /(\d+)$/;
	wait_until($node, 'postgres', qq{
		SELECT max(turn) > $turn OR count(actornot_post('recorder', 'x', large(100))) < 0
		  FROM actornot.segment}, "a segment is full ($round)")
	  if $round == 1;
	$node->safe_psql('postgres', q{
		SELECT count(actornot_post('recorder', 'x' || i, large(100))) FROM generate_series(1, 20) i});
}
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')},
	0, 'what does not wait is done');
is($node->safe_psql('postgres', q{SELECT actornot_pending('waits')}),
	$rounds, 'what waits is there');

# A segment of which more than an eighth waits is left as it is, and that takes
# three messages at least.  So no more than eight segments stay, the current one,
# and the one before it.
wait_until($node, 'postgres', q{
	SELECT count(*) FILTER (WHERE upper = '1') >= 6 FROM actornot.segment},
	'segments in which little waits are empty');
$node->safe_psql('postgres',
	q{SELECT actornot_resume('waits', entity) FROM actornot.mailbox WHERE paused});
wait_for_value($node, 'postgres', q{
	SELECT count(*), count(DISTINCT id) FROM recorded WHERE entity LIKE 'e%'},
	"$rounds|$rounds", 'each is processed once');
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
