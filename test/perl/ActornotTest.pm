# ActornotTest - what the TAP tests of actornot share.
#
# Servers with the extension loaded, waiting for conditions, and a look at the
# processes.  Nothing in here waits for a time: everything waits for a
# condition and gives up, loudly, after a while.

package ActornotTest;

use strict;
use warnings;

# A test that hangs should say so before the whole run is killed.  What is only
# slow, or is put off for a minute because something failed before, comes earlier.
BEGIN { $ENV{PG_TEST_TIMEOUT_DEFAULT} //= 180; }

use Exporter 'import';
use File::Basename qw(dirname);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  new_server start_again ask wait_until wait_for_value pids_of one_pid signal_processes
  install_recorder recorded log_offset log_since count_in_log lock_session
  fails_with wait_for_more signal_one wait_for_restart count_overtaken
  install_move_on stopwatch data_script need_test_hooks
);

my $settings = dirname(dirname(__FILE__)) . '/actornot.conf';

# A session in the background has its time for each query, and to quit, and not
# for all that the test does meanwhile.
{
	no warnings 'redefine';
	my $open = \&PostgreSQL::Test::Cluster::background_psql;
	my $quit = \&PostgreSQL::Test::BackgroundPsql::quit;

	*PostgreSQL::Test::Cluster::background_psql = sub {
		my $session = $open->(@_);

		$session->set_query_timer_restart;
		return $session;
	};
	*PostgreSQL::Test::BackgroundPsql::quit = sub {
		$_[0]->{timeout}->start;
		goto &$quit;
	};
}

# A server that is not yet started, with the settings of the tests.
#
#	conf      lines that go on top
#	preload   0: without shared_preload_libraries
#	installed_in  where another version of the server is
#	(others)  as PostgreSQL::Test::Cluster::init takes them
sub new_server
{
	my ($name, %option) = @_;
	my $conf = delete $option{conf} // '';
	my $preload = delete $option{preload} // 1;
	my $path = delete $option{installed_in};
	my $node = PostgreSQL::Test::Cluster->new($name,
		defined $path ? (install_path => $path) : ());
	my $ours = slurp_file($settings);

	# Where its socket is, is the server's own affair.
	$ours =~ s/^listen_addresses.*$//m;
	$ours =~ s/^shared_preload_libraries.*$//m unless $preload;
	$node->init(%option);
	$node->append_conf(
		'postgresql.conf', qq{
$ours
wal_level = replica
restart_after_crash = on
log_statement = none
shared_buffers = 32MB
autovacuum = off
actornot.worker_idle_timeout = 1s
$conf
});
	return $node;
}

# For tests that use a setting actornot.debug_*: without them they would test
# something else.
sub need_test_hooks
{
	my ($node) = @_;

	BAIL_OUT('this test needs a build with -DACTORNOT_TEST_HOOKS')
	  unless defined ask($node, 'postgres', q{LOAD 'actornot'; SHOW actornot.debug_stop_at});
	return;
}

# Start after a crash.  What the last life left behind may take a moment to
# go, so the first try may fail.
sub start_again
{
	my ($node) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	until ($node->start(fail_ok => 1))
	{
		BAIL_OUT('the server does not start any more')
		  if time() > $deadline;

		# A process that is gone, but not forgotten.
		$node->{_pid} = undef;
		usleep(200_000);
	}
	return;
}

# One answer, or undef if the server or the query fails just now.
sub ask
{
	my ($node, $db, $query) = @_;
	my ($status, $stdout);

	# psql may be gone before it has read the query.
	local $SIG{PIPE} = 'IGNORE';
	eval { ($status, $stdout) = $node->psql($db, $query); };
	return defined $status && $status == 0 ? $stdout : undef;
}

