# Leases and tokens survive whatever happens to clients and servers: a lost
# answer, a killed backend, a crash, a promotion.  A token is never given twice,
# and one that is stale stays so.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main', allows_streaming => 1,
	conf => "synchronous_commit = off\nwal_writer_delay = 10s\n");
my %largest;    # of each entity, of all that clients were given

$node->start;
install_recorder($node, 'postgres', 'handled');
$node->safe_psql('postgres', q{
	SELECT actornot_register('out', batch_size => 3);
	CREATE TABLE written (entity text, n int)});

# Acquire; the token is checked against all that were handed out before.
sub acquire
{
	my ($server, $entity, $lease) = @_;

	$lease //= '1 h';
	my ($token, $payloads) = split /\|/, $server->safe_psql('postgres', qq{
		SELECT token, jsonb_path_query_array(messages, '\$[*].payload')
		  FROM actornot_acquire('out', '$entity', '$lease')});
	return unless defined $token;
	note("$entity: $token is not larger than $largest{$entity}")
	  if $token <= ($largest{$entity} // 0);
	$largest{repeated}++ if $token <= ($largest{$entity} // 0);
	$largest{$entity} = $token;
	return ($token, $payloads);
}

sub post
{
	my ($server, $entity, @numbers) = @_;

	$server->safe_psql('postgres',
		"SELECT actornot_post('out', '$entity', '$_')")
	  foreach @numbers;
	return;
}

sub update_sql
{
	my ($entity, $token, $state, $max) = @_;

	return "SELECT * FROM actornot_update_locked('out', '$entity', $token,"
	  . " '$state', max_messages => "
	  . ($max // 'NULL') . ')';
}

# ------------------------------------------------ (b) the answer is lost

post($node, 'lost', 1 .. 5);
my ($token, $got) = acquire($node, 'lost');
is($got, '[1, 2, 3]', 'the first batch');
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
# It commits, and is terminated before it can tell.
$session->{stdin} .= update_sql('lost', $token, '3')
  . "; SELECT pg_sleep(600);\n";
$session->{run}->pump_nb;
wait_for_value($node, 'postgres', q{SELECT actornot_state('out', 'lost')},
	'3', 'the update is committed');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
eval { $session->quit };
fails_with($node, 'postgres', '55AN1', update_sql('lost', $token, '3'),
	'repeating it is stale');
is($node->safe_psql('postgres', q{SELECT actornot_state('out', 'lost')}),
	'3', 'and changes nothing');
is($node->safe_psql('postgres', q{SELECT actornot_pending('out', 'lost')}),
	2, 'the batch whose answer was lost is pending');
is(scalar(acquire($node, 'lost')), undef, 'it is lent until the lease ends');
$node->safe_psql('postgres', q{SELECT actornot_set_state('out', 'lost', '3', true)});
($token, $got) = acquire($node, 'lost');
is($got, '[4, 5]', 'then it comes again, nothing lost and nothing twice');

# ------------------------------- (c) kill of a backend inside of the update

my $big = q{(SELECT jsonb_object_agg(n, md5(n::text)) FROM generate_series(1, 20000) n)};
for my $round (1 .. 3)
{
	my $offset = log_offset($node);

	$node->safe_psql('postgres', 'CHECKPOINT');
	$session = $node->background_psql('postgres', on_error_stop => 0);
	$pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe('BEGIN');
	$session->query_safe("INSERT INTO written VALUES ('lost', $round)");
	$session->query_safe(
		"SELECT count(*) FROM actornot_update_locked('out', 'lost', $token, $big)");
	kill('KILL', $pid);
	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$offset);
	eval { $session->quit };
	wait_for_value($node, 'postgres', q{SELECT actornot_state('out', 'lost')},
		'3', "round $round: nothing of it is left");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM written'),
	0, 'nor of what was written with it');
$node->safe_psql('postgres', update_sql('lost', $token, '5'));
is($node->safe_psql('postgres', q{
	SELECT actornot_state('out', 'lost'), actornot_pending('out', 'lost')}),
	'5|0', 'leases survive crashes: the token is good afterwards');

# ------------------------------------ tokens never come twice after crashes

for my $round (1 .. 4)
{
	for my $i (1 .. 40)
	{
		my $entity = 'e' . $i % 4;

		post($node, $entity, $i);
		my ($mine) = acquire($node, $entity);

		# Half of them are let go, by an asynchronous commit.
		$node->safe_psql('postgres',
			"SELECT actornot_release('out', '$entity', $mine)")
		  if defined $mine;
	}
	$node->stop('immediate');
	start_again($node);
}
acquire($node, "e$_") foreach 0 .. 3;
is($largest{repeated} // 0, 0, 'tokens only grow through crashes');

# --------- expiry is noticed after a restart, by workers and by acquire

# The reload reaches the sessions sooner or later; this one must not lose it.
$node->safe_psql('postgres', q{
	SET synchronous_commit = on;
	SELECT actornot_post('out', 'short', '1');
	SELECT count(*) FROM actornot_acquire('out', 'short', '2 s');
	ALTER SYSTEM SET synchronous_commit = on;
	SELECT pg_reload_conf()});
# A worker may be faster than we.
my $posts = 0;
my $lent = 0;
while (!$lent && $posts++ < 100)
{
	($lent) = $node->safe_psql('postgres', q{
		SET synchronous_commit = on;
		SELECT actornot_post('handled', 'short', '{}');
		SELECT count(*) FROM actornot_acquire('handled', 'short', '1 h')})
	  =~ /(\d+)\z/;
}
note("$posts posts");
$node->stop('immediate');
start_again($node);
is( $node->safe_psql('postgres', q{
	SELECT entity FROM actornot_acquire('out', wait => '60 s')
	 WHERE clock_timestamp() < statement_timestamp() + interval '30 s'}),
	'short', 'a waiting acquire gets what expired after the restart');
$node->safe_psql('postgres', q{
	SELECT actornot_renew('handled', 'short', lease_token, '1 s')
	  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner
	 WHERE r.name = 'handled' AND b.entity = 'short'});
wait_for_value($node, 'postgres', q{SELECT actornot_state('handled', 'short')},
	qq({"n": $posts}), 'a worker takes over what has expired');

# ------------------------------------------------------- (d) a promotion

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
post($node, 'moved', 1, 2);
my ($old) = acquire($node, 'moved');
post($node, 'kept', 1);
my ($kept) = acquire($node, 'kept');
$node->wait_for_catchup($standby);
fails_with($standby, 'postgres', '25006', $_, "refused on a standby: $_")
  foreach (
	q{SELECT * FROM actornot_acquire('out')},
	update_sql('moved', $old, '1'),
	"SELECT actornot_renew('out', 'moved', $old)",
	"SELECT actornot_release('out', 'moved', $old)",
	"SELECT actornot_fail('out', 'moved', $old, 'x')");
# What the standby never hears of: as many tokens as you like.
$standby->stop('immediate');
for my $i (1 .. 50)
{
	$node->safe_psql('postgres',
		"SELECT actornot_release('out', 'moved', $old)");
	($old) = acquire($node, 'moved');
}
my $unheard = $old;
$node->stop('immediate');
start_again($standby);
$standby->promote;
wait_until($standby, 'postgres', 'SELECT NOT pg_is_in_recovery()',
	'the standby is promoted');
is($standby->safe_psql('postgres', update_sql('kept', $kept, '1')),
	'', 'a lease that the standby knows is good after the promotion');
fails_with($standby, 'postgres', '55AN1', update_sql('moved', $unheard, '1'),
	'one that it never heard of is stale');
$standby->safe_psql('postgres',
	q{SELECT actornot_set_state('out', 'moved', NULL, true)});
($token, $got) = acquire($standby, 'moved');
cmp_ok($token, '>', $unheard,
	'a new token is larger than any of the old primary');
is($got, '[1, 2]', 'with the same batch');
fails_with($standby, 'postgres', '55AN1', update_sql('moved', $unheard, '1'),
	'and the old holder stays stale');
is($largest{repeated} // 0, 0, 'tokens only grow through promotions');

unlike(log_since($standby, 0), qr/PANIC|TRAP|signal 6|signal 11/,
	'nothing crashed by itself');
unlike(log_since($node, 0), qr/PANIC|TRAP|signal 6|signal 11/,
	'nor before');
$standby->stop;
done_testing();
