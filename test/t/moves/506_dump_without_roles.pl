# A dump of a database whose roles have gone: nothing of the runners' data is
# left behind, nobody else gets what was theirs, and they can be mended.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = new_server('old');
my $new = new_server('new');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';

$old->start;
$new->start;
foreach my $node ($old, $new)
{
	$node->safe_psql('postgres', q{
		CREATE ROLE alice LOGIN;
		CREATE DATABASE app});
}

# In the new one the numbers of the old one's roles belong to others.
$new->safe_psql('postgres',
	join('', map { "CREATE ROLE other_$_ LOGIN;" } 1 .. 10));
$old->safe_psql('postgres', q{
	CREATE ROLE author LOGIN; CREATE ROLE asker LOGIN; CREATE ROLE boss LOGIN;
	CREATE ROLE former LOGIN});

$old->safe_psql('app', q{
	CREATE EXTENSION actornot;
	GRANT CREATE ON SCHEMA public TO author, asker, boss, former;
	GRANT EXECUTE ON FUNCTION actornot_register TO alice, boss, former;
	SET ROLE author;
	CREATE FUNCTION counter(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE sql AS
		$$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
	SET ROLE asker;
	CREATE FUNCTION always(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS
		$$ SELECT true $$;
	RESET ROLE;
	CREATE FUNCTION stays(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE sql AS
		$$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
	SET ROLE alice;
	SELECT actornot_register('by_author', 'counter');
	SELECT actornot_register('asked', 'stays', runnable => 'always');
	SELECT actornot_grant('by_author', 'former');
	SET ROLE boss;
	SELECT actornot_register('of_boss', 'stays');
	SET ROLE former;
	SELECT actornot_register('given_up', 'stays');
	RESET ROLE;
	SELECT count(actornot_post(r, 'e')) FROM unnest('{by_author,asked,of_boss,given_up}'::text[]) r});
wait_for_value($old, 'app',
	q{SELECT count(*) FROM unnest('{by_author,asked,of_boss,given_up}'::text[]) r
	   WHERE actornot_state(r, 'e') = '1'},
	4, 'all have a state');

# All these roles are dropped.
$old->safe_psql('app', q{
	SELECT actornot_pause(r) FROM unnest('{by_author,asked,of_boss}'::text[]) r;
	SELECT count(actornot_post(r, 'e')) FROM unnest('{by_author,asked,of_boss,given_up}'::text[]) r;
	SELECT actornot_unregister('given_up', force => true);
	REASSIGN OWNED BY author, asker, boss, former TO postgres;
	DROP OWNED BY author, asker, boss, former;
	DROP ROLE author, asker, boss, former});
is( $old->safe_psql('app', q{
	SELECT string_agg(name || ':' || owner || ':' || coalesce(handler_owner::text, ''), ' ' ORDER BY id)
	  FROM actornot.runner}),
	'by_author:alice:- asked:alice:postgres of_boss:-:postgres given_up:-:postgres',
	'roles that are gone are shown as such');

$old->command_ok([ 'pg_dump', '-f', $dump, '-d', $old->connstr('app') ], 'dump');
$new->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
		'-d', $new->connstr('app'), '-f', $dump ],
	'restore');
is( $new->safe_psql('app', q{
	SELECT string_agg(name || ':' || owner || ':' || coalesce(handler_owner::text, '')
		|| ':' || coalesce(runnable_owner::text, ''), ' ' ORDER BY id)
	  FROM actornot.runner}),
	'by_author:alice:-: asked:alice:postgres:- of_boss:-:postgres: given_up:-:postgres:',
	'all runners have come, with no other role');
is( $new->safe_psql('app', 'SELECT count(*) FROM actornot.runner_grant'),
	0, 'a grant to a role that is gone has not');

$new->safe_psql('app', q{
	SELECT actornot_start();
	SELECT actornot_resume(r) FROM unnest('{by_author,asked,of_boss}'::text[]) r});
wait_until($new, 'app', q{
	SELECT bool_and(b.last_error LIKE 'function % belongs to another role than at registration')
	  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner
	 WHERE r.name IN ('by_author', 'asked')},
	'a function of unknown origin is not called');
is( $new->safe_psql('app', q{
	SELECT string_agg(actornot_state(r, 'e')::text || actornot_pending(r, 'e'), ' ')
	  FROM unnest('{by_author,asked,of_boss}'::text[]) r}),
	'11 11 11', 'states are there, messages wait');

# Mended.
$new->safe_psql('app', q{
	SELECT actornot_set_owner('of_boss', 'alice');
	GRANT EXECUTE ON FUNCTION actornot_register TO alice;
	SET ROLE alice;
	SELECT actornot_register('by_author', 'counter');
	SELECT actornot_register('asked', 'stays', runnable => 'always');
	SELECT count(actornot_wake(r, 'e')) FROM unnest('{by_author,asked,of_boss}'::text[]) r});
wait_for_value($new, 'app', q{
	SELECT string_agg(actornot_state(r, 'e')::text || actornot_pending(r, 'e'), ' ')
	  FROM unnest('{by_author,asked,of_boss}'::text[]) r},
	'20 20 20', 'each goes on with its state');

# What was given up keeps no segment: move on twice, with other traffic.
$new->append_conf('postgresql.conf', "actornot.segment_size = '128kB'");
$new->reload;
my $turn = $new->safe_psql('app', 'SELECT max(turn) FROM actornot.segment');
wait_until($new, 'app', qq{
	SELECT max(turn) > $turn + 1 FROM actornot.segment, LATERAL (
		SELECT count(*) FROM actornot_post_many('asked',
			ARRAY(SELECT 'x' || i FROM generate_series(1, 1000) i WHERE turn >= 0))) p},
	'the log has moved on');
wait_for_value($new, 'app', q{
	SELECT count(*) FROM actornot.message m JOIN actornot.runner r ON r.id = m.runner
	 WHERE r.name = 'given_up'},
	0, 'what was given up is gone');

foreach my $node ($old, $new)
{
	unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
		'nothing crashed');
	$node->stop;
}
done_testing();
