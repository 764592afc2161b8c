# Leases behind PgBouncer in transaction mode: many clients share few
# connections, and each of their transactions may meet another one.  Some
# forget what they hold, some come too late.
#
#	ACTORNOT_SEED     the random numbers of an earlier run

use strict;
use warnings;

use ActornotTest;
use LeaseOracle;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $clients = 8;
my $posters = 2;
my $transactions = 600;
my $entities = 12;
my $seed = $ENV{ACTORNOT_SEED} // int(rand(1 << 30));

note("ACTORNOT_SEED=$seed");
srand($seed);

my $node = new_server('main');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
install_oracle($node, 'app', 'batch_size => 3');

# ---------------------------------------------------------------- the pooler

# Its socket has a folder of its own, so its number may be any.
my $port = 6432;
my $home = PostgreSQL::Test::Utils::tempdir_short;
my $user = getpwuid($<);
my $server =
  'host=' . $node->host . ' port=' . $node->port . " dbname=app user=$user";

append_to_file("$home/pgbouncer.ini", qq{
[databases]
app = $server pool_size=3
posts = $server pool_size=2
[pgbouncer]
listen_addr =
listen_port = $port
unix_socket_dir = $home
auth_type = any
pool_mode = transaction
server_round_robin = 1
});
my ($program) =
  grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
BAIL_OUT('pgbouncer is not installed') unless defined $program;
my $pooler = IPC::Run::start([ $program, "$home/pgbouncer.ini" ],
	'<', '/dev/null', '&>', "$home/log");

END
{
	my $status = $?;
	$pooler->kill_kill if defined $pooler;
	$? = $status;
}

sub through_pooler
{
	my ($db) = @_;

	return "host=$home port=$port dbname=$db user=$user";
}

my $app = through_pooler('app');
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
usleep(30_000)
  until (-S "$home/.s.PGSQL.$port" && !run_script($app, 'SELECT 1;'))
  || time() > $deadline;
is(join(' ', run_script($app, 'SELECT 1;')), '', 'the pooler is there');

# --------------------------------------------------------- the one too late

# Through one pool, so nothing but the token tells the two apart.
$node->safe_psql('app', q{CALL post(0, 'late')});
my $late = acquire_sql("'late', lease => '1 ms'") . q{
\set late_token :token
};
my $overtakes = acquire_sql("'late', wait => '60 s'");
my $stale = turn_sql('too late', 'max_messages => 0', 'COMMIT');
my $good = turn_sql('in time', 'max_messages => 0', 'COMMIT');
is( join(' ', run_script($app, qq{
$late $overtakes
\\set good_token :token
\\set token :late_token
$stale
SELECT actornot_renew('oracle', 'late', :token);
SELECT actornot_release('oracle', 'late', :token);
SELECT actornot_fail('oracle', 'late', :token, 'late');
\\set token :good_token
$good $good})),
	'55AN1 55AN1 55AN1 55AN1 55AN1',
	'a holder that was replaced can change nothing, nor can one that has finished');
is( $node->safe_psql('app',
		q{SELECT holder, messages FROM turn WHERE entity = 'late'}),
	'in time|1', 'the new holder has done the work, once');

# --------------------------------------------------------------- the crowd

my $folder = PostgreSQL::Test::Utils::tempdir;
my $wait = "CALL wait_until_taken(:'entity', :token);\n";

# What is held at the end of a script is forgotten.
sub hold
{
	my ($holder) = @_;
	my $script = '';

	for (1 .. 20)
	{
		my $lease = (20, 100, 300)[ int(rand(3)) ];

		# At most one at a time waits for the others.
		my $late = $holder == 1 && rand() < 0.1;
		$script .= lease_sql($holder, $late ? '5 ms' : "$lease ms",
			$late ? $wait : '');
	}
	return ('on', run_script($app, $script));
}

my $left = $transactions;

sub post
{
	my ($poster) = @_;
	my $script = '';

	return if $left <= 0;
	$script .= post_sql($poster, $entities, 1 + int(rand(3))) for 1 .. 20;
	$left -= 20;
	return ('on', run_script(through_pooler('posts'), $script));
}

my @clients = map {
	my $holder = $_;
	fork_child($folder, "client$holder", sub { hold($holder) })
} 1 .. $clients;
my @posters = map {
	my $poster = $_;
	fork_child($folder, "poster$poster", sub { post($poster) })
} 1 .. $posters;

waitpid($_, 0) foreach @posters;
wait_for_value($node, 'app', q{SELECT actornot_pending('oracle')},
	0, 'all is done with');
my %errors = end_children($folder, @clients);

cmp_ok(delete $errors{'55AN1'} // 0, '>', 0, 'some were too late');
is(join(' ', sort keys %errors), '', 'there is no other error');
is( $node->safe_psql('app', q{
	SELECT count(*) > 50, count(DISTINCT pid) >= 2
	  FROM turn WHERE acquired_by <> pid}),
	't|t', 'leases go on from one connection to another');
is( $node->safe_psql('app', 'SELECT count(DISTINCT holder) FROM turn'),
	$clients + 1,
	'every client had its turns');
check_oracle($node, 'app');
$node->stop;
done_testing();
