# An entity whose name is not ASCII is the same one where a dump was restored
# into a database with another encoding.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';

$node->start;
foreach my $encoding ('LATIN1', 'UTF8')
{
	$node->safe_psql('postgres', qq{
		CREATE DATABASE "$encoding" TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'});
}
my $name = q{'caf' || chr(233)};
$node->safe_psql('LATIN1', qq{
	CREATE EXTENSION actornot;
	SELECT actornot_register('n' || chr(228));
	SELECT actornot_set_state('n' || chr(228), $name, '"old"');
	SELECT actornot_post('n' || chr(228), $name, '1');
	SELECT actornot_register('plain');
	SELECT actornot_post('plain', 'cafe')});
my $hashes = qq{SELECT actornot_hash('n' || chr(228), $name), actornot_hash('plain', 'cafe')};
my $here = $node->safe_psql('LATIN1', $hashes);

$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('LATIN1') ], 'dump');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
		'-d', $node->connstr('UTF8'), '-f', $dump ],
	'restore');
is($node->safe_psql('UTF8', $hashes), $here, 'the hash is the same');
is( $node->safe_psql('UTF8', qq{
	SELECT actornot_start();
	SELECT actornot_state('n' || chr(228), $name), actornot_pending('n' || chr(228), $name)}),
	qq{\n"old"|1}, 'state and messages are found');
is( $node->safe_psql('UTF8', qq{
	SELECT actornot_post('n' || chr(228), $name, '2') > 0;
	SELECT count(*), min(jsonb_array_length(messages)) FROM actornot_acquire('n' || chr(228), max_entities => 10)}),
	"t\n1|2", 'there is one of that name');

# Two names that are one in UTF-8 are two here, and one that is none there can
# be posted to.
$node->safe_psql('postgres', q{
	CREATE DATABASE "EUC_JP" TEMPLATE template0 ENCODING 'EUC_JP' LOCALE 'C'});
is( $node->safe_psql('EUC_JP', q{
	CREATE EXTENSION actornot;
	CREATE TABLE names AS SELECT convert_from(b, 'EUC_JP') AS name
		FROM unnest('{"\\\\xadb9","\\\\x8ff4a3","\\\\xfdfd"}'::bytea[]) b;
	SELECT actornot_register('names');
	SELECT count(actornot_post('names', name)) FROM names;
	SELECT count(*), count(DISTINCT entity), bool_and(entity IN (SELECT name FROM names))
	  FROM actornot_acquire('names', max_entities => 10)}, extra_params => [ '-q' ]),
	"\n3\n3|3|t", 'names that look alike in UTF-8 are apart');
$node->stop;
done_testing();
