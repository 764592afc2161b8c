# Nothing lost, nothing twice, everything in order: several clients post to
# random entities, in transactions that commit, roll back, use savepoints or
# are prepared, while processes and the whole server are killed under them.
#
# The oracle is a table to which each transaction writes what it posts.  A
# message exists if and only if its row in that table does.  The row says, too,
# what its transaction had to see as committed, so that the order is known
# between clients as well.  Handlers write down what they get, and pass some
# of it on to another entity.
#
#	ACTORNOT_SEED     the random numbers of an earlier run
#	ACTORNOT_ROUNDS   how often to do every kind of harm (1)
#	ACTORNOT_BITS     of an entity's hash (64; fewer: entities share them)

use strict;
use warnings;

use ActornotTest;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $posters = 4;
my $entities = 24;
my $rounds = $ENV{ACTORNOT_ROUNDS} // 1;
my $bits = $ENV{ACTORNOT_BITS} // 64;
my $seed = $ENV{ACTORNOT_SEED} // int(rand(1 << 30));

note("ACTORNOT_SEED=$seed");
srand($seed);

my $node = new_server('main', conf => qq{
log_min_messages = log
actornot.debug_hash_bits = $bits
});
my $folder = PostgreSQL::Test::Utils::tempdir;
my $parent = $$;

