# Dumps of a database in which posters, workers and leases are at full speed
# and the log moves on from segment to segment: each is restored to a state
# from which every message that the snapshot of the dump saw is processed once,
# in order, whatever had been done of it.
#
#	ACTORNOT_SEED     the random numbers of an earlier run
#	ACTORNOT_ROUNDS   how many dumps (4)

use strict;
use warnings;

use ActornotTest;
use LeaseOracle;
use MovedWorld;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{ACTORNOT_ROUNDS} // 4;
my $seed = $ENV{ACTORNOT_SEED} // int(rand(1 << 30));
my $folder = PostgreSQL::Test::Utils::tempdir;
my $answers = PostgreSQL::Test::Utils::tempdir;
my $conf = 'actornot.segment_size = 16';
my $old = new_server('old', conf => $conf);
my $new = new_server('new', conf => $conf);
my @children;

note("ACTORNOT_SEED=$seed");
srand($seed);

# To a cluster that is behind, so that nothing but the clock helps.
far_ahead($old, 3);
$_->start foreach ($old, $new);
$old->safe_psql('postgres', 'CREATE DATABASE app');
install_oracle($old, 'app', q{'append', batch_size => 5});

# Posters are faster, so that there is something pending all the time.
$old->safe_psql('app', q{
	CREATE FUNCTION slow_down() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(0.02);
		RETURN NULL;
	END
	$$;
	CREATE TRIGGER slow_down AFTER INSERT ON turn EXECUTE FUNCTION slow_down()});

my $connection = $old->connstr('app');
foreach my $poster (1 .. 3)
{
	push @children, fork_child($answers, "poster$poster",
		sub { run_script($connection,
				join('', map { post_sql($poster, 20, 5) } 1 .. 10)), 'on' });
}
push @children, fork_child($answers, 'holder',
	sub { run_script($connection,
			join('', map { lease_sql('outside', '2 s') } 1 .. 10)), 'on' });

for my $round (1 .. $rounds)
{
	my $db = "round_$round";
	my @format = $round % 2 ? ('-Fd', '-j2') : ('-Fc');
	my @jobs = $round % 2 ? ('-j4') : ();
	my $enough = 300 * $round;

	wait_until($old, 'app', "SELECT count(*) > $enough FROM appended",
		"$db: they are at it");
	wait_until($old, 'app',
		"SELECT max(turn) > 4 * $round FROM actornot.segment",
		"$db: the log has moved on since the last dump");
	$old->command_ok(
		[ 'pg_dump', @format, '-f', "$folder/$db", '-d', $connection ],
		"$db: dump");
	$new->safe_psql('postgres', "CREATE DATABASE $db");
	$new->command_ok(
		[ 'pg_restore', '-e', @jobs, '-d', $new->connstr($db), "$folder/$db" ],
		"$db: restore");
	my $pending = $new->safe_psql($db, q{
		SELECT (SELECT count(*) FROM posted) - (SELECT count(*) FROM appended)});

	cmp_ok($pending, '>', 0, "$db: something is pending: $pending");
	is( $new->safe_psql($db, q{SELECT actornot_pending('oracle')}),
		$pending, "$db: and that is what it says");
	$new->safe_psql($db, q{
		DROP TRIGGER slow_down ON turn;
		SELECT actornot_start()});
	wait_for_value($new, $db, q{SELECT actornot_pending('oracle')},
		0, "$db: all is run");
	check_oracle($new, $db);
}
my %count = end_children($answers, @children);

note("$_: $count{$_}") foreach sort keys %count;
$old->safe_psql('app', 'DROP TRIGGER slow_down ON turn');
wait_for_value($old, 'app', q{SELECT actornot_pending('oracle')},
	0, 'the old one goes on to its end');
check_oracle($old, 'app');
$_->stop foreach ($old, $new);
done_testing();
