# Data of another database is loaded into one that is in use, while messages are
# posted there: none of them gets a number that was given already, and no entity
# a token that is less than its last one.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');
my $dir = PostgreSQL::Test::Utils::tempdir;
my $counter = q{
	CREATE FUNCTION counter(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$};

$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE source');
$node->safe_psql('source', qq{
	CREATE EXTENSION actornot;
	$counter;
	SELECT actornot_register('moved', 'counter');
	SELECT count(actornot_post('moved', 'e' || n % 10)) FROM generate_series(1, 500) n});
wait_for_value($node, 'source', q{SELECT actornot_pending('moved')}, '0',
	'the source has done something');
$node->safe_psql('source', q{
	SELECT actornot_pause('moved');
	SELECT count(actornot_post('moved', 'e' || n % 10)) FROM generate_series(1, 100) n});
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/app.dump", $node->connstr('source') ],
	'a dump');

# What is in use has another number.
$node->safe_psql('postgres', qq{
	CREATE EXTENSION actornot;
	$counter;
	SELECT setval('actornot.runner_seq', 50);
	SELECT actornot_register('own', 'counter'), actornot_register('lent');
	SELECT actornot_pause('own');
	SELECT actornot_post('lent', 'e');
	SELECT count(actornot_post('own', 'same')) FROM generate_series(1, 3000) n});
my $token = $node->safe_psql('postgres', q{SELECT token FROM actornot_acquire('lent', 'e', '1 ms')});
data_script($node, "$dir/app.dump", "$dir/data.sql");
append_to_file("$dir/data.sql",
	"SELECT pg_advisory_lock(1);\nSELECT public.actornot_advance_clock();\n");
my $holder = lock_session($node, 'postgres', 1);
my ($out, $err) = ('', '');
my $load = IPC::Run::start(
	[ 'psql', '-XqAt', '-1', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
		'-f', "$dir/data.sql" ],
	'<', \undef, '>', \$out, '2>', \$err);
wait_until($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted},
	'all but the last line is loaded');
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('own', 'same')) FROM generate_series(1, 10) n});
my $next = $node->safe_psql('postgres', q{
	SELECT token FROM actornot_acquire('lent', 'e', '1 hour', wait => '60 s')});
cmp_ok($next, '>', $token, 'the next token is larger');
$holder->quit;
ok($load->finish, 'the rest is loaded') or diag($err);
is( $node->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT id) FROM actornot.message WHERE entity = 'same'}),
	'3010|3010', 'no number was given twice');
$node->safe_psql('postgres', q{SELECT actornot_resume('own'), actornot_resume('moved')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('own', 'same')}, '3010',
	'what was posted meanwhile is run');
wait_for_value($node, 'postgres', q{SELECT sum(actornot_state('moved', 'e' || n)::int) FROM generate_series(0, 9) n},
	'600', 'and so is what was loaded');
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
