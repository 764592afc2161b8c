# Leases when something goes wrong, and leases among workers: answers that get
# lost after the commit, backends that end before it, programs that never come
# back; and a runner with a handler that is lent as well.
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

my $holders = 4;
my $posters = 2;
my $entities = 12;
my $enough = 200;
my $seed = $ENV{ACTORNOT_SEED} // int(rand(1 << 30));
my $scratch = PostgreSQL::Test::Utils::tempdir;

note("ACTORNOT_SEED=$seed");
srand($seed);

# A commit that asks for more than "local" waits for a standby that is not
# there, and so does its answer.
my $node = new_server('main', conf => q{
max_wal_senders = 2
synchronous_standby_names = 'nobody'
synchronous_commit = local
actornot.synchronous_commit = local
actornot.worker_idle_timeout = 60s
});
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
install_oracle($node, 'app', q{'append', batch_size => 3, max_attempts => NULL,
	retry_delay => '10 ms'});
$node->safe_psql('app', q{
CREATE TABLE effect (entity text);
SELECT actornot_register('outside', batch_size => 2)});

sub query
{
	return $node->safe_psql('app', $_[0]);
}

# Posts a number of messages to an entity that only programs outside run.
sub post_outside
{
	my ($entity, $n) = @_;

	return query("SELECT actornot_post('outside', '$entity', to_jsonb(n)) "
		  . "FROM generate_series(1, $n) n" );
}

sub acquire
{
	my ($entity, $arguments) = @_;
	my $row = query('SELECT token, payloads(messages) FROM '
		  . "actornot_acquire('outside', '$entity', $arguments)");

	return split /\|/, $row;
}

query(q{CREATE FUNCTION payloads(messages jsonb) RETURNS text LANGUAGE sql AS
	$$ SELECT jsonb_path_query_array(messages, '$[*].payload')::text $$});

# The statement that does a batch, and writes something in its transaction.
sub update
{
	my ($entity, $token, $state, $arguments) = @_;

	return "WITH e AS (INSERT INTO effect VALUES ('$entity')) "
	  . 'SELECT token, payloads(messages) FROM actornot_update_locked('
	  . "'outside', '$entity', $token, '$state', $arguments)";
}

sub effects
{
	my ($entity) = @_;

	return query("SELECT count(*) FROM effect WHERE entity = '$entity'")
	  . ' '
	  . query("SELECT actornot_state('outside', '$entity')");
}

# psql with a statement, in the background, the file of its answer, and its
# backend.
my $commands = 0;

sub start_psql
{
	my ($settings, $statement, $waits) = @_;
	my $output = "$scratch/answer" . ++$commands;
	my $name = "command $commands";
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-d',
			$node->connstr('app'), '-c', "SET application_name = '$name'",
			'-c', $settings, '-c', $statement ],
		'<', '/dev/null', '>', $output, '2>', '/dev/null');
	my $session = "FROM pg_stat_activity WHERE application_name = '$name'";

	wait_until($node, 'app', "SELECT count(*) = 1 $session AND $waits",
		"it waits: $waits");
	return ($handle, $output, query("SELECT pid $session AND $waits"));
}

# ------------------------------------------------------------ a lost answer

# The commit is durable, but its answer does not reach the client.
foreach my $loss ('backend terminated', 'client killed')
{
	post_outside($loss, 5);
	my ($token) = acquire($loss, "lease => '1 hour'");
	my $call = update($loss, $token, '"done"', "lease => '300 ms'");
	my ($psql, $output, $pid) = start_psql(
		'SET synchronous_commit = on', $call, "wait_event = 'SyncRep'");

	if ($loss eq 'client killed')
	{
		$psql->kill_kill;
		query("SELECT pg_cancel_backend($pid)");
	}
	else
	{
		query("SELECT pg_terminate_backend($pid)");
		$psql->finish;
	}
	wait_until($node, 'app',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid",
		"$loss: its session has ended");
	is(slurp_file($output), '', "$loss: there was no answer");
	fails_with($node, 'app', '55AN1', $call,
		"$loss: the repeated call is stale");
	is(effects($loss), '1 "done"', "$loss: all is there, once");
	my ($next, $messages) = acquire($loss, "lease => '1 hour', wait => '60 s'");
	is($messages, '[3, 4]', "$loss: it goes on with what follows");
	cmp_ok($next, '>', $token, "$loss: under a larger token");
	is(query(update($loss, $next, '"end"', "lease => '1 hour', max_messages => 1")) =~
		  s/^\d+\|//r,
		'[5]', "$loss: up to the last");
}