$node->start;
need_test_hooks($node);
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql(
	'app', q{
CREATE EXTENSION actornot;

-- What has been posted, and with it what its transaction could see.
CREATE TABLE posted (poster int, n int, entity text, id bigint,
	relay text, xid xid8, seen pg_snapshot);
CREATE TABLE acknowledged (poster int, transaction int);

-- What has been processed: place is the entity's own count.
CREATE TABLE processed (entity text, place int, poster int, n int, id bigint,
	relay text);

CREATE PROCEDURE post(poster int, n int, entity text, relay text)
LANGUAGE sql AS $$
	INSERT INTO posted
	SELECT poster, n, entity,
		   actornot_post('oracle', entity, jsonb_build_object('poster', poster,
			   'n', n, 'relay', relay)),
		   relay, pg_current_xact_id(), pg_current_snapshot()
$$;

CREATE FUNCTION handle(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	place	int := coalesce((state->>'n')::int, 0);
	sum		bigint := coalesce((state->>'sum')::bigint, 0);
	m		actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		place := place + 1;
		sum := sum + m.id;
		INSERT INTO processed VALUES (entity, place,
			(m.payload->>'poster')::int, (m.payload->>'n')::int, m.id,
			m.payload->>'relay');
		IF m.payload->>'relay' IS NOT NULL THEN
			PERFORM actornot_post('relayed', m.payload->>'relay', m.payload);
		END IF;
	END LOOP;
	RETURN jsonb_build_object('n', place, 'sum', sum);
END
$$;

-- What was passed on: counts only, and its entities end themselves sometimes.
CREATE TABLE relayed (entity text, poster int, n int);
CREATE FUNCTION handle_relayed(entity text, state jsonb,
	messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO relayed
		SELECT entity, (payload->>'poster')::int, (payload->>'n')::int
		  FROM unnest(messages);
	SELECT CASE WHEN cardinality(messages) > 2 THEN NULL
			ELSE to_jsonb(coalesce(state::int, 0) + cardinality(messages)) END
$$;
SELECT actornot_register('oracle', 'handle', batch_size => 7, max_attempts => 3,
	retry_delay => '10 ms');
SELECT actornot_register('relayed', 'handle_relayed', max_attempts => 3,
	retry_delay => '10 ms');
});

# ------------------------------------------------------------ the posters

# SQL of one transaction; counts its messages in $$n.
sub make_transaction
{
	my ($poster, $transaction, $n) = @_;
	my $kind = rand();
	my $gid = "p${poster}_$transaction";
	my $sql = "BEGIN;\n";

	for my $i (1 .. 1 + int(rand() < 0.1 ? rand(60) : rand(6)))
	{
		# Some entities are much busier than others.
		my $entity = 'e' . int($entities * rand()**2);
		my $relay = rand() < 0.2 ? "'r" . int(rand($entities)) . "'" : 'NULL';
		my $savepoint = rand();

		++$$n;
		$sql .= "SAVEPOINT s;\n" if $savepoint < 0.2;
		$sql .= "CALL post($poster, $$n, '$entity', $relay);\n";
		$sql .= "ROLLBACK TO SAVEPOINT s;\n" if $savepoint < 0.1;
		$sql .= "RELEASE SAVEPOINT s;\n" if $savepoint < 0.2;
	}
	return "$sql ROLLBACK;\n" if $kind < 0.1;

	$sql .= "INSERT INTO acknowledged VALUES ($poster, $transaction);\n";
	if ($kind < 0.2)
	{
		$sql .= "PREPARE TRANSACTION '$gid';\n";
		return $sql if $kind < 0.12;    # somebody else will see to it
		return $sql . "ROLLBACK PREPARED '$gid';\n" if $kind < 0.14;
		$sql .= "COMMIT PREPARED '$gid';\n";
	}
	else
	{
		$sql .= "COMMIT;\n";
	}
	return $sql . "\\echo $transaction\n";
}

# Post until told to stop.  The answers go to a file.
sub post_for_ever
{
	my ($poster) = @_;
	my $transaction = 0;
	my $n = 0;
	my @psql = ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d',
		$node->connstr('app'), '-f', '-');

	local $SIG{PIPE} = 'IGNORE';
	srand($seed + $poster);
	open my $answers, '>>', "$folder/poster$poster" or die $!;
	until (-e "$folder/stop" || getppid() != $parent)
	{
		my ($stdout, $stderr) = ('', '');
		my $script = '';

		$script .= make_transaction($poster, ++$transaction, \$n)
		  for (1 .. 20);
		# It dies of a server that goes away while the script is being sent.
		eval {
			IPC::Run::run(\@psql, '<', \$script, '>', \$stdout,
				'2>', \$stderr);
		};
		print $answers $stdout;
		$answers->flush;
		usleep(50_000);
	}
	close $answers;
	return;
}

my @children;
for my $poster (1 .. $posters)
{
	my $pid = fork();
	BAIL_OUT("could not fork: $!") unless defined $pid;
	if ($pid == 0)
	{
		eval { post_for_ever($poster); 1 } or warn $@;
		POSIX::_exit(0);
	}
	push @children, $pid;
}

# --------------------------------------------------------------- the harm

# All are back when messages have been processed that were posted since.
sub wait_for_progress
{
	my ($what) = @_;

	return wait_for_more($node, 'app',
		'SELECT coalesce(max(id), 0) FROM posted',
		'SELECT count(*) > 20 FROM processed WHERE id > %s',
		"after $what all is back at work");
}

sub kill_one
{
	my ($signal, $type) = @_;

	# It may have gone meanwhile.
	note("SIG$signal for a $type") if signal_one($node, $signal, $type);
	return;
}

sub kill_poster
{
	my ($signal) = @_;
	my $offset = log_offset($node);
	my $pid = ask($node, 'postgres',
		q{SELECT pid FROM pg_stat_activity
		   WHERE backend_type = 'client backend' AND datname = 'app' LIMIT 1});

	return unless $pid && kill($signal, $pid);
	wait_for_restart($node, $offset) if $signal eq 'KILL';
	return;
}

sub crash_server
{
	$node->kill9;
	start_again($node);
	return;
}

# Finish the prepared transactions: some now, the others at the end.
sub settle_prepared
{
	my ($share) = @_;
	my $gids = ask($node, 'app', 'SELECT gid FROM pg_prepared_xacts') // '';

	foreach my $gid (split /\n/, $gids)
	{
		my $verb = rand() < 0.7 ? 'COMMIT' : 'ROLLBACK';

		# Its poster may be about to do it.
		ask($node, 'app', "$verb PREPARED '$gid'") if rand() < $share;
	}
	return;
}

my %harm = (
	'kill of a worker' => sub { kill_one('KILL', 'worker') },
	'kill of a manager' => sub { kill_one('KILL', 'manager') },
	'kill of the launcher' => sub { kill_one('KILL', 'launcher') },
	'kill of a poster' => sub { kill_poster('KILL') },
	'end of a worker' => sub { kill_one('TERM', 'worker') },
	'end of a manager' => sub { kill_one('TERM', 'manager') },
	'end of the launcher' => sub { kill_one('TERM', 'launcher') },
	'end of a poster' => sub { kill_poster('TERM') },
	'kill of the postmaster' => \&crash_server,
	'immediate stop' =>
	  sub { $node->stop('immediate'); start_again($node) },
	'fast restart' => sub { $node->stop('fast'); start_again($node) },);

wait_for_progress('the start');
for my $round (1 .. $rounds)
{
	# In an order that is this seed's.
	my %rank = map { $_ => rand() } sort keys %harm;

	foreach my $kind (sort { $rank{$a} <=> $rank{$b} } keys %rank)
	{
		note("round $round: $kind");
		$harm{$kind}->();
		wait_for_progress($kind);
		settle_prepared(0.5);
	}
}

append_to_file("$folder/stop", "stop\n");
waitpid($_, 0) foreach @children;
settle_prepared(2);
is( $node->safe_psql('app', 'SELECT count(*) FROM pg_prepared_xacts'),
	0, 'no transaction is left prepared');

# ------------------------------------------------------------- the oracle

wait_for_value($node, 'app',
	q{SELECT actornot_pending('oracle') + actornot_pending('relayed')},
	0, 'in the end everything is drained');
note($node->safe_psql('app', q{
	SELECT format('%s messages posted, %s of them with relay, by %s transactions',
		count(*), count(relay), count(DISTINCT xid)) FROM posted}));

my $clauses = 'entity, poster, n, id';
is( $node->safe_psql('app',
		"SELECT count(*) FROM (SELECT $clauses FROM posted
			EXCEPT ALL SELECT $clauses FROM processed) lost"),
	0,
	'nothing is lost');
is( $node->safe_psql('app',
		"SELECT count(*) FROM (SELECT $clauses FROM processed
			EXCEPT ALL SELECT $clauses FROM posted) extra"),
	0,
	'nothing is processed twice, or without having been posted');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (
		(SELECT relay, poster, n FROM posted WHERE relay IS NOT NULL
		 EXCEPT ALL SELECT entity, poster, n FROM relayed)
		UNION ALL
		(SELECT entity, poster, n FROM relayed
		 EXCEPT ALL
		 SELECT relay, poster, n FROM posted WHERE relay IS NOT NULL)) wrong}),
	0,
	'what a handler sends is sent once');
