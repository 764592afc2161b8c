# MovedWorld - a database with every kind of entity, to be moved elsewhere.
#
# build_world() makes one on a server, where nothing runs by itself: its
# runners belong to roles that may not log in.  Where it is moved to, they
# may.  Everything posted is in "posted", in the order in which it has to be
# processed, and the handlers write what they see into "seen".
#
#	create_roles($there, 'NOLOGIN' or 'LOGIN')
#	my %world = build_world($here, 'db', version => '0.1')	default: the latest
#	is_as_it_was(\%world, $there, 'copy', $what)	nothing has been run there
#	goes_on(\%world, $there, 'copy', $what)			all is run, once, in order
#
# goes_on() adopts the data by actornot_start(), or as it is told.

package MovedWorld;

use strict;
use warnings;

use ActornotTest;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(create_roles build_world picture is_as_it_was goes_on far_ahead);

# Roles are no part of a database.
sub create_roles
{
	my ($node, $login) = @_;

	$node->safe_psql('postgres', qq{
		CREATE ROLE carol $login;
		CREATE ROLE alice $login;
		CREATE ROLE bob LOGIN});
	return;
}

# A stopped server goes on far ahead of where it was: in its 104 millionth
# transaction of an epoch.
sub far_ahead
{
	my ($node, $epoch) = @_;
	my $segments = 100;
	my $status = sprintf('%s/pg_xact/%04X', $node->data_dir, $segments);

	# Transactions that have never been are looked up nevertheless.
	append_to_file($status, "\0" x (256 * 1024));
	PostgreSQL::Test::Utils::system_or_bail(
		$node->config_data('--bindir') . '/pg_resetwal', '-e', $epoch, '-x',
		$segments * 1024 * 1024, $node->data_dir);
	return;
}

# ------------------------------------------------------------------ building

