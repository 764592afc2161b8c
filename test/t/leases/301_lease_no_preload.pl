# Leases without shared_preload_libraries: the regress test, which is to come
# out the same where there is no ready queue, no manager and no worker.

use strict;
use warnings;

use ActornotTest;
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', preload => 0);
my $input = dirname(dirname(dirname(dirname(__FILE__))));
my $output = PostgreSQL::Test::Utils::tempdir;

$node->start;
my $bindir = $node->config_data('--bindir');
my @command = ($ENV{PG_REGRESS}, "--inputdir=$input", "--outputdir=$output",
	"--bindir=$bindir", '--host=' . $node->host, '--port=' . $node->port,
	'--dbname=regress_lease', 'lease');
my $done = run_log(\@command);
ok($done, 'the regress test of leases');
if (!$done && -s "$output/regression.diffs")
{
	diag(slurp_file("$output/regression.diffs"));
}
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'actornot%'}),
	0, 'there are no processes');
unlike(log_since($node, 0), qr/TRAP|PANIC|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
