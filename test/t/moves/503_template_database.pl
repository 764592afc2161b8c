# CREATE DATABASE ... TEMPLATE of a database in which the engine is busy: our
# processes step out of the way, and then each of the two has its own.

use strict;
use warnings;

use ActornotTest;
use MovedWorld;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');

$node->start;
create_roles($node, 'NOLOGIN');
my %world = build_world($node, 'app');

# A copy of a database in which nothing is run.  The server does not copy what
# is prepared.
$node->safe_psql('app', q{ROLLBACK PREPARED 'open'});
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app');
is_as_it_was(\%world, $node, 'copy', 'copy');
$node->safe_psql('postgres', 'ALTER ROLE carol LOGIN; ALTER ROLE alice LOGIN');
goes_on(\%world, $node, 'copy', 'copy');

# One that is busy, again and again, by each of the two strategies.
install_recorder($node, 'app', 'recorder', 'batch_size => 7');
for my $round (1 .. 6)
{
	my $strategy = $round % 2 ? 'wal_log' : 'file_copy';
	my $copy = "busy_$round";

	$node->safe_psql('app', q{
		SELECT count(actornot_post('recorder', 'e' || n % 200, to_jsonb(n)))
		  FROM generate_series(1, 6000) n});
	wait_until($node, 'app', 'SELECT count(*) > ' . (6000 * ($round - 1) + 200)
		  . ' FROM recorded', "round $round: it is busy");
	$node->safe_psql('postgres',
		"CREATE DATABASE $copy TEMPLATE app STRATEGY $strategy");
	my $done = recorded($node, $copy);

	note("$done of " . 6000 * $round . ' were done');
	is( $node->safe_psql($copy,
			q{SELECT count(*), count(DISTINCT id) FROM recorded}),
		"$done|$done", "round $round: nothing is run in the copy by itself");
	$node->safe_psql($copy, 'SELECT actornot_start()');
	foreach my $db ('app', $copy)
	{
		wait_for_value($node, $db, q{
			SELECT count(*), count(DISTINCT id), actornot_pending('recorder')
			  FROM recorded},
			6000 * $round . '|' . 6000 * $round . '|0',
			"round $round: each message is processed once in $db");
		is( $node->safe_psql($db, q{
			SELECT count(*) FROM (
				SELECT id, place, lag(id) OVER w AS last_id, lag(place) OVER w AS last
				  FROM recorded WINDOW w AS (PARTITION BY entity ORDER BY place)) s
			 WHERE id <= last_id OR place <> last + 1}),
			0, "round $round: in order in $db");
	}

	# Its number is never that of another one; what was known of it is no more.
	$node->safe_psql('postgres', "DROP DATABASE $copy");
}
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
