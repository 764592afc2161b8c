--
-- retry: attempts, back-off, dead letters, and what does not count
--
CREATE EXTENSION actornot;
CREATE ROLE regress_failure_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_failure_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_failure_owner;
-- What the mailbox holds about a failure.
CREATE VIEW public.failures AS
SELECT r.name AS runner, b.entity, b.attempts, b.last_error,
	b.wake_at - b.updated_at AS wait, b.target IS NOT NULL AS pinned
  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner;
GRANT SELECT ON public.failures TO regress_failure_owner;
SET ROLE regress_failure_owner;

-- Does what its messages tell it, and collects them.
CREATE TABLE effects (n serial, entity text, payload jsonb);
CREATE FUNCTION obey(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		INSERT INTO effects (entity, payload) VALUES (obey.entity, m.payload);
		IF m.payload ? 'raise' AND m.attempt <= coalesce((m.payload -> 'times')::int, 1000) THEN
			RAISE EXCEPTION 'attempt %: %', m.attempt, m.payload ->> 'say'
				USING ERRCODE = m.payload ->> 'raise', DETAIL = 'the detail', HINT = 'the hint';
		ELSIF m.payload ? 'do' THEN
			EXECUTE m.payload ->> 'do';
		END IF;
		state := coalesce(state, '[]') || jsonb_build_array(m.payload -> 'n', m.attempt);
	END LOOP;
	RETURN state;
END
$$;
SELECT actornot_register('obey', 'obey', max_attempts => 3, retry_delay => '0', retry_delay_max => '0');

--
-- The messages before the poison are done.  The poison is tried again, alone, and
-- then given up; then the next messages get their turn.
--
SELECT actornot_post('obey', 'a', p) > 0 AS posted
  FROM unnest(ARRAY['{"n": 1}', '{"n": 2}', '{"n": 3, "raise": "22012", "say": "poison"}', '{"n": 4}', '{"n": 5}']::jsonb[])
	WITH ORDINALITY AS u(p, ord) ORDER BY ord;
SELECT actornot_run('obey', 'a');
SELECT actornot_state('obey', 'a'), actornot_pending('obey', 'a');
SELECT * FROM failures;
SELECT actornot_run('obey', 'a');
SELECT actornot_post('obey', 'a', '{"n": 6}') > 0 AS posted;
SELECT actornot_run('obey', 'a');
SELECT * FROM failures;
SELECT actornot_run('obey', 'a');
SELECT actornot_state('obey', 'a'), actornot_pending('obey', 'a');
SELECT actornot_run('obey', 'a');
SELECT actornot_state('obey', 'a'), actornot_pending('obey', 'a');
SELECT * FROM failures;
-- The dead letter holds the whole error; rows of the failed attempts are not there.
\x on
SELECT id = (SELECT max(id) FROM actornot.dead_letters) AS id, runner, entity, payload, headers,
	posted_at < died_at AS posted_at, attempts, sqlstate, message, detail,
	regexp_replace(context, 'message \d+', 'message N') AS context,
	died_at BETWEEN posted_at AND clock_timestamp() AS died_at
  FROM actornot.dead_letters;
\x off
SELECT payload ->> 'n' AS n FROM effects ORDER BY n;

--
-- Dead letters one after the other
--
SELECT actornot_register('once', 'obey', max_attempts => 1, retry_delay => '0');
SELECT actornot_post('once', 'a', p, '{"h": 1}') > 0 AS posted
  FROM unnest(ARRAY['{"n": 1, "raise": "P0001", "say": "first"}', '{"n": 2, "raise": "P0001", "say": "second"}',
		'{"n": 3}', '{"n": 4, "raise": "P0001", "say": "fourth"}']::jsonb[]) WITH ORDINALITY AS u(p, ord) ORDER BY ord;
SELECT actornot_run('once', 'a');
SELECT actornot_run('once', 'a');
SELECT actornot_run('once', 'a');
SELECT actornot_run('once', 'a');
SELECT actornot_run('once', 'a');
SELECT actornot_state('once', 'a'), actornot_pending('once', 'a');
SELECT payload -> 'n' AS n, headers, attempts, message FROM actornot.dead_letters WHERE runner = 'once' ORDER BY id;
-- and a message that is posted when all before it are dead
SELECT actornot_post('once', 'a', '{"n": 5, "raise": "P0001", "say": "fifth"}') > 0 AS posted;
SELECT actornot_run('once', 'a');
SELECT actornot_run('once', 'a');
SELECT payload -> 'n' AS n, attempts, message FROM actornot.dead_letters WHERE runner = 'once' ORDER BY id;
SELECT actornot_register('thrice', 'obey', max_attempts => 3, retry_delay => '0');
SELECT actornot_post('thrice', 'a', '{"n": 1, "raise": "P0001", "say": "first"}') > 0 AS posted;
CALL actornot_drain('thrice');
SELECT actornot_post('thrice', 'a', '{"n": 2, "raise": "P0001", "say": "second"}') > 0 AS posted;
CALL actornot_drain('thrice');
SELECT actornot_post('thrice', 'a', '{"n": 3, "raise": "P0001", "say": "third", "times": 2}') > 0 AS posted;
CALL actornot_drain('thrice');
SELECT actornot_state('thrice', 'a'), actornot_pending('thrice', 'a');
SELECT payload -> 'n' AS n, attempts, message FROM actornot.dead_letters WHERE runner = 'thrice' ORDER BY id;

--
-- Redrive
--
SELECT id AS dead FROM actornot.dead_letters WHERE runner = 'once' AND payload -> 'n' = '2' \gset
SELECT actornot_redrive('once', :dead) AS again \gset
SELECT :again > :dead AS new_id;
SELECT count(*) FROM actornot.dead_letters WHERE runner = 'once';
SELECT actornot_pending('once', 'a');
RESET ROLE;
SELECT payload -> 'n' AS n, headers #- '{actornot_origin, posted_at}' #- '{actornot_origin, died_at}' #- '{actornot_origin, id}' AS headers,
	headers #> '{actornot_origin, id}' = :'dead' AS origin,
	(headers #>> '{actornot_origin, posted_at}')::timestamptz < (headers #>> '{actornot_origin, died_at}')::timestamptz AS times
  FROM actornot.message WHERE id = :again;
SET ROLE regress_failure_owner;
SELECT actornot_redrive('once', :dead);
SELECT actornot_redrive('once', 0);
SELECT actornot_redrive('once', NULL);
SELECT actornot_redrive('obey', id) FROM actornot.dead_letters WHERE runner = 'once' LIMIT 0;
CREATE FUNCTION redrive_elsewhere() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_redrive('obey', id) FROM actornot.dead_letters WHERE runner = 'once';
	RETURN 'done';
EXCEPTION WHEN undefined_object THEN
	RETURN regexp_replace(SQLERRM, '\d+', 'N');
END
$$;
SELECT redrive_elsewhere();
-- It is a new message: attempts begin at 1, and it can be given up again.
SELECT actornot_run('once', 'a');
SELECT attempts, message, headers #>> '{actornot_origin, message}' AS origin FROM actornot.dead_letters WHERE runner = 'once' AND payload -> 'n' = '2';
-- All of them, with a handler that was repaired
CREATE OR REPLACE FUNCTION obey(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		state := coalesce(state, '[]') || jsonb_build_array(m.payload -> 'n', m.attempt);
	END LOOP;
	RETURN state;
END
$$;
BEGIN;
SELECT actornot_redrive_all('once');
ROLLBACK;
SELECT count(*) FROM actornot.dead_letters WHERE runner = 'once';
SELECT actornot_redrive_all('once');
SELECT actornot_redrive_all('once');
SELECT count(*) FROM actornot.dead_letters WHERE runner = 'once';
SELECT actornot_run('once', 'a');
SELECT actornot_state('once', 'a');
-- Headers that are no JSON object are kept, too.
SELECT actornot_post('once', 'h', '1', h) > 0 AS posted
  FROM unnest(ARRAY[NULL, '"text"', '[1]', '{"mine": true}']::jsonb[]) WITH ORDINALITY AS u(h, ord) ORDER BY ord;
SELECT actornot_skip('once', 'h') > 0 AS skipped FROM generate_series(1, 4);
SELECT actornot_redrive_all('once');
CREATE FUNCTION show_headers(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(m.headers #- '{actornot_origin, id}' #- '{actornot_origin, posted_at}' #- '{actornot_origin, died_at}' ORDER BY m.ord)
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
$$;
SELECT actornot_register('once', 'show_headers');
SELECT actornot_run('once', 'h');
SELECT h FROM jsonb_array_elements(actornot_state('once', 'h')) h;

--
-- Back-off: doubles, with a jitter of a tenth, up to a maximum
--
CREATE FUNCTION fails(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
SELECT actornot_register('slow', 'fails', retry_delay => '100 s', retry_delay_max => '500 s');
SELECT actornot_post('slow', 'a') > 0 AS posted;
\set VERBOSITY terse
SELECT actornot_run('slow', 'a');
SELECT attempts, wait BETWEEN '89 s' AND '111 s' AS "100 s" FROM failures WHERE runner = 'slow';
-- Until then drain skips the entity.
SELECT actornot_run('slow', 'a');
CALL actornot_drain('slow');
SELECT attempts FROM failures WHERE runner = 'slow';
SELECT actornot_wake('slow', 'a');
SELECT attempts, wait FROM failures WHERE runner = 'slow';
SELECT actornot_run('slow', 'a');
SELECT attempts, wait BETWEEN '179 s' AND '221 s' AS "200 s" FROM failures WHERE runner = 'slow';
SELECT actornot_wake('slow', 'a');
SELECT actornot_run('slow', 'a');
SELECT attempts, wait BETWEEN '359 s' AND '441 s' AS "400 s" FROM failures WHERE runner = 'slow';
SELECT actornot_wake('slow', 'a');
SELECT actornot_run('slow', 'a');
SELECT attempts, wait BETWEEN '499 s' AND '501 s' AS "500 s" FROM failures WHERE runner = 'slow';
\set VERBOSITY default
-- Other entities are not concerned.
SELECT actornot_register('slow', 'obey', retry_delay => '100 s');
SELECT actornot_post('slow', 'b', '{"n": 1}') > 0 AS posted;
SELECT actornot_run('slow', 'b');
-- A success ends the count of attempts and the back-off.
SELECT actornot_wake('slow', 'a');
SELECT actornot_run('slow', 'a');
SELECT * FROM failures WHERE runner = 'slow' ORDER BY entity;
-- max_attempts NULL: attempts are counted, nothing is given up.
SELECT actornot_register('for ever', 'fails', max_attempts => NULL, retry_delay => '0');
SELECT actornot_post('for ever', 'a') > 0 AS posted;
CREATE FUNCTION run_and_wake() RETURNS int LANGUAGE plpgsql SET client_min_messages = error AS $$
BEGIN
	PERFORM actornot_wake('for ever', 'a');
	RETURN actornot_run('for ever', 'a');
END
$$;
SELECT sum(run_and_wake()) AS processed FROM generate_series(1, 100);
SELECT attempts, last_error FROM failures WHERE runner = 'for ever';
SELECT count(*) FROM actornot.dead_letters WHERE runner = 'for ever';

--
-- An error that is not the handler's fault counts as no attempt, but has a
-- back-off.
--
CREATE FUNCTION raises(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = entity, MESSAGE = 'error ' || entity;
END
$$;
SELECT actornot_register('raises', 'raises', max_attempts => 1, retry_delay => '1 h');
SELECT actornot_post('raises', e) > 0 AS posted FROM unnest('{40001, 40P01, 53000, 53200, 58000, 58030, 40002, 54000, 22000, XX000}'::text[]) e;
\set VERBOSITY terse
SELECT actornot_run('raises', e) FROM unnest('{40001, 40P01, 53000, 53200, 58000, 58030, 40002, 54000, 22000, XX000}'::text[]) e;
\set VERBOSITY default
SELECT entity, attempts, last_error, wait > '50 min' AS waits FROM failures WHERE runner = 'raises' ORDER BY entity;
SELECT entity, attempts, sqlstate FROM actornot.dead_letters WHERE runner = 'raises' ORDER BY id;
-- Without a retry_delay it waits a short time nevertheless.
SELECT actornot_register('raises', 'raises', max_attempts => 1, retry_delay => '0', retry_delay_max => '10 min');
SELECT actornot_post('raises', '40001') > 0 AS posted;
SELECT actornot_wake('raises', '40001');
\set VERBOSITY terse
SELECT actornot_run('raises', '40001');
\set VERBOSITY default
SELECT attempts, wait BETWEEN '80 ms' AND '120 ms' AS "100 ms" FROM failures WHERE entity = '40001';

--
-- A handler that was dropped: the entity waits, with a clear error, and nothing
-- is given up; it goes on when the function exists again.
--
CREATE FUNCTION comes_and_goes(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"one"'::jsonb $$;
SELECT actornot_register('gone', 'comes_and_goes', max_attempts => 1, retry_delay => '0', retry_delay_max => '0');
SELECT array_length(actornot_post_many('gone', '{a, a}'), 1);
DROP FUNCTION comes_and_goes;
\set VERBOSITY terse
SELECT actornot_run('gone', 'a');
SELECT actornot_wake('gone', 'a');
SELECT actornot_run('gone', 'a');
SELECT attempts, last_error FROM failures WHERE runner = 'gone';
-- The function exists again, with another result or other arguments.
CREATE FUNCTION comes_and_goes(entity text, state jsonb, messages actornot_message[])
RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
SELECT actornot_wake('gone', 'a');
SELECT actornot_run('gone', 'a');
SELECT attempts, last_error FROM failures WHERE runner = 'gone';
DROP FUNCTION comes_and_goes;
CREATE FUNCTION comes_and_goes(entity text, state json, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
SELECT actornot_wake('gone', 'a');
SELECT actornot_run('gone', 'a');
-- Its schema was dropped.
RESET ROLE;
ALTER SCHEMA regress_failure_owner RENAME TO regress_failure_away;
SET ROLE regress_failure_owner;
SELECT actornot_wake('gone', 'a');
SELECT actornot_run('gone', 'a');
RESET ROLE;
ALTER SCHEMA regress_failure_away RENAME TO regress_failure_owner;
SET ROLE regress_failure_owner;
\set VERBOSITY default
SELECT count(*) FROM actornot.dead_letters WHERE runner = 'gone';
CREATE FUNCTION comes_and_goes(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"two"'::jsonb $$;
SELECT actornot_wake('gone', 'a');
SELECT actornot_run('gone', 'a');
SELECT actornot_run('gone', 'a');
SELECT actornot_state('gone', 'a'), actornot_pending('gone', 'a');
SELECT attempts, last_error, wait FROM failures WHERE runner = 'gone';
-- The same for runnable.
CREATE FUNCTION may_run(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
SELECT actornot_register('gone', 'comes_and_goes', runnable => 'may_run', max_attempts => 1);
DROP FUNCTION may_run;
SELECT actornot_post('gone', 'a') > 0 AS posted;
\set VERBOSITY terse
SELECT actornot_run('gone', 'a');
\set VERBOSITY default
SELECT attempts, last_error FROM failures WHERE runner = 'gone';
CREATE FUNCTION may_run(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
SELECT actornot_wake('gone', 'a');
SELECT actornot_run('gone', 'a');

--
-- A handler that returns something that is no jsonb
--
CREATE FUNCTION no_jsonb(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN 'not json'; END $$;
SELECT actornot_register('no jsonb', 'no_jsonb', max_attempts => 1);
SELECT actornot_post('no jsonb', 'a') > 0 AS posted;
SELECT actornot_run('no jsonb', 'a');
SELECT sqlstate, message, detail FROM actornot.dead_letters WHERE runner = 'no jsonb';

--
-- Timeouts: of an endless loop, of a sleep, of one query in many
--
CREATE FUNCTION endless(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN LOOP END LOOP; END $$;
CREATE FUNCTION sleeps(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN '1'; END $$;
CREATE FUNCTION often(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT actornot_register(f, f, timeout => '50 ms', max_attempts => 2, retry_delay => '0')
  FROM unnest('{endless, sleeps, often}'::text[]) f;
SELECT actornot_post(f, 'a') > 0 AS posted FROM unnest('{endless, sleeps, often}'::text[]) f;
SELECT actornot_run('endless', 'a');
SELECT actornot_run('endless', 'a');
SELECT actornot_run('sleeps', 'a');
CALL actornot_drain('sleeps');
CALL actornot_drain('often');
SELECT runner, attempts, sqlstate, message FROM actornot.dead_letters WHERE runner IN ('endless', 'sleeps', 'often') ORDER BY runner;
-- No timeout is left, neither in the next call nor in the session.
CREATE FUNCTION naps(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN '"slept"'; END $$;
SELECT actornot_register('naps', 'naps', timeout => NULL);
SELECT actornot_post('naps', 'a') > 0 AS posted;
SELECT actornot_run('naps', 'a');
SELECT actornot_state('naps', 'a');
SELECT pg_sleep(0.2);
-- A handler that is run by another handler has no more time than that one.  If
-- the outer timeout ends it, that is the outer handler's failure.
CREATE FUNCTION outer_one(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(actornot_run('inner', 'a')) $$;
SELECT actornot_register('inner', 'sleeps', timeout => '1 h', max_attempts => 1);
SELECT actornot_register('outer', 'outer_one', timeout => '100 ms', max_attempts => 1);
SELECT actornot_post('inner', 'a') > 0 AS posted;
SELECT actornot_post('outer', 'a') > 0 AS posted;
\set VERBOSITY terse
SELECT actornot_run('outer', 'a');
\set VERBOSITY default
SELECT runner, attempts, sqlstate FROM actornot.dead_letters WHERE runner IN ('inner', 'outer');
SELECT actornot_pending('inner', 'a');
-- If the inner timeout ends it, that is its own failure, and the outer one goes on.
SELECT actornot_register('inner', 'sleeps', timeout => '50 ms', max_attempts => 1);
SELECT actornot_register('outer', 'outer_one', timeout => '1 h', max_attempts => 1);
SELECT actornot_post('outer', 'a') > 0 AS posted;
SELECT actornot_run('outer', 'a');
SELECT actornot_state('outer', 'a');
-- runnable has the same timeout.
CREATE FUNCTION never_says(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT true FROM pg_sleep(600) $$;
SELECT actornot_register('sleeps', 'naps', runnable => 'never_says', timeout => '50 ms', max_attempts => 1);
SELECT actornot_post('sleeps', 'r') > 0 AS posted;
SELECT actornot_run('sleeps', 'r');
SELECT sqlstate, message FROM actornot.dead_letters WHERE runner = 'sleeps' AND entity = 'r';
-- The caller's statement_timeout comes first, and counts as no failure.
SELECT actornot_register('sleeps', 'sleeps', timeout => '1 h', max_attempts => 1);
SELECT actornot_post('sleeps', 'q') > 0 AS posted;
\set SHOW_CONTEXT never
SET statement_timeout = '1s';
SELECT actornot_run('sleeps', 'q');
RESET statement_timeout;
\set SHOW_CONTEXT errors
SELECT actornot_pending('sleeps', 'q');
SELECT count(*) FROM failures WHERE runner = 'sleeps' AND entity = 'q';

--
-- A failure in a transaction: the transaction goes on, and the record of the
-- failure is a part of it.
--
SELECT actornot_register('tx', 'fails', max_attempts => 5, retry_delay => '0');
SELECT actornot_post('tx', 'a') > 0 AS posted;
CREATE TABLE mine (n int);
BEGIN;
INSERT INTO mine VALUES (1);
SELECT actornot_run('tx', 'a');
INSERT INTO mine VALUES (2);
SELECT attempts FROM failures WHERE runner = 'tx';
SAVEPOINT s;
SELECT actornot_run('tx', 'a');
SELECT attempts FROM failures WHERE runner = 'tx';
ROLLBACK TO s;
SELECT attempts FROM failures WHERE runner = 'tx';
COMMIT;
SELECT count(*) FROM mine;
SELECT attempts FROM failures WHERE runner = 'tx';
-- Errors at the caller's commit are the caller's.
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION bears(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE sql AS $$ INSERT INTO child VALUES (1) $$;
SELECT actornot_register('bears', 'bears', max_attempts => 1);
SELECT actornot_post('bears', 'a') > 0 AS posted;
SELECT actornot_run('bears', 'a');
SELECT actornot_pending('bears', 'a');
SELECT count(*) FROM actornot.dead_letters WHERE runner = 'bears';

RESET ROLE;
DROP VIEW public.failures;
DROP OWNED BY regress_failure_owner;
DROP EXTENSION actornot;
DROP ROLE regress_failure_owner;
