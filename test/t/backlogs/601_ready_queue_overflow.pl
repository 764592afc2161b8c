# More entities are ready than the ready queue can hold: the sweep finds the
# others, and each entity gets its turn.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => q{
actornot.ready_queue_size = 1024
actornot.sweep_interval = 1h
});
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN');
install_recorder($node, 'postgres');
$node->safe_psql('postgres', 'CREATE SCHEMA alice AUTHORIZATION alice;
	GRANT EXECUTE ON FUNCTION actornot_register TO public');
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION alice.count(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(coalesce(state::int, 0) + jsonb_array_length(messages))
$$;
SELECT actornot_register('alice', 'alice.count');
SELECT actornot_grant('alice', 'public');
}, extra_params => [ '-U', 'alice' ]);

# All in one transaction, of which another role's entity is a part.
$node->safe_psql('postgres', q{
BEGIN;
SELECT count(actornot_post('recorder', 'many ' || n))
  FROM generate_series(1, 20000) n;
SELECT actornot_post('alice', 'e');
COMMIT;
SELECT actornot_post('alice', 'e');
});
wait_for_value($node, 'postgres', q{SELECT actornot_state('alice', 'e')},
	2, 'another role is served');
wait_for_value($node, 'postgres',
	'SELECT count(*), count(DISTINCT entity) FROM recorded',
	'20000|20000', '20,000 entities of one transaction are processed');

# In many transactions, by several sessions, against few entities that go on
# and on.
$node->safe_psql(
	'postgres', q{
TRUNCATE recorded;
CREATE PROCEDURE post_singly(client int, n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM actornot_post('recorder', format('single %s %s', client, i));
		PERFORM actornot_post('recorder', 'hot ' || i % 3);
		COMMIT;
	END LOOP;
END
$$;
});
my @sessions;
foreach my $client (1 .. 3)
{
	my $session = $node->background_psql('postgres', timeout => 300);

	$session->query_until(qr/begun/, qq{
\\echo begun
SET synchronous_commit = off;
CALL post_singly($client, 4000);
});
	push @sessions, $session;
}
# A newcomer does not have to wait until all is over.
$node->safe_psql('postgres', q{SELECT actornot_post('alice', 'newcomer')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('alice', 'newcomer')},
	1, 'a newcomer is served meanwhile');
$_->quit foreach @sessions;
wait_for_value($node, 'postgres',
	q{SELECT count(*), count(DISTINCT id), count(DISTINCT entity) FROM recorded},
	'24000|24000|12003', 'what is posted singly is processed');
is($node->safe_psql('postgres', q{SELECT actornot_pending('recorder')}),
	0, 'nothing is left');
is( $node->safe_psql('postgres', q{
	SELECT count(*) FROM (
		SELECT id, lag(id) OVER (PARTITION BY entity ORDER BY place) AS last
		  FROM recorded WHERE entity LIKE 'single%') AS s
	 WHERE id < last}),
	0, 'in order');

# A transaction of one session's, larger than what it can note of its own.
$node->safe_psql('postgres', q{
	TRUNCATE recorded;
	SELECT sum(cardinality(actornot_post_many('recorder',
			array_agg('post_many ' || n)))) OVER ()
	  FROM generate_series(1, 15000) n});
wait_for_value($node, 'postgres',
	'SELECT count(*), count(DISTINCT entity) FROM recorded',
	'15000|15000', 'what is posted as one array is processed');

# Overflow and a crash at once.
my $offset = log_offset($node);
$node->safe_psql('postgres', q{
	TRUNCATE recorded;
	SELECT count(actornot_post('recorder', 'crash ' || n))
	  FROM generate_series(1, 10000) n});
$node->stop('immediate');
start_again($node);
wait_for_value($node, 'postgres',
	'SELECT count(*), count(DISTINCT entity) FROM recorded',
	'10000|10000', 'and after a crash');
unlike(log_since($node, $offset), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed by itself');
$node->stop;
done_testing();
