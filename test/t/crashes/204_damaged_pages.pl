# A page cannot be read.  Only entities whose message or mailbox is in this page
# wait: the manager goes on.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# Make a block unreadable that is in no buffer, and return what was there, or
# put that back.
sub damage
{
	my ($node, $file, $block, $header) = @_;
	my $was;

	open my $page, '+<', $node->data_dir . "/$file" or die $!;
	binmode $page;
	seek $page, $block * 8192, 0;
	read $page, $was, 20;
	seek $page, $block * 8192, 0;
	print $page $header // "\xff" x 20;
	close $page;
	return $was;
}

# Kill our only worker, and wait until the server is gone.
sub crash
{
	my ($node) = @_;
	my $pid = one_pid($node, 'worker', q{state = 'active'});
	my $offset = log_offset($node);

	kill 'KILL', $pid;
	$node->wait_for_log(qr/database system is shut down/, $offset);
	for (1 .. 1000)
	{
		last unless -e $node->data_dir . '/postmaster.pid';
		usleep(20_000);
	}
	$node->{_pid} = undef;
	return;
}

my $node = new_server('main',
	conf => "restart_after_crash = off\nactornot.max_workers = 1");

$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION actornot;
	CREATE TABLE asleep AS SELECT 1;
	CREATE FUNCTION handle(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF entity = 'sleeps' THEN
			PERFORM pg_sleep(600) FROM asleep;
		ELSIF entity = 'fails' OR entity = 'fails once' AND messages[1].attempt = 1 THEN
			RAISE 'bad luck';
		END IF;
		RETURN coalesce(state::int, 0) + 1;
	END $$;
	SELECT actornot_register('sleepy', 'handle');
	SELECT actornot_register('bad', 'handle', retry_delay => '1 s', max_attempts => NULL);
	SELECT actornot_register('good', 'handle', retry_delay => '1 s')});

# A suspect of a crash whose message cannot be read.
$node->safe_psql('postgres', q{
	SELECT actornot_pause('good');
	SELECT actornot_post('sleepy', 'sleeps');
	SELECT count(actornot_post('good', 'e' || n, to_jsonb(repeat('x', 200))))
	  FROM generate_series(1, 200) n});
is( $node->safe_psql('postgres', q{
	SELECT (ctid::text::point)[0] FROM actornot.message_0 WHERE entity = 'sleeps'}),
	0, 'a message is in the first block');
my $others = $node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.message_0 WHERE (ctid::text::point)[0] > 0});
my $file = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('actornot.message_0')});
wait_until($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker' AND wait_event = 'PgSleep'},
	'it is being run');
$node->safe_psql('postgres', 'CHECKPOINT');
crash($node);
my $header = damage($node, $file, 0);
my $offset = log_offset($node);
$node->start;
$node->safe_psql('postgres', q{SELECT actornot_resume('good')});
wait_for_value($node, 'postgres', q{SELECT count(*) FROM actornot.mailbox WHERE entity LIKE 'e%'},
	$others, 'a suspect whose mailbox cannot be read delays no other entity', 150);
like(log_since($node, $offset),
	qr/WARNING:  could not read block 0 of segment "actornot.message_0": invalid page in block 0/,
	'the log tells of it');
damage($node, $file, 0, $header);
$node->safe_psql('postgres', q{
	DELETE FROM asleep;
	SELECT actornot_pause(name), actornot_resume(name) FROM unnest('{good,sleepy}'::text[]) name});
wait_for_value($node, 'postgres', q{SELECT actornot_pending('sleepy') + actornot_pending('good')},
	'0', 'when all can be read it is run');

# A back-off that is over, in a mailbox that cannot be read.
$node->safe_psql('postgres', q{SELECT actornot_post('bad', 'fails')});
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM actornot.mailbox WHERE entity = 'fails' AND attempts > 0},
	'1', 'a message fails');
$node->safe_psql('postgres', q{
	SELECT actornot_pause('bad');
	SELECT count(actornot_post('good', 'f' || n)) FROM generate_series(1, 300) n});
wait_for_value($node, 'postgres', q{SELECT count(*) FROM actornot.mailbox WHERE entity LIKE 'f_%'},
	'301', 'others have newer mailboxes');
wait_until($node, 'postgres', q{
	SELECT wake_at < clock_timestamp() FROM actornot.mailbox WHERE entity = 'fails'},
	'its back-off is over');
my ($block, $attempts) = split /\|/, $node->safe_psql('postgres', q{
	SELECT (ctid::text::point)[0], attempts FROM actornot.mailbox WHERE entity = 'fails'});
$file = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('actornot.mailbox')});
$node->stop;
$header = damage($node, $file, $block);
$offset = log_offset($node);
$node->start;
$node->safe_psql('postgres', q{SELECT actornot_post('good', 'fails once')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('good', 'fails once')},
	'1', 'it delays no other entity', 150);
$node->safe_psql('postgres', q{SELECT actornot_resume('bad')});
damage($node, $file, $block, $header);
wait_for_value($node, 'postgres', qq{
	SELECT attempts > $attempts FROM actornot.mailbox WHERE entity = 'fails'},
	't', 'it goes on when it can be read', 150);
like(log_since($node, $offset),
	qr/WARNING:  could not search for entities whose back-off is over: invalid page in block $block /,
	'the log tells of it');
is(count_in_log($node, $offset, qr/actornot manager.* exited with exit code [^0]/),
	0, 'the manager lives on');

unlike(log_since($node, $offset), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;

# A mailbox that cannot be read is met when ended ones are removed.
$node = new_server('ended', conf => 'actornot.segment_size = 128kB');
$node->start;
install_recorder($node, 'postgres');
install_move_on($node, 'postgres');
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('recorder', 'e' || n)) FROM generate_series(1, 300) n});
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')}, '0',
	'there are mailboxes');
$file = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('actornot.mailbox')});
$node->stop;
damage($node, $file, 0);
$offset = log_offset($node);
$node->start;
$node->safe_psql('postgres', q{
	CALL move_on($$SELECT actornot_post('recorder', 'f', to_jsonb(repeat('x', 300)))$$);
	CALL move_on($$SELECT actornot_post('recorder', 'f', to_jsonb(repeat('x', 300)))$$)});
$node->wait_for_log(
	qr/WARNING:  could not remove entities that have ended from block 0 of table "actornot.mailbox" on: invalid page in block 0/,
	$offset);
is(count_in_log($node, $offset, qr/actornot manager.* exited with exit code [^0]/),
	0, 'the manager lives on');
$node->stop;
done_testing();
