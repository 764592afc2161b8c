# Leases when servers go down: a token is never given twice, a lease that was
# committed is there again, what was not committed has not happened; also when
# a standby is promoted, and when a database is moved to another cluster.
#
#	ACTORNOT_SEED     the random numbers of an earlier run
#	ACTORNOT_ROUNDS   how often to crash while tokens are given (4)

use strict;
use warnings;

use ActornotTest;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $rounds = $ENV{ACTORNOT_ROUNDS} // 4;
my $seed = $ENV{ACTORNOT_SEED} // int(rand(1 << 30));
my $folder = PostgreSQL::Test::Utils::tempdir;

note("ACTORNOT_SEED=$seed");
srand($seed);

# WAL is written only by commits that must, and by the WAL writer.
my $node = new_server('main', allows_streaming => 1, conf => q{
wal_writer_delay = 10s
wal_buffers = 16MB
bgwriter_lru_maxpages = 0
checkpoint_timeout = 1h
});

# ------------------------------------------------------------------ helpers

# The one lease that a call returns: its token, and the payloads of its
# messages.  Nothing if it returns no row.
sub lease
{
	my ($server, $call) = @_;
	my $answer = $server->safe_psql('app', qq{
		SELECT token, jsonb_path_query_array(messages, '\$[*].payload')
		  FROM $call});

	return split /\|/, $answer, 2;
}

sub post
{
	my ($server, $runner, $entity, @payloads) = @_;

	foreach my $payload (@payloads)
	{
		$server->safe_psql('app',
			qq{SELECT actornot_post('$runner', '$entity', '$payload')});
	}
	return;
}

# All that is stored of an entity.
sub row_of
{
	my ($server, $entity) = @_;

	return $server->safe_psql('app', qq{
		SELECT b.*, actornot_pending(r.name, b.entity)
		  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner
		 WHERE b.entity = '$entity'});
}

# A call with a stale token gets 55AN1, and changes nothing.
sub check_stale
{
	my ($server, $entity, $token, $what) = @_;
	my $lease = "'plain', '$entity', $token";
	my $before = row_of($server, $entity);

	foreach my $call (
		"update_locked($lease, '\"stale\"')",
		"update_locked($lease, NULL, max_messages => 0)",
		"renew($lease)", "release($lease)", "fail($lease, 'stale')")
	{
		fails_with($server, 'app', '55AN1', "SELECT actornot_$call",
			"$what: $call");
	}
	is(row_of($server, $entity), $before, "$what: nothing is changed");
	return;
}

# ------------------------------------------- tokens that were not committed

# What clients got, outside the server: the largest token of each entity, and
# which have been seen at all.
my %largest;
my %seen;

# Clients write to files, from which is known what they were told.
sub start_client
{
	my ($name, @statements) = @_;

	append_to_file("$folder/$name.sql", join(";\n", @statements) . ";\n");
	return {
		name => $name,
		run => IPC::Run::start(
			[ 'psql', '-XAtq', '-d', $node->connstr('crashes'),
				'-f', "$folder/$name.sql" ],
			'>', "$folder/$name.out", '2>', "$folder/$name.err")
	};
}

# Takes entities, whose leases end at once, as often as it can; some of them
# in transactions that roll back.
sub start_taker
{
	my ($name) = @_;
	my @statements;

	for (1 .. 2000)
	{
		my $entity = 'e' . int(rand(6));
		my $rollback = rand() < 0.1;

		push @statements, 'BEGIN' if $rollback;
		push @statements, qq{
SELECT entity, token FROM actornot_acquire('plain', '$entity', lease => '1 us',
	max_messages => 2)}, qq{
SELECT entity, token FROM actornot_update_locked('plain', '$entity',
	(SELECT lease_token FROM actornot.mailbox WHERE entity = '$entity'), '1',
	lease => '1 us', max_messages => 2)};
		push @statements, 'ROLLBACK' if $rollback;
	}
	return start_client($name, @statements);
}