# Whatever a transaction could see as committed comes before what it posts.
# Only what is processed behind a greater xid can offend.
is(count_overtaken($node, 'app', 'processed'),
	0,
	'what was committed before is processed before');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (
		SELECT id, lag(id) OVER (PARTITION BY entity, xid ORDER BY place) AS last
		  FROM posted JOIN processed USING (entity, poster, n, id)) AS sequence
	 WHERE id <= last}),
	0,
	'messages of one transaction keep their order');
is( $node->safe_psql('app', q{
	SELECT count(*) FROM (
		SELECT entity, count(*) AS n, sum(id) AS sum, max(place) AS last
		  FROM processed GROUP BY entity) AS log
	 WHERE actornot_state('oracle', entity) IS DISTINCT FROM
		   jsonb_build_object('n', n, 'sum', sum) OR n <> last}),
	0,
	'the states are what the log says');
is($node->safe_psql('app', 'SELECT count(*) FROM actornot.dead_letters'),
	0, 'nothing was given up');

# What a client was told is true.
my @acknowledged = map {
	my $poster = $_;
	my $answers = slurp_file("$folder/poster$poster");
	map { "($poster, $_)" } split /\n/, $answers;
} (1 .. $posters);
cmp_ok(scalar(@acknowledged), '>', 100, 'clients were told of commits');
append_to_file("$folder/check.sql",
	'SELECT count(*) FROM (VALUES '
	  . join(', ', @acknowledged)
	  . ') AS told (poster, transaction) LEFT JOIN acknowledged'
	  . ' USING (poster, transaction) WHERE acknowledged.poster IS NULL;');
is($node->safe_psql('app', slurp_file("$folder/check.sql")),
	0, 'whatever a client was told has been committed');

unlike(log_since($node, 0), qr/TRAP|PANIC|signal 6|signal 11/,
	'nothing crashed by itself');
$node->stop;
done_testing();
