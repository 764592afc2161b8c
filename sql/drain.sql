--
-- drain: runs all that is ready of the caller's own runners, and commits between
--
CREATE EXTENSION actornot;
CREATE ROLE regress_drain_owner NOLOGIN;
CREATE ROLE regress_drain_other NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_drain_owner;
CREATE SCHEMA AUTHORIZATION regress_drain_other;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_drain_owner, regress_drain_other;

SET ROLE regress_drain_other;
CREATE FUNCTION h(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
SELECT actornot_register('other', 'h');

SET ROLE regress_drain_owner;
CREATE FUNCTION h(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
SELECT actornot_register('one', 'h', batch_size => 10);
SELECT actornot_register('two', 'h');
SELECT actornot_register('outside');

--
-- Nothing to do
--
CALL actornot_drain();
CALL actornot_drain('one');
CALL actornot_drain(processed => 7);
CALL actornot_drain(runner => 'one', processed => NULL);

--
-- All of it: several runners, entities and batches
--
SELECT array_length(actornot_post_many('one', array_agg('e' || n % 30)), 1) FROM generate_series(1, 3000) n;
SELECT array_length(actornot_post_many('two', array_agg('e' || n % 5)), 1) FROM generate_series(1, 1000) n;
SELECT actornot_post('outside', 'a') > 0 AS posted;
-- one runner only
CALL actornot_drain('two');
SELECT actornot_pending('one'), actornot_pending('two');
CALL actornot_drain();
SELECT actornot_pending('one'), actornot_pending('two'), actornot_pending('outside');
SELECT count(*), sum(actornot_state('one', 'e' || n)::int) FROM generate_series(0, 29) n;
SELECT count(*), sum(actornot_state('two', 'e' || n)::int) FROM generate_series(0, 4) n;
CALL actornot_drain();
-- More entities than a transaction locks
SELECT array_length(actornot_post_many('two', array_agg('many ' || n)), 1) FROM generate_series(1, 3000) n;
CALL actornot_drain();
SELECT count(*), sum(actornot_state('two', 'many ' || n)::int) FROM generate_series(1, 3000) n;

--
-- Runners of other owners are not run, whatever rights the caller has.
--
RESET ROLE;
SELECT actornot_post('other', 'a') > 0 AS posted;
SELECT actornot_post('one', 'a') > 0 AS posted;
CALL actornot_drain();
CALL actornot_drain('other');
GRANT regress_drain_other TO regress_drain_owner;
SET ROLE regress_drain_owner;
CALL actornot_drain();
CALL actornot_drain('other');
SELECT actornot_pending('other');
RESET ROLE;
REVOKE regress_drain_other FROM regress_drain_owner;
SET ROLE regress_drain_other;
CALL actornot_drain();
SET ROLE regress_drain_owner;

--
-- Entities that are not ready are skipped.
--
CREATE FUNCTION never(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$;
SELECT actornot_register('never', 'h', runnable => 'never');
SELECT actornot_register('paused', 'h');
SELECT actornot_post(r, e) > 0 AS posted
  FROM unnest('{never, paused, one}'::text[]) r, unnest('{paused, free}'::text[]) e;
SELECT actornot_pause('paused');
SELECT actornot_pause('one', 'paused');
CALL actornot_drain();
SELECT r, actornot_pending(r, 'paused') AS paused, actornot_pending(r, 'free') AS free
  FROM unnest('{never, paused, one}'::text[]) r;
SELECT actornot_resume('paused');
SELECT actornot_resume('one', 'paused');
CALL actornot_drain();
-- Messages of an open transaction come later.
BEGIN;
SELECT actornot_post('one', 'prepared') > 0 AS posted;
PREPARE TRANSACTION 'regress_drain';
CALL actornot_drain('one');
COMMIT PREPARED 'regress_drain';
CALL actornot_drain('one');

--
-- A failure stops its own entity only.
--
CREATE FUNCTION picky(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload = '"poison"' THEN
			RAISE EXCEPTION 'poison in "%", attempt %', entity, m.attempt;
		END IF;
		state := coalesce(state, '[]') || m.payload;
	END LOOP;
	RETURN state;
END
$$;
-- With a back-off the failed message is run again later;
SELECT actornot_register('picky', 'picky', retry_delay => '1 day', retry_delay_max => '1 day', batch_size => 3);
SELECT array_length(actornot_post_many('picky', '{a, a, a, a, a, b, b}', '{1, 2, "\"poison\"", 4, 5, 6, 7}'), 1);
\set VERBOSITY terse
CALL actornot_drain('picky');
\set VERBOSITY default
SELECT actornot_state('picky', 'a') AS a, actornot_state('picky', 'b') AS b,
	actornot_pending('picky', 'a') AS pending;
CALL actornot_drain('picky');
-- without a back-off drain goes on until the message is given up.
SELECT actornot_register('picky', 'picky', retry_delay => '0', retry_delay_max => '0', batch_size => 3, max_attempts => 3);
SELECT actornot_wake('picky', 'a');
CALL actornot_drain('picky');
SELECT actornot_state('picky', 'a') AS a, actornot_state('picky', 'b') AS b,
	actornot_pending('picky', 'a') AS pending;
SELECT runner, entity, payload, attempts, sqlstate, message FROM actornot.dead_letters;

-- It also ends where the number of attempts is not limited: a message that may
-- fail for ever waits at least a short time.
SELECT actornot_register('picky', 'picky', retry_delay => '0', retry_delay_max => '0', max_attempts => NULL);
SELECT actornot_register('gone', 'picky', retry_delay => '0', retry_delay_max => '0');
SELECT actornot_post('picky', 'for ever', '"poison"') > 0 AS posted;
SELECT actornot_post('gone', 'a', '1') > 0 AS posted;
\set VERBOSITY terse
CALL actornot_drain('picky');
DROP FUNCTION picky;
CALL actornot_drain('gone');
\set VERBOSITY default
SELECT actornot_pending('picky', 'for ever'), actornot_pending('gone', 'a');
SELECT actornot_unregister('gone', force => true);
SELECT actornot_unregister('picky', force => true);

--
-- It commits between: after an error that ends the drain, the rows of the handlers
-- before that error are there.
--
CREATE TABLE written (entity text);
CREATE FUNCTION writes(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF entity = 'slow' THEN
		PERFORM pg_sleep(60);
	END IF;
	INSERT INTO written VALUES (entity);
END
$$;
SELECT actornot_register('writes', 'writes');
SELECT array_length(actornot_post_many('writes', '{a, b, c}'), 1);
CALL actornot_drain('writes');
SELECT * FROM written ORDER BY entity;
SELECT actornot_post('writes', 'slow') > 0 AS posted;
\set SHOW_CONTEXT never
SET statement_timeout = '1s';
CALL actornot_drain('writes');
RESET statement_timeout;
\set SHOW_CONTEXT errors
SELECT actornot_pending('writes', 'slow');
SELECT count(*) FROM actornot.dead_letters WHERE runner = 'writes';
SELECT actornot_unregister('writes', force => true);

--
-- Deferred triggers belong to the entity.
--
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION bears(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE sql AS $$ INSERT INTO child SELECT payload::int FROM unnest($3) $$;
INSERT INTO parent VALUES (1), (2);
SELECT actornot_register('bears', 'bears', max_attempts => 2, retry_delay => '0', retry_delay_max => '0');
SELECT array_length(actornot_post_many('bears', '{a, b, c, a, b, c}', '{1, 5, 2, 2, 6, 1}'), 1);
CALL actornot_drain('bears');
SELECT id FROM child ORDER BY id;
SELECT entity, payload, attempts, sqlstate, message, detail FROM actornot.dead_letters WHERE runner = 'bears' ORDER BY id;

--
-- Where it may be called
--
SELECT actornot_post('one', 'where') > 0 AS posted;
BEGIN;
CALL actornot_drain();
ROLLBACK;
CREATE FUNCTION calls_drain() RETURNS void LANGUAGE plpgsql AS $$
DECLARE n bigint; BEGIN CALL actornot_drain(n); END $$;
SELECT calls_drain();
DO $$
DECLARE
	n bigint;
BEGIN
	BEGIN
		CALL actornot_drain(n);
	EXCEPTION WHEN active_sql_transaction THEN
		RAISE NOTICE 'not under an exception handler: %', SQLERRM;
	END;
END
$$;
SELECT actornot_pending('one', 'where');
-- A procedure or DO block that may commit can call it.
DO $$
DECLARE
	n bigint;
BEGIN
	CALL actornot_drain(n);
	RAISE NOTICE 'processed %', n;
	PERFORM actornot_post('one', 'where');
	CALL actornot_drain('one', n);
	RAISE NOTICE 'processed %', n;
	PERFORM actornot_post('one', 'where');
	COMMIT;
	CALL actornot_drain('one', n);
	RAISE NOTICE 'processed %', n;
END
$$;
SELECT actornot_state('one', 'where');
-- A handler cannot call it.
CREATE FUNCTION drains(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE n bigint; BEGIN CALL actornot_drain(n); END $$;
SELECT actornot_register('drains', 'drains', max_attempts => 1);
SELECT actornot_post('drains', 'a') > 0 AS posted;
CALL actornot_drain('drains');
SELECT sqlstate, message FROM actornot.dead_letters WHERE runner = 'drains';

--
-- The session's defaults do not matter.
--
SET default_transaction_isolation = 'serializable';
SELECT actornot_post('one', 'serializable') > 0 AS posted;
CALL actornot_drain();
RESET default_transaction_isolation;
SET default_transaction_read_only = on;
CALL actornot_drain();
RESET default_transaction_read_only;
SELECT actornot_state('one', 'serializable');

RESET ROLE;
DROP OWNED BY regress_drain_owner, regress_drain_other;
DROP EXTENSION actornot;
DROP ROLE regress_drain_owner, regress_drain_other;
