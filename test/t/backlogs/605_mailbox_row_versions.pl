# Under a held snapshot all versions of a mailbox row stay.  A process without
# a hint of the row's place finds the last version without reading the others.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Without the library there is no memory for hints.
my $node = new_server('main', conf => q{shared_preload_libraries = ''});

$node->start;
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION actornot;
CREATE FUNCTION count_up(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(coalesce(state::int, 0) + jsonb_array_length(messages))
$$;
CREATE PROCEDURE work(times int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. times LOOP
		PERFORM actornot_post('counter', 'e', '1');
		COMMIT;
		PERFORM actornot_run('counter', 'e');
		COMMIT;
	END LOOP;
END
$$;
SELECT actornot_register('counter', 'count_up');
CALL work(10);
SELECT pg_stat_force_next_flush();
});

# Blocks of the table and its index that it takes to read the state.
sub blocks_read
{
	return $node->safe_psql('postgres', q{
		SET client_min_messages = error;
		SELECT actornot_state('counter', 'e');
		SELECT pg_stat_force_next_flush();
		SELECT sum(pg_stat_get_blocks_fetched(oid)) AS before FROM pg_class
		 WHERE oid IN ('actornot.mailbox'::regclass, 'actornot.mailbox_key'::regclass) \gset
		SELECT actornot_state('counter', 'e') \g /dev/null
		SELECT pg_stat_force_next_flush();
		SELECT sum(pg_stat_get_blocks_fetched(oid)) - :before FROM pg_class
		 WHERE oid IN ('actornot.mailbox'::regclass, 'actornot.mailbox_key'::regclass)})
	  =~ s/.*\n//sr;
}

my $few = blocks_read();
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1');
$node->safe_psql('postgres', 'CALL work(3000); SELECT pg_stat_force_next_flush()');
cmp_ok($node->safe_psql('postgres', q{SELECT pg_relation_size('actornot.mailbox') / 8192}),
	'>', 20, 'there are many versions');
cmp_ok($few, '>', 0, "at first it takes $few blocks");
my $many = blocks_read();
cmp_ok($many, '<=', $few + 4, "and then $many");
is($node->safe_psql('postgres', q{SELECT actornot_state('counter', 'e')}),
	3010, 'the last version is found');
$reader->query_safe('COMMIT');
$reader->quit;
$node->stop;
done_testing();
