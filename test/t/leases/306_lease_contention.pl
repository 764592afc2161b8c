# Many sessions call acquire where every ready entity is locked or cannot be
# lent: no session hangs, spins, or keeps a lock of what it did not get, and a
# waiting one is woken.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_server('main');

$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION actornot;
	SELECT actornot_register('crowd'), actornot_register('other');
	-- Looks for work without waiting, again and again.
	CREATE PROCEDURE hurry(times int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. times LOOP
			PERFORM actornot_acquire('crowd', max_entities => 2);
			COMMIT;
		END LOOP;
	END $$});

# All that waits is locked, and four sessions hurry: entries are taken and put
# back at the same moment by all of them.
my $holder = $node->background_psql('postgres');
for my $round (1 .. 3)
{
	$node->safe_psql('postgres', q{
		SELECT count(actornot_post('crowd', 'e' || n)) FROM generate_series(1, 50) n});
	$holder->query_safe(q{BEGIN; SELECT count(actornot_set_state('crowd', 'e' || n, '1'))
		FROM generate_series(1, 50) n});
	my @hurried = map {
		my ($out, $err) = ('', '');
		my $run = IPC::Run::start(
			[ 'psql', '-Xqd', $node->connstr('postgres'), '-c',
				q{SET statement_timeout = '120 s'}, '-c', 'CALL hurry(5000)' ],
			'<', \undef, '>', \$out, '2>', \$err);
		[ $run, \$err ]
	} 1 .. 4;
	my @failed = grep { !$_->[0]->finish } @hurried;
	is(scalar(@failed), 0, "no session hangs ($round)")
	  or diag(map { ${ $_->[1] } } @failed);
	is( $node->safe_psql('postgres', q{
		SET statement_timeout = '30 s';
		SELECT actornot_post('other', 'x') > 0}),
		't', "posts to others go on ($round)");
	$holder->query_safe('COMMIT');
	wait_until($node, 'postgres', q{
		SELECT count((SELECT count(*) FROM actornot_update_locked(runner, entity, token, '2', max_messages => 0))) > -1
			AND actornot_pending('crowd') = 0
		  FROM actornot_acquire('crowd', max_entities => 100)},
		"all are found when they are free ($round)");
}

# More than a transaction looks at are locked: it says so at once.
$node->safe_psql('postgres', q{
	SELECT actornot_register('many');
	SELECT cardinality(actornot_post_many('many', ARRAY(SELECT 'e' || n FROM generate_series(1, 3000) n)))});
$holder->query_safe(q{BEGIN; SELECT count(actornot_set_state('many', 'e' || n, '1'))
	FROM generate_series(1, 3000) n});
is( $node->safe_psql('postgres', q{
	SET statement_timeout = '60 s';
	SELECT count(*) FROM actornot_acquire('many')}),
	0, 'an acquire that does not wait is answered while all are locked');
$holder->query_safe('ROLLBACK');
wait_until($node, 'postgres', q{SELECT count(*) = 1 FROM actornot_acquire('many')},
	'and gets one when they are free');

# What was not lent is not locked.
$node->safe_psql('postgres', q{SELECT actornot_register('two'),
	actornot_post('two', 'a'), actornot_post('two', 'b')});
my ($a, $b) = map {
	$node->safe_psql('postgres', "SELECT token FROM actornot_acquire('two', '$_', '1 hour')")
} qw(a b);
my $first = $node->background_psql('postgres');
my $second = $node->background_psql('postgres');
$first->query_safe(q{BEGIN; SELECT * FROM actornot_acquire('two', 'a')});
$second->query_safe(q{BEGIN; SELECT * FROM actornot_acquire('two', 'b')});
$first->query_safe(qq{SET statement_timeout = '60 s';
	SELECT actornot_update_locked('two', 'b', $b, '1'); COMMIT});
$second->query_safe(qq{SET statement_timeout = '60 s';
	SELECT actornot_update_locked('two', 'a', $a, '1'); COMMIT});
is( $node->safe_psql('postgres', q{SELECT actornot_state('two', 'a'), actornot_state('two', 'b')}),
	'1|1', 'two sessions that look at what the other one holds go on');