my $schema = q{
GRANT EXECUTE ON FUNCTION actornot_register TO carol, alice;
CREATE TABLE posted (place serial, entity text, id bigint);
CREATE TABLE seen (place serial, entity text, id bigint, attempt int,
	role name DEFAULT current_user);
CREATE TABLE broken (entity text PRIMARY KEY);
GRANT ALL ON posted, seen, broken, seen_place_seq TO carol, alice;

CREATE SCHEMA carol AUTHORIZATION carol;
CREATE SCHEMA alice AUTHORIZATION alice;
CREATE FUNCTION see(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM public.broken b WHERE b.entity = see.entity) THEN
		RAISE '% is broken', entity;
	END IF;
	INSERT INTO public.seen (entity, id, attempt)
	SELECT see.entity, m.id, m.attempt FROM unnest(messages) WITH ORDINALITY m
	 ORDER BY m.ordinality;
	IF messages[cardinality(messages)].payload = '"end"' THEN
		RETURN NULL;
	END IF;
	RETURN jsonb_build_object('n',
		coalesce((state->>'n')::int, 0) + cardinality(messages));
END
$$;
ALTER FUNCTION see(text, jsonb, actornot_message[]) SET SCHEMA carol;
ALTER FUNCTION carol.see(text, jsonb, actornot_message[]) OWNER TO carol;

CREATE FUNCTION post(runner text, entity text, payload jsonb DEFAULT NULL,
	n int DEFAULT 1)
RETURNS void LANGUAGE sql AS $$
	INSERT INTO posted (entity, id)
	SELECT entity, actornot_post(runner, entity, payload)
	  FROM generate_series(1, n)
$$;

SET ROLE carol;
SELECT actornot_register('usual', 'carol.see', batch_size => 10);
SELECT actornot_register('asleep', 'carol.see');
SELECT actornot_register('patient', 'carol.see', retry_delay => '1 h');
SELECT actornot_register('hasty', 'carol.see', retry_delay => '1 ms');
SELECT actornot_register('mortal', 'carol.see', max_attempts => 1);
SELECT actornot_register('lent', lease => '1 h');
SELECT actornot_register('gone', 'carol.see');
SELECT actornot_pause('asleep');
RESET ROLE;
CREATE FUNCTION alice.see(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS 'SELECT carol.see(entity, state, messages)';
ALTER FUNCTION alice.see(text, jsonb, actornot_message[]) OWNER TO alice;
GRANT USAGE ON SCHEMA carol TO alice;
SET ROLE alice;
SELECT actornot_register('hers', 'alice.see');
SELECT actornot_grant('hers', 'bob');
RESET ROLE;
};

sub run_sql
{
	my ($runner, $entity) = @_;

	return "SET ROLE carol; SELECT actornot_run('$runner', '$entity');"
	  . ' RESET ROLE;';
}

# A transaction that is open while others post and are processed.
sub build_late_commit
{
	my ($node, $db) = @_;
	my $session = $node->background_psql($db);

	$session->query_safe("BEGIN; SELECT post('usual', 'late')");
	$node->safe_psql($db, "SELECT post('usual', 'late', n => 3);"
		  . run_sql('usual', 'late'));
	$session->query_safe('COMMIT');
	$session->quit;

	# It was first and committed last.
	$node->safe_psql($db, q{
		UPDATE posted SET place = nextval('posted_place_seq')
		 WHERE id = (SELECT min(id) FROM posted WHERE entity = 'late')});
	return;
}

sub lease
{
	my ($node, $db, $runner, $entity, $arguments) = @_;

	return $node->safe_psql($db, qq{
		SELECT token FROM actornot_acquire('$runner', '$entity', $arguments)});
}

# Returns what is to be found there again.
sub build_world
{
	my ($node, $db, %option) = @_;
	my $version = exists $option{version} ? "VERSION '$option{version}'" : '';
	my %world;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, "CREATE EXTENSION actornot $version; $schema");
	$node->safe_psql($db, q{SET client_min_messages = error;}
	  . q{SELECT post('usual', 'done', n => 5);} . run_sql('usual', 'done')
	  . q{SELECT post('usual', 'fresh', n => 7);}
	  # In the middle of a backlog, with more behind it.
	  . q{SELECT post('usual', 'half', n => 35);} . run_sql('usual', 'half')
	  . q{SELECT post('usual', 'half', n => 3);}
	  . q{SELECT post('usual', 'paused', n => 4);}
	  . q{SELECT actornot_pause('usual', 'paused');}
	  . q{SELECT post('usual', 'ended', '"end"');} . run_sql('usual', 'ended')
	  . q{SELECT post('usual', 'prepared', n => 2);}
	  . run_sql('usual', 'prepared')
	  . q{SELECT post('asleep', 'sleeper', n => 2);}
	  . q{SELECT post('hers', 'of alice', n => 2);}
	  # Failed: to be tried again in an hour, at once, never.
	  . q{INSERT INTO broken VALUES ('backoff'), ('due'), ('dead');}
	  . q{SELECT post('patient', 'backoff', n => 3);}
	  . run_sql('patient', 'backoff')
	  . q{SELECT post('hasty', 'due', n => 3);} . run_sql('hasty', 'due')
	  . q{SELECT actornot_post('mortal', 'dead', '1');} . run_sql('mortal', 'dead')
	  # Of runners that there are no more.
	  . q{SELECT actornot_post('gone', 'ghost'), actornot_post('gone', 'ghost');}
	  . q{SELECT actornot_unregister('gone', true);}
	  . q{CREATE ROLE erin SUPERUSER; SET ROLE erin;}
	  . q{SELECT actornot_register('orphan', 'carol.see');}
	  . q{SELECT actornot_post('orphan', 'ghost'); RESET ROLE; DROP ROLE erin;});
	build_late_commit($node, $db);

	# Leases: long ones and some that are over, with and without a handler.
	$node->safe_psql($db, qq{SELECT post('$_->[0]', '$_->[1]', n => 5)})
	  foreach ([ 'lent', 'held' ], [ 'lent', 'lapsed' ], [ 'usual', 'kept' ],
		[ 'usual', 'expired' ]);
	$world{held} = lease($node, $db, 'lent', 'held', 'max_messages => 3');
	$world{kept} = lease($node, $db, 'usual', 'kept',
		q{lease => '1 h', max_messages => 3});
	$world{lapsed} = lease($node, $db, 'lent', 'lapsed', q{lease => '1 ms'});
	$world{expired} = lease($node, $db, 'usual', 'expired', q{lease => '1 ms'});

	# Not in a dump, and in the way of pg_upgrade.
	$node->safe_psql($db, q{
		BEGIN;
		SELECT actornot_post('usual', 'prepared');
		PREPARE TRANSACTION 'open'});
	$world{picture} = picture($node, $db);
	return %world;
}

