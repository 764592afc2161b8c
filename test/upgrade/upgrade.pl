# pg_upgrade of a cluster that has a database with every kind of entity: by
# copying and by linking its files, with the library preloaded on both sides.
#
#	OLD_INSTALLATION  where the old server is; see scripts/test-upgrade

use strict;
use warnings;

use ActornotTest;
use MovedWorld;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = new_server('old', installed_in => $ENV{OLD_INSTALLATION});

far_ahead($old, 5);
$old->start;
create_roles($old, 'NOLOGIN');
my %world = build_world($old, 'app');

$world{files} = 1;
$old->safe_psql('postgres', 'CREATE DATABASE "without"');
install_recorder($old, 'postgres');
$old->safe_psql('postgres', q{
	SELECT count(actornot_post('recorder', 'e' || n % 10))
	  FROM generate_series(1, 1000) n});
wait_for_value($old, 'postgres', q{SELECT actornot_pending('recorder')},
	0, 'another database has done all it had to');

# The server's own condition.
$old->safe_psql('app', q{ROLLBACK PREPARED 'open'});
$old->stop;
note('from ' . $old->pg_version);

foreach my $mode ('--copy', '--link')
{
	my $new = new_server('new' . ($mode =~ s/\W+/_/r));

	note('to ' . $new->pg_version);
	cmp_ok($new->pg_version, '>', $old->pg_version, "$mode: to a newer version");

	# It writes into the working directory.
	chdir $new->data_dir or die $!;
	foreach my $check ([ '--check' ], [])
	{
		command_ok(
			[ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D',
				$new->data_dir, '-b', "$ENV{OLD_INSTALLATION}/bin", '-B',
				$new->config_data('--bindir'), '-s', $new->host, '-p',
				$old->port, '-P', $new->port, $mode, @$check ],
			"$mode: pg_upgrade @$check");
	}
	$new->start;
	$new->wait_for_log(qr/actornot does nothing in database "app"/);
	is_as_it_was(\%world, $new, 'app', $mode);
	$new->safe_psql('postgres', 'ALTER ROLE carol LOGIN; ALTER ROLE alice LOGIN');
	goes_on(\%world, $new, 'app', $mode);

	is(recorded($new, 'postgres'), 1000, "$mode: what was done is not done again");
	$new->safe_psql('postgres', q{SELECT actornot_post('recorder', 'e1')});
	wait_for_value($new, 'postgres', q{SELECT actornot_state('recorder', 'e1')},
		'{"n": 101}', "$mode: and goes on");
	install_recorder($new, 'without');
	$new->safe_psql('without', q{SELECT actornot_post('recorder', 'e1')});
	wait_for_value($new, 'without', q{SELECT actornot_state('recorder', 'e1')},
		'{"n": 1}', "$mode: where it was not, it can be created");
	unlike(log_since($new, 0), qr/PANIC|TRAP|terminated by signal/,
		"$mode: nothing crashed");
	$new->stop;
}
done_testing();