# Takes ids from the sequence that the tokens come from.
sub start_poster
{
	my ($name) = @_;

	return start_client(
		$name,
		map {
			my $entity = 'e' . int(rand(6));
			"INSERT INTO posted SELECT actornot_post('plain', '$entity') RETURNING id"
		} (1 .. 20000));
}

sub lines_of
{
	my ($client) = @_;
	my $file = "$folder/$client->{name}.out";

	my @lines = -e $file ? split(/\n/, slurp_file($file)) : ();

	return @lines;
}

# Until each has been told so much.
sub wait_for_clients
{
	my ($enough, @clients) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	foreach my $client (@clients)
	{
		until (lines_of($client) >= $enough)
		{
			BAIL_OUT('clients get nothing') if time() > $deadline;
			usleep(5_000);
		}
	}
	return;
}

sub finish_clients
{
	my (@clients) = @_;

	eval { $_->{run}->finish } foreach @clients;
	return;
}

# Enter what was handed out; returns how many tokens ought not to have been.
sub enter_tokens
{
	my (@lines) = @_;
	my %before = %largest;
	my $wrong = 0;

	foreach (@lines)
	{
		my ($entity, $token) = /^(\w+)\|(\d+)$/ or next;

		$wrong++
		  if $seen{$token}++ || $token <= ($before{$entity} // 0);
		$largest{$entity} = max($token, $largest{$entity} // 0);
	}
	return $wrong;
}

$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE crashes');
$node->safe_psql('crashes', q{
	CREATE EXTENSION actornot;
	CREATE TABLE posted (id bigint);
	SELECT actornot_register('plain');
	ALTER DATABASE crashes SET synchronous_commit = off});

my $lost = 0;
for my $round (1 .. $rounds)
{
	my $find = q{FROM pg_stat_activity WHERE backend_type = 'walwriter'
		AND wait_event = 'WalWriterMain'};

	wait_until($node, 'postgres', "SELECT count(*) = 1 $find",
		"round $round: there is a WAL writer");

	my $writer = $node->safe_psql('postgres', "SELECT pid $find");
	my $offset = log_offset($node);

	# It would write each page of WAL as soon as it is full.  What has been
	# written is not lost with the server, only with the machine.
	BAIL_OUT('the WAL writer is gone') unless $writer && kill('STOP', $writer);

	my @takers = map { start_taker("taker${round}_$_") } (1, 2);
	my @posters = map { start_poster("poster${round}_$_") } (1, 2);

	# All clients are at work.  In the last round the takers have ended, and no
	# commit flushes WAL any more.
	wait_for_clients(40, @takers, @posters);
	if ($round == $rounds)
	{
		$_->{run}->signal('TERM') foreach @takers;
		finish_clients(@takers);
		wait_for_clients(40 + lines_of($_), $_) foreach @posters;
	}
	kill('KILL', $writer);
	finish_clients(@takers, @posters);
	$node->wait_for_log(qr/database system is ready to accept connections/,
		$offset);

	my @tokens = map { lines_of($_) } @takers;
	my $last_id = max(map { lines_of($_) } @posters);
	is(enter_tokens(@tokens), 0,
		"round $round: none of " . @tokens . ' tokens is smaller than one before');
	$lost++
	  if $node->safe_psql('crashes',
		"SELECT count(*) FROM posted WHERE id = $last_id") == 0;

	# At once, before anything else has advanced the sequence.
	is( enter_tokens(split /\n/, $node->safe_psql('crashes', q{
		SELECT l.entity, l.token
		  FROM generate_series(0, 5) n,
			   actornot_acquire('plain', 'e' || n, lease => '1 us') l})),
		0, "round $round: nor after the crash");
}
is(scalar(keys %largest), 6, 'each entity was taken');
cmp_ok($lost, '>', 0, "commits were lost in $lost rounds");

# ------------------------------------------------- leases that were committed

$node->safe_psql('postgres', 'CREATE DATABASE app');
install_recorder($node, 'app');
$node->safe_psql('app', q{
	ALTER TABLE recorded ADD at timestamptz DEFAULT clock_timestamp();
	CREATE TABLE effect (what text);
	SELECT actornot_register('plain')});

# A lease with a batch of two, of either runner; workers would be faster if
# the entity were free while the messages are posted.
sub lend
{
	my ($runner, $entity, $length) = @_;
	my ($token) = lease($node, "actornot_acquire('$runner', '$entity')");
	my $payloads;

	post($node, $runner, $entity, 1, 2);
	($token, $payloads) = lease($node,
		"actornot_update_locked('$runner', '$entity', $token, '{\"n\": 10}', '$length')");
	is($payloads, '[1, 2]', "$entity of $runner is lent for $length");
	return $token;
}

foreach my $mode ('fast', 'immediate')
{
	my ($long, $short) = ("$mode long", "$mode short");
	my %token;

	foreach my $runner ('plain', 'recorder')
	{
		$token{"$runner $long"} = lend($runner, $long, '1 h');
		$token{"$runner $short"} = lend($runner, $short, '5 s');
	}
	$node->stop($mode);
	start_again($node);

	# Others are served, and those that are lent are not.
	my $ends = $node->safe_psql('app', qq{
		SELECT max(lease_until) FROM actornot.mailbox WHERE entity = '$short'});
	post($node, 'recorder', $_, 3) foreach ($long, "$mode other");
	wait_for_value($node, 'app', qq{
		SELECT actornot_state('recorder', '$mode other')},
		'{"n": 1}', "$mode: workers are at work");
	foreach my $runner ('plain', 'recorder')
	{
		my @lease = lease($node, "actornot_acquire('$runner', '$long')");

		is("@lease", '', "$mode: no other session gets what is lent ($runner)");
	}

	# The short ones end, and that is noticed.
	my $asked = $node->safe_psql('app', 'SELECT clock_timestamp()');
	my ($taken, $payloads) = lease($node,
		"actornot_acquire('plain', lease => '1 h', wait => '60 s')");
	my $late = $node->safe_psql('app',
		"SELECT extract(epoch FROM clock_timestamp() - greatest('$ends'::timestamptz, '$asked'))");
	is($payloads, '[1, 2]', "$mode: a waiting session gets the batch");
	cmp_ok($taken // 0, '>', $token{"plain $short"},
		"$mode: ... under a larger token");
	cmp_ok($late, '<', 40, "$mode: ... $late s after the end of the lease");
	wait_for_value($node, 'app', qq{
		SELECT count(*), bool_and(at >= '$ends')
		  FROM recorded WHERE entity = '$short'},
		'2|t', "$mode: a worker takes the one with a handler");
	check_stale($node, $short, $token{"plain $short"}, "$mode: overtaken");
	fails_with($node, 'app', '55AN1',
		qq{SELECT actornot_renew('recorder', '$short', }
		  . $token{"recorder $short"} . ')',
		"$mode: overtaken by a worker");

	# The long ones are as good as before.
	is(recorded($node, 'app', "entity = '$long'"),
		0, "$mode: no worker runs what is lent");
	foreach my $runner ('plain', 'recorder')
	{
		$node->safe_psql('app', qq{
			SELECT actornot_update_locked('$runner', '$long',
				} . $token{"$runner $long"} . q{, '{"n": 12}', max_messages => 0)});
	}
	wait_for_value($node, 'app', qq{
		SELECT actornot_state('plain', '$long'),
			   actornot_state('recorder', '$long')},
		'{"n": 12}|{"n": 13}', "$mode: their tokens are good");
	is( $node->safe_psql('app', qq{
		SELECT actornot_pending('plain', '$long')}), 0,
		"$mode: the batch is done");
}


# ------------------------------------------------- a holder that is killed

# A transaction with everything in it that a holder does.
sub update_transaction
{
	my ($token) = @_;

	return qq{
BEGIN;
INSERT INTO effect VALUES ('killed');
SELECT actornot_post('plain', 'answer', '"done"');
SELECT token FROM actornot_update_locked('plain', 'killed', $token,
	'"new"', '1 h', max_messages => 1)};
}

my $killed = lend('plain', 'killed', '1 h');
my $all_of_it = q{
	SELECT actornot_state('plain', 'killed'), actornot_pending('plain', 'killed'),
		   actornot_pending('plain', 'answer'), (SELECT count(*) FROM effect)};

post($node, 'plain', 'killed', 3, 4);
foreach my $committed (0, 1)
{
	my $holder = $node->background_psql('app', timeout => 120);
	my $pid = $holder->query_safe('SELECT pg_backend_pid()');
	my ($next) = $holder->query_safe(update_transaction($killed)) =~ /(\d+)$/;
	my $offset = log_offset($node);

	note("lease $killed, and then $next");
	$holder->query_safe('COMMIT') if $committed;
	kill('KILL', $pid);
	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$offset);
	eval { $holder->quit };
	if ($committed)
	{
		wait_for_value($node, 'app', $all_of_it, '"new"|2|1|1',
			'killed after COMMIT: all has happened');
		check_stale($node, 'killed', $killed, 'killed after COMMIT');
		my ($token, $payloads) = lease($node,
			"actornot_update_locked('plain', 'killed', $next, '\"newer\"')");
		is($payloads, '[4]', 'killed after COMMIT: the next lease is good');
	}
	else
	{
		wait_for_value($node, 'app', $all_of_it, '{"n": 10}|4|0|0',
			'killed before COMMIT: nothing has happened');
		fails_with($node, 'app', '55AN1',
			"SELECT actornot_renew('plain', 'killed', $next)",
			'killed before COMMIT: the next lease does not exist');
		is( $node->safe_psql('app', qq{
			SELECT actornot_renew('plain', 'killed', $killed, '1 h') > now()}),
			't', 'killed before COMMIT: the token is good');
	}
}

# An acquire whose session is killed before the commit has taken nothing.
post($node, 'plain', 'dropped', 1);
my $holder = $node->background_psql('app', timeout => 120);
my $pid = $holder->query_safe('SELECT pg_backend_pid()');
my ($dropped) = $holder->query_safe(q{
	BEGIN;
	SELECT token FROM actornot_acquire('plain', 'dropped', '1 h')}) =~ /(\d+)$/;
my $offset = log_offset($node);
kill('KILL', $pid);
$node->wait_for_log(qr/all server processes terminated; reinitializing/,
	$offset);
eval { $holder->quit };
wait_for_value($node, 'app', q{
	SELECT jsonb_path_query_array(messages, '$[*].payload')
	  FROM actornot_acquire('plain', 'dropped', '1 h')},
	'[1]', 'killed before the commit of acquire: the next one gets it');
check_stale($node, 'dropped', $dropped, 'killed before the commit of acquire');

# ------------------------------------------------------------ open, and idle

# Nothing happens while leases are open: the database's workers and manager
# leave, and no process looks into it.  At the end of the lease, further down, one
# does.
$node->safe_psql('postgres', 'CREATE DATABASE idle');
install_recorder($node, 'idle');
$node->safe_psql('idle', q{SELECT actornot_register('plain')});
$node->safe_psql('idle', q{
	SELECT count(actornot_post('plain', 'e' || n))
	  FROM generate_series(1, 20) n});
is( $node->safe_psql('idle', q{
	SELECT count(*)
	  FROM actornot_acquire('plain', lease => '1 h', max_entities => 20)}),
	20, 'idle: leases are open');
$node->safe_psql('idle', q{
	SELECT count(*) FROM actornot_acquire('recorder', 'e', '1 h')});
$node->safe_psql('idle', q{SELECT actornot_post('recorder', 'e')});
$node->safe_psql('idle', q{
	SELECT actornot_renew('recorder', 'e',
		(SELECT lease_token FROM actornot.mailbox
		  WHERE lease_token > 0 ORDER BY lease_token DESC LIMIT 1), '40 s')});
my $until = time() + 38;
my $transactions = q{
	SELECT xact_commit + xact_rollback FROM pg_stat_database
	 WHERE datname = 'idle'};
my ($before, $began) = ('', time());
while (time() < $began + 5 && time() < $until)
{
	my $now = $node->safe_psql('postgres', $transactions);

	($before, $began) = ($now, time()) if $now ne $before;
	usleep(200_000);
}
cmp_ok(time() - $began, '>=', 5, 'idle: no process looks at open leases');
my $run = recorded($node, 'idle');
SKIP:
{
	skip('idle: the lease may have ended', 1) if time() > $until + 1;
	is($run, 0, 'idle: what is lent is not run');
}

# ---------------------------------------------------------------- a standby

# What two of them know to be lent, and a third lease that gets lost.
my %held = map { $_ => lend('plain', $_, '1 h') } ('kept', 'taken', 'moved');
$held{lost} = lend('plain', 'lost', '1 h');
post($node, 'plain', 'kept', 3);
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
post($node, 'plain', 'taken', 3);
$node->wait_for_catchup($standby);

foreach my $call (
	q{acquire('plain')}, q{acquire('plain', 'kept')},
	q{acquire('plain', wait => '10 s')},
	"update_locked('plain', 'kept', $held{kept}, '1')",
	"renew('plain', 'kept', $held{kept})",
	"release('plain', 'kept', $held{kept})",
	"fail('plain', 'kept', $held{kept}, 'no')")
{
	fails_with($standby, 'app', '25006', "SELECT actornot_$call",
		"refused on a standby: $call");
}

# More tokens than the sequence logs at a time, which the standby never hears
# of.
$standby->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''});
$standby->reload;
wait_for_value($node, 'postgres',
	'SELECT count(*) FROM pg_stat_replication', 0, 'the standby is cut off');
