# Messages of prepared transactions: processed once after COMMIT PREPARED,
# whatever happens to the server before, and never after ROLLBACK PREPARED.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
install_recorder($node, 'app');

sub prepare
{
	my ($gid, $n) = @_;

	$node->safe_psql('app', qq{
BEGIN;
SELECT count(actornot_post('recorder', '$gid', to_jsonb(n)))
  FROM generate_series(1, $n) n;
SAVEPOINT s;
SELECT actornot_post('recorder', '$gid', '"undone"');
ROLLBACK TO SAVEPOINT s;
PREPARE TRANSACTION '$gid'});
	return;
}

sub all_leave
{
	my ($when) = @_;

	wait_for_value($node, 'postgres',
		q{SELECT string_agg(backend_type, ',') FROM pg_stat_activity
		   WHERE backend_type LIKE 'actornot%'},
		'actornot launcher', "$when: all have left");
	return;
}

sub is_processed
{
	my ($gid, $n, $what) = @_;

	wait_for_value($node, 'app', qq{
		SELECT count(*), count(DISTINCT id), bool_and(payload = to_jsonb(place))
		  FROM recorded WHERE entity = '$gid'},
		"$n|$n|t", $what);
	return;
}

# Others of the same entity that are posted later are processed meanwhile, and
# those of the prepared one then, although their ids are smaller.
prepare('at once', 5);
prepare('later', 5);
prepare('given up', 5);
prepare('after fast restart', 5);
prepare('after crash', 5);
prepare('after kill', 5);
$node->safe_psql('app', q{COMMIT PREPARED 'at once'});
is_processed('at once', 5, 'COMMIT PREPARED at once');
$node->safe_psql('app', q{
	SELECT count(actornot_post('recorder', 'overtaken'))
	  FROM generate_series(1, 3);
	BEGIN;
	SELECT actornot_post('recorder', 'overtaken');
	PREPARE TRANSACTION 'overtaken'});
$node->safe_psql('app', q{
	SELECT count(actornot_post('recorder', 'overtaken'))
	  FROM generate_series(1, 3)});
wait_for_value($node, 'app',
	q{SELECT count(*) FROM recorded WHERE entity = 'overtaken'},
	6, 'a prepared transaction delays no other message');

all_leave('before COMMIT PREPARED');
is(recorded($node, 'app'), 11, 'what is only prepared is not processed');
$node->safe_psql('app', q{COMMIT PREPARED 'later'});
is_processed('later', 5, 'COMMIT PREPARED brings the processes back');
$node->safe_psql('app', q{COMMIT PREPARED 'overtaken'});
wait_for_value($node, 'app',
	q{SELECT count(*), count(DISTINCT id) FROM recorded
	   WHERE entity = 'overtaken'},
	'7|7', 'what was overtaken is processed, and the others not again');

# Restarts between.
my %end = (
	'after fast restart' => sub { $node->stop('fast') },
	'after crash' => sub { $node->stop('immediate') },
	'after kill' => sub { $node->kill9 });
foreach my $gid ('after fast restart', 'after crash', 'after kill')
{
	$end{$gid}->();
	start_again($node);
	is( $node->safe_psql('app', qq{
		SELECT count(*) FROM recorded WHERE entity = '$gid'}),
		0, "$gid: not yet");
	$node->safe_psql('app', "COMMIT PREPARED '$gid'");
	is_processed($gid, 5, "$gid: COMMIT PREPARED");
}

# A crash right after COMMIT PREPARED: it was told that it was committed.
foreach my $round (1 .. 3)
{
	prepare("crash $round", 20);
	$node->safe_psql('app', "COMMIT PREPARED 'crash $round'");
	$node->stop('immediate');
	start_again($node);
	is_processed("crash $round", 20,
		"a crash right after COMMIT PREPARED ($round)");
}

# Many of them at once, and some by a session of another database's backend.
prepare("many $_", 3) foreach (1 .. 15);
$node->safe_psql('app', join(';', map { "COMMIT PREPARED 'many $_'" } (1 .. 15)));
wait_for_value($node, 'app',
	q{SELECT count(*), count(DISTINCT id) FROM recorded WHERE entity LIKE 'many%'},
	'45|45', 'many at once');

$node->safe_psql('app', q{ROLLBACK PREPARED 'given up'});
$node->safe_psql('app', q{SELECT actornot_post('recorder', 'given up')});
wait_for_value($node, 'app',
	q{SELECT count(*) FROM recorded WHERE entity = 'given up'},
	1, 'ROLLBACK PREPARED: only what follows is processed');
is($node->safe_psql('app', q{SELECT actornot_pending('recorder')}),
	0, 'nothing else is pending');
is($node->safe_psql('app', q{SELECT count(*) FROM recorded WHERE payload = '"undone"'}),
	0, 'what was rolled back to a savepoint is not there');

# DROP EXTENSION and a transaction that is still prepared: it waits for it, as
# for any user of the tables, or fails; it does not take the server along.
prepare('open', 1);
my ($status) = $node->psql('app',
	"SET lock_timeout = '1s'; DROP EXTENSION actornot CASCADE");
isnt($status, 0, 'DROP EXTENSION waits for what is prepared');
$node->safe_psql('app', q{COMMIT PREPARED 'open'});
is_processed('open', 1, 'and all goes on');

unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed by itself');
$node->stop;
done_testing();
