# Many pending entities, no hint of any, and a ready queue that holds few of
# them: nothing is lost, and no entity waits for a pool that is slow.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => q{
actornot.ready_queue_size = 1024
actornot.max_workers = 4
actornot.sweep_interval = 1h
});

# With the library, or without: then there are no workers and no hints.
sub restart_with
{
	my ($library, $mode) = @_;

	$node->stop($mode) if $mode;
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = '$library'");
	start_again($node);
	return;
}

restart_with('');
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION actornot;
CREATE TABLE gate (open boolean NOT NULL);
INSERT INTO gate VALUES (false);
CREATE TABLE done (runner text, entity text, n int);
GRANT SELECT ON gate TO public;
GRANT INSERT ON done TO public;
GRANT EXECUTE ON FUNCTION actornot_register TO public;
CREATE FUNCTION take(runner text, entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO done
		SELECT runner, entity, (m->'payload')::int FROM jsonb_array_elements(messages) m;
	RETURN to_jsonb(coalesce(state::int, 0) + jsonb_array_length(messages));
END
$$;
CREATE FUNCTION make_runner(name text, entered text DEFAULT '') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE FUNCTION %I.%I(entity text, state jsonb, messages jsonb)
		RETURNS jsonb LANGUAGE plpgsql AS $x$
		BEGIN
			%s
			RETURN public.take(%L, entity, state, messages);
		END $x$', current_user, name, entered, name);
	PERFORM actornot_register(name, format('%I.%I', current_user, name),
		retry_delay => '1 s', retry_delay_max => '1 s');
	PERFORM actornot_grant(name, 'public');
END
$$;
});
foreach my $role (qw(alice bob carol))
{
	$node->safe_psql('postgres',
		"CREATE ROLE $role LOGIN; CREATE SCHEMA $role AUTHORIZATION $role");
}

sub as_role
{
	my ($role, $query) = @_;

	return $node->safe_psql('postgres', $query,
		extra_params => [ '-U', $role ]);
}

