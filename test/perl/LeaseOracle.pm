# LeaseOracle - had each entity one holder, and did each message come once, in
# order?
#
# Each entity's state is the list of the ids of its messages, appended by a
# holder of a lease (append() in SQL, as a program outside would do it) or by
# the handler.  Each append writes a row into "turn" in the same transaction.
# Its primary key is the number of the turn, and a turn's number is one more
# than what can be seen: two holders at a time get the same one, and one of
# them an error.  What has been posted is in "posted", with what the posting
# transaction could see, so that the order is known between posters.

package LeaseOracle;

use strict;
use warnings;

use ActornotTest;
use Exporter 'import';
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  install_oracle check_oracle fork_child end_children acquire_sql lease_sql
  turn_sql post_sql run_script
);

# Arguments: of actornot_register(), with the handler ("'append'") or without.
sub install_oracle
{
	my ($node, $db, $arguments) = @_;

	$node->safe_psql(
		$db, qq{
CREATE EXTENSION actornot;
CREATE TABLE posted (poster int, entity text, id bigint, xid xid8,
	seen pg_snapshot);
CREATE TABLE turn (entity text, turn int, token bigint, holder text,
	acquired_by int, pid int DEFAULT pg_backend_pid(), messages int,
	taken_at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (entity, turn));

CREATE FUNCTION append(state jsonb, messages jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS \$\$
	SELECT coalesce(state, '[]') ||
		   jsonb_path_query_array(messages, '\$[*].id')
\$\$;
CREATE PROCEDURE take_turn(entity text, token bigint, holder text,
	acquired_by int, messages int)
LANGUAGE sql AS \$\$
	INSERT INTO turn
	SELECT \$1, 1 + coalesce(max(t.turn), 0), \$2, \$3, \$4, pg_backend_pid(), \$5
	  FROM turn t WHERE t.entity = \$1
\$\$;
CREATE FUNCTION append(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS \$\$
BEGIN
	CALL take_turn(entity, NULL, 'handler', NULL, cardinality(messages));
	RETURN append(state, (SELECT jsonb_agg(to_jsonb(m)) FROM unnest(messages) m));
END
\$\$;
CREATE PROCEDURE post(poster int, entity text)
LANGUAGE sql AS \$\$
	INSERT INTO posted
	SELECT poster, entity, actornot_post('oracle', entity, '{}'),
		   pg_current_xact_id(), pg_current_snapshot()
\$\$;

-- A holder that is too late: it waits until somebody else has had its entity.
CREATE PROCEDURE wait_until_taken(entity text, token bigint)
LANGUAGE plpgsql AS \$\$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM actornot.mailbox b
			WHERE b.entity = \$1 AND b.lease_token = \$2 AND
				b.lease_until IS NOT NULL);
		PERFORM pg_sleep(0.01);
	END LOOP;
END
\$\$;
CREATE VIEW appended AS
	SELECT b.entity, s.id::bigint, s.place
	  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner,
		   jsonb_array_elements_text(CASE r.name WHEN 'oracle' THEN b.state
				ELSE '[]' END) WITH ORDINALITY s (id, place);
SELECT actornot_register('oracle', $arguments);
});
	return;
}

# --------------------------------------------------- scripts of a client's

my $columns = q{SELECT count(*) > 0 AS got, coalesce(max(entity), '') AS entity,
	coalesce(max(token), 0) AS token, max(state::text) AS state,
	coalesce(max(messages::text), '[]') AS messages,
	pg_backend_pid() AS acquired_by };

# A lease in psql's variables, if "got" is true afterwards.
sub acquire_sql
{
	my ($arguments) = @_;

	return "\\set got f\n$columns FROM actornot_acquire('oracle', "
	  . "$arguments) \\gset\n";
}

# Do the work of the lease and hold the next one, if there is one; in a
# transaction of the caller's, which ends as it says.
sub turn_sql
{
	my ($holder, $arguments, $end) = @_;

	# A state that is NULL is no variable.
	return qq{\\set got f
\\if :{?state} \\else \\set state [] \\endif
BEGIN;
$columns FROM actornot_update_locked('oracle', :'entity', :token,
	append(:'state'::jsonb, :'messages'::jsonb), $arguments) \\gset next_
\\if :ERROR
ROLLBACK;
\\else
CALL take_turn(:'entity', :token, '$holder', :acquired_by,
	jsonb_array_length(:'messages'));
$end;
\\endif
};
}

# Acquire, if nothing is held, and do the turn.
sub lease_sql
{
	my ($holder, $lease, $before) = @_;

	return "\\if :got\n\\else\n"
	  . acquire_sql("lease => '$lease', wait => '20 ms'")
	  . "\\endif\n\\if :got\n"
	  . ($before // '')
	  . turn_sql($holder, "lease => '$lease'", 'COMMIT')
	  . "\\if :ERROR\n\\else\n"
	  . join('',
		map { "\\set $_ :next_$_\n" }
		  qw(got entity token state messages acquired_by))
	  . "\\endif\n\\endif\n";
}

# A transaction of several posts.
sub post_sql
{
	my ($poster, $entities, $posts) = @_;

	return "BEGIN;\n"
	  . join('',
		map { "CALL post($poster, 'e" . int($entities * rand()**2) . "');\n" }
		  1 .. $posts)
	  . (rand() < 0.05 ? "ROLLBACK;\n" : "COMMIT;\n");
}

# Run it to its end; returns the SQLSTATEs of its errors.
sub run_script
{
	my ($connection, $script) = @_;
	my ($stdout, $stderr) = ('', '');

	local $SIG{PIPE} = 'IGNORE';
	eval {
		IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d',
				$connection, '-f', '-' ],
			'<', \"\\set got f\n$script", '>', \$stdout, '2>', \$stderr);
		1;
	} or $stderr ||= "psql: error: $@";
	return $stderr =~ /(?:ERROR|FATAL):  (\w+)/g, grep { /^psql: error/ }
	  split /\n/, $stderr;
}