# All that can be seen of it.
sub picture
{
	my ($node, $db) = @_;

	return $node->safe_psql($db, q{
		SELECT r.name, b.entity, state, attempts, crashes, wake_at, b.paused,
			   lease_token, lease_until, lease_owner, last_error, last_id,
			   actornot_state(r.name, b.entity)
		  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner
		 ORDER BY r.name, b.entity;
		SELECT p.entity, actornot_pending(r.name, p.entity)
		  FROM (SELECT runner, entity, count(*) FROM actornot.message
				 GROUP BY runner, entity) p
			JOIN actornot.runner r ON r.id = p.runner
		 WHERE r.unregistered_at IS NULL AND r.name <> 'orphan'
		 ORDER BY p.entity;
		SELECT * FROM actornot.dead_letters ORDER BY id;
		SELECT name, owner, handler, handler_owner, paused FROM actornot.runner
		 WHERE name <> 'orphan' ORDER BY id;
		SELECT * FROM actornot.runner_grant ORDER BY runner;
		SELECT * FROM seen ORDER BY place});
}

# ------------------------------------------------------------------ checking

sub is_as_it_was
{
	my ($world, $node, $db, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(picture($node, $db), $world->{picture},
		"$what: all is there, and nothing has been run");
}

sub pending_is
{
	my ($node, $db, $entities, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_for_value($node, $db, qq{
		SELECT string_agg(entity || ' ' || actornot_pending(runner, entity), ', '
				ORDER BY entity)
		  FROM unnest('$entities'::text[][]) WITH ORDINALITY AS a (name, n),
			   LATERAL (SELECT split_part(name, '/', 1) AS runner,
				split_part(name, '/', 2) AS entity) s},
		$expected, $what);
}

# The lease of the old place is good here, as long as it would have been
# there, and the next tokens are larger.
sub leases_go_on
{
	my ($world, $node, $db, $what) = @_;
	my $token;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $node->safe_psql($db,
			q{SELECT count(*) FROM actornot_acquire('lent', 'held')}),
		0, "$what: what is lent is not lent again");
	$token = $node->safe_psql($db, qq{
		SELECT token FROM actornot_update_locked('lent', 'held', $world->{held},
			'"once"', lease => '1 h')});
	cmp_ok($token, '>', $world->{held}, "$what: its token is good, the next larger");
	is( $node->safe_psql($db, qq{
			SELECT count(*) FROM actornot_update_locked('lent', 'held', $token,
				'"twice"')}),
		0, "$what: the second batch is the last");
	is( $node->safe_psql($db, q{
			SELECT actornot_state('lent', 'held'), actornot_pending('lent', 'held')}),
		'"twice"|0', "$what: the program outside has done all of it");

	fails_with($node, $db, '55AN1', qq{
		SELECT actornot_renew('lent', 'lapsed', 1 + $world->{lapsed})},
		"$what: a token that never was is stale");
	$token = $node->safe_psql($db, q{
		SELECT token FROM actornot_acquire('lent', 'lapsed')
		 WHERE jsonb_array_length(messages) = 5});
	cmp_ok($token, '>', $world->{lapsed},
		"$what: what lapsed is lent again, whole, under a larger token");
	fails_with($node, $db, '55AN1', qq{
		SELECT actornot_update_locked('lent', 'lapsed', $world->{lapsed}, '0')},
		"$what: the old token is stale then");

	# A handler waits for its end as well.
	is( $node->safe_psql($db, q{SELECT actornot_pending('usual', 'kept')}),
		5, "$what: no worker runs what is lent");
	$node->safe_psql($db, qq{
		INSERT INTO seen (entity, id)
		SELECT 'kept', id FROM posted WHERE entity = 'kept' ORDER BY place LIMIT 3;
		SELECT actornot_update_locked('usual', 'kept', $world->{kept}, '{"n": 3}',
			max_messages => 0)});
	pending_is($node, $db, '{usual/kept}', 'kept 0',
		"$what: when it is let go, one does");
	return;
}

sub failures_go_on
{
	my ($node, $db, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $node->safe_psql($db, q{
		SELECT attempts, wake_at > clock_timestamp() + interval '30 min'
		  FROM actornot.mailbox WHERE entity = 'backoff'}),
		'1|t', "$what: what backs off waits, and its attempt is not forgotten");
	$node->safe_psql($db, q{
		DELETE FROM broken;
		SELECT actornot_wake('patient', 'backoff');
		SELECT actornot_redrive('mortal', id) FROM actornot.dead_letters});
	pending_is($node, $db, '{patient/backoff,mortal/dead}',
		'backoff 0, dead 0', "$what: then it goes on");
	is( $node->safe_psql($db, q{
		SELECT string_agg(attempt::text, ' ' ORDER BY place) FROM seen
		 WHERE entity IN ('backoff', 'due') GROUP BY entity}),
		"2 1 1\n2 1 1", "$what: with the second attempt");
	is( $node->safe_psql($db, q{
		SELECT (SELECT count(*) FROM actornot.dead_letters),
			   (SELECT count(*) FROM seen WHERE entity = 'dead')}),
		'0|1', "$what: the dead letter, once");
	return;
}

sub rights_go_on
{
	my ($world, $node, $db, $what) = @_;
	my @bob = (extra_params => [ '-U', 'bob' ]);
	my ($status, $stdout, $stderr);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $node->safe_psql($db, q{
		SELECT DISTINCT role FROM seen WHERE entity = 'of alice'}),
		'alice', "$what: handlers run as the owner of their runner");
	is( $node->safe_psql($db, q{SELECT actornot_post('hers', 'by bob') > 0}, @bob),
		't', "$what: a role with the right to post can post");
	($status, $stdout, $stderr) =
	  $node->psql($db, q{SELECT actornot_post('usual', 'by bob')}, @bob);
	like($stderr, qr/permission denied/, "$what: a role without it cannot");

	# A name that was unregistered is somebody else's when it comes again.
	$node->safe_psql($db, q{
		SELECT actornot_register(name, 'carol.see'),
			   actornot_set_owner(name, 'carol')
		  FROM unnest('{gone,orphan}'::text[]) name;
		SELECT actornot_post('gone', 'ghost'), actornot_post('orphan', 'ghost')});
	pending_is($node, $db, '{gone/ghost,orphan/ghost}', 'ghost 0, ghost 0',
		"$what: runners can be registered under names of gone ones");

	# A runner without owner is kept for its next owner, with what waits; one
	# that was unregistered is not.
	is( $node->safe_psql($db, q{SELECT count(*) FROM seen WHERE entity = 'ghost'}),
		3, "$what: and do not get what was given up");
	return;
}

