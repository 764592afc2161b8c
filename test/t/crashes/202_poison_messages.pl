# A message that crashes the server is a dead letter after three crashes at
# most, also where its runner has no limit of attempts.  All other messages are
# processed, and no crash is counted for them.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');

# The handler's owner is a superuser, so it can have its own process killed.
# It notes how many crashes its message has been charged with so far.
$node->safe_psql(
	'app', q{
CREATE EXTENSION actornot;
CREATE TABLE recorded (entity text, place int, id bigint, crashes int,
	payload jsonb);
CREATE FUNCTION record(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	place	int := coalesce(state::int, 0);
	m		actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload ? 'signal' THEN
			EXECUTE format('COPY (SELECT 1) TO PROGRAM %L',
				format('kill -%s %s', m.payload->>'signal', pg_backend_pid()));
			PERFORM pg_sleep(60);
		END IF;
		IF m.payload ? 'wait' THEN
			PERFORM pg_advisory_xact_lock((m.payload->>'wait')::bigint);
		END IF;
		place := place + 1;
		INSERT INTO recorded
		SELECT record.entity, place, m.id, b.crashes, m.payload
		  FROM (SELECT) AS one LEFT JOIN actornot.mailbox b
			ON b.entity = record.entity;
	END LOOP;
	RETURN to_jsonb(place);
END
$$;
SELECT actornot_register('recorder', 'record', max_attempts => NULL,
	retry_delay => '10 ms');
});

my $crash = qr/\(PID \d+\) was terminated by signal/;

# ------------------------------------------------------------ one is poison

# Post what may crash the server before the poster has had its answer.
sub post_all
{
	my ($statements) = @_;
	my ($status, $stdout, $stderr) =
	  $node->psql('app', "BEGIN; $statements; COMMIT", on_error_stop => 1);

	BAIL_OUT($stderr) if $stderr =~ /ERROR/;
	return;
}

# Others are run at the same time: many small ones, and some that are being
# run when the crash comes.
sub post_poison_among_others
{
	my ($name, $signal) = @_;

	$node->safe_psql(
		'app', qq{
SELECT count(actornot_post('recorder', '$name other ' || n % 50, to_jsonb(n)))
  FROM generate_series(1, 500) n;
});
	post_all(qq{
SELECT actornot_post('recorder', '$name poison', '"before"');
SELECT actornot_post('recorder', '$name poison', '{"signal": "$signal"}');
SELECT actornot_post('recorder', '$name poison', '"after"');
SELECT count(actornot_post('recorder', '$name other ' || n % 50, to_jsonb(n)))
  FROM generate_series(501, 1000) n});
	return;
}

sub check_poison
{
	my ($name, $offset) = @_;

	wait_for_value($node, 'app',
		q{SELECT actornot_pending('recorder')},
		0, "$name: all is done with");
	is( $node->safe_psql('app', qq{
		SELECT entity, payload ? 'signal', sqlstate FROM actornot.dead_letters
		 WHERE entity LIKE '$name%'}),
		"$name poison|t|57P02", "$name: the poison is a dead letter");
	is( $node->safe_psql('app', qq{
		SELECT string_agg(payload #>> '{}', ', ' ORDER BY id) FROM recorded
		 WHERE entity = '$name poison'}),
		'before, after',
		"$name: what waited before and behind it is processed");
	is( $node->safe_psql('app', qq{
		SELECT count(*), count(DISTINCT id) FROM recorded
		 WHERE entity LIKE '$name other%'}),
		'1000|1000', "$name: the others are processed, once");
	is( $node->safe_psql('app', qq{
		SELECT count(*) FROM (
			SELECT id, lag(id) OVER (PARTITION BY entity ORDER BY place) AS last
			  FROM recorded WHERE entity LIKE '$name other%') AS s
		 WHERE id < last}),
		0, "$name: and in order");
	is( $node->safe_psql('app',
			"SELECT count(*) FROM actornot.mailbox WHERE crashes > 0"),
		0, "$name: no other message is suspected of it any more");
	my $crashes = count_in_log($node, $offset, $crash);
	cmp_ok($crashes, '<=', 3, "$name: it took $crashes crashes");
	return;
}

my $offset = log_offset($node);
post_poison_among_others('kill', 'KILL');
check_poison('kill', $offset);
cmp_ok(count_in_log($node, $offset, $crash), '>=', 2,
	'kill: the first crash alone does not condemn it');

# A worker that ends by itself, with an error that ends its session, takes no
# other process down; but its message must not do this for ever either.
$offset = log_offset($node);
post_poison_among_others('segv', 'SEGV');
check_poison('segv', $offset);

# -------------------------------------------------- several poisons at once

$offset = log_offset($node);
post_all(q{
SELECT actornot_post('recorder', 'several ' || n,
		CASE WHEN n % 3 = 0 THEN '{"signal": "KILL"}' ELSE '{}' END::jsonb)
  FROM generate_series(1, 9) n;
SELECT actornot_post('recorder', 'several ' || n, '"after"')
  FROM generate_series(1, 9) n});
wait_for_value($node, 'app', q{SELECT actornot_pending('recorder')},
	0, 'several: all is done with');
is( $node->safe_psql('app', q{
	SELECT string_agg(entity, ', ' ORDER BY entity) FROM actornot.dead_letters
	 WHERE entity LIKE 'several%'}),
	'several 3, several 6, several 9',
	'several: each poison is a dead letter');
is( $node->safe_psql('app', q{
	SELECT count(*), count(DISTINCT id) FROM recorded
	 WHERE entity LIKE 'several%'}),
	'15|15', 'several: all else is processed, once');
cmp_ok(count_in_log($node, $offset, $crash), '<=', 9,
	'several: none took more than three crashes');

# ------------------------------------------------- innocent ones, and others

my $busy = q{
	SELECT count(*) = 1 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'};
my $holder;

# A message that waits for $holder while it is run.
sub post_busy
{
	my ($entity) = @_;

	$holder = lock_session($node, 'app', 1);
	$node->safe_psql('app', qq{
		SELECT actornot_post('recorder', '$entity', '{"wait": 1}')});
	wait_until($node, 'postgres', $busy, "$entity: it is being run");
	return;
}

# One process goes down, and all others with it.
sub crash
{
	my ($pid) = @_;

	$offset = log_offset($node);
	kill('KILL', $pid);
	$node->wait_for_log(qr/all server processes terminated/, $offset);
	eval { $holder->quit };
	return;
}

sub crash_worker
{
	crash(one_pid($node, 'worker', q{wait_event = 'advisory'}));
	return;
}

# An entity that is being run while another process crashes the server is no
# suspect.
post_busy('innocent');
crash(one_pid($node, 'manager'));
wait_for_value($node, 'app',
	q{SELECT count(*), coalesce(max(crashes), 0) FROM recorded WHERE entity = 'innocent'},
	'1|0', 'innocent: it is run again, as no suspect');
unlike(log_since($node, $offset), qr/will be run alone/,
	'innocent: no entity is suspected');

# One that the crashed worker was running is run alone, and has nothing on its
# record afterwards.
post_busy('suspect');
$node->safe_psql('app', q{SELECT actornot_post('recorder', 'suspect', '"next"')});
crash_worker();
wait_for_value($node, 'app',
	q{SELECT count(*), max(crashes) FROM recorded WHERE entity = 'suspect'},
	'2|1', 'suspect: it is run again, alone');
is( $node->safe_psql('app',
		q{SELECT count(*) FROM actornot.mailbox WHERE crashes > 0}),
	0,
	'suspect: nothing is left on its record');

# While it is run alone others take the server down, again and again.  What it
# waits for outlives that.
$node->safe_psql('app', q{
	BEGIN;
	SELECT pg_advisory_xact_lock(2);
	PREPARE TRANSACTION 'holder'});
$node->safe_psql('app', q{SELECT actornot_post('recorder', 'bystander', '{"wait": 2}')});
wait_until($node, 'postgres', $busy, 'bystander: it is being run');
foreach my $time (1 .. 4)
{
	$time == 1 ? crash_worker() : crash(one_pid($node, 'manager'));
	wait_until($node, 'postgres', $busy, "bystander: it is run alone ($time)");
	is( $node->safe_psql('app', q{
			SELECT crashes FROM actornot.mailbox WHERE entity = 'bystander'}),
		1, "bystander: that is not held against it ($time)");
}
$node->safe_psql('app', q{COMMIT PREPARED 'holder'});
wait_for_value($node, 'app',
	q{SELECT count(*), max(crashes) FROM recorded WHERE entity = 'bystander'},
	'1|1', 'bystander: in the end it is processed');

# Then its worker still has to say that nothing came of it.
$node->safe_psql('app', q{SELECT actornot_post('recorder', 'bystander', '"next"')});
wait_for_value($node, 'app',
	q{SELECT count(*) FROM recorded WHERE entity = 'bystander'},
	2, 'bystander: and what follows');

# One that has nothing pending after the crash stays a suspect until its next
# message, and that is not held against it.
sub make_idle_suspect
{
	my ($entity) = @_;

	post_busy($entity);
	$node->safe_psql('app', q{SELECT actornot_pause('recorder')});
	crash_worker();
	wait_for_value($node, 'app', "SELECT actornot_purge('recorder', '$entity')",
		1, "$entity: nothing of it is left");
	like(log_since($node, $offset), qr/ 1 entity was being run/,
		"$entity: it is the only suspect");
	return;
}

# Restart the server; what is in its log then.
sub restart_log
{
	my $before = log_offset($node);

	$node->restart;
	return log_since($node, $before);
}

make_idle_suspect('finished');
like(restart_log(), qr/ 1 entity was being run/,
	'finished: it is still one after a restart');
$node->safe_psql('app', q{
	SELECT actornot_resume('recorder'),
		actornot_post('recorder', 'another', '1')});
wait_for_value($node, 'app',
	q{SELECT count(*) FROM recorded WHERE entity = 'another'},
	1, 'finished: another one is run');
$node->safe_psql('app', q{SELECT actornot_post('recorder', 'finished', '2')});
wait_for_value($node, 'app',
	q{SELECT count(*), max(crashes) FROM recorded WHERE entity = 'finished'},
	'1|1', 'finished: what is posted next is run alone');
wait_for_value($node, 'app',
	q{SELECT count(*) FROM actornot.mailbox WHERE crashes > 0},
	0, 'finished: and nothing is left on its record');
wait_until($node, 'app', q{
	SELECT count(*) = 0 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker' AND state <> 'idle'},
	'finished: its worker sleeps');
unlike(restart_log(), qr/will be run alone/,
	'finished: then it is no suspect any more');

# If no message comes, it is forgotten in the end.
make_idle_suspect('forgotten');
my $starts = 1;
$starts++ while $starts < 40 && restart_log() =~ qr/ 1 entity was being run/;
is($starts, 32, 'forgotten: it is a suspect for 32 starts');
$node->safe_psql('app', q{SELECT actornot_resume('recorder')});

# An administrator's SIGTERM is no crash, nor is a shutdown of any kind.
foreach my $kind ('terminated', 'shut down', 'stopped at once')
{
	post_busy($kind);
	$offset = log_offset($node);
	if ($kind eq 'terminated')
	{
		$node->safe_psql('postgres', q{
			SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'});
		$holder->quit;
	}
	else
	{
		$node->stop($kind eq 'shut down' ? 'fast' : 'immediate');
		eval { $holder->quit };
		$node->start;
	}
	wait_for_value($node, 'app',
		"SELECT count(*), coalesce(max(crashes), 0) FROM recorded WHERE entity = '$kind'",
		'1|0', "$kind: it is run again, as no suspect");
	unlike(log_since($node, $offset), qr/will be run alone/,
		"$kind: no entity is suspected");
}

# An administrator may end a worker any number of times.
post_busy('often');
foreach my $time (1 .. 4)
{
	wait_until($node, 'postgres', $busy, "often: it is being run ($time)");
	my $pid = one_pid($node, 'worker', q{wait_event = 'advisory'});
	kill('TERM', $pid);
	wait_until($node, 'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid",
		"often: its worker leaves ($time)");
}
$holder->quit;
wait_for_value($node, 'app',
	q{SELECT count(*), coalesce(max(crashes), 0) FROM recorded WHERE entity = 'often'},
	'1|0', 'often: it is run all the same');

is( $node->safe_psql('app', 'SELECT count(*) FROM actornot.dead_letters'),
	5,
	'nothing else was given up');
$node->stop;
done_testing();