$node->safe_psql('app',
	"SELECT actornot_renew('plain', 'lost', $held{lost}, '1 us')");
my @unheard = split /\n/, $node->safe_psql('app', q{
	SELECT token FROM actornot_acquire('plain', 'lost', '1 us');} x 100);
is(scalar(@unheard), 100, 'more tokens are given');
my $last = max(@unheard, values %held);
wait_for_value($node, 'idle', 'SELECT count(*) FROM recorded', 1,
	'idle: the end of a lease is noticed');
$node->stop('immediate');
$standby->promote;

# New ones are larger; old ones are good until somebody takes the entity.
my ($token, $payloads) = lease($standby,
	"actornot_acquire('plain', 'fresh')");
cmp_ok($token, '>', $last, 'promoted: a token is larger than any before');
is(($token >> 48) - ($last >> 48), 1, 'promoted: ... by a timeline');
my ($kept, $rest) = lease($standby,
	"actornot_update_locked('plain', 'kept', $held{kept}, '\"kept\"', '1 h')");
is($rest, '[3]', 'promoted: the token of a lease is good');
cmp_ok($kept // 0, '>', $last, 'promoted: ... and the next one larger');
check_stale($standby, 'kept', $held{kept}, 'promoted: used');
my @nothing = lease($standby, "actornot_acquire('plain', 'taken')");
is("@nothing", '', 'promoted: no other session gets what is lent');
is( $standby->safe_psql('app',
		"SELECT actornot_renew('plain', 'taken', $held{taken}, '1 us') < clock_timestamp()"),
	't', 'promoted: a lease can be renewed');
my ($taken, $same) = lease($standby,
	"actornot_acquire('plain', 'taken', '1 h')");
is($same, '[1, 2]', 'promoted: its batch comes when its time is over');
cmp_ok($taken // 0, '>', $last, 'promoted: ... under a larger token');
check_stale($standby, 'taken', $held{taken}, 'promoted: overtaken');
check_stale($standby, 'lost', $unheard[-1], 'promoted: never heard of');

# --------------------------------------------------------- another cluster

# A fresh one, whose timeline is less.  "moved" was lent before the promotion,
# "taken" and "kept" after it, and "over" has ended.
post($standby, 'plain', 'moved', 3);
my ($over) = lease($standby, "actornot_acquire('plain', 'over')");
$standby->safe_psql('app', qq{
	SELECT actornot_update_locked('plain', 'over', $over, NULL)});
my ($worker_held) = lease($standby,
	"actornot_acquire('recorder', 'moved', '1 h')");
post($standby, 'recorder', 'moved', 1, 2);
$standby->safe_psql('app', qq{
	SELECT actornot_update_locked('recorder', 'moved', $worker_held, '{"n": 0}',
		'1 h', 1)});

my $new = new_server('new');
$new->start;
$new->safe_psql('postgres', 'CREATE DATABASE app');
$standby->command_ok(
	[ 'pg_dump', '-f', "$folder/dump", '-d', $standby->connstr('app') ],
	'moved: dump');
$new->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
		'-d', $new->connstr('app'), '-f', "$folder/dump" ],
	'moved: restore');