# "start": what adopts the data there.
sub goes_on
{
	my ($world, $node, $db, $what, $start) = @_;
	my $greatest = $node->safe_psql($db, 'SELECT max(id) FROM posted');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql($db, q{DELETE FROM broken WHERE entity = 'due'});
	$node->safe_psql($db, $start // 'SELECT actornot_start()');
	pending_is($node, $db, '{usual/done,usual/fresh,usual/half,usual/late,'
		  . 'usual/prepared,usual/expired,hasty/due,hers/of alice}',
		'done 0, due 0, expired 0, fresh 0, half 0, late 0, of alice 0, prepared 0',
		"$what: what was ready is run");
	is( $node->safe_psql($db, q{
		SELECT actornot_pending('usual', 'paused'),
			   actornot_pending('asleep', 'sleeper')}),
		'4|2', "$what: what was paused is not");
	leases_go_on($world, $node, $db, $what);
	failures_go_on($node, $db, $what);
	rights_go_on($world, $node, $db, $what);
	$node->safe_psql($db, q{
		SELECT actornot_resume('usual', 'paused'), actornot_resume('asleep');
		SELECT post('usual', 'done'), post('usual', 'ended'), post('usual', 'half')});
	pending_is($node, $db,
		'{usual/paused,asleep/sleeper,usual/done,usual/ended,usual/half}',
		'done 0, ended 0, half 0, paused 0, sleeper 0', "$what: all goes on");
	is( $node->safe_psql($db, qq{
		SELECT count(*) FROM posted
		 WHERE id > $greatest AND entity IN ('done', 'ended', 'half')}),
		3, "$what: new ids are larger");

	is( $node->safe_psql($db, q{
		SELECT entity, posted, seen
		  FROM (SELECT entity, string_agg(id::text, ' ' ORDER BY place) AS posted
				  FROM posted WHERE entity NOT IN ('held', 'lapsed')
				 GROUP BY entity) p
			FULL JOIN (SELECT entity, string_agg(id::text, ' ' ORDER BY place) AS seen
				  FROM seen WHERE entity NOT IN ('dead', 'ghost', 'by bob', 'another')
				 GROUP BY entity) s USING (entity)
		 WHERE posted IS DISTINCT FROM seen}),
		'', "$what: each was seen once, in order");
	is( $node->safe_psql($db, q{
		SELECT r.name, b.entity, state FROM actornot.mailbox b
			JOIN actornot.runner r ON r.id = b.runner
			JOIN (SELECT entity, count(*) AS n FROM seen
				   WHERE id NOT IN (SELECT id FROM seen WHERE entity IN ('ended', 'ghost'))
				   GROUP BY entity) s
				ON s.entity = b.entity
		 WHERE state IS DISTINCT FROM jsonb_build_object('n', n)}),
		'', "$what: states say the same");
	return;
}

1;