# Until the query's answer is that; a test of its own.
sub wait_for_value
{
	my ($node, $db, $query, $expected, $what, $seconds) = @_;
	my $deadline =
	  time() + ($seconds // $PostgreSQL::Test::Utils::timeout_default);
	my $answer;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for (;;)
	{
		$answer = ask($node, $db, $query);
		return pass($what) if defined $answer && $answer eq $expected;
		last if time() > $deadline;
		usleep(30_000);
	}
	fail($what);
	diag("waited and did not get \"$expected\": " . ($answer // 'no answer'));
	diag(ask($node, 'postgres',
			'SELECT backend_type, datname, usename, state, wait_event, query '
			  . "FROM pg_stat_activity WHERE backend_type LIKE 'actornot%'")
		  // 'no processes');
	return 0;
}

# Until the query's answer is true.
sub wait_until
{
	my ($node, $db, $query, $what, $seconds) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_for_value($node, $db, $query, 't', $what, $seconds);
}

# Process ids of our processes of a type: launcher, manager, worker.
sub pids_of
{
	my ($node, $type, $where) = @_;
	my $answer = ask($node, 'postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'actornot $type'"
		  . ' AND '
		  . ($where // 'true')
		  . ' ORDER BY pid');

	return split /\n/, $answer // '';
}

# The one that there is; wait events come and go, so it may take several looks.
sub one_pid
{
	my ($node, $type, $where) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	for (;;)
	{
		my @pids = pids_of($node, $type, $where);

		return $pids[0] if @pids == 1;
		BAIL_OUT(scalar(@pids) . " processes of type $type, not one")
		  if time() > $deadline;
		usleep(30_000);
	}
}

sub signal_processes
{
	my ($signal, @pids) = @_;

	return scalar(grep { kill($signal, $_) } @pids);
}

# Signal one of our processes of a type, whichever is there; after a kill the
# server is waited for.  False if there was none.
sub signal_one
{
	my ($node, $signal, $type) = @_;
	my $offset = log_offset($node);

	for (1 .. 1000)
	{
		my @pids = pids_of($node, $type);

		if (@pids && kill($signal, $pids[ int(rand(@pids)) ]))
		{
			wait_for_restart($node, $offset) if $signal eq 'KILL';
			return 1;
		}
		usleep(20_000);
	}
	return 0;
}

# Wait until the server has noticed a crash, so that the next look does not find
# it as it was before.  There is no crash if the process was just about to end:
# the signal can be sent then, but no process gets it.  A crash that is noticed
# late is waited for.
sub wait_for_restart
{
	my ($node, $offset) = @_;
	my $deadline = time() + 10;

	until (log_since($node, $offset) =~
		/all server processes terminated; reinitializing/)
	{
		return note('no process was killed')
		  if time() > $deadline
		  && ( time() > $deadline + 50
			|| log_since($node, $offset) !~
			/terminating any other active server processes/);
		usleep(50_000);
	}
	return;
}

# After some harm: "mark" is asked as soon as the server answers again, and then
# "later", with the answer in the place of %s, until it is true.
sub wait_for_more
{
	my ($node, $db, $mark, $later, $what, $seconds) = @_;
	my $before;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$before = ask($node, $db, $mark);
		last if defined $before;
		usleep(100_000);
	}
	BAIL_OUT('the server does not come back') unless defined $before;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_until($node, $db, sprintf($later, $before), $what,
		$seconds);
}

# How many messages were taken before others of their entity that had been
# committed when they were posted.  "posted" has entity, id, xid and seen (the
# snapshot of the post), the other table entity, id and place.
sub count_overtaken
{
	my ($node, $db, $taken) = @_;

	return $node->safe_psql($db, qq{
		WITH everything AS MATERIALIZED (
			SELECT entity, place, xid, seen, pg_snapshot_xmax(seen) AS horizon,
				   max(xid) OVER (PARTITION BY entity ORDER BY place) AS greatest
			  FROM posted JOIN $taken USING (entity, id))
		SELECT count(*) FROM everything AS first JOIN everything AS second
		  ON first.entity = second.entity AND first.xid < first.greatest AND
			 first.xid < second.horizon AND first.place > second.place AND
			 first.xid <> second.xid AND
			 pg_visible_in_snapshot(first.xid, second.seen)});
}

# A procedure that posts until the log has moved to the next segment, by a
# statement whose $1 counts.
sub install_move_on
{
	my ($node, $db) = @_;

	$node->safe_psql(
		$db, q{
CREATE FUNCTION current_segment() RETURNS int LANGUAGE sql AS $$
	SELECT number FROM actornot.segment WHERE current
$$;
CREATE PROCEDURE move_on(post text) LANGUAGE plpgsql AS $$
DECLARE
	was		int := current_segment();
BEGIN
	FOR i IN 1 .. 6000 LOOP
		EXECUTE post USING i;
		COMMIT;
		EXIT WHEN current_segment() <> was;
		PERFORM pg_sleep(0.001) FROM generate_series(1, i / 300);
	END LOOP;
	IF current_segment() = was THEN
		RAISE 'the log does not move on from segment %', was;
	END IF;
END
$$;
});
	return;
}

# Seconds since now, less those in which the machine stood still: a process that
# only sleeps has not got on then.  For bounds that tell apart two delays of
# ours.
sub stopwatch
{
	my $began = time();
	my $file = PostgreSQL::Test::Utils::tempdir . '/still';
	my $parent = $$;
	my $pid = fork();

	BAIL_OUT("could not fork: $!") unless defined $pid;
	if ($pid == 0)
	{
		my $before = time();

		until (getppid() != $parent)
		{
			usleep(50_000);
			my $now = time();
			my $late = $now - $before - 0.05;

			$before = $now;
			eval { append_to_file($file, "$late\n") } if $late > 0.1;
		}
		POSIX::_exit(0);
	}
	return sub {
		my $now;

		# It has to wake up, too.
		do
		{
			$now = time();
			usleep(200_000);
		} while (time() - $now > 0.3);

		my $seconds = $now - $began;

		$seconds -= $_ foreach -e $file ? split(/\n/, slurp_file($file)) : ();
		return $seconds;
	};
}

# A runner whose handler writes down what it is given, one row a message, and
# counts them in its state.  "wait" in a payload makes it wait for the holder
# of the advisory lock of that number.
sub install_recorder
{
	my ($node, $db, $runner, $arguments) = @_;

	$runner //= 'recorder';
	$arguments = defined $arguments ? ", $arguments" : '';
	$node->safe_psql(
		$db, qq{
CREATE EXTENSION IF NOT EXISTS actornot;
CREATE TABLE IF NOT EXISTS recorded
	(entity text, place int, id bigint, payload jsonb, pid int);
CREATE OR REPLACE FUNCTION record(entity text, state jsonb,
	messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS \$\$
DECLARE
	place	int := coalesce((state->>'n')::int, 0);
	message	actornot_message;
BEGIN
	FOREACH message IN ARRAY messages LOOP
		IF message.payload ? 'wait' THEN
			PERFORM pg_advisory_xact_lock((message.payload->>'wait')::bigint);
		END IF;
		place := place + 1;
		INSERT INTO recorded
			VALUES (entity, place, message.id, message.payload,
				pg_backend_pid());
	END LOOP;
	RETURN jsonb_build_object('n', place);
END
\$\$;
SELECT actornot_register('$runner', 'record'$arguments);
});
	return;
}

# How many messages the recorder has written down.
sub recorded
{
	my ($node, $db, $where) = @_;

	return $node->safe_psql($db,
		'SELECT count(*) FROM recorded WHERE ' . ($where // 'true'));
}

sub log_offset
{
	my ($node) = @_;

	return -s $node->logfile || 0;
}

sub log_since
{
	my ($node, $offset) = @_;

	return slurp_file($node->logfile, $offset);
}

sub count_in_log
{
	my ($node, $offset, $pattern) = @_;
	my $count = () = log_since($node, $offset) =~ /$pattern/g;

	return $count;
}

# The data of an archive as a script, without the extension's sequences.
sub data_script
{
	my ($node, $archive, $script) = @_;
	my ($list, $err) = run_command([ 'pg_restore', '-l', $archive ]);
	my $lines = join "\n", grep { !/SEQUENCE SET actornot / } split /\n/, $list;

	append_to_file("$script.list", "$lines\n");
	$node->command_ok([ 'pg_restore', '--data-only', '-L', "$script.list",
			'-f', $script, $archive ], 'the data of an archive as a script');
	return;
}

# A session that holds an advisory lock until it quits.
sub lock_session
{
	my ($node, $db, $number) = @_;
	my $session = $node->background_psql($db, timeout => 300);

	$session->query_safe("SELECT pg_advisory_lock($number)");
	return $session;
}

# A test: the statement fails with that SQLSTATE.
sub fails_with
{
	my ($node, $db, $sqlstate, $statement, $what) = @_;
	my ($status, $stdout, $stderr) = $node->psql($db, $statement,
		extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($stderr, qr/ERROR:  \Q$sqlstate\E/, $what);
}

1;
