# Where worker slots are short, one hint is given, nothing is lost, and
# everybody gets a turn.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ------------------------------------------- the server's slots are short

# One for the launcher, one for a manager, none for a worker.
my $node = new_server('main', conf => q{
max_worker_processes = 2
max_logical_replication_workers = 0
});
my $hint =
  qr/could not start (?:an|the) actornot (?:worker|manager).*\n(?:.*\n)?.*HINT:.*max_worker_processes/;
my @databases = ('one', 'two', 'three');

$node->start;
foreach my $db (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	install_recorder($node, $db);
	$node->safe_psql($db, q{
		SELECT count(actornot_post('recorder', 'e' || n % 10))
		  FROM generate_series(1, 50) n});
}
$node->wait_for_log($hint);

# Tries go on meanwhile; each would have been a reason to complain again.
my $tries = 0;
foreach my $time (1 .. 4)
{
	foreach my $db (@databases)
	{
		$node->safe_psql($db, q{SELECT actornot_post('recorder', 'e0')});
	}
	wait_until($node, 'postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		   WHERE backend_type = 'actornot manager'},
		"a manager is there ($time)");
}
is(count_in_log($node, 0, qr/could not start (?:an|the) actornot/),
	1, 'the log says it once');
is($node->safe_psql($_, q{SELECT actornot_pending('recorder')}),
	54, "nothing is lost in database $_")
  foreach @databases;

# Without a worker, actornot_drain processes what is pending.
$node->safe_psql('one', 'CALL actornot_drain()');
is($node->safe_psql('one', q{SELECT actornot_pending('recorder')}),
	0, 'actornot_drain needs no worker');

# One slot for a worker is enough for all.
foreach my $max (3, 4)
{
	my $n = $max == 3 ? 54 : 104;

	$node->append_conf('postgresql.conf', "max_worker_processes = $max");
	$node->restart;
	foreach my $db ($max == 3 ? () : @databases)
	{
		$node->safe_psql($db, q{
			SELECT count(actornot_post('recorder', 'e' || n % 10))
			  FROM generate_series(1, 50) n});
	}
	foreach my $db (@databases)
	{
		wait_for_value($node, $db,
			'SELECT count(*), count(DISTINCT id) FROM recorded',
			"$n|$n", "with $max slots all of database $db is processed");
	}
}
$node->stop;

# --------------------------------------------------- our own are few

# Two databases, two owners in each: four that want the two workers.
$node = new_server('fair', conf => q{
max_worker_processes = 16
actornot.max_workers = 2
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN});
my $messages = 1000;
my @pools = (
	[ 'one', 'alice' ], [ 'one', 'bob' ],
	[ 'two', 'alice' ], [ 'two', 'bob' ]);
foreach my $db ('one', 'two')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION actornot;
		GRANT EXECUTE ON FUNCTION actornot_register TO public');
}
foreach my $pool (@pools)
{
	my ($db, $role) = @$pool;

	$node->safe_psql($db, "CREATE SCHEMA $role AUTHORIZATION $role");
	$node->safe_psql($db, qq{
CREATE TABLE $role.recorded (entity text, id bigint, done timestamptz);
CREATE FUNCTION $role.slow(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO $role.recorded
		SELECT entity, (m->>'id')::bigint, clock_timestamp()
		  FROM jsonb_array_elements(messages) m;
	PERFORM pg_sleep(0.01);
	RETURN '1';
END
\$\$;
SELECT actornot_register('$role', '$role.slow', batch_size => 1);
}, extra_params => [ '-U', $role ]);
}

# The work of the first is there long before the others', and more follows.
foreach my $pool (@pools)
{
	my ($db, $role) = @$pool;

	$node->safe_psql($db, qq{
		SELECT count(actornot_post('$role', 'e' || n))
		  FROM generate_series(1, $messages) n});
}
my @first;
my @last;
foreach my $pool (@pools)
{
	my ($db, $role) = @$pool;

	wait_for_value($node, $db,
		"SELECT count(*), count(DISTINCT id) FROM $role.recorded",
		"$messages|$messages", "all of $role in database $db is processed");
	push @first, $node->safe_psql($db,
		"SELECT extract(epoch FROM min(done)) FROM $role.recorded");
	push @last, $node->safe_psql($db,
		"SELECT extract(epoch FROM max(done)) FROM $role.recorded");
}
@first = sort { $a <=> $b } @first;
@last = sort { $a <=> $b } @last;
note("first: @first");
note("last: @last");
cmp_ok($first[3], '<', $last[0],
	'all have been served before one has got everything');

# Never more workers than that.
my $offset = log_offset($node);
is(count_in_log($node, 0, qr/could not start (?:an|the) actornot/),
	0, 'that they are few is no reason to complain');
$node->stop;
done_testing();
