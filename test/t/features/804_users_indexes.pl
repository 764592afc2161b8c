# An administrator's index of an expression whose function needs a snapshot:
# workers write rows when they have none.

use strict;
use warnings;

use ActornotTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('main');

$node->start;
install_recorder($node, 'postgres');
$node->safe_psql('postgres', q{
	-- Not to be inlined, because of their settings.
	CREATE FUNCTION as_text(jsonb) RETURNS text LANGUAGE sql IMMUTABLE
		SET search_path = pg_catalog AS $$ SELECT $1::text $$;
	CREATE FUNCTION key() RETURNS text LANGUAGE sql IMMUTABLE
		SET search_path = pg_catalog AS $$ SELECT 'n'::text $$;
	CREATE FUNCTION fails(entity text, state jsonb, messages actornot_message[])
		RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
	SELECT actornot_register('fails', 'fails', max_attempts => 2, retry_delay => '10 ms');
	CREATE INDEX by_state ON actornot.mailbox (as_text(state));
	CREATE INDEX by_key ON actornot.mailbox ((state ->> key()));
	CREATE INDEX by_payload ON actornot.message_0 (as_text(payload));
	SELECT actornot_post('fails', 'e'),
		count(actornot_post('recorder', 'e' || n, '{}')) FROM generate_series(1, 20) n});
wait_for_value($node, 'postgres', 'SELECT count(*) FROM recorded', 20, 'all are run');
wait_for_value($node, 'postgres', 'SELECT count(*) FROM actornot.dead_letters', 1,
	'and what fails is given up');
is( $node->safe_psql('postgres', q{
	SET enable_seqscan = off;
	SELECT count(*) FROM actornot.mailbox WHERE as_text(state) = '{"n": 1}'}),
	20, 'the states are in the index');
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal|WARNING:  (?!handler)/,
	'nothing crashed');
$node->stop;
done_testing();