$new->safe_psql('app', 'SELECT actornot_start()');

# Leases hold there, too.
foreach my $runner ('plain', 'recorder')
{
	@nothing = lease($new, "actornot_acquire('$runner', 'moved')");
	is("@nothing", '', "moved: no other session gets what is lent ($runner)");
}
($token, $payloads) = lease($new,
	"actornot_update_locked('plain', 'moved', $held{moved}, '\"moved\"')");
is($payloads, '[3]', 'moved: the token of a lease is good');
cmp_ok($token // 0, '>', $held{moved}, 'moved: ... and the next one larger');
check_stale($new, 'moved', $held{moved}, 'moved: used');
($token, $payloads) = lease($new, "actornot_acquire('plain', 'over')");
cmp_ok($token // 0, '>', $over,
	'moved: a token of an entity that had ended is larger');
$new->safe_psql('app', qq{
	SELECT actornot_renew('plain', 'taken', $taken, '1 us')});
($token, $payloads) = lease($new, "actornot_acquire('plain', 'taken')");
is($payloads, '[1, 2]', 'moved: the batch of a lease that ended is the next');
cmp_ok($token // 0, '>', $taken, 'moved: ... under a larger token');
check_stale($new, 'taken', $taken, 'moved: overtaken');

# A worker goes on with what its holder gives up, or has not got yet.
my ($row) = $new->safe_psql('app', q{
	SELECT lease_token FROM actornot.mailbox b JOIN actornot.runner r
		ON r.id = b.runner WHERE r.name = 'recorder' AND b.entity = 'moved'});
$new->safe_psql('app', qq{
	SELECT actornot_renew('recorder', 'moved', $row, '10 ms')});
wait_for_value($new, 'app', q{
	SELECT count(*), count(DISTINCT id) FROM recorded WHERE entity = 'moved'},
	'2|2', 'moved: a worker processes each message once');
is( $new->safe_psql('app', q{SELECT actornot_state('recorder', 'moved')}),
	'{"n": 2}', 'moved: ... on the state that was saved');

foreach my $server ($standby, $new)
{
	unlike(log_since($server, 0), qr/PANIC|TRAP|terminated by signal/,
		'nothing crashed by itself');
	$server->stop;
}
unlike(log_since($node, 0), qr/PANIC|TRAP|signal (?:6|11)\b/,
	'nothing of the first one did, either');
done_testing();
