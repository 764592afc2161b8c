# REPACK (CONCURRENTLY), which came with PostgreSQL 19, replaces the rows of a
# table by such as older snapshots do not see.  Those who come while it waits
# for the last one to leave look after it, and see what is there.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');

$node->start;
install_recorder($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE TABLE result (name text, value bigint);
	SELECT count(actornot_post('recorder', 'a')) FROM generate_series(1, 10);
	SELECT actornot_register('leased');
	SELECT actornot_post('leased', 'a');
	CREATE TABLE lease AS SELECT token FROM actornot_acquire('leased', 'a', lease => '1 h')});
wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')}, '0',
	'all is processed');

# Each of those waits for the table, behind REPACK.  Returns what came out.
sub come_meanwhile
{
	my ($table, %call) = @_;
	my %session = map { $_ => $node->background_psql('postgres', timeout => 300,
			on_error_stop => 0) } 'holder', 'repack', keys %call;
	my $waiting = "FROM pg_locks WHERE NOT granted
		AND relation = 'actornot.$table'::regclass";

	$session{holder}->query_safe("BEGIN; SELECT count(*) FROM actornot.$table");
	$session{repack}->query_until(qr//, "REPACK (CONCURRENTLY) actornot.$table;\n");
	wait_for_value($node, 'postgres',
		"SELECT count(*) $waiting AND mode = 'AccessExclusiveLock'", '1',
		"$table: REPACK waits");
	$session{$_}->query_until(qr//, "INSERT INTO result SELECT '$_', $call{$_};\n")
	  foreach keys %call;
	wait_for_value($node, 'postgres', "SELECT count(*) $waiting", 1 + keys %call,
		"$table: others wait behind it");
	$session{holder}->query_safe('COMMIT');
	$_->quit foreach values %session;
	return $node->safe_psql('postgres', q{
		WITH gone AS (DELETE FROM result RETURNING *)
		SELECT string_agg(name || ' ' || value, ' ' ORDER BY name) FROM gone});
}

SKIP:
{
	# Not pg_version(), for which 19rc1 is less than 19.
	skip 'the server has no REPACK', 1
	  if $node->safe_psql('postgres', 'SHOW server_version_num') < 190000;
	is( come_meanwhile('segment',
			post => q{(actornot_post('recorder', 'b') > 0)::int},
			pending => q{actornot_pending('recorder', 'a')},
			run => q{actornot_run('recorder', 'a')}),
		'pending 0 post 1 run 0', 'the ring of segments is seen');
	is( come_meanwhile('mailbox',
			pending => q{actornot_pending('recorder', 'a')},
			renew => q{(actornot_renew('leased', 'a', token) IS NOT NULL)::int FROM lease},
			run => q{actornot_run('recorder', 'a')}),
		'pending 0 renew 1 run 0', 'mailboxes are seen');

	# Rows have moved, and so have their indexes; all is found all the same.
	$node->safe_psql('postgres', q{
		SELECT count(actornot_post('recorder', e)) FROM unnest('{a,b,c}'::text[]) e});
	wait_for_value($node, 'postgres', q{SELECT actornot_pending('recorder')}, '0',
		'all that comes later is processed');
	is( $node->safe_psql('postgres', q{
		SELECT entity, count(*), max(place), actornot_state('recorder', entity)
		FROM recorded GROUP BY entity ORDER BY entity}),
		"a|11|11|{\"n\": 11}\nb|2|2|{\"n\": 2}\nc|1|1|{\"n\": 1}",
		'each message once, on top of the state');
}
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