# ---------------------------------------------------- ended before the commit

post_outside('open', 5);
my ($token) = acquire('open', "lease => '1 hour'");
my $call = update('open', $token, '"done"', "lease => '1 hour'");
my $session = $node->background_psql('app', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe('BEGIN');
like($session->query_safe($call), qr/^\d+\|\[3, 4\]$/,
	'open: the next lease is there');
query("SELECT pg_terminate_backend($pid, 60000)");
eval { $session->quit };
is(effects('open'), '0 ', 'open: nothing of it is left');
is( query("SELECT lease_token = $token FROM actornot.mailbox "
		  . "WHERE entity = 'open'"),
	't',
	'open: the old token is still the one');
like(query($call), qr/^\d+\|\[3, 4\]$/, 'open: the same call is good');
is(effects('open'), '1 "done"', 'open: all is there, once');

# ------------------------------------------------- a waiting acquire is woken

sub start_waiting
{
	my ($arguments) = @_;
	my ($psql, $output) = start_psql(
		'SET synchronous_commit = local', "SELECT entity, payloads(messages), clock_timestamp() "
		  . "FROM actornot_acquire('outside', $arguments, wait => '60 s')",
		"wait_event_type = 'Extension'");

	return ($psql, $output);
}

# Without being told it would come back after a minute, with nothing.
sub got_at_once
{
	my ($psql, $output, $expected, $since, $what) = @_;

	$psql->finish;
	my ($entity, $messages, $when) = split /\||\n/, slurp_file($output);
	is(($entity // '') . ' ' . ($messages // ''), $expected, "$what: it gets it");
	is( query("SELECT '" . ($when // 'infinity') . "' < "
			  . "'$since'::timestamptz + interval '40 s'"),
		't', "$what: at once");
	return;
}

# What waits since the end of the last section would be found at once.
post_outside('first', 1);
($token) = acquire('first', "lease => '1 hour'");
my @waiting = start_waiting("'first', lease => '1 hour'");
my $since = query("SELECT actornot_release('outside', 'first', $token)"
	  . ' IS NULL, clock_timestamp()') =~ s/^.\|//r;
got_at_once(@waiting, 'first [1]', $since, 'the holder releases');

@waiting = start_waiting("lease => '1 hour'");
$session = $node->background_psql('app');
$session->query_safe(q{BEGIN; SELECT actornot_post('outside', 'second', '7')});
is(slurp_file($waiting[1]), '', 'a post commits: not before it does');
$since = query('SELECT clock_timestamp()');
$session->query_safe('COMMIT');
$session->quit;
got_at_once(@waiting, 'second [7]', $since, 'a post commits');

# ------------------------------------------- workers leave it alone

my $workers = q{SELECT string_agg(pid || ' ' || query_start, ', ' ORDER BY pid)
	FROM pg_stat_activity WHERE backend_type = 'actornot worker'};
my $idle = q{SELECT bool_and(coalesce(state, '') = 'idle') FROM pg_stat_activity
	WHERE backend_type = 'actornot worker'};

# One lease is ended, the other one's time is over.
foreach my $end ('released', 'expired')
{
	query("CALL post(0, 'witness')");
	wait_until($node, 'app', "SELECT actornot_pending('oracle') = 0",
		"$end: a worker is there");
	query("CALL post(0, '$end')");
	wait_until($node, 'app', "SELECT actornot_pending('oracle') = 0",
		"$end: and runs the entity");
	my $lease = query(
		"SELECT token FROM actornot_acquire('oracle', '$end', '1 hour', "
		  . "wait => '60 s')");
	wait_until($node, 'app', $idle, "$end: all workers are idle");
	my $before = query($workers);
	run_script($node->connstr('app'), "CALL post(0, '$end');\n" x 100);
	is(query($workers), $before, "$end: no worker has done anything");

	# A worker that was told of them would have come by now.
	query("CALL post(0, 'witness')");
	wait_until($node, 'app', "SELECT actornot_pending('oracle') = 100",
		"$end: a worker runs something else");
	isnt(query($workers), $before, "$end: that can be seen");
	is(query("SELECT count(*) FROM turn WHERE entity = '$end'"),
		1, "$end: no call of the handler");

	my $until =
	  $end eq 'released'
	  ? query("SELECT actornot_release('oracle', '$end', $lease) IS NULL, "
		  . 'clock_timestamp()') =~ s/^.\|//r
	  : query("SELECT actornot_renew('oracle', '$end', $lease, '300 ms')");
	wait_until($node, 'app',
		"SELECT sum(messages) = 101 FROM turn WHERE entity = '$end'",
		"$end: a worker takes it over");
	is( query("SELECT taken_at < '$until'::timestamptz + interval '40 s' "
			  . "FROM turn WHERE entity = '$end' AND turn = 2"),
		't', "$end: soon after the end");
	is( query("SELECT count(*) FROM turn WHERE entity = '$end' AND turn > 1 "
			  . "AND taken_at < '$until'::timestamptz"),
		0, "$end: not before") if $end eq 'expired';
}

# ------------------------------------------------------------------- chaos

my $folder = PostgreSQL::Test::Utils::tempdir;

# A transaction that does its turn and does not commit; the lease is still
# held.  "die": nor does the session live on.
sub vain_turn
{
	my ($how) = @_;

	return turn_sql('vain', "lease => '300 ms'",
		$how eq 'die' ?
		  'SELECT pg_terminate_backend(pg_backend_pid())' : 'ROLLBACK')
	  . "\\set got t\n";
}

sub hold
{
	my ($holder) = @_;
	my $script = '';

	for (1 .. 10)
	{
		my $kind = rand();
		my $lease = ':\'entity\', :token';

		$script .= lease_sql($holder, '300 ms',
			$kind < 0.1 ? vain_turn('rollback') :
			  $kind < 0.2 ?
			  "CALL wait_until_taken(:'entity', :token);\n" :
			  '');
		next if $kind < 0.2 || $kind > 0.5;
		$script .= "\\if :got\n\\set got f\n";
		$script .= "SELECT actornot_release('oracle', $lease);\n"
		  if $kind < 0.3;
		$script .= "SELECT actornot_fail('oracle', $lease, 'x', '0');\n"
		  if $kind >= 0.3 && $kind < 0.4;
		$script .= "SELECT actornot_renew('oracle', $lease, '100 ms');\n"
		  if $kind >= 0.4;
		$script .= "\\endif\n";
	}
	$script .= "\\if :got\n" . vain_turn('die') . "\\endif\n"
	  if rand() < 0.2;
	return ('on', run_script($node->connstr('app'), $script));
}

sub post
{
	my ($poster) = @_;
	my $script = '';

	$script .= post_sql($poster, $entities, 1 + int(rand(3))) for 1 .. 10;
	return ('on', run_script($node->connstr('app'), $script));
}

my @holders = map {
	my $holder = $_;
	fork_child($folder, "holder$holder", sub { hold($holder) })
} 1 .. $holders;
mkdir "$folder/posters";
my @posters = map {
	my $poster = $_;
	fork_child("$folder/posters", "poster$poster", sub { post($poster) })
} 1 .. $posters;

# Both kinds of executors have had their share.
wait_until($node, 'app', qq{
	SELECT count(*) FILTER (WHERE token IS NULL) >= $enough AND
		   count(*) FILTER (WHERE token IS NOT NULL) >= $enough FROM turn},
	'handler and holders take turns', 240);
my %troubles = end_children("$folder/posters", @posters);
is(join(' ', sort keys %troubles), '', 'the posters met no error');
wait_for_value($node, 'app', q{SELECT actornot_pending('oracle')},
	0, 'all is done with', 240);
my %errors = end_children($folder, @holders);
note(join ', ', map { "$_: $errors{$_}" } sort keys %errors);
cmp_ok(delete $errors{'55AN1'} // 0, '>', 0, 'some were too late');

# That of sessions that were terminated.
delete $errors{'57P01'};
is(join(' ', sort keys %errors), '', 'there is no other error');
is( query(q{SELECT count(*) > 0 FROM (
		SELECT token IS NULL AS inside, lag(token IS NULL)
			OVER (PARTITION BY entity ORDER BY turn) AS before FROM turn) AS t
		 WHERE inside <> before}),
	't', 'entities go from one kind to the other');
check_oracle($node, 'app');
$node->stop;
done_testing();