# Prepared, and rolled back: the entity is not lent.
$node->safe_psql('postgres', q{SELECT actornot_register('prep'), actornot_post('prep', 'e')});
is( $node->safe_psql('postgres', q{
	BEGIN;
	SELECT entity FROM actornot_acquire('prep', lease => '1 hour');
	PREPARE TRANSACTION 'gone'}),
	'e', 'a prepared transaction has acquired something');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'gone'});
is( $node->safe_psql('postgres', q{SELECT count(*) FROM actornot_acquire('prep', wait => '60 s')}),
	1, 'what a prepared transaction had acquired and gave up is found');

# Resumed by another session while this one is in a transaction.  What was
# posted meanwhile is found by a sweep, so it may take a moment; a session
# that still took the runner for paused would never see it.
$node->safe_psql('postgres', q{SELECT actornot_register('still'),
	actornot_pause('still'), actornot_post('still', 'e')});
$first->query_safe(q{BEGIN; SELECT * FROM actornot_acquire('still')});
$node->safe_psql('postgres', q{SELECT actornot_resume('still')});
my $found = '';
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$found = $first->query_safe(q{SELECT 'got ' || entity FROM actornot_acquire('still')});
	last if $found ne '';
	usleep(100_000);
}
like($found, qr/got e/, 'a session that looks again in its open transaction sees that it was resumed');
$first->query_safe('COMMIT');

# A session that waits for one entity is woken by a post to it, although the
# entity was ready before.
$node->safe_psql('postgres', q{
	CREATE TABLE gate (open boolean);
	CREATE FUNCTION is_open(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS
		$$ SELECT count(*) > 0 FROM gate $$;
	SELECT actornot_register('gated', runnable => 'is_open');
	SELECT actornot_post('gated', 'e')});
my $before = $node->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())');
my ($out, $err) = ('', '');
my $waiter = IPC::Run::start(
	[ 'psql', '-XqAtd', $node->connstr('postgres'), '-c',
		q{SELECT count(*), clock_timestamp() < statement_timestamp() + '40 s'
			FROM actornot_acquire('gated', 'e', wait => '60 s')} ],
	'<', \undef, '>', \$out, '2>', \$err);
wait_until($node, 'postgres', q{
	SELECT count(*) > 0 FROM pg_stat_activity
	 WHERE query LIKE '%wait =>%' AND pid <> pg_backend_pid() AND wait_event_type = 'Extension'},
	'a session waits');
$node->safe_psql('postgres', q{
	BEGIN;
	INSERT INTO gate VALUES (true);
	SELECT actornot_post('gated', 'e');
	COMMIT});
$waiter->finish;
is($out, "1|t\n", 'a session that waits for an entity is woken by the next post');

# A "runnable" that fails for most: the others are lent in the end, with and
# without a queue, and each failure is noted.
$node->safe_psql('postgres', q{
	CREATE FUNCTION picky(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		RETURN 1 / (entity = 'healthy')::int = 1;
	END $$;
	SELECT actornot_register('picky', runnable => 'picky', retry_delay => '1 h');
	SELECT cardinality(actornot_post_many('picky', ARRAY(SELECT 'e' || n FROM generate_series(1, 5000) n)));
	SELECT actornot_post('picky', 'healthy')});
wait_until($node, 'postgres', q{SELECT count(*) = 1 FROM actornot_acquire('picky') WHERE entity = 'healthy'},
	'the one that can be run is found behind many that fail');

# More runners with work than there are lanes in the queue.
$node->safe_psql('postgres', q{
	SELECT actornot_register('lane0');
	INSERT INTO actornot.runner (id, name, owner, batch_size, batch_bytes, max_attempts, retry_delay,
			retry_delay_max, lease, weight, dedup_window, created_at, updated_at)
		SELECT nextval('actornot.runner_seq'), 'lane' || n, owner, batch_size, batch_bytes, max_attempts,
			retry_delay, retry_delay_max, lease, weight, dedup_window, created_at, updated_at
		  FROM actornot.runner, generate_series(1, 4200) n WHERE name = 'lane0';
	SELECT count(actornot_post('lane' || n, 'e')) FROM generate_series(0, 4200) n});
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM generate_series(0, 4200) n, LATERAL actornot_acquire('lane' || n)}),
	4201, 'all of their entities are found');

$_->quit foreach $holder, $first, $second;
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
