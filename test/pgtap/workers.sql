--
-- Messages that are posted are run by background workers: what is promised, as
-- a user sees it.  Each wait is for a condition, with a deadline.
--
\set QUIET on
SET client_min_messages = warning;
DROP ROLE IF EXISTS pgtap_workers_owner, pgtap_workers_other, pgtap_workers_asleep;
CREATE ROLE pgtap_workers_owner LOGIN;
CREATE ROLE pgtap_workers_other LOGIN;
CREATE ROLE pgtap_workers_asleep NOLOGIN;
GRANT EXECUTE ON FUNCTION actornot_register TO pgtap_workers_owner, pgtap_workers_other, pgtap_workers_asleep;
CREATE SCHEMA AUTHORIZATION pgtap_workers_owner;
CREATE SCHEMA AUTHORIZATION pgtap_workers_other;
GRANT USAGE ON SCHEMA pgtap_workers_owner TO pgtap_workers_other, pgtap_workers_asleep;
SELECT no_plan();

-- Does an expression become true within two minutes?
CREATE FUNCTION comes_true(expression text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	deadline timestamptz := clock_timestamp() + interval '2 min';
	yes boolean;
BEGIN
	LOOP
		EXECUTE 'SELECT ' || expression INTO yes;
		IF yes OR clock_timestamp() > deadline THEN
			RETURN coalesce(yes, false);
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;

SET ROLE pgtap_workers_owner;
-- The state of an entity is the array of its payloads, in order.
CREATE FUNCTION collect(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce($2, '[]') || jsonb_agg(m.payload ORDER BY m.ord)
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
$$;

--
-- The counter
--
CREATE FUNCTION counter(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('n', coalesce(($2 ->> 'n')::int, 0) + cardinality($3)) $$;
SELECT isnt(actornot_register('counter', 'counter')::text, NULL, 'the counter is registered');
RESET ROLE;
SELECT is(count(actornot_post('counter', 'alice')), 3::bigint, 'three for alice') FROM generate_series(1, 3);
SELECT is(count(actornot_post('counter', 'bob')), 2::bigint, 'two for bob') FROM generate_series(1, 2);
SELECT ok(comes_true($$actornot_state('counter', 'alice') = '{"n": 3}'$$), 'alice has counted them');
SELECT ok(comes_true($$actornot_state('counter', 'bob') = '{"n": 2}'$$), 'bob has counted them');
SELECT is(actornot_pending('counter'), 0::bigint, 'nothing is left');
SELECT is(cardinality(actornot_post_many('counter', array_fill('alice'::text, ARRAY[1000]))), 1000, 'a thousand more for alice');
SELECT ok(comes_true($$actornot_state('counter', 'alice') = '{"n": 1003}'$$), 'each is counted once');

--
-- Rolled back: never run; prepared: run once it is committed
--
SET ROLE pgtap_workers_owner;
SELECT isnt(actornot_register('collect', 'collect')::text, NULL, 'collect is registered');
-- (no pgTAP in these transactions: it writes to temporary tables)
BEGIN;
SELECT actornot_post('collect', 'a', '"rolled back"') AS id \gset
ROLLBACK;
BEGIN;
SELECT actornot_post('collect', 'a', '1') AS id \gset
SAVEPOINT s;
SELECT actornot_post('collect', 'a', '"rolled back to"') AS id \gset
ROLLBACK TO s;
SELECT actornot_post('collect', 'a', '2') AS id \gset
COMMIT;
SELECT ok(comes_true($$actornot_state('collect', 'a') = '[1, 2]'$$), 'the committed messages are run, in order');
BEGIN;
SELECT actornot_post('collect', 'a', '"prepared"') AS id \gset
PREPARE TRANSACTION 'pgtap_workers';
SELECT isnt(actornot_post('collect', 'a', '3'), NULL, 'a later post');
SELECT ok(comes_true($$actornot_state('collect', 'a') = '[1, 2, 3]'$$), 'does not wait for the prepared transaction');
COMMIT PREPARED 'pgtap_workers';
SELECT ok(comes_true($$actornot_state('collect', 'a') = '[1, 2, 3, "prepared"]'$$), 'whose message is run when it is committed');

--
-- void handlers and the jsonb form
--
CREATE TABLE journal (n serial, who text, entity text, payload jsonb);
CREATE FUNCTION write(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE sql AS $$
	INSERT INTO pgtap_workers_owner.journal (who, entity, payload)
	SELECT current_user, $1, m.payload FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord) ORDER BY ord
$$;
SELECT isnt(actornot_register('write', 'write')::text, NULL, 'a void handler');
SELECT isnt(actornot_post_many('write', '{a, a, a}', '{1, 2, 3}'), NULL, 'three messages');
SELECT ok(comes_true($$(SELECT count(*) = 3 FROM journal)$$), 'are written');
SELECT results_eq('SELECT payload FROM journal ORDER BY n', $$VALUES ('1'::jsonb), ('2'), ('3')$$, 'in order');
SELECT is(actornot_state('write', 'a'), NULL, 'and there is no state');
CREATE FUNCTION json_form(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT coalesce($2, '[]') || jsonb_agg(m -> 'payload') FROM jsonb_array_elements($3) m $$;
SELECT isnt(actornot_register('json', 'json_form', initial_state => '["first"]')::text, NULL, 'a handler of the jsonb form');
SELECT isnt(actornot_post_many('json', '{a, a}', ARRAY['{"k": 1}', NULL]::jsonb[]), NULL, 'two messages');
SELECT ok(comes_true($$actornot_state('json', 'a') = '["first", {"k": 1}, null]'$$), 'are run from the initial state on');

--
-- Each owner's handlers run in sessions of that owner.
--
RESET ROLE;
CREATE FUNCTION public.whoami(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('current', current_user, 'session', session_user, 'pid', pg_backend_pid(),
	'type', (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid())) $$;
SET ROLE pgtap_workers_owner;
SELECT isnt(actornot_register('who 1', 'public.whoami')::text, NULL, 'one owner');
SET ROLE pgtap_workers_other;
SELECT isnt(actornot_register('who 2', 'public.whoami')::text, NULL, 'another owner');
RESET ROLE;
SELECT isnt(actornot_post('who ' || n, 'a'), NULL, 'a message to ' || n) FROM generate_series(1, 2) n;
SELECT ok(comes_true($$actornot_pending('who 1') = 0 AND actornot_pending('who 2') = 0$$), 'both are run');
SELECT is(actornot_state('who 1', 'a') - 'pid', '{"current": "pgtap_workers_owner", "session": "pgtap_workers_owner", "type": "actornot worker"}', 'the first runs in a session of its owner');
SELECT is(actornot_state('who 2', 'a') - 'pid', '{"current": "pgtap_workers_other", "session": "pgtap_workers_other", "type": "actornot worker"}', 'the other in a session of the other owner');
SELECT isnt(actornot_state('who 1', 'a') -> 'pid', actornot_state('who 2', 'a') -> 'pid', 'these are different processes');
SELECT ok(EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = t), 'there is an ' || t)
  FROM unnest('{actornot launcher, actornot manager}'::text[]) t;
SELECT ok(NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'actornot worker' AND datname = current_database()
	AND usename NOT IN ('pgtap_workers_owner', 'pgtap_workers_other')), 'no worker belongs to another role');

--
-- Failure: a message is tried again, then given up, and the next get their turn
--
SET ROLE pgtap_workers_owner;
CREATE FUNCTION picky(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload ? 'fail' AND m.attempt <= (m.payload -> 'fail')::int THEN
			RAISE EXCEPTION 'attempt % of "%"', m.attempt, entity USING ERRCODE = 'P0042', DETAIL = 'the detail';
		END IF;
		state := coalesce(state, '[]') || jsonb_build_array(m.payload -> 'n', m.attempt);
	END LOOP;
	RETURN state;
END
$$;
SELECT isnt(actornot_register('picky', 'picky', max_attempts => 3, retry_delay => '10 ms')::text, NULL, 'a picky handler');
SELECT isnt(actornot_post_many('picky', '{a, a, a, b, a}',
	'{"{\"n\": 1}", "{\"n\": 2, \"fail\": 99}", "{\"n\": 3}", "{\"n\": 4}", "{\"n\": 5, \"fail\": 2}"}'), NULL, 'one poison, one that comes through');
SELECT ok(comes_true($$actornot_state('picky', 'b') = '[4, 1]'$$), 'another entity is run');
SELECT ok(comes_true($$actornot_state('picky', 'a') = '[1, 1, 3, 1, 5, 3]'$$), 'all but the poison are run, in order');
SELECT is(actornot_pending('picky', 'a'), 0::bigint, 'nothing is left');
SELECT results_eq(
	$$SELECT runner, entity, payload, attempts, sqlstate, message, detail FROM actornot.dead_letters$$,
	$$VALUES ('picky', 'a', '{"n": 2, "fail": 99}'::jsonb, 3, 'P0042', 'attempt 3 of "a"', 'the detail')$$, 'the poison is a dead letter');
SELECT matches(context, 'function picky.*runner "picky", entity "a", message \d+', 'its context tells where') FROM actornot.dead_letters;
SELECT is(actornot_redrive_all('picky'), 1::bigint, 'it is redriven');
SELECT ok(comes_true($$(SELECT count(*) = 1 AND max(headers #>> '{actornot_origin, message}') = 'attempt 3 of "a"' FROM actornot.dead_letters)$$),
	'and is given up again');
-- One after the other, if all before were given up
SELECT isnt(actornot_post('picky', 'c', '{"n": 1, "fail": 99}'), NULL, 'a message that fails always');
SELECT ok(comes_true($$(SELECT count(*) = 1 FROM actornot.dead_letters WHERE entity = 'c')$$), 'is dead');
SELECT isnt(actornot_post_many('picky', '{c, c}', '{"{\"n\": 2, \"fail\": 99}", "{\"n\": 3}"}'), NULL, 'and another one');
SELECT ok(comes_true($$(SELECT count(*) = 2 FROM actornot.dead_letters WHERE entity = 'c')$$), 'is dead, too');
SELECT ok(comes_true($$actornot_state('picky', 'c') = '[3, 1]'$$), 'and the next is run');
-- A deferred trigger's failure is the handler's.
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
INSERT INTO parent VALUES (1), (2), (3);
CREATE FUNCTION bears(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE sql AS $$ INSERT INTO pgtap_workers_owner.child SELECT payload::int FROM unnest($3) $$;
SELECT isnt(actornot_register('bears', 'bears', max_attempts => 2, retry_delay => '10 ms')::text, NULL, 'a handler with a deferred constraint');
SELECT isnt(actornot_post_many('bears', '{a, b, a, c, a}', '{1, 2, 99, 3, 1}'), NULL, 'five messages');
SELECT ok(comes_true($$(SELECT array_agg(id ORDER BY id) = '{1, 1, 2, 3}' FROM child)$$), 'the good ones are kept');
SELECT results_eq($$SELECT entity, payload, attempts, sqlstate FROM actornot.dead_letters WHERE runner = 'bears'$$,
	$$VALUES ('a', '99'::jsonb, 2, '23503')$$, 'the bad one is a dead letter');

--
-- A handler that was dropped: nothing is given up, and it goes on by itself.
--
CREATE FUNCTION comes_back(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"one"'::jsonb $$;
SELECT isnt(actornot_register('back', 'comes_back', max_attempts => 1, retry_delay => '10 ms', retry_delay_max => '200 ms')::text, NULL, 'a handler');
DROP FUNCTION comes_back;
SELECT isnt(actornot_post('back', 'a'), NULL, 'a message to a handler that was dropped');
RESET ROLE;
SELECT ok(comes_true($$(SELECT count(*) = 1 FROM actornot.mailbox WHERE last_error = 'handler pgtap_workers_owner.comes_back of runner "back" does not exist')$$),
	'its mailbox says so');
SET ROLE pgtap_workers_owner;
SELECT is(actornot_pending('back'), 1::bigint, 'it waits');
CREATE FUNCTION comes_back(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"two"'::jsonb $$;
SELECT ok(comes_true($$actornot_state('back', 'a') = '"two"'$$), 'it goes on when the function is back');
SELECT ok(NOT EXISTS (SELECT FROM actornot.dead_letters WHERE runner = 'back'), 'nothing was given up');

--
-- Timeouts
--
CREATE FUNCTION endless(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN LOOP END LOOP; END $$;
CREATE FUNCTION sleeps(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN '1'; END $$;
SELECT isnt(actornot_register(f, f, timeout => '100 ms', max_attempts => 2, retry_delay => '10 ms')::text, NULL, 'handler ' || f)
  FROM unnest('{endless, sleeps}'::text[]) f;
SELECT isnt(actornot_post(f, 'a'), NULL, 'a message to ' || f) FROM unnest('{endless, sleeps}'::text[]) f;
SELECT isnt(actornot_post('collect', 'meanwhile', '1'), NULL, 'a message to another one');
SELECT ok(comes_true($$actornot_state('collect', 'meanwhile') = '[1]'$$), 'which is run');
SELECT ok(comes_true(format($$EXISTS (SELECT FROM actornot.dead_letters WHERE runner = %L AND attempts = 2 AND sqlstate = '57014')$$, f)), f || ' is cancelled and given up')
  FROM unnest('{endless, sleeps}'::text[]) f;

--
-- A handler does not find what an earlier call left in the session.
--
CREATE FUNCTION leaves(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	found text[] := '{}';
BEGIN
	IF to_regclass('pg_temp.leftover') IS NOT NULL THEN
		found := found || 'temporary table'::text;
	END IF;
	IF EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'leftover') THEN
		found := found || 'prepared statement'::text;
	END IF;
	IF EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND classid = 4711 AND objsubid = 2) THEN
		found := found || 'advisory lock'::text;
	END IF;
	IF EXISTS (SELECT FROM pg_cursors WHERE name = 'leftover') THEN
		found := found || 'cursor'::text;
	END IF;
	IF current_setting('work_mem') = '99MB' OR current_setting('app.leftover', true) <> '' OR current_setting('search_path') ~ 'leftover' THEN
		found := found || 'setting'::text;
	END IF;
	CREATE TEMP TABLE leftover (n int);
	IF NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'leftover') THEN
		EXECUTE 'PREPARE leftover AS SELECT 1';
	END IF;
	PERFORM pg_advisory_lock(4711, hashtext(entity));
	EXECUTE 'DECLARE leftover CURSOR WITH HOLD FOR SELECT 1';
	SET work_mem = '99MB';
	PERFORM set_config('app.leftover', 'x', false);
	SET search_path = leftover, public;
	IF messages[1].payload = '"fail"' THEN
		RAISE EXCEPTION 'with all of that';
	END IF;
	RETURN jsonb_build_object('found', found, 'pid', pg_backend_pid());
END
$$;
SELECT isnt(actornot_register('leaves', 'leaves', max_attempts => 1)::text, NULL, 'a handler that leaves things behind');
DO $$
BEGIN
	FOR n IN 1 .. 9 LOOP
		PERFORM actornot_post('leaves', 'e' || n, CASE WHEN n % 3 = 0 THEN '"fail"' END::jsonb);
		COMMIT;
		EXIT WHEN NOT comes_true(format('actornot_pending(''leaves'', ''e%s'') = 0', n));
	END LOOP;
END
$$;
SELECT is(actornot_pending('leaves'), 0::bigint, 'all are run');
SELECT is(actornot_state('leaves', 'e' || n) -> 'found', CASE WHEN n % 3 > 0 THEN '[]'::jsonb END, 'call ' || n || ' finds nothing')
  FROM generate_series(1, 9) n;
SELECT ok(count(DISTINCT actornot_state('leaves', 'e' || n) -> 'pid') < 6, 'some of them ran in one session') FROM generate_series(1, 9) n;
SELECT is(array_agg(DISTINCT message), '{with all of that}', 'the failures are the expected ones') FROM actornot.dead_letters WHERE runner = 'leaves';

--
-- A handler that posts: to others, to its own entity
--
CREATE FUNCTION pingpong(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload::int > 0 THEN
			PERFORM actornot_post('pingpong', CASE entity WHEN 'ping' THEN 'pong' WHEN 'pong' THEN 'ping' ELSE entity END,
				to_jsonb(m.payload::int - 1));
		END IF;
		state := coalesce(state, '[]') || m.payload;
	END LOOP;
	RETURN state;
END
$$;
SELECT isnt(actornot_register('pingpong', 'pingpong')::text, NULL, 'a handler that posts');
SELECT isnt(actornot_post('pingpong', 'ping', '100'), NULL, 'the first ball');
SELECT ok(comes_true($$actornot_state('pingpong', 'ping') -> -1 = '0'$$), 'the last one comes');
SELECT is(actornot_state('pingpong', 'ping'), (SELECT jsonb_agg(n ORDER BY n DESC) FROM generate_series(0, 100, 2) n), 'ping had each of its messages once');
SELECT is(actornot_state('pingpong', 'pong'), (SELECT jsonb_agg(n ORDER BY n DESC) FROM generate_series(1, 99, 2) n), 'pong had each of its messages once');
SELECT isnt(actornot_post('pingpong', 'alone', '50'), NULL, 'one that plays alone');
SELECT ok(comes_true($$actornot_state('pingpong', 'alone') = (SELECT jsonb_agg(n ORDER BY n DESC) FROM generate_series(0, 50) n)$$), 'comes to an end, too');

--
-- runnable, pause and resume, wake
--
CREATE FUNCTION is_open(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT $2 ? 'open' $$;
SELECT isnt(actornot_register('door', 'collect', runnable => 'is_open', initial_state => '[]')::text, NULL, 'a door');
SELECT isnt(actornot_post('door', 'front', '1'), NULL, 'a message to a shut door');
SELECT isnt(actornot_pause('write')::text, NULL, 'a paused runner');
SELECT isnt(actornot_pause('json', 'a')::text, NULL, 'a paused entity');
SELECT isnt(actornot_post('write', 'paused', '1'), NULL, 'a message to the one');
SELECT isnt(actornot_post('json', 'a', '"later"'), NULL, 'and to the other');
SELECT isnt(actornot_post('json', 'b', '"now"'), NULL, 'and to one that is not paused');
SELECT ok(comes_true($$actornot_state('json', 'b') = '["first", "now"]'$$), 'which is run');
SELECT is(actornot_pending('door'), 1::bigint, 'the shut one waits');
SELECT is(actornot_pending('write'), 1::bigint, 'the paused runner waits');
SELECT is(actornot_pending('json'), 1::bigint, 'the paused entity waits');
SELECT isnt(actornot_set_state('door', 'front', '["open"]')::text, NULL, 'it is opened');
SELECT isnt(actornot_resume('write')::text, NULL, 'resumed');
SELECT isnt(actornot_resume('json', 'a')::text, NULL, 'resumed');
SELECT ok(comes_true($$actornot_state('door', 'front') = '["open", 1]'$$), 'the open one is run');
SELECT ok(comes_true($$EXISTS (SELECT FROM journal WHERE entity = 'paused')$$), 'the runner is run');
SELECT ok(comes_true($$actornot_state('json', 'a') -> -1 = '"later"'$$), 'the entity is run');
-- A woken worker sees what the transaction that woke it has done: it resumed a
-- runner, or registered one together with its first message.
SELECT isnt(actornot_register('resumed', 'collect')::text, NULL, 'a runner to be paused and resumed');
DO $$
BEGIN
	FOR n IN 1 .. 200 LOOP
		PERFORM actornot_pause('resumed');
		COMMIT;
		PERFORM actornot_post('resumed', 'a', to_jsonb(n));
		COMMIT;
		PERFORM actornot_post('collect', 'b', to_jsonb(n));
		COMMIT;
		PERFORM actornot_resume('resumed');
		COMMIT;
		EXIT WHEN NOT comes_true('actornot_pending(''resumed'', ''a'') = 0');
	END LOOP;
END
$$;
SELECT is(jsonb_array_length(actornot_state('resumed', 'a')), 200, 'each resume is followed by a run');
DO $$
BEGIN
	FOR n IN 1 .. 100 LOOP
		PERFORM actornot_register('new ' || n, 'collect');
		PERFORM actornot_post('new ' || n, 'a', to_jsonb(n));
		COMMIT;
		EXIT WHEN NOT comes_true(format('actornot_pending(''new %s'', ''a'') = 0', n));
	END LOOP;
END
$$;
SELECT is(count(actornot_state('new ' || n, 'a')), 100::bigint, 'each new runner is run') FROM generate_series(1, 100) n;
-- wake calls "runnable" again, which reads a table,
CREATE TABLE gates (entity text PRIMARY KEY);
CREATE FUNCTION has_gate(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT EXISTS (SELECT FROM pgtap_workers_owner.gates g WHERE g.entity = $1) $$;
SELECT isnt(actornot_register('gate', 'collect', runnable => 'has_gate')::text, NULL, 'a gate');
SELECT isnt(actornot_post('gate', 'a', '1'), NULL, 'a message');
SELECT isnt(actornot_post('gate', 'none', '1'), NULL, 'another one');
SELECT is(actornot_pending('gate'), 2::bigint, 'both wait');
INSERT INTO gates VALUES ('a');
SELECT isnt(actornot_wake('gate', 'a')::text, NULL, 'it is woken');
SELECT ok(comes_true($$actornot_state('gate', 'a') = '[1]'$$), 'and run');
SELECT is(actornot_pending('gate', 'none'), 1::bigint, 'the other one waits');
-- and ends a back-off.
SELECT isnt(actornot_register('slow', 'picky', retry_delay => '1 h')::text, NULL, 'a long back-off');
SELECT isnt(actornot_post('slow', 'a', '{"n": 1, "fail": 1}'), NULL, 'a message that fails once');
RESET ROLE;
SELECT ok(comes_true($$EXISTS (SELECT FROM actornot.mailbox WHERE last_error = 'attempt 1 of "a"' AND wake_at > now() + interval '30 min')$$), 'it waits');
SELECT isnt(actornot_wake('slow', 'a')::text, NULL, 'it is woken');
SELECT ok(comes_true($$actornot_state('slow', 'a') = '[1, 2]'$$), 'and run');

--
-- An owner that cannot log in: its messages wait until it can.
--
SET ROLE pgtap_workers_asleep;
SELECT isnt(actornot_register('asleep', 'public.whoami')::text, NULL, 'a runner of a role without LOGIN');
SELECT isnt(actornot_post('asleep', 'a'), NULL, 'a message');
RESET ROLE;
SELECT isnt(actornot_post('collect', 'z', '1'), NULL, 'a message to a runner of another owner');
SELECT ok(comes_true($$actornot_state('collect', 'z') = '[1]'$$), 'which is run');
SELECT is(actornot_pending('asleep'), 1::bigint, 'the first one waits');
ALTER ROLE pgtap_workers_asleep LOGIN;
SELECT isnt(actornot_post('asleep', 'b'), NULL, 'another one, when it can log in');
SELECT ok(comes_true($$actornot_pending('asleep') = 0$$), 'both are run');

--
-- 10,000 messages over 500 entities: each in its order, each once
--
SET ROLE pgtap_workers_owner;
CREATE TABLE posted (entity text, id bigint);
CREATE FUNCTION ids(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce($2, '[]') || jsonb_agg(m.id ORDER BY m.ord)
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
$$;
SELECT isnt(actornot_register('ids', 'ids', batch_size => 7)::text, NULL, 'the oracle');
DO $$
BEGIN
	FOR piece IN 0 .. 99 LOOP
		INSERT INTO posted
		SELECT entity, CASE WHEN piece % 2 = 0 THEN actornot_post('ids', entity)
			ELSE (actornot_post_many('ids', ARRAY[entity]))[1] END
		  FROM (SELECT 'e' || (piece * 37 + n * 13) % 500 AS entity FROM generate_series(1, 100) n OFFSET 0) e;
		IF piece % 10 = 9 THEN
			ROLLBACK;
			INSERT INTO posted
			SELECT entity, actornot_post('ids', entity)
			  FROM (SELECT 'e' || (piece * 37 + n * 13) % 500 AS entity FROM generate_series(1, 100) n OFFSET 0) e;
		END IF;
		COMMIT;
	END LOOP;
END
$$;
SELECT is(count(*)::int, 10000, 'ten thousand are posted') FROM posted;
SELECT is(count(DISTINCT entity)::int, 500, 'to five hundred entities') FROM posted;
SELECT ok(comes_true($$actornot_pending('ids') = 0$$), 'all are run');
SELECT is(count(*)::int, 500, 'each entity had its messages in the order of the posts, each once')
  FROM (SELECT entity, jsonb_agg(id ORDER BY id) AS ids FROM posted GROUP BY entity) p
 WHERE actornot_state('ids', entity) = ids;

SELECT * FROM finish();
RESET ROLE;
DROP EXTENSION actornot CASCADE;
DROP OWNED BY pgtap_workers_owner, pgtap_workers_other, pgtap_workers_asleep;
DROP ROLE pgtap_workers_owner, pgtap_workers_other, pgtap_workers_asleep;
