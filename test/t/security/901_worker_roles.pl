# A worker is a session of the role that owns the runner.  A role that may not
# connect holds up its own runners only, and the log says so once; what the
# role or the database has been given as defaults stops nobody.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');
$node->start;
$node->safe_psql(
	'postgres', q{
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE ROLE carol LOGIN;
CREATE ROLE dave LOGIN;
CREATE DATABASE app;
});
$node->safe_psql('app', 'CREATE EXTENSION actornot;
	GRANT EXECUTE ON FUNCTION actornot_register TO public');

# Each has a runner and a schema, and writes down as whom the handler runs.
foreach my $role ('alice', 'bob', 'carol', 'dave')
{
	$node->safe_psql('app', "CREATE SCHEMA $role AUTHORIZATION $role");
	$node->safe_psql(
		'app', qq{
SET search_path = $role, public;
CREATE TABLE recorded (entity text, role text, session text, id bigint);
CREATE FUNCTION $role.record(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS \$\$
	INSERT INTO $role.recorded
		SELECT entity, current_user, session_user, (m->>'id')::bigint
		  FROM jsonb_array_elements(messages) m
		RETURNING '1'::jsonb
\$\$;
SELECT actornot_register('$role', '$role.record');
SELECT actornot_grant('$role', 'public');
}, extra_params => [ '-U', $role ]);
}

my %posted = (alice => 0, bob => 0, carol => 0, dave => 0);

sub post_to
{
	my ($role) = @_;

	$posted{$role} += 10;
	$node->safe_psql('app', qq{
		SELECT count(actornot_post('$role', 'e' || n % 3))
		  FROM generate_series(1, 10) n});
	return;
}

sub is_processed
{
	my ($role, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_value($node, 'app',
		"SELECT count(*), count(DISTINCT id) FROM $role.recorded",
		"$posted{$role}|$posted{$role}", $what);
	return;
}

sub is_waiting
{
	my ($role, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('app', "SELECT actornot_pending('$role')"),
		10, $what);
	return;
}

foreach my $role ('alice', 'bob', 'carol', 'dave')
{
	post_to($role);
	is_processed($role, "the runner of $role is run");
	is( $node->safe_psql('app',
			"SELECT DISTINCT role, session FROM $role.recorded"),
		"$role|$role", "by a session of $role");
}

# ------------------------------------------------------- may not connect

# [ what is taken away, what the log says, what gives it back ]
my %blocks = (
	'without LOGIN' => [
		'ALTER ROLE bob NOLOGIN',
		qr/runners of role "bob" in database "app" cannot be run.*log in/,
		'ALTER ROLE bob LOGIN' ],
	'without CONNECT' => [
		'REVOKE CONNECT ON DATABASE app FROM public; '
		  . 'GRANT CONNECT ON DATABASE app TO alice, carol, dave',
		qr/runners of role "bob" in database "app" cannot be run.*CONNECT/,
		'GRANT CONNECT ON DATABASE app TO public' ],);

foreach my $block (sort keys %blocks)
{
	my ($take, $message, $give) = @{ $blocks{$block} };
	my $offset;

	# Workers that are there already are sessions like any other.
	wait_until($node, 'postgres', q{
		SELECT count(*) = 0 FROM pg_stat_activity
		 WHERE backend_type = 'actornot worker'},
		"$block: no worker is there");
	$node->safe_psql('postgres', $take);
	$offset = log_offset($node);
	post_to('bob');
	$node->wait_for_log($message, $offset);
	post_to('alice');
	is_processed('alice', "$block: others are run");
	is_waiting('bob', "$block: messages wait");

	# It is tried again, by and by, and not told again.
	foreach my $time (1 .. 3)
	{
		$node->safe_psql('app', q{SELECT actornot_post('alice', 'again')});
		$posted{alice}++;
		is_processed('alice', "$block: others are run ($time)");
	}
	is(count_in_log($node, $offset, $message),
		1, "$block: the log says it once");
	is(count_in_log($node, $offset, qr/FATAL/),
		0, "$block: no process ends with FATAL");
	$node->safe_psql('postgres', $give);
	is_processed('bob', "$block: it goes on when the role may connect");
}

# ------------------------------------------------------------ is dropped

my $offset;
wait_until($node, 'postgres', q{
	SELECT count(*) = 0 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker'},
	'dropped: no worker is there');
$node->safe_psql('app', q{
	CREATE TABLE kept AS SELECT * FROM carol.recorded;
	DROP OWNED BY carol;
	DROP ROLE carol});
$offset = log_offset($node);
$node->safe_psql('app',
	q{SELECT count(actornot_post('carol', 'e' || n)) FROM generate_series(1, 10) n});
$node->wait_for_log(qr/runners in database "app" cannot be run: their owner/,
	$offset);
post_to('alice');
is_processed('alice', 'dropped: others are run');
is( $node->safe_psql('app', q{SELECT actornot_pending('carol')}),
	10, 'dropped: messages wait');
$node->safe_psql('app', q{
	CREATE FUNCTION public.record(entity text, state jsonb, messages jsonb)
	RETURNS jsonb LANGUAGE sql AS $$ SELECT '2'::jsonb $$;
	ALTER FUNCTION public.record OWNER TO dave});
my ($status, undef, $stderr) = $node->psql('app', q{
	SELECT actornot_set_owner('carol', 'dave')});
is($status, 0, 'dropped: the runner gets another owner') or diag($stderr);
($status, undef, $stderr) = $node->psql('app', q{
	SELECT actornot_register('carol', 'public.record')},
	extra_params => [ '-U', 'dave' ]);
is($status, 0, 'dropped: the role that registers it anew owns it') or diag($stderr);
wait_for_value($node, 'app', q{SELECT actornot_pending('carol')},
	0, 'dropped: it goes on with the new owner');
is(count_in_log($node, $offset, qr/cannot be run: their owner/),
	1, 'dropped: the log said it once');

# ------------------------------------------------------------- defaults

$node->safe_psql(
	'postgres', q{
ALTER ROLE alice SET default_transaction_isolation = 'repeatable read';
ALTER ROLE alice SET default_transaction_read_only = on;
ALTER ROLE bob SET default_transaction_isolation = 'serializable';
ALTER ROLE bob SET statement_timeout = '1ms';
ALTER ROLE bob SET search_path = '';
ALTER ROLE dave SET role = 'alice';
ALTER ROLE dave SET row_security = off;
GRANT alice TO dave;
ALTER DATABASE app SET default_transaction_isolation = 'repeatable read';
ALTER DATABASE app SET default_transaction_read_only = on;
ALTER DATABASE app SET statement_timeout = '1ms';
ALTER DATABASE app SET lock_timeout = '1ms';
ALTER DATABASE app SET idle_in_transaction_session_timeout = '1ms';
ALTER DATABASE app SET idle_session_timeout = '1ms';
ALTER DATABASE app SET search_path = 'nowhere';
ALTER DATABASE app SET synchronous_commit = 'remote_apply';
});
my $has_transaction_timeout = $node->pg_version >= 17;

$node->safe_psql('postgres', q{
	ALTER ROLE bob SET transaction_timeout = '1ms';
	ALTER DATABASE app SET transaction_timeout = '1ms'})
  if $has_transaction_timeout;
wait_for_value($node, 'postgres',
	q{SELECT string_agg(backend_type, ',') FROM pg_stat_activity
	   WHERE backend_type LIKE 'actornot%'},
	'actornot launcher', 'defaults: all leave');
foreach my $role ('alice', 'bob', 'dave')
{
	# The poster is one that can.
	local $ENV{PGOPTIONS} = '-c default_transaction_read_only=off '
	  . '-c default_transaction_isolation=serializable '
	  . '-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 '
	  . '-c search_path=public '
	  . '-c idle_in_transaction_session_timeout=0';
	$ENV{PGOPTIONS} .= ' -c transaction_timeout=0'
	  if $has_transaction_timeout;

	post_to($role);
	is_processed($role, "defaults of $role and the database stop no worker");
	is( $node->safe_psql('app',
			"SELECT DISTINCT role, session FROM $role.recorded"),
		"$role|$role", 'and do not change its role');
}
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