as_role('alice', q{
SELECT make_runner('slow', 'IF NOT (SELECT open FROM public.gate) THEN
	PERFORM pg_sleep(0.05); END IF;');
SELECT make_runner('slow too', 'IF NOT (SELECT open FROM public.gate) THEN
	PERFORM pg_sleep(0.05); END IF;');
});
as_role('bob', q{SELECT make_runner('bob'), make_runner('bob 2')});
as_role('carol', q{SELECT make_runner('carol')});

# The slow ones' come first in the log, and are far more than the queue holds.
$node->safe_psql('postgres', q{
SELECT count(actornot_post('slow', 's' || i, to_jsonb(i)))
  FROM generate_series(1, 19000) i;
SELECT count(actornot_post('slow too', 's' || i, to_jsonb(i)))
  FROM generate_series(1, 1000) i;
SELECT count(actornot_post(r, r || i, to_jsonb(i)))
  FROM generate_series(1, 500) i, (VALUES ('bob'), ('bob 2'), ('carol')) AS r(r);
});

restart_with('actornot', 'fast');
wait_for_value(
	$node, 'postgres', q{
	SELECT count(*), count(DISTINCT (runner, entity)) FROM done
	 WHERE runner NOT LIKE 'slow%'},
	'1500|1500', 'others are served although a slow pool fills the queue');
cmp_ok(ask($node, 'postgres', q{SELECT count(*) FROM done WHERE runner LIKE 'slow%'}),
	'<', 15000, 'which is not done by then');

# What is asked for while the slow pool is still swept: hints of a
# transaction that has more than it can note.
$node->safe_psql('postgres', q{
SELECT count(actornot_post('carol', 'late' || i, to_jsonb(i)))
  FROM generate_series(1, 10000) i});
wait_for_value(
	$node, 'postgres', q{
	SELECT count(*), count(DISTINCT entity) FROM done WHERE entity LIKE 'late%'},
	'10000|10000', 'so is what is posted meanwhile');
cmp_ok(ask($node, 'postgres', q{SELECT count(*) FROM done WHERE runner LIKE 'slow%'}),
	'<', 15000, 'and the slow pool is still at it');

# A crash in the middle, and then the slow ones are quick.
$node->stop('immediate');
start_again($node);
$node->safe_psql('postgres', 'UPDATE gate SET open = true');
wait_for_value($node, 'postgres',
	'SELECT count(*), count(DISTINCT (runner, entity, n)) FROM done',
	'31500|31500', 'nothing is lost, and nothing done twice');
is($node->safe_psql('postgres', q{
	SELECT sum(actornot_pending(r))
	  FROM (VALUES ('slow'), ('slow too'), ('bob'), ('bob 2'), ('carol')) AS r(r)}),
	0, 'nothing is left');

# Those that are paused, lent or backing off are passed by.
restart_with('', 'fast');
$node->safe_psql('postgres', 'TRUNCATE done');
as_role('alice', q{SELECT make_runner('mixed',
	'IF NOT (SELECT open FROM public.gate) THEN RAISE division_by_zero; END IF;')});
$node->safe_psql('postgres', q{
UPDATE gate SET open = false;
SELECT count(actornot_post('mixed', 'm' || i, to_jsonb(i)))
  FROM generate_series(1, 1000) i});
my $specials = q{
SELECT 'm' || i AS entity, i % 10 AS kind
  FROM generate_series(300, 1000) i WHERE i % 10 IN (2, 5, 7)};
as_role('alice', qq{
SET client_min_messages = error;
SELECT count(actornot_pause('mixed', entity)) FROM ($specials) s WHERE kind = 2;
CREATE TABLE alice.lease AS
	SELECT l.* FROM ($specials) s, actornot_acquire('mixed', s.entity, '1 h') l
	 WHERE kind = 5;
SELECT count(actornot_run('mixed', entity)) FROM ($specials) s WHERE kind = 7});
is( $node->safe_psql('postgres', q{
	SELECT count(*) FILTER (WHERE m.paused), count(lease_until), count(wake_at)
	  FROM actornot.mailbox m, actornot.runner r
	 WHERE r.id = m.runner AND r.name = 'mixed'}),
	'70|70|70', 'some are paused, some lent, some failed');
$node->safe_psql('postgres', 'UPDATE gate SET open = true');
restart_with('actornot', 'fast');
wait_for_value($node, 'postgres',
	'SELECT count(*), count(DISTINCT entity) FROM done',
	'860|860', 'the others and, after their back-off, those that failed');
is( $node->safe_psql('postgres', qq{
	SELECT count(*) FROM done JOIN ($specials) s USING (entity)
	 WHERE kind IN (2, 5)}),
	0, 'none of those that are paused or lent');
as_role('alice', qq{
SELECT count(actornot_resume('mixed', entity)) FROM ($specials) s WHERE kind = 2;
SELECT count(actornot_release('mixed', entity, token)) FROM alice.lease});
wait_for_value($node, 'postgres',
	'SELECT count(*), count(DISTINCT entity) FROM done',
	'1000|1000', 'they are run when they are resumed and given back');

# After a restart the end of the log is looked at first, for what is in front
# of it may have been done long ago.  Here it has not.  By one worker: of several
# one may stand still with the last ones while the others do the rest.
$node->append_conf('postgresql.conf', 'actornot.max_workers = 1');
restart_with('', 'fast');
$node->safe_psql('postgres', q{
TRUNCATE done;
SELECT count(actornot_post('bob', 'o' || i, to_jsonb(i), jsonb_build_object('pad', repeat('x', 1200))))
  FROM generate_series(1, 30000) i;
SELECT count(actornot_post('bob', 'n' || i, to_jsonb(i))) FROM generate_series(1, 100) i});
restart_with('actornot', 'fast');
wait_for_value($node, 'postgres',
	'SELECT count(*), count(DISTINCT entity) FROM done',
	'30100|30100', 'the beginning and the end of a long log');
is( $node->safe_psql('postgres', q{
	SELECT max(created_at) FILTER (WHERE entity ~ '^n')
		< min(created_at) FILTER (WHERE entity ~ '^o' AND substr(entity, 2)::int <= 1000)
	  FROM actornot.mailbox WHERE entity ~ '^[no]\d'}),
	't', 'what came last is run before what is far in front of it');
$node->stop;
done_testing();
