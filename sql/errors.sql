--
-- errors: each kind, with its SQLSTATE, for each function that can raise it
--
CREATE EXTENSION actornot;
CREATE ROLE regress_errors_owner NOLOGIN;
CREATE ROLE regress_errors_other NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_errors_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_errors_owner, regress_errors_other;
SET ROLE regress_errors_owner;
CREATE FUNCTION h(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
SELECT actornot_register('r', 'h');
\set SHOW_CONTEXT never
\set code '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
-- Runs a statement and returns the error that it raised, or "none".
CREATE FUNCTION outcome(statement text) RETURNS TABLE (code text, error text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT '00000', 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN QUERY SELECT SQLSTATE, SQLERRM;
END
$$;

--
-- Unknown runner: 42704
--
SELECT actornot_post('no such', 'a');
:code
SELECT call, code, error FROM unnest(ARRAY[
	$$post('no such', 'a')$$, $$post_many('no such', '{a}')$$, $$post_many('no such', '{}')$$,
	$$run('no such', 'a')$$, $$state('no such', 'a')$$, $$pending('no such')$$, $$pending('no such', 'a')$$,
	$$set_state('no such', 'a', '1')$$, $$skip('no such', 'a')$$, $$purge('no such', 'a')$$,
	$$wake('no such', 'a')$$, $$pause('no such')$$, $$pause('no such', 'a')$$, $$resume('no such')$$,
	$$resume('no such', 'a')$$, $$grant('no such', 'public')$$, $$revoke('no such', 'public')$$,
	$$set_owner('no such', 'regress_errors_owner')$$, $$unregister('no such')$$, $$unregister('no such', true)$$,
	$$redrive('no such', 1)$$, $$redrive_all('no such')$$, $$post('', 'a')$$, $$post('R', 'a')$$]) call,
	outcome('SELECT actornot_' || call);
CALL actornot_drain('no such');
:code
-- Also an unknown role or dead letter
SELECT actornot_grant('r', 'regress_errors_nobody');
:code
SELECT actornot_redrive('r', 1);
:code

--
-- NULL: 22004
--
SELECT actornot_post(NULL, 'a');
:code
SELECT actornot_post('r', NULL);
:code
SELECT actornot_post_many('r', '{a, NULL, b}');
:code
SELECT call, code, error FROM unnest(ARRAY[
	$$post(NULL, 'a')$$, $$post('r', NULL)$$, $$post_many(NULL, '{a}')$$, $$post_many('r', NULL)$$, $$post_many('r', '{NULL}')$$,
	$$run(NULL, 'a')$$, $$run('r', NULL)$$, $$state(NULL, 'a')$$, $$state('r', NULL)$$, $$pending(NULL)$$,
	$$pending(NULL, 'a')$$, $$pending('r', NULL)$$, $$set_state(NULL, 'a', '1')$$, $$set_state('r', NULL, '1')$$,
	$$skip(NULL, 'a')$$, $$skip('r', NULL)$$, $$purge(NULL, 'a')$$, $$purge('r', NULL)$$, $$wake(NULL, 'a')$$, $$wake('r', NULL)$$,
	$$pause(NULL)$$, $$pause(NULL, 'a')$$, $$pause('r', NULL)$$, $$resume(NULL)$$, $$resume(NULL, 'a')$$, $$resume('r', NULL)$$,
	$$grant(NULL, 'public')$$, $$grant('r', NULL)$$, $$revoke(NULL, 'public')$$, $$revoke('r', NULL)$$,
	$$set_owner(NULL, 'regress_errors_owner')$$, $$set_owner('r', NULL)$$, $$unregister(NULL)$$, $$unregister('r', NULL)$$,
	$$redrive(NULL, 1)$$, $$redrive('r', NULL)$$, $$redrive_all(NULL)$$, $$hash(NULL, 'a')$$, $$hash('r', NULL)$$,
	$$register(NULL)$$, $$register('n', batch_size => NULL)$$, $$register('n', batch_bytes => NULL)$$,
	$$register('n', retry_delay => NULL)$$, $$register('n', retry_delay_max => NULL)$$, $$register('n', lease => NULL)$$,
	$$register('n', weight => NULL)$$, $$register('n', dedup_window => NULL)$$]) call,
	outcome('SELECT actornot_' || call);
CALL actornot_drain(NULL::text);
:code

--
-- Entities that are empty or too long, arrays of different length, settings
-- that are zero or negative: 22023
--
SELECT actornot_post('r', '');
:code
SELECT actornot_post('r', repeat('x', 1025));
:code
SELECT actornot_post_many('r', '{a, b}', '{1}');
:code
SELECT actornot_post_many('r', '{a}', '{1}', '{1, 2}');
:code
SELECT actornot_post_many('r', '{{a, b}, {c, d}}');
:code
SELECT call, code, left(error, 100) AS error FROM unnest(ARRAY[
	$$post('r', '')$$, $$post('r', repeat('x', 1025))$$, $$post_many('r', '{a, ""}')$$,
	$$post_many('r', ARRAY['a', repeat('x', 1025)])$$, $$post_many('r', '{a, b}', '{1}')$$, $$post_many('r', '{}', '{1}')$$,
	$$post_many('r', '{a}', '{}')$$, $$post_many('r', '{a, b}', NULL, '{1}')$$, $$post_many('r', '{{a}}')$$,
	$$post_many('r', '{a}', '{{1}}')$$, $$post_many('r', '{a}', NULL, '{{1}}')$$,
	$$run('r', '')$$, $$run('r', repeat('x', 1025))$$, $$state('r', '')$$, $$state('r', repeat('x', 1025))$$,
	$$pending('r', '')$$, $$pending('r', repeat('x', 1025))$$, $$set_state('r', '', '1')$$, $$set_state('r', repeat('x', 1025), '1')$$,
	$$skip('r', '')$$, $$purge('r', '')$$, $$wake('r', '')$$, $$pause('r', '')$$, $$resume('r', '')$$,
	$$register('')$$, $$register(repeat('r', 256))$$,
	$$register('n', batch_size => 0)$$, $$register('n', batch_size => -1)$$, $$register('n', batch_size => 10001)$$,
	$$register('n', batch_bytes => 0)$$, $$register('n', batch_bytes => -1)$$,
	$$register('n', max_attempts => 0)$$, $$register('n', max_attempts => -1)$$,
	$$register('n', retry_delay => '-1 s')$$, $$register('n', retry_delay_max => '-1 s')$$, $$register('n', retry_delay => '2 h')$$,
	$$register('n', timeout => '0')$$, $$register('n', timeout => '-1 s')$$, $$register('n', timeout => '30 days')$$,
	$$register('n', lease => '0')$$, $$register('n', lease => '-1 s')$$, $$register('n', lease => '31 days')$$,
	$$register('n', weight => 0)$$, $$register('n', dedup_window => '0')$$, $$register('n', dedup_window => '-1 day')$$]) call,
	outcome('SELECT actornot_' || call);

--
-- Wrong handler: 42883
--
CREATE FUNCTION wrong(entity text, state jsonb, messages actornot_message[]) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
SELECT actornot_register('n', 'wrong');
:code
SELECT actornot_register('n', 'no_such');
:code
SELECT actornot_register('n', 'h', runnable => 'no_such');
:code
SELECT call, code, error FROM unnest(ARRAY[
	$$register('n', 'wrong')$$, $$register('n', 'no_such')$$, $$register('n', 'no_such.h')$$, $$register('n', 'h', runnable => 'wrong')$$,
	$$register('n', 'h', runnable => 'h')$$, $$register('n', 'h', runnable => 'no_such')$$]) call,
	outcome('SELECT actornot_' || call);
-- Strings that are no name
SELECT call, code, error FROM unnest(ARRAY[
	$$register('n', '')$$, $$register('n', 'a b')$$, $$register('n', 'h(text, jsonb, jsonb)')$$, $$register('n', 'a.b.c')$$,
	$$register('n', '"h')$$, $$register('n', 'h', runnable => '.')$$]) call,
	outcome('SELECT actornot_' || call);

--
-- Not yet built: 0A000
--
SELECT actornot_post('r', 'a', deliver_at => now() + interval '1 day');
:code
SELECT actornot_post('r', 'a', dedup_key => 'k');
:code
SELECT actornot_register('n', 'h', concurrency => 1);
:code
SELECT call, code, error FROM unnest(ARRAY[
	$$post('r', 'a', deliver_at => now())$$, $$post('r', 'a', dedup_key => '')$$,
	$$register('n', concurrency => 1)$$, $$register('n', rate => 1)$$, $$register('n', weight => 2)$$,
	$$register('n', message_ttl => '1 day')$$, $$register('n', max_backlog => 1)$$, $$register('n', dedup_window => '2 days')$$]) call,
	outcome('SELECT actornot_' || call);

--
-- No right: 42501
--
SET ROLE regress_errors_other;
SELECT actornot_post('r', 'a');
:code
SELECT actornot_run('r', 'a');
:code
SELECT actornot_state('r', 'a');
:code
RESET ROLE;
GRANT USAGE ON SCHEMA regress_errors_owner TO regress_errors_other;
SET ROLE regress_errors_other;
SELECT call, code, error FROM unnest(ARRAY[
	$$post('r', 'a')$$, $$post_many('r', '{a}')$$, $$post_many('r', '{}')$$, $$run('r', 'a')$$, $$state('r', 'a')$$, $$pending('r')$$,
	$$pending('r', 'a')$$, $$set_state('r', 'a', '1')$$, $$skip('r', 'a')$$, $$purge('r', 'a')$$, $$wake('r', 'a')$$,
	$$pause('r')$$, $$pause('r', 'a')$$, $$resume('r')$$, $$resume('r', 'a')$$, $$grant('r', 'public')$$, $$revoke('r', 'public')$$,
	$$set_owner('r', 'regress_errors_other')$$, $$unregister('r')$$, $$redrive('r', 1)$$, $$redrive_all('r')$$,
	$$register('r')$$, $$start()$$, $$advance_clock()$$]) call,
	regress_errors_owner.outcome('SELECT actornot_' || call);
CALL actornot_drain('r');
:code
SET ROLE regress_errors_owner;
SELECT actornot_set_owner('r', 'regress_errors_other');
:code
RESET ROLE;
SELECT actornot_run('r', 'a');
:code
CALL actornot_drain('r');
:code
SET ROLE regress_errors_owner;

--
-- Entity run by this session; entity leased; runner with messages: 55006
--
CREATE TABLE outcomes (call text, code text, error text);
CREATE FUNCTION mends_itself(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO outcomes
	SELECT call, (o).code, (o).error FROM (
		SELECT call, outcome('SELECT actornot_' || call) AS o FROM unnest(ARRAY[
			$q$run('itself', 'a')$q$, $q$set_state('itself', 'a', '1')$q$, $q$pause('itself', 'a')$q$, $q$pause('itself', 'a', true)$q$,
			$q$resume('itself', 'a')$q$, $q$wake('itself', 'a')$q$, $q$skip('itself', 'a')$q$, $q$purge('itself', 'a')$q$,
			$q$purge('itself', 'a', true)$q$, $q$state('itself', 'a')$q$, $q$pending('itself', 'a')$q$, $q$post('itself', 'b')$q$]) call) c;
	SELECT '"unharmed"'::jsonb
$$;
SELECT actornot_register('itself', 'mends_itself');
SELECT actornot_post('itself', 'a') > 0 AS posted;
SELECT actornot_run('itself', 'a');
TABLE outcomes;
SELECT actornot_state('itself', 'a'), actornot_pending('itself');
RESET ROLE;
UPDATE actornot.mailbox SET lease_token = 1, lease_until = now() + interval '1 day', lease_owner = 'somebody';
SET ROLE regress_errors_owner;
SELECT actornot_set_state('itself', 'a', '1');
:code
SELECT call, code, error FROM unnest(ARRAY[
	$$set_state('itself', 'a', '1')$$, $$pause('itself', 'a')$$, $$skip('itself', 'a')$$, $$purge('itself', 'a')$$]) call,
	outcome('SELECT actornot_' || call);
SELECT actornot_unregister('itself');
:code
SELECT actornot_unregister('itself', force => true);

--
-- Runners without a handler cannot be run here: 55000
--
SELECT actornot_register('outside');
SELECT actornot_post('outside', 'a') > 0 AS posted;
SELECT actornot_run('outside', 'a');
:code

--
-- Read-only transactions: 25006; reading works there.
--
SELECT actornot_post('r', 'a') > 0 AS posted;
BEGIN READ ONLY;
SELECT actornot_post('r', 'a');
:code
ROLLBACK;
SET default_transaction_read_only = on;
SELECT call, code, error FROM unnest(ARRAY[
	$$post('r', 'a')$$, $$post_many('r', '{a}')$$, $$post_many('r', '{}')$$, $$run('r', 'a')$$, $$set_state('r', 'a', '1')$$, $$skip('r', 'a')$$,
	$$purge('r', 'a')$$, $$wake('r', 'a')$$, $$pause('r')$$, $$pause('r', 'a')$$, $$resume('r')$$, $$resume('r', 'a')$$,
	$$grant('r', 'public')$$, $$revoke('r', 'public')$$, $$set_owner('r', 'regress_errors_owner')$$, $$unregister('r')$$,
	$$redrive('r', 1)$$, $$redrive_all('r')$$, $$register('r', 'h')$$,
	$$state('r', 'a')$$, $$pending('r')$$, $$pending('r', 'a')$$, $$hash('r', 'a')$$]) call,
	outcome('SELECT actornot_' || call);
CALL actornot_drain();
:code
RESET ROLE;
SELECT actornot_advance_clock();
:code
SET ROLE regress_errors_owner;
RESET default_transaction_read_only;

--
-- drain in a transaction block, running under REPEATABLE READ or
-- SERIALIZABLE: 25001
--
BEGIN;
CALL actornot_drain();
:code
ROLLBACK;
BEGIN;
CALL actornot_drain('r');
:code
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT actornot_run('r', 'a');
:code
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT actornot_run('r', 'a');
:code
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT call, code, error FROM unnest(ARRAY[
	$$run('r', 'a')$$, $$set_state('r', 'a', '1')$$, $$pause('r', 'a')$$, $$resume('r', 'a')$$, $$wake('r', 'a')$$, $$skip('r', 'a')$$,
	$$purge('r', 'a')$$, $$post('r', 'a')$$, $$state('r', 'a')$$, $$pending('r', 'a')$$, $$pending('r')$$]) call,
	outcome('SELECT actornot_' || call);
ROLLBACK;
SELECT actornot_pending('r', 'a');
SELECT actornot_run('r', 'a');

--
-- Not installed here
--
RESET ROLE;
DROP OWNED BY regress_errors_owner, regress_errors_other;
DROP EXTENSION actornot;
-- Details and hints differ by version.
\set VERBOSITY terse
SELECT actornot_post('r', 'a');
:code
DROP ROLE regress_errors_owner, regress_errors_other;
