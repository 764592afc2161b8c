# What the processes hold in memory depends neither on how many entities there
# are, nor on how large their states are, nor on how much waits.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'only Linux tells how much memory a process had'
  unless -r '/proc/self/status';

my $node = new_server('main', conf => q{
actornot.max_workers = 1
actornot.worker_idle_timeout = 10min
});
$node->start;

# 600 states of 200 kB, which compress well: 120 MB for a process with all of
# them in memory.
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION actornot;
CREATE FUNCTION swell(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(repeat('x', 200000))
$$;
CREATE FUNCTION count_up(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(coalesce(state::int, 0) + jsonb_array_length(messages))
$$;
SELECT actornot_register('large', 'swell'), actornot_register('many', 'count_up');
SELECT count(actornot_post('large', 'l' || i)) FROM generate_series(1, 600) i;
-- The highest number of kB that a process has had, shared memory included.
CREATE FUNCTION highest(pid text) RETURNS int LANGUAGE sql AS $$
	SELECT substring(pg_read_file('/proc/' || pid || '/status')
		FROM 'VmHWM:\s*(\d+)')::int
$$;
CREATE VIEW process AS
	SELECT substring(backend_type FROM 'actornot (.*)') AS kind, pid::text
	  FROM pg_stat_activity WHERE backend_type ~ '^actornot'
});
wait_for_value($node, 'postgres', 'SELECT count(*) FROM actornot.mailbox',
	600, 'large states are there');

# How many kB the process has had at most.  Shared memory is 32 MB of buffers
# and a little more.
sub highest
{
	my ($kind) = @_;

	return ask($node, 'postgres',
		"SELECT highest(pid) FROM process WHERE kind = '$kind'");
}

# Sweeps look at all of these mailboxes, and the one of a new entity comes last.
$node->safe_psql('postgres', q{
SELECT actornot_pause('many');
SELECT actornot_post('many', 'last');
SELECT actornot_resume('many')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('many', 'last')},
	1, 'a sweep came to its end');
cmp_ok(highest('manager'), '<', 90000, 'the manager held no states');
cmp_ok($node->safe_psql('postgres', q{
	CALL actornot_drain();
	SELECT highest('self')}) =~ s/.*\n//sr,
	'<', 90000, 'a drain held no states');

# One visit of thousands of batches: neither the states nor the lists of it add
# up.  (150,000 messages are ten lists; 1,500 states of 40 kB are 60 MB.)
$node->append_conf('postgresql.conf', 'actornot.group_time = 10s');
$node->reload;
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION count_large(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('n',
		coalesce((state->>'n')::int, 0) + cardinality(messages),
		'large', repeat('x', 40000))
$$;
SELECT actornot_register('long', 'count_large');
SELECT actornot_pause('long');
SELECT count(actornot_post('long', 'hot')) FROM generate_series(1, 150000);
SELECT actornot_resume('long')});
wait_for_value($node, 'postgres', q{SELECT actornot_state('long', 'hot')->'n'},
	150000, 'a long visit came to its end');
cmp_ok(highest('worker'), '<', 90000, 'the worker held no states');

# A backlog of one entity, larger than the list that a visit makes; and more
# entities than a transaction can note.
$node->safe_psql('postgres', q{
SELECT actornot_pause('many');
SELECT count(actornot_post('many', 'hot')) FROM generate_series(1, 50000);
SELECT count(actornot_post('many', 'm' || i)) FROM generate_series(1, 20000) i;
SELECT actornot_resume('many')});
wait_for_value(
	$node, 'postgres', q{
	SELECT actornot_state('many', 'hot'), count(*) FROM actornot.mailbox
	 WHERE entity ~ '^m'},
	'50000|20000', 'backlogs are processed');
foreach my $kind (qw(manager worker))
{
	my $offset = log_offset($node);
	my ($pid) = pids_of($node, $kind);
	my ($total, $tries) = (undef, 0);

	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	until (defined $total || $tries++ > 600)
	{
		($total) = log_since($node, $offset) =~ /Grand total: (\d+) bytes/;
		select(undef, undef, undef, 0.1) unless defined $total;
	}
	cmp_ok($total, '<', 12 * 1024 * 1024, "the $kind holds little then");
	cmp_ok(highest($kind), '<', 90000, "the $kind held little meanwhile");
}
$node->stop;
done_testing();
