# Large payloads and the shortest and longest names of entities, by workers.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', conf => q{
fsync = off
max_wal_size = 4GB
});
$node->start;
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION actornot;
CREATE TABLE measured (entity text, id bigint, length int, md5 text);
CREATE FUNCTION measure(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO measured
		SELECT entity, id, length(payload #>> '{}'), md5(payload #>> '{}')
		  FROM unnest(messages);
	SELECT to_jsonb(coalesce(state::int, 0) + cardinality(messages));
$$;
CREATE FUNCTION measure_json(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO measured
		SELECT entity, (m->>'id')::bigint, length(m->>'payload'),
			   md5(m->>'payload')
		  FROM jsonb_array_elements(messages) m;
	SELECT to_jsonb(coalesce(state::int, 0) + jsonb_array_length(messages));
$$;
-- What cannot be compressed, and what can.
CREATE FUNCTION noise(kilobytes int) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(md5(n::text), '') FROM generate_series(1, kilobytes * 32) n
$$;
CREATE FUNCTION large(megabytes int) RETURNS text LANGUAGE sql AS $$
	SELECT repeat(noise(1), megabytes * 1024)
$$;
SELECT actornot_register('measure', 'measure'),
	actornot_register('measure json', 'measure_json'),
	actornot_register('copy', 'measure', batch_size => 3);
});

# In one batch with small ones, before and behind it.
foreach my $size ([ 'measure', 200 ], [ 'measure json', 30 ])
{
	my ($runner, $megabytes) = @$size;
	my $length = $megabytes * 1024 * 1024;

	$node->safe_psql(
		'postgres', qq{
BEGIN;
SELECT actornot_post('$runner', 'large', '"before"');
SELECT actornot_post('$runner', 'large', to_jsonb(large($megabytes)));
SELECT actornot_post('$runner', 'large', to_jsonb(noise(10000)));
SELECT actornot_post('$runner', 'large', '"behind"');
COMMIT;
SELECT actornot_post('$runner', 'small', '"x"');
});
	wait_for_value($node, 'postgres',
		"SELECT actornot_state('$runner', 'large')",
		4, "$runner: $megabytes MB are processed by a worker");
	is( $node->safe_psql('postgres', q{
		SELECT string_agg(length::text, ', ' ORDER BY id) FROM measured
		 WHERE entity = 'large'}),
		"6, $length, 10240000, 6", "$runner: whole");
	is( $node->safe_psql('postgres', qq{
		SELECT md5 = md5(large($megabytes)) FROM measured WHERE length = $length}),
		't', "$runner: and unharmed");
	wait_for_value($node, 'postgres',
		"SELECT actornot_state('$runner', 'small')",
		1, "$runner: others are run");
	$node->safe_psql('postgres', 'TRUNCATE measured');
}

# Many of a megabyte, more than batch_bytes takes together.
$node->safe_psql('postgres', q{
	SELECT count(actornot_post('measure', 'many', to_jsonb(large(1))))
	  FROM generate_series(1, 60)});
wait_for_value($node, 'postgres', q{
	SELECT count(*), count(DISTINCT id), min(length) FROM measured},
	'60|60|1048576', 'many large ones');

# Names of entities.
my @names = ('e', 'x' x 1024, "\x{c3}\x{a4}" x 512, ' ', "'", '%s', '\\');
foreach my $name (@names)
{
	my $sql = $name =~ s/'/''/gr;

	$node->safe_psql('postgres', qq{
		SELECT actornot_post('copy', E'} . ($sql =~ s/\\/\\\\/gr) . qq{', to_jsonb(n))
		  FROM generate_series(1, 10) n});
}
wait_for_value($node, 'postgres', q{
	SELECT count(*), count(DISTINCT entity), min(octet_length(entity)),
		   max(octet_length(entity)) FROM actornot.mailbox
	  JOIN actornot.runner r ON r.id = runner
	 WHERE r.name = 'copy' AND state = '10'},
	scalar(@names) . '|' . scalar(@names) . '|1|1024',
	'names of 1 and of 1024 bytes');
fails_with($node, 'postgres', '22023',
	q{SELECT actornot_post('copy', repeat('x', 1025))}, 'not of 1025');
fails_with($node, 'postgres', '22023',
	q{SELECT actornot_post('copy', '')}, 'and not of none');
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
