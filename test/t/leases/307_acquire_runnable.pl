# While an acquire asks "runnable", which takes its time: others get what it
# does not take, nobody is asked twice, and a runner that is given away
# meanwhile loses nothing.  Without shared_preload_libraries, where entities
# are found by reading the log.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', preload => 0);

$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION actornot;
	CREATE ROLE one; CREATE ROLE two;
	GRANT USAGE, CREATE ON SCHEMA public TO one;
	CREATE SCHEMA private AUTHORIZATION one;
	CREATE SEQUENCE asked;
	-- Waits for entity "first" while somebody holds lock 1.
	CREATE FUNCTION waits(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		IF entity = 'first' THEN
			PERFORM pg_advisory_xact_lock(1);
		END IF;
		RETURN true;
	END $$;
	CREATE FUNCTION counts(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM nextval('asked');
		RETURN false;
	END $$;
	CREATE FUNCTION private.waits(entity text, state jsonb) RETURNS boolean LANGUAGE sql
		AS $$ SELECT public.waits(entity, state) $$;
	REVOKE EXECUTE ON FUNCTION private.waits FROM PUBLIC;
	ALTER FUNCTION private.waits OWNER TO one;
	SELECT actornot_register('crowd', runnable => 'waits'),
		actornot_register('shy', runnable => 'counts'),
		actornot_register('given', max_attempts => 1);
	SELECT actornot_set_owner('given', 'one');
	GRANT EXECUTE ON FUNCTION actornot_register TO one;
	SET ROLE one;
	SELECT actornot_register('given', runnable => 'private.waits', max_attempts => 1)});

sub is_waited_for
{
	return q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted};
}

# One is asked about, the others are free.
$node->safe_psql('postgres', q{
	SELECT actornot_post('crowd', 'first');
	SELECT count(actornot_post('crowd', 'e' || n)) FROM generate_series(1, 100) n});
my $holder = lock_session($node, 'postgres', 1);
my ($out, $err) = ('', '');
my $taker = IPC::Run::start(
	[ 'psql', '-XqAtd', $node->connstr('postgres'), '-c',
		q{SELECT entity FROM actornot_acquire('crowd')} ],
	'<', \undef, '>', \$out, '2>', \$err);
wait_until($node, 'postgres', is_waited_for(), 'one is asked about');
is($node->safe_psql('postgres', q{SELECT count(*) FROM actornot_acquire('crowd', max_entities => 90)}),
	90, 'others get the others');
$holder->quit;
$taker->finish;
is($out, "first\n", 'and the first one goes to the session that asked for it');

# Many messages, in no order by entity; far more than a piece of the log has.
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('shy', 'e' || n % 2000)) FROM generate_series(1, 20000) n});
is($node->safe_psql('postgres', q{SELECT count(*) FROM actornot_acquire('shy')}), 0,
	'none of these is to be run');
is($node->safe_psql('postgres', q{SELECT last_value FROM asked}), 2000,
	'and each was asked about once');

# Given away in the middle of an acquire of several.
$node->safe_psql('postgres', q{
	SELECT actornot_post('given', 'first');
	SELECT count(actornot_post('given', 'e' || n)) FROM generate_series(1, 5) n});
$holder = lock_session($node, 'postgres', 1);
$out = '';
$taker = IPC::Run::start(
	[ 'psql', '-XqAtd', $node->connstr('postgres'), '-c', 'SET ROLE one', '-c',
		q{SELECT entity FROM actornot_acquire('given', max_entities => 6)} ],
	'<', \undef, '>', \$out, '2>', \$err);
wait_until($node, 'postgres', is_waited_for(), 'the first of them is asked about');
$node->safe_psql('postgres', q{SELECT actornot_set_owner('given', 'two')});
$holder->quit;
$taker->finish;
is($out, "first\n", 'what was asked about before it was given away');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.dead_letters WHERE runner = 'given'}),
	0, 'nothing was given up because of it');
is($node->safe_psql('postgres', q{
	SELECT sum(actornot_pending('given', 'e' || n)) FROM generate_series(1, 5) n}),
	5, 'and all of it waits for the new owner');

unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
