# Entities move to a database that is in use, in another cluster, by COPY and
# actornot_advance_clock(): doc/moving.md has the recipe.

use strict;
use warnings;

use ActornotTest;
use MovedWorld;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ahead = new_server('ahead');
my $behind = new_server('behind');
my $folder = PostgreSQL::Test::Utils::tempdir;

far_ahead($ahead, 7);
$_->start foreach ($ahead, $behind);

# What is in use there has numbers that are used here as well.
sub use_it
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'CREATE DATABASE app');
	install_recorder($node, 'app', "own$_") foreach 1 .. 2;
	$node->safe_psql('app', 'CREATE ROLE mover; GRANT ALL ON recorded TO mover');
	$node->safe_psql('app', q{
		SELECT count(actornot_post('own1', 'first ' || n % 50))
		  FROM generate_series(1, 1000) n});
	wait_for_value($node, 'app', q{SELECT actornot_pending('own1')},
		0, $node->name . ' is in use');
	return;
}


use_it($ahead);
use_it($behind);
my $round = 0;

foreach my $way ([ $ahead, $behind ], [ $behind, $ahead ])
{
	my ($from, $to) = @$way;
	my $runner = 'moving' . ++$round;
	my $what = 'from ' . $from->name;
	my ($messages, $mailboxes) = ("$folder/m$round", "$folder/b$round");

	install_recorder($from, 'app', $runner, 'batch_size => 10');
	$from->safe_psql('app', 'ALTER ROLE mover NOLOGIN');
	wait_until($from, 'app', q{
		SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'mover'},
		"$what: nothing runs by itself");
	$from->safe_psql('app', qq{SELECT actornot_set_owner('$runner', 'mover')});

	# Done; in the middle of a backlog; not begun; paused; lent.
	$from->safe_psql('app', qq{
		SELECT count(actornot_post('$runner', 'done $round'))
		  FROM generate_series(1, 10);
		SELECT count(actornot_post('$runner', 'backlog $round'))
		  FROM generate_series(1, 30);
		SELECT actornot_post('$runner', 'fresh $round');
		SELECT actornot_pause('$runner', 'paused $round');
		SELECT actornot_post('$runner', 'paused $round');
		SELECT count(actornot_post('$runner', 'lent $round'))
		  FROM generate_series(1, 3);
		SET ROLE mover;
		SELECT actornot_run('$runner', 'done $round');
		SELECT actornot_run('$runner', 'backlog $round')});
	my $token = $from->safe_psql('app', qq{
		SELECT token FROM actornot_acquire('$runner', 'lent $round', '1 h',
			max_messages => 1)});

	# From here on no message is posted to it.  The lock waits for batches.
	$from->safe_psql('app', qq{
		SELECT actornot_pause('$runner');
		BEGIN;
		LOCK TABLE actornot.mailbox IN SHARE MODE;
		COPY (SELECT m.* FROM actornot.message m
				JOIN actornot.runner r ON r.id = m.runner
			   WHERE r.name = '$runner' AND r.unregistered_at IS NULL)
			TO '$messages';
		COPY (SELECT b.* FROM actornot.mailbox b
				JOIN actornot.runner r ON r.id = b.runner
			   WHERE r.name = '$runner' AND r.unregistered_at IS NULL)
			TO '$mailboxes';
		COMMIT});
	my $pending = $from->safe_psql('app', qq{SELECT actornot_pending('$runner')});
	my $done = recorded($from, 'app', "entity LIKE '% $round'");

	note("$what: $done done, $pending pending");

	# There it is registered, and others are busy.
	install_recorder($to, 'app', $runner, 'batch_size => 10');
	$to->safe_psql('app', qq{
		ALTER ROLE mover LOGIN;
		SELECT actornot_set_owner('$runner', 'mover')});
	$to->safe_psql('app', q{
		SELECT count(actornot_post('own2', 'second ' || n % 50))
		  FROM generate_series(1, 3000) n});
	my $offset = log_offset($to);

	$to->safe_psql('app', qq{
		BEGIN;
		CREATE TEMPORARY TABLE moved_message (LIKE actornot.message_0);
		CREATE TEMPORARY TABLE moved_mailbox (LIKE actornot.mailbox);
		COPY moved_message FROM '$messages';
		COPY moved_mailbox FROM '$mailboxes';
		UPDATE moved_message SET runner =
			(SELECT id FROM actornot.runner WHERE name = '$runner');
		UPDATE moved_mailbox SET runner =
			(SELECT id FROM actornot.runner WHERE name = '$runner');
		INSERT INTO actornot.message_0 SELECT * FROM moved_message;
		INSERT INTO actornot.mailbox SELECT * FROM moved_mailbox;
		SELECT actornot_advance_clock();
		COMMIT});
	$from->safe_psql('app', qq{SELECT actornot_unregister('$runner', true)});

	is( $to->safe_psql('app', qq{
			SELECT actornot_state('$runner', 'done $round')}),
		'{"n": 10}', "$what: states are there");
	wait_for_value($to, 'app', qq{
		SELECT actornot_pending('$runner', 'backlog $round'),
			   actornot_pending('$runner', 'fresh $round'),
			   actornot_pending('$runner', 'paused $round'),
			   actornot_pending('$runner', 'lent $round')},
		'0|0|1|3', "$what: what was ready is run, the rest is not");
	my $next = $to->safe_psql('app', qq{
		SELECT token FROM actornot_update_locked('$runner', 'lent $round',
			$token, '{"n": 1}')});
	cmp_ok($next, '>', $token, "$what: the lease is good, the next token larger");
	$to->safe_psql('app', qq{
		SELECT actornot_release('$runner', 'lent $round', $next);
		SELECT actornot_resume('$runner', 'paused $round');
		SELECT actornot_post('$runner', 'done $round')});
	wait_for_value($to, 'app', qq{SELECT actornot_pending('$runner')},
		0, "$what: all goes on");
	is( $to->safe_psql('app', qq{
			SELECT entity, count(*), count(DISTINCT id), min(place), max(place)
			  FROM recorded WHERE entity NOT SIMILAR TO '(first|second) %'
			   AND entity LIKE '% $round'
			 GROUP BY entity ORDER BY entity}),
		"backlog $round|20|20|11|30\ndone $round|1|1|11|11\n"
		  . "fresh $round|1|1|1|1\nlent $round|2|2|2|3\npaused $round|1|1|1|1",
		"$what: each once, in order, where it was left off");
	wait_for_value($to, 'app', q{SELECT actornot_pending('own2')},
		0, "$what: so do those that were there");
	is( $to->safe_psql('app', q{
			SELECT count(*) - count(DISTINCT id) FROM recorded
			 WHERE entity LIKE 'second %'}),
		0, "$what: each once");
	is( $to->safe_psql('app', qq{
			SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY entity
				ORDER BY place) AS last FROM recorded) s WHERE id <= last}),
		0, "$what: in order") if $round == 1;
}
foreach my $node ($ahead, $behind)
{
	unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
		'nothing crashed');
	$node->stop;
}
done_testing();
