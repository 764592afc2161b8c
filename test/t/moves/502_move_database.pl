# A database with every kind of entity is dumped and restored elsewhere: to a
# cluster far behind or far ahead, in every format and order.

use strict;
use warnings;

use ActornotTest;
use MovedWorld;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ahead = new_server('ahead');
my $behind = new_server('behind');
my $folder = PostgreSQL::Test::Utils::tempdir;
my %world;
my $session;

sub dump_of
{
	my ($node, $kind, @arguments) = @_;
	my $file = "$folder/" . $node->name . "_$kind";

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->command_ok(
		[ 'pg_dump', @arguments, '-f', $file, '-d', $node->connstr('app') ],
		$node->name . ": dump, $kind");
	return $file;
}

far_ahead($ahead, 7);
foreach my $node ($ahead, $behind)
{
	$node->start;
	create_roles($node, 'NOLOGIN');
	my %here = build_world($node, 'app');

	$here{plain} = dump_of($node, 'plain');
	$here{archive} = dump_of($node, 'archive', '-Fd', '-j2');
	$here{schema} = dump_of($node, 'schema', '--schema-only');
	$here{data} = dump_of($node, 'data', '--data-only');
	is(picture($node, 'app'), $here{picture}, 'nothing has been run here');
	$world{ $node->name } = \%here;
}
cmp_ok(
	$ahead->safe_psql('app',
		'SELECT min(tick::text::numeric) FROM actornot.message'),
	'>', 7 * 2**32, 'the ticks of one cluster are far ahead');
cmp_ok(
	$behind->safe_psql('app',
		'SELECT max(tick::text::numeric) FROM actornot.message'),
	'<', 100_000, 'those of the other are not');
foreach my $node ($ahead, $behind)
{
	$node->safe_psql('app', q{ROLLBACK PREPARED 'open'});
	$node->safe_psql('postgres', 'DROP DATABASE app');
	$node->safe_psql('postgres', "ALTER ROLE $_ LOGIN")
	  foreach ('carol', 'alice');
}

# The engine is busy in another database all the time.
sub keep_busy
{
	my ($node) = @_;

	install_recorder($node, 'postgres');
	$node->safe_psql('postgres', q{
		SELECT count(actornot_post('recorder', 'e' || n % 100))
		  FROM generate_series(1, 20000) n});
	return;
}

sub restore
{
	my ($node, $db, $file, @arguments) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->command_ok(
		[ 'pg_restore', '-e', @arguments, '-d', $node->connstr($db), $file ],
		"$db: restore @arguments");
}

sub psql_file
{
	my ($node, $db, $file, @arguments) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->command_ok(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null',
			@arguments, '-d', $node->connstr($db), '-f', $file ], "$db: restore by psql");
}

foreach my $way ([ $ahead, $behind ], [ $behind, $ahead ])
{
	my ($from, $to) = @$way;
	my $world = $world{ $from->name };
	my $name = 'from_' . $from->name;

	keep_busy($to);
	foreach my $how ('plain', 'parallel', 'parts', 'created', 'cleaned',
		'used', 'at_once')
	{
		my $db = "${name}_$how";
		my $offset = log_offset($to);
		my $start = 'SELECT actornot_start()';

		$to->safe_psql('postgres', "CREATE DATABASE $db");
		if ($how eq 'plain')
		{
			psql_file($to, $db, $world->{plain});
		}
		elsif ($how eq 'parallel')
		{
			restore($to, $db, $world->{archive}, '-j4');
			$start = q{SELECT actornot_post('hers', 'another')};
		}
		elsif ($how eq 'parts')
		{
			psql_file($to, $db, $world->{schema});
			psql_file($to, $db, $world->{data});
		}
		elsif ($how eq 'created')
		{
			restore($to, $db, $world->{archive}, '--schema-only');
			restore($to, $db, $world->{archive}, '--data-only', '-j4');
		}
		elsif ($how eq 'cleaned')
		{
			# It was there already, and is restored over.
			restore($to, $db, $world->{archive});
			$to->safe_psql($db, $start);
			wait_for_value($to, $db,
				q{SELECT actornot_pending('usual', 'fresh')},
				0, "$db: it has been used");
			$offset = log_offset($to);
			restore($to, $db, $world->{archive}, '--clean', '--if-exists');
		}
		else
		{
			# The engine has something of its own there, and a session knows
			# what there is: no runner.
			restore($to, $db, $world->{archive}, '--schema-only');
			$to->safe_psql($db, $start);
			$session = $to->background_psql($db, on_error_stop => 0);
			$session->query_safe(q{
				DO $$
				BEGIN
					PERFORM actornot_post('hers', 'another');
				EXCEPTION WHEN undefined_object THEN
					NULL;
				END
				$$});
			if ($how eq 'used')
			{
				restore($to, $db, $world->{archive}, '--data-only');
				$start = undef;
			}
			else
			{
				my $script = "$world->{archive}.sql";

				data_script($to, $world->{archive}, $script);
				append_to_file($script, qq{
					DELETE FROM public.broken WHERE entity = 'due';
					SELECT public.actornot_advance_clock();\n});
				psql_file($to, $db, $script, '-1');
				$start = 'SELECT 1';
			}
		}
		$to->wait_for_log(qr/actornot does nothing in database "$db"/, $offset)
		  if !defined $session;
		is_as_it_was($world, $to, $db, $db) if $how ne 'at_once';
		if (!defined $start)
		{
			# The engine has been stopped by what came; this sets it going.
			$to->safe_psql($db, q{DELETE FROM broken WHERE entity = 'due'});
			$start = 'SELECT 1';
			like($session->query_safe(
					q{SELECT actornot_post('hers', 'another') > 0}),
				qr/^t$/m, "$db: a session that was there before knows all of it");
		}
		goes_on($world, $to, $db, $db, $start);
		$session->quit if defined $session;
		$session = undef;
	}
}
foreach my $node ($ahead, $behind)
{
	unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal/,
		'nothing crashed');
	$node->stop;
}
done_testing();
