# The life of the processes: they come by themselves, after CREATE EXTENSION
# as well as after a restart, can be told apart, and leave when nothing is to
# be done; then the server is as quiet as one without the extension.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('main');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');

# Everything starts by itself.
install_recorder($node, 'app');
$node->safe_psql('app',
	"SELECT actornot_post('recorder', 'e' || n % 10, '1') FROM generate_series(1, 100) n");
wait_for_value($node, 'app', 'SELECT count(*) FROM recorded', 100,
	'messages are processed by themselves');
is( $node->safe_psql(
		'app',
		"SELECT bool_and(actornot_state('recorder', 'e' || n) = '{\"n\": 10}') FROM generate_series(0, 9) n"),
	't',
	'states are there');

# They can be told apart.
my $holder = lock_session($node, 'app', 1);
$node->safe_psql('app',
	q{SELECT actornot_post('recorder', 'slow', '{"wait": 1}')});
wait_until($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker' AND datname = 'app'
	   AND usename = current_user AND wait_event = 'advisory'
	   AND state = 'active' AND query LIKE 'actornot: running%"recorder"%'},
	'pg_stat_activity says what a worker runs, where, and as whom');
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity
		   WHERE backend_type = 'actornot manager' AND datname = 'app'}),
	1,
	'there is one manager of the database');
is( $node->safe_psql('postgres',
		q{SELECT count(*), count(datname) FROM pg_stat_activity
		   WHERE backend_type = 'actornot launcher'}),
	'1|0',
	'there is one launcher, in no database');

# A busy entity does not delay others.
$node->safe_psql('app', q{SELECT actornot_post('recorder', 'other', '{}')});
wait_until($node, 'app',
	q{SELECT count(*) = 1 FROM recorded WHERE entity = 'other'},
	'another entity is processed meanwhile');
$holder->quit;
wait_until($node, 'app',
	q{SELECT count(*) = 1 FROM recorded WHERE entity = 'slow'},
	'the slow one follows');

# They leave.
wait_for_value($node, 'postgres',
	q{SELECT string_agg(backend_type, ',') FROM pg_stat_activity
	   WHERE backend_type LIKE 'actornot%'},
	'actornot launcher', 'workers and the manager leave');

# Nothing happens any more.  What counts as nothing: no transaction in the
# database over 15 seconds, and the launcher has not looked up either.  Late
# statistics of those that have left may still come in before.
my $idle = q{
	SELECT (SELECT xact_commit + xact_rollback FROM pg_stat_database
			 WHERE datname = 'app'),
		   (SELECT state_change FROM pg_stat_activity
			 WHERE backend_type = 'actornot launcher')};
my $before = $node->safe_psql('postgres', $idle);
my $began = time();
my $deadline = $began + 120;
while (time() < $began + 15 && time() < $deadline)
{
	usleep(500_000);
	my $now = $node->safe_psql('postgres', $idle);
	next if $now eq $before;
	note("at " . (time() - $began) . " s: $before is now $now");
	$before = $now;
	$began = time();
}
ok(time() >= $began + 15, 'an idle server runs no transactions of ours');

# And they come back, also if the database was quiet.
$node->safe_psql('app', q{SELECT actornot_post('recorder', 'again', '{}')});
wait_until($node, 'app',
	q{SELECT count(*) = 1 FROM recorded WHERE entity = 'again'},
	'a post brings them back');

# What was pending when the server went down is processed after its start,
# without a call of ours.
foreach my $mode ('fast', 'immediate')
{
	$holder = lock_session($node, 'app', 1);
	$node->safe_psql('app',
		qq{SELECT actornot_post('recorder', '$mode' || n % 7, '{"wait": 1}')
			 FROM generate_series(1, 70) n});
	is(recorded($node, 'app', "entity LIKE '$mode%'"),
		0, "$mode: nothing is processed before the restart");
	$node->stop($mode);
	eval { $holder->quit };
	start_again($node);
	wait_for_value($node, 'app',
		"SELECT count(*), count(DISTINCT id) FROM recorded WHERE entity LIKE '$mode%'",
		'70|70', "$mode: all is processed after the restart");
}

# An administrator may terminate any of them.
foreach my $type ('worker', 'manager', 'launcher')
{
	$holder = lock_session($node, 'app', 1);
	$node->safe_psql('app',
		qq{SELECT actornot_post('recorder', 'term $type', '{"wait": 1}')});
	wait_until($node, 'postgres', q{
		SELECT count(*) = 1 FROM pg_stat_activity
		 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'},
		"SIGTERM of a $type: a worker is busy");
	my $pid = one_pid($node, $type, $type eq 'worker' ? q{wait_event = 'advisory'} : undef);
	ok(kill('TERM', $pid), "SIGTERM of a $type");
	wait_until($node, 'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid",
		"SIGTERM of a $type: it goes");
	$holder->quit;
	wait_until($node, 'app',
		"SELECT count(*) = 1 FROM recorded WHERE entity = 'term $type'",
		"SIGTERM of a $type: the message is processed, once");
}
wait_until($node, 'postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity
	   WHERE backend_type = 'actornot launcher'},
	'the launcher is back');

# A database that comes later is found, too, and so is one that was there
# before the server started.
$node->safe_psql('postgres', 'CREATE DATABASE later');
install_recorder($node, 'later');
$node->safe_psql('later', q{SELECT actornot_post('recorder', 'e', '{}')});
wait_until($node, 'later', 'SELECT count(*) = 1 FROM recorded',
	'another database is served as well');

is(count_in_log($node, 0, qr/PANIC|TRAP|terminated by signal/),
	0, 'nothing crashed');
$node->stop;
done_testing();