# ----------------------------------------------------------------- children

# A process that calls the function again and again, until it says false or
# the file "stop" is there.  What else it returns is in $folder/$name.
sub fork_child
{
	my ($folder, $name, $function) = @_;
	my $parent = $$;
	my $random = int(rand(1 << 30));
	my $pid = fork();

	BAIL_OUT("could not fork: $!") unless defined $pid;
	return $pid if $pid;

	srand($random);
	open my $answers, '>', "$folder/$name" or die $!;
	until (-e "$folder/stop" || getppid() != $parent)
	{
		my @words = eval { $function->() };

		push @words, $@ if $@;
		last unless @words;
		print $answers "$_\n" foreach grep { $_ ne 'on' } @words;
		$answers->flush;
	}
	POSIX::_exit(0);
}

# Returns what they have said: how often each word.
sub end_children
{
	my ($folder, @children) = @_;
	my %count;

	append_to_file("$folder/stop", "stop\n");
	waitpid($_, 0) foreach @children;
	foreach my $file (grep { !/stop$/ } glob("$folder/*"))
	{
		++$count{$_} foreach split /\n/, slurp_file($file);
	}
	return %count;
}

# --------------------------------------------------------------- the oracle

# Nothing is pending any more.
sub check_oracle
{
	my ($node, $db) = @_;

	note($node->safe_psql($db, q{
		SELECT format('%s messages in %s turns of %s', sum(messages), count(*),
				holder) FROM turn GROUP BY holder}));
	is( $node->safe_psql($db, q{
		SELECT count(*) FROM (SELECT entity, id FROM posted
			EXCEPT ALL SELECT entity, id FROM appended) lost}),
		0, 'nothing is lost');
	is( $node->safe_psql($db, q{
		SELECT count(*) FROM (SELECT entity, id FROM appended
			EXCEPT ALL SELECT entity, id FROM posted) extra}),
		0, 'nothing is there twice, or without having been posted');
	is( $node->safe_psql($db, q{
		SELECT count(*) FROM (
			SELECT id, lag(id) OVER (PARTITION BY entity, poster ORDER BY place)
				AS last FROM posted JOIN appended USING (entity, id)) AS sequence
		 WHERE id <= last}),
		0, 'messages of one poster keep their order');
	is(count_overtaken($node, $db, 'appended'),
		0, 'what was committed before comes before');
	is( $node->safe_psql($db, q{
		SELECT count(*) FROM (
			SELECT token, max(token) OVER (PARTITION BY entity ORDER BY turn
				ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last
			  FROM turn) AS sequence WHERE token <= last}),
		0, 'tokens grow from turn to turn');
	is( $node->safe_psql($db, q{
		SELECT count(*) FROM (
			SELECT entity, sum(messages) FROM turn WHERE messages > 0
			 GROUP BY entity
			EXCEPT SELECT entity, count(*) FROM appended GROUP BY entity) wrong}),
		0, 'the turns are what the states say');
	is($node->safe_psql($db, 'SELECT count(*) FROM actornot.dead_letters'),
		0, 'nothing was given up');
	unlike(log_since($node, 0), qr/TRAP|PANIC|signal 6|signal 11|turn_pkey/,
		'nothing crashed, and no holder took the turn of another');
	return;
}

1;
