# ALTER EXTENSION UPDATE from each version that was released: afterwards the
# extension is what a new installation of the latest version is, in the catalogs
# and in a dump, and the data goes on, also where the engine is busy meanwhile.
# All of the old version's data is made by this library, which so works with
# the old version as well.

use strict;
use warnings;

use ActornotTest;
use CatalogDump;
use MovedWorld;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => q{actornot.segment_size = '128kB'});
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
my $rights = 'GRANT EXECUTE ON FUNCTION actornot_register TO carol, alice';
my @versions;

sub version_is
{
	my ($db, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(
		$node->safe_psql($db, q{
			SELECT extversion FROM pg_extension WHERE extname = 'actornot'}),
		$expected, $what);
}

# Messages of the recorder that wait in several segments, behind some that are
# done; it is paused.
sub fill_segments
{
	my ($db) = @_;

	install_recorder($node, $db);
	install_move_on($node, $db);
	$node->safe_psql($db, q{
		SELECT count(actornot_post('recorder', 'e' || n % 5, to_jsonb(n)))
		  FROM generate_series(1, 100) n});
	wait_for_value($node, $db, q{SELECT actornot_pending('recorder')}, 0,
		"$db: something is done");
	$node->safe_psql($db, q{SELECT actornot_pause('recorder')});

	# A segment with done messages may be emptied meanwhile: what waits in it is
	# copied.  Those that come now have nothing but what waits, so they stay.
	my $filled = q{
		SELECT count(*) FROM actornot.segment
		 WHERE pg_relation_size('actornot.message_' || number) > 0 AND number > }
	  . $node->safe_psql($db, 'SELECT current_segment()');

	for (1 .. 4)
	{
		last if $node->safe_psql($db, $filled) >= 3;
		$node->safe_psql($db, q{
			CALL move_on($$ SELECT count(actornot_post('recorder', 'e' || n % 5, to_jsonb(n)))
							  FROM generate_series($1 * 100, $1 * 100 + 99) n $$)});
	}
	cmp_ok($node->safe_psql($db, $filled), '>=', 3, "$db: the log fills segments");
	return;
}

# Each message that was given a number is recorded once, and those of an entity
# in order: one session posted them all.
sub recorded_in_order
{
	my ($db, $posted, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_value($node, $db, q{SELECT actornot_pending('recorder')}, 0,
		"$what: nothing is pending any more");
	is( $node->safe_psql($db, q{
			SELECT count(*), count(DISTINCT id) FROM recorded}),
		"$posted|$posted", "$what: each message was run once");
	return is(
		$node->safe_psql($db, q{
			SELECT count(*) FROM (
				SELECT id, place, lag(id) OVER w AS last_id, lag(place) OVER w AS last
				  FROM recorded WINDOW w AS (PARTITION BY entity ORDER BY place)) s
			 WHERE id <= last_id OR place <> coalesce(last, 0) + 1}),
		0, "$what: in order");
}

# While one session posts and workers run.
sub update_under_load
{
	my ($version, $db) = @_;
	my $session;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, "CREATE EXTENSION actornot VERSION '$version'");
	install_recorder($node, $db);
	$node->safe_psql($db, q{
		CREATE TABLE told (yes boolean);
		CREATE PROCEDURE post_until_told() LANGUAGE plpgsql AS $$
		DECLARE
			n	int := 0;
		BEGIN
			WHILE NOT EXISTS (SELECT FROM told) LOOP
				n := n + 1;
				PERFORM actornot_post('recorder', 'e' || n % 20);
				COMMIT;
			END LOOP;
		END
		$$});
	$session = $node->background_psql($db);
	$session->query_until(qr/begun/, "\\echo begun\nCALL post_until_told();\n\\echo ended\n");
	wait_until($node, $db, 'SELECT count(*) > 200 FROM recorded',
		"$db: version $version is busy");
	version_is($db, $version, "$db: it is the old one");
	$node->safe_psql($db, 'ALTER EXTENSION actornot UPDATE');
	version_is($db, $versions[-1], "$db: and then the new one");

	my $done = recorded($node, $db);

	wait_until($node, $db, "SELECT count(*) > $done + 200 FROM recorded",
		"$db: it goes on");
	$node->safe_psql($db, 'INSERT INTO told VALUES (true)');
	$session->query_until(qr/ended/, '');
	$session->quit;
	recorded_in_order($db, $node->safe_psql($db, q{
		SELECT actornot_pending('recorder') + (SELECT count(*) FROM recorded)}), $db);
	return;
}

$node->start;
create_roles($node, 'NOLOGIN');

# Versions that can be created, in their order.
@versions = split /\n/, $node->safe_psql('postgres', q{
	SELECT version FROM pg_available_extension_versions WHERE name = 'actornot'
	 ORDER BY string_to_array(version, '.')::int[]});
cmp_ok(scalar(@versions), '>=', 2, 'versions: ' . join ', ', @versions);
$node->safe_psql('postgres', 'CREATE DATABASE direct');
$node->safe_psql('direct', "CREATE EXTENSION actornot; $rights");
version_is('direct', $versions[-1], 'the latest version is the default');
my $expected = dump_catalog($node, 'direct');

# What the comparison has to see.
foreach my $change (
	'COMMENT ON FUNCTION actornot_start() IS NULL',
	q{COMMENT ON COLUMN actornot.mailbox.state IS 'another'},
	'ALTER FUNCTION actornot_hash(text, text) VOLATILE',
	'ALTER FUNCTION actornot_hash(text, text) STRICT',
	'ALTER FUNCTION actornot_hash(text, text) PARALLEL UNSAFE',
	q{ALTER FUNCTION actornot_hash(text, text) SET search_path = ''},
	'REVOKE EXECUTE ON FUNCTION actornot_post_many FROM PUBLIC',
	'REVOKE USAGE ON SCHEMA actornot FROM PUBLIC',
	'REVOKE SELECT ON actornot.dead_letters FROM PUBLIC',
	'ALTER TABLE actornot.message_7 RESET (autovacuum_enabled)',
	'ALTER TABLE actornot.message_7 RESET (toast.autovacuum_enabled)',
	'ALTER TABLE actornot.mailbox SET (fillfactor = 60)',
	'ALTER TABLE actornot.mailbox ALTER done SET STORAGE MAIN',
	'ALTER TABLE actornot.mailbox ALTER attempts DROP DEFAULT',
	'ALTER TABLE actornot.mailbox ALTER runner SET (n_distinct = 7)',
	'ALTER TABLE actornot.timer ALTER runner DROP NOT NULL',
	'ALTER TABLE actornot.clock REPLICA IDENTITY DEFAULT',
	'ALTER TABLE actornot.clock ENABLE TRIGGER tell_of_change',
	'ALTER TABLE actornot.timer OWNER TO alice',
	'ALTER TABLE actornot.timer ADD further int',
	'CREATE INDEX ON actornot.timer (due_at)',
	'CREATE TABLE actornot.stranger ()',
	'ALTER SEQUENCE actornot.id_seq CACHE 2',
	'ALTER VIEW actornot.dead_letters RESET (security_barrier)',
	'ALTER EXTENSION actornot DROP FUNCTION actornot_start()',
	'ALTER EXTENSION actornot DROP TABLE actornot.message_3',
	q{UPDATE pg_extension SET extcondition[1] = 'WHERE false' WHERE extname = 'actornot'},
	q{UPDATE pg_extension SET extconfig = extconfig[2:], extcondition = extcondition[2:]
	   WHERE extname = 'actornot'})
{
	isnt(catalog_difference($expected, dump_catalog($node, 'direct', $change)),
		'', "it sees $change");
}
is(catalog_difference($expected, dump_catalog($node, 'direct')),
	'', 'and nothing where there is nothing');

# A library that finds a part missing says so and does nothing.
fails_with($node, 'direct', '55000', q{
	BEGIN;
	ALTER TABLE actornot.timer RENAME TO elsewhere;
	SELECT actornot_post('r', 'e')}, 'an object that the library wants is missing');

# The update may bring what was missing: then what waits is run at once, and not
# only after the next post.
$node->safe_psql('postgres', 'CREATE DATABASE missing');
$node->safe_psql('missing', qq{
	CREATE EXTENSION actornot VERSION '$versions[0]';
	CREATE FUNCTION count_up(entity text, state jsonb, messages jsonb)
	RETURNS jsonb LANGUAGE sql AS
		'SELECT to_jsonb(coalesce(state::int, 0) + jsonb_array_length(messages))';
	SELECT actornot_register('counter', 'count_up')});
$node->safe_psql('missing', q{
	BEGIN;
	SELECT actornot_post('counter', 'alice');
	ALTER TABLE actornot.timer RENAME TO elsewhere;
	COMMIT});
wait_for_value($node, 'postgres', q{
	SELECT count(*) FROM pg_stat_activity
	 WHERE datname = 'missing' AND backend_type LIKE 'actornot%'},
	0, 'missing: no process stays');
is($node->safe_psql('missing', 'SELECT count(*) FROM actornot.mailbox'),
	0, 'missing: and nothing was run');
$node->safe_psql('missing', qq{
	BEGIN;
	ALTER TABLE actornot.elsewhere RENAME TO timer;
	ALTER EXTENSION actornot UPDATE TO '$versions[-1]';
	COMMIT});
wait_for_value($node, 'missing', q{SELECT actornot_state('counter', 'alice')},
	1, 'missing: the update sets it going');

foreach my $version (@versions[ 0 .. $#versions - 1 ])
{
	my $name = $version =~ s/\W/_/gr;
	my $app = "app_$name";
	my $restored = "restored_$name";

	update_under_load($version, "busy_$name");

	my %world = build_world($node, $app, version => $version);

	fill_segments($app);
	$world{picture} = picture($node, $app);
	version_is($app, $version, "$version: the data is of this version");
	$node->safe_psql($app, "ALTER EXTENSION actornot UPDATE TO '$versions[-1]'");
	version_is($app, $versions[-1], "$version: and then of the latest");
	is(catalog_difference($expected, dump_catalog($node, $app)),
		'', "$version: the extension is as a new one");
	is_as_it_was(\%world, $node, $app, "$version, updated");

	$node->safe_psql('postgres', "CREATE DATABASE $restored");
	$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr($app) ],
		"$version: dump of what was updated");
	$node->command_ok(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d',
			$node->connstr($restored), '-f', $dump ],
		"$version: restore");
	is(catalog_difference($expected, dump_catalog($node, $restored)),
		'', "$version: what was restored is as a new one");
	is_as_it_was(\%world, $node, $restored, "$version, restored");

	# Then the server is restarted, for the new library, and all goes on.
	$node->safe_psql($app, q{
		ROLLBACK PREPARED 'open';
		DELETE FROM broken WHERE entity = 'due'});
	$node->safe_psql('postgres', 'ALTER ROLE carol LOGIN; ALTER ROLE alice LOGIN');
	$node->restart;
	goes_on(\%world, $node, $app, "$version, updated", 'SELECT 1');
	goes_on(\%world, $node, $restored, "$version, restored");
	foreach my $db ($app, $restored)
	{
		my $waits = $node->safe_psql($db, q{
			SELECT actornot_pending('recorder') + (SELECT count(*) FROM recorded)});

		cmp_ok($waits, '>=', 400, "$db: there is a backlog");
		$node->safe_psql($db, q{SELECT actornot_resume('recorder')});
		recorded_in_order($db, $waits, $db);
	}
	$node->safe_psql('postgres', 'ALTER ROLE carol NOLOGIN; ALTER ROLE alice NOLOGIN');
}
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
