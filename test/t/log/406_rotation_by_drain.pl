# Rotation without shared_preload_libraries: actornot_drain() sees to it, called
# by an ordinary role.  What is in the way delays it and breaks nothing.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main',
	preload => 0,
	conf => q{
actornot.segment_size = 128kB
statement_timeout = 60s
});
my $in_use = q{SELECT count(*) FROM actornot.segment WHERE upper IS DISTINCT FROM '1'};

$node->start;
$node->safe_psql('postgres', q{CREATE ROLE alice LOGIN; CREATE SCHEMA AUTHORIZATION alice});
install_recorder($node, 'postgres', 'others');
$node->safe_psql('postgres', q{GRANT EXECUTE ON FUNCTION actornot_register TO alice});
my @alice = (extra_params => [ '-U', 'alice' ]);
$node->safe_psql('postgres', q{
CREATE TABLE alice.recorded (entity text, id bigint);
CREATE FUNCTION alice.note(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO alice.recorded SELECT entity, (m).id FROM unnest(messages) m;
	SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3))
$$;
SELECT actornot_register('r', 'alice.note');
CREATE PROCEDURE alice.fill() LANGUAGE sql AS $$
	SELECT count(actornot_post('r', 'e' || n % 10, to_jsonb(repeat('x', 300))))
	  FROM generate_series(1, 400) n
$$;
}, @alice);

my $posted = 0;
sub fill_and_drain
{
	$node->safe_psql('postgres', 'CALL alice.fill(); CALL actornot_drain()', @alice);
	$posted += 400;
	return;
}
fill_and_drain();
is($node->safe_psql('postgres', $in_use), 1, 'what is done is gone');

# A prepared transaction that has posted: its segment is not sealed.
$node->safe_psql('postgres', q{
	BEGIN;
	SELECT actornot_post('r', 'prepared');
	PREPARE TRANSACTION 'open'}, @alice);
fill_and_drain();
fill_and_drain();
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.segment WHERE NOT current AND NOT sealed}),
	1, 'where a prepared transaction has posted is not sealed');
$node->safe_psql('postgres', q{COMMIT PREPARED 'open'; CALL actornot_drain()}, @alice);
is($node->safe_psql('postgres', $in_use), 1, 'it is when that has ended');
is($node->safe_psql('postgres', q{SELECT actornot_state('r', 'prepared')}, @alice),
	1, 'its message is processed');
$posted++;

# A post that is rolled back to a savepoint gives up its segment.
my $poster = $node->background_psql('postgres', @alice);
$poster->query_safe(q{BEGIN; SELECT actornot_post('r', 'e1'); SAVEPOINT s;});
fill_and_drain();
$poster->query_safe(q{SELECT actornot_post('r', 'e1'); ROLLBACK TO s; SELECT actornot_post('r', 'e1')});
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.segment WHERE NOT current AND NOT sealed}),
	1, 'a transaction keeps to the segment it has begun with');
$poster->query_safe(q{COMMIT; BEGIN; SAVEPOINT s; SELECT actornot_post('r', 'e1'); ROLLBACK TO s});
fill_and_drain();
fill_and_drain();
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM actornot.segment WHERE NOT current AND NOT sealed}),
	0, 'what was rolled back delays nothing');
$poster->query_safe(q{SELECT actornot_post('r', 'e1'); COMMIT});
$poster->quit;
$posted += 3;
fill_and_drain();
is($node->safe_psql('postgres', $in_use), 1, 'all of it is done');

# An old reader sees what it could see, though it has touched nothing yet.
my $reader = $node->background_psql('postgres');
my $look = q{SELECT count(*), sum(hashint8(id)) FROM actornot.message};
my $before = $node->safe_psql('postgres', $look);
$reader->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class});
fill_and_drain();
fill_and_drain();
is($node->safe_psql('postgres', $in_use), 3, 'segments that an open snapshot may see stay');
is($reader->query_safe($look), $before, 'an old reader sees what it saw');
is($node->safe_psql('postgres', q{SELECT count(*) FROM actornot.segment WHERE done IS NOT NULL}),
	2, 'though they are done');
$reader->query_safe('COMMIT');
$reader->quit;
$node->safe_psql('postgres', 'CALL actornot_drain()', @alice);
is($node->safe_psql('postgres', $in_use), 1, 'then they go');

# An entity that is locked is not copied, and the drain does not wait for it.
$node->safe_psql('postgres', q{SELECT actornot_pause('r', 'locked');
	SELECT actornot_post('r', 'locked')}, @alice);
$posted++;
my $locker = $node->background_psql('postgres', @alice);
$locker->query_safe(q{BEGIN; SELECT actornot_resume('r', 'locked'); SELECT actornot_pause('r', 'locked')});
fill_and_drain();
is($node->safe_psql('postgres', $in_use), 2, 'a drain ends though an entity is locked');
$locker->query_safe('COMMIT');
$locker->quit;
$node->safe_psql('postgres', 'CALL actornot_drain()', @alice);
is($node->safe_psql('postgres', $in_use), 1, 'and comes to it later');
is($node->safe_psql('postgres', q{SELECT actornot_pending('r', 'locked'), actornot_pending('r')}, @alice),
	'1|1', 'a copy is counted once');

# Several drains at a time agree about the ring.
my @drains = map { $node->background_psql('postgres', @alice) } 1 .. 3;
for my $round (1 .. 10)
{
	$node->safe_psql('postgres', 'CALL alice.fill()', @alice);
	$posted += 400;
	$_->query_until(qr//, "CALL actornot_drain();\n") foreach @drains;
}
$_->quit foreach @drains;
is($node->safe_psql('postgres', q{SELECT count(*) FROM actornot.segment WHERE current}),
	1, 'one segment is the current one');
$node->safe_psql('postgres', q{SELECT actornot_resume('r', 'locked'); CALL actornot_drain()}, @alice);
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM alice.recorded'),
	"$posted|$posted", 'each message is processed once');
$node->stop;
done_testing();
