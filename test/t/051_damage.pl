# A page that cannot be read keeps nobody waiting but those whose message or
# mailbox is in it: the manager goes on.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# Make a block unreadable, in a server that is stopped.
sub damage
{
	my ($node, $file, $block) = @_;

	open my $page, '+<', $node->data_dir . "/$file" or die $!;
	binmode $page;
	seek $page, $block * 8192, 0;
	print $page "\xff" x 20;
	close $page;
	return;
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
	CREATE FUNCTION handle(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF entity = 'sleeps' THEN
			PERFORM pg_sleep(600);
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
damage($node, $file, 0);
my $offset = log_offset($node);
$node->start;
$node->safe_psql('postgres', q{SELECT actornot_resume('good')});
wait_for_value($node, 'postgres', q{SELECT count(*) FROM actornot.mailbox WHERE entity LIKE 'e%'},
	$others, 'a suspect that cannot be looked at keeps nobody waiting', 60);
like(log_since($node, $offset),
	qr/WARNING:  could not look for messages of an entity that was being run at a crash: invalid page in block 0/,
	'the log tells of it');

unlike(log_since($node, $offset), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
