# On a standby nothing is posted or run, but all can be read; after its
# promotion what is pending is processed there, once.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = q{
max_connections = 50
shared_buffers = 32MB
};
my $primary = new_server('primary', allows_streaming => 1, conf => $conf);
$primary->start;
install_recorder($primary, 'postgres');
$primary->backup('backup');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', q{
	SELECT count(actornot_post('recorder', 'done ' || n % 10))
	  FROM generate_series(1, 100) n});
wait_for_value($primary, 'postgres', 'SELECT count(*) FROM recorded',
	100, 'the primary processes');

# What keeps its entities busy on the primary is pending for the standby.
my $holder = lock_session($primary, 'postgres', 1);
$primary->safe_psql('postgres', q{
	SELECT count(actornot_post('recorder', 'pending ' || n % 10, '{"wait": 1}'))
	  FROM generate_series(1, 50) n});
wait_until($primary, 'postgres', q{
	SELECT count(*) > 0 FROM pg_stat_activity
	 WHERE backend_type = 'actornot worker' AND wait_event = 'advisory'},
	'the primary is busy');
$primary->wait_for_catchup($standby);

is( $standby->safe_psql('postgres',
		q{SELECT actornot_state('recorder', 'done 1')}),
	'{"n": 10}',
	'actornot_state works on a standby');
is( $standby->safe_psql('postgres', q{SELECT actornot_pending('recorder')}),
	50, 'actornot_pending works on a standby');
is( $standby->safe_psql('postgres',
		q{SELECT actornot_pending('recorder', 'pending 1')}),
	5, 'actornot_pending of an entity, too');
is( $standby->safe_psql('postgres',
		q{SELECT count(*) FROM actornot.dead_letters}),
	0, 'and dead letters can be read');
foreach my $statement (
	q{SELECT actornot_post('recorder', 'e')},
	q{SELECT actornot_post_many('recorder', '{e}')},
	q{SELECT actornot_run('recorder', 'e')},
	q{CALL actornot_drain()},
	q{CALL actornot_drain('recorder')},
	q{SELECT actornot_register('new', 'record')},
	q{SELECT actornot_unregister('recorder', true)},
	q{SELECT actornot_pause('recorder')},
	q{SELECT actornot_pause('recorder', 'e')},
	q{SELECT actornot_resume('recorder')},
	q{SELECT actornot_set_state('recorder', 'e', '1')},
	q{SELECT actornot_skip('recorder', 'pending 1')},
	q{SELECT actornot_purge('recorder', 'e')},
	q{SELECT actornot_redrive_all('recorder')},
	q{SELECT actornot_grant('recorder', 'public')},
	q{SELECT actornot_advance_clock()})
{
	fails_with($standby, 'postgres', '25006', $statement,
		"refused on a standby: $statement");
}

# A read-only transaction on the primary is told the same.
fails_with($primary, 'postgres', '25006',
	q{BEGIN READ ONLY; SELECT actornot_post('recorder', 'e')},
	'refused in a read-only transaction');

is( $standby->safe_psql('postgres', q{
	SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'actornot%'}),
	0, 'there are no processes of ours on a standby');

# The primary is lost while it is busy.
$primary->stop('immediate');
eval { $holder->quit };
$standby->promote;
wait_for_value($standby, 'postgres', q{
	SELECT count(*), count(DISTINCT id) FROM recorded
	 WHERE entity LIKE 'pending%'},
	'50|50', 'what was pending is processed after the promotion');
is( $standby->safe_psql('postgres',
		'SELECT count(*), count(DISTINCT id) FROM recorded'),
	'150|150', 'and what was done not again');
$standby->safe_psql('postgres', q{SELECT actornot_post('recorder', 'done 1')});
wait_for_value($standby, 'postgres',
	q{SELECT actornot_state('recorder', 'done 1')},
	'{"n": 11}', 'the promoted one goes on');
unlike(log_since($standby, 0), qr/PANIC|TRAP|terminated by signal|waits? for adoption|does nothing in database/,
	'nothing crashed, and nothing has to be adopted');

# A second standby, which is restarted on its way, of the promoted one.
$standby->backup('second');
my $second = PostgreSQL::Test::Cluster->new('second');
$second->init_from_backup($standby, 'second', has_streaming => 1);
$second->start;
$standby->safe_psql('postgres', q{
	SELECT actornot_pause('recorder');
	SELECT count(actornot_post('recorder', 'second'))
	  FROM generate_series(1, 20);
	BEGIN;
	SELECT actornot_post('recorder', 'prepared');
	PREPARE TRANSACTION 'open'});
$standby->wait_for_catchup($second);
$second->restart;
is( $second->safe_psql('postgres', q{
	SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'actornot%'}),
	0, 'nor are there after a restart of the standby');
$standby->stop('immediate');
$second->promote;
$second->safe_psql('postgres', q{SELECT actornot_resume('recorder')});
wait_for_value($second, 'postgres',
	q{SELECT actornot_state('recorder', 'second')},
	'{"n": 20}', 'a paused runner goes on after the promotion');
$second->safe_psql('postgres', q{COMMIT PREPARED 'open'});
wait_for_value($second, 'postgres',
	q{SELECT actornot_state('recorder', 'prepared')},
	'{"n": 1}', 'and so does what was prepared');
$second->stop;
done_testing();
