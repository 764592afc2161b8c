--
-- run: one batch of one entity in the caller's session
--
CREATE EXTENSION actornot;
CREATE ROLE regress_run_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_run_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_run_owner;
SET ROLE regress_run_owner;
-- Writes down how many messages came in each call.
CREATE FUNCTION sizes(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT coalesce($2, '[]') || to_jsonb(cardinality($3)) $$;
CREATE TABLE seen (n serial, entity text, state jsonb, payload jsonb, attempt int);
CREATE FUNCTION see(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE sql AS $$
	INSERT INTO seen (entity, state, payload, attempt)
	SELECT $1, $2, m.payload, m.attempt
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
	 ORDER BY m.ord
$$;

--
-- The counter
--
CREATE FUNCTION counter(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
	n int := coalesce((state ->> 'n')::int, 0);
BEGIN
	FOREACH m IN ARRAY messages LOOP
		n := n + coalesce((m.payload ->> 'by')::int, 1);
	END LOOP;
	RETURN jsonb_build_object('n', n);
END
$$;
SELECT actornot_register('counter', 'counter');
SELECT actornot_run('counter', 'alice');
SELECT actornot_post('counter', 'alice') > 0 AS posted FROM generate_series(1, 3);
SELECT actornot_post('counter', 'alice', '{"by": 10}') > 0 AS posted;
SELECT actornot_post('counter', 'bob', '{"by": -2}') > 0 AS posted;
SELECT actornot_run('counter', 'alice');
SELECT actornot_run('counter', 'alice');
SELECT actornot_state('counter', 'alice'), actornot_state('counter', 'bob');
SELECT actornot_run('counter', 'bob');
SELECT actornot_state('counter', 'alice'), actornot_state('counter', 'bob');
-- The handler's effects and the state are those of the caller's transaction.
BEGIN;
SELECT actornot_post('counter', 'alice') > 0 AS posted;
SELECT actornot_run('counter', 'alice');
COMMIT;
SELECT actornot_run('counter', 'alice');
SELECT actornot_state('counter', 'alice');

--
-- batch_size and batch_bytes
--
SELECT actornot_register('sizes', 'sizes', batch_size => 3);
SELECT array_length(actornot_post_many('sizes', array_fill('a'::text, ARRAY[8])), 1);
SELECT actornot_run('sizes', 'a'), actornot_run('sizes', 'a'), actornot_run('sizes', 'a'), actornot_run('sizes', 'a');
SELECT actornot_state('sizes', 'a');
SELECT actornot_register('sizes', 'sizes', batch_size => 1);
SELECT array_length(actornot_post_many('sizes', array_fill('one'::text, ARRAY[2])), 1);
SELECT actornot_run('sizes', 'one'), actornot_run('sizes', 'one'), actornot_run('sizes', 'one');
-- 10 messages of some 1000 bytes: 2500 bytes are two of them; headers count.
SELECT actornot_register('sizes', 'sizes', batch_bytes => 2500);
SELECT array_length(actornot_post_many('sizes', array_fill('b'::text, ARRAY[10]),
	array_fill(to_jsonb(repeat('x', 1000)), ARRAY[10])), 1);
SELECT actornot_run('sizes', 'b'), actornot_run('sizes', 'b');
SELECT array_length(actornot_post_many('sizes', array_fill('h'::text, ARRAY[4]),
	array_fill(to_jsonb(repeat('x', 600)), ARRAY[4]), array_fill(to_jsonb(repeat('x', 600)), ARRAY[4])), 1);
SELECT actornot_run('sizes', 'h'), actornot_run('sizes', 'h');
-- One message always fits; payloads count with their size before compression.
SELECT actornot_post('sizes', 'c', to_jsonb(repeat('x', n))) > 0 AS posted
  FROM unnest('{100000, 1, 2000, 2000, 100000, 1, 1}'::int[]) WITH ORDINALITY AS u(n, ord) ORDER BY ord;
SELECT actornot_run('sizes', 'c') FROM generate_series(1, 6);
SELECT actornot_state('sizes', 'c');
SELECT actornot_register('sizes', 'sizes', batch_bytes => 1);
SELECT array_length(actornot_post_many('sizes', '{d, d}', '{1, 2}'), 1);
SELECT actornot_run('sizes', 'd'), actornot_run('sizes', 'd'), actornot_run('sizes', 'd');
-- Messages without payload and headers count no bytes.
SELECT array_length(actornot_post_many('sizes', array_fill('e'::text, ARRAY[5])), 1);
SELECT actornot_run('sizes', 'e');

--
-- initial_state, and the end of an entity
--
CREATE FUNCTION until_end(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF messages[cardinality(messages)].payload = '"end"' THEN
		RETURN NULL;
	END IF;
	RETURN state || messages[1].payload;
END
$$;
SELECT actornot_register('life', 'until_end', initial_state => '["born"]');
SELECT actornot_state('life', 'a');
SELECT actornot_post('life', 'a', '"first"') > 0 AS posted;
SELECT actornot_run('life', 'a');
SELECT actornot_state('life', 'a');
SELECT actornot_post('life', 'a', '"end"') > 0 AS posted;
SELECT actornot_run('life', 'a');
SELECT actornot_state('life', 'a'), actornot_pending('life', 'a');
SELECT actornot_post('life', 'a', '"again"') > 0 AS posted;
SELECT actornot_run('life', 'a');
SELECT actornot_state('life', 'a');
-- A JSON null is a state.
CREATE FUNCTION json_null(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT CASE WHEN $2 IS NULL THEN 'null'::jsonb ELSE '"had one"' END $$;
SELECT actornot_register('json null', 'json_null');
SELECT actornot_post('json null', 'a') > 0 AS posted;
SELECT actornot_run('json null', 'a');
SELECT actornot_state('json null', 'a');
SELECT actornot_post('json null', 'a') > 0 AS posted;
SELECT actornot_run('json null', 'a');
SELECT actornot_state('json null', 'a');
-- A large state
CREATE FUNCTION grow(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2 #>> '{}', 'x') || string_agg(md5(n::text), '' ORDER BY n))
	FROM generate_series(1, 20000) n $$;
SELECT actornot_register('grow', 'grow', batch_size => 1);
SELECT array_length(actornot_post_many('grow', '{a, a, a}'), 1);
SELECT actornot_run('grow', 'a'), actornot_run('grow', 'a'), actornot_run('grow', 'a');
SELECT length(actornot_state('grow', 'a') #>> '{}') AS length,
	md5(actornot_state('grow', 'a') #>> '{}') = (
		SELECT md5('x' || repeat(string_agg(md5(n::text), '' ORDER BY n), 3))
		  FROM generate_series(1, 20000) n) AS equal;

--
-- void handlers keep no state, whatever was set.
--
SELECT actornot_register('see', 'see');
SELECT actornot_set_state('see', 'a', '"set by hand"');
SELECT array_length(actornot_post_many('see', '{a, a}', '{1, 2}'), 1);
SELECT actornot_run('see', 'a');
SELECT actornot_state('see', 'a');
SELECT * FROM seen ORDER BY n;
SELECT actornot_register('see', 'see', initial_state => '"initial"');
SELECT actornot_post('see', 'a', '3') > 0 AS posted;
SELECT actornot_run('see', 'a');
SELECT state, payload FROM seen WHERE payload = '3';

--
-- The jsonb form
--
CREATE FUNCTION as_json(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('entity', $1, 'before', $2, 'messages',
		(SELECT jsonb_agg(m - 'id' - 'posted_at'
				|| jsonb_build_object('id is', jsonb_typeof(m -> 'id'),
					'posted', (m ->> 'posted_at')::timestamptz BETWEEN now() - interval '10 min' AND clock_timestamp())
				ORDER BY ord)
		   FROM jsonb_array_elements($3) WITH ORDINALITY AS j(m, ord)),
		'keys', (SELECT jsonb_agg(DISTINCT k) FROM jsonb_array_elements($3) m, jsonb_object_keys(m) k))
$$;
SELECT actornot_register('json', 'as_json', initial_state => '[]');
SELECT array_length(actornot_post_many('json', '{a, a, a, a}',
	ARRAY[NULL, '"scalar"', '{"o": {}}', '[1, [2]]']::jsonb[],
	ARRAY[NULL, '{"h": 1}', NULL, 'true']::jsonb[]), 1);
SELECT actornot_run('json', 'a');
SELECT jsonb_pretty(actornot_state('json', 'a'));
-- The same messages in both forms
CREATE FUNCTION twice_typed(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_agg(to_jsonb(m) - 'id') FROM unnest($3) m $$;
CREATE FUNCTION twice_json(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_agg(m - 'id') FROM jsonb_array_elements($3) m $$;
SELECT actornot_register('twice typed', 'twice_typed');
SELECT actornot_register('twice json', 'twice_json');
SET timezone = 'America/New_York';
SET datestyle = 'SQL, DMY';
BEGIN;
SELECT actornot_post('twice ' || f, 'a', '{"x": 1.50}', '[]') > 0 AS posted FROM unnest('{typed, json}'::text[]) f;
COMMIT;
SELECT actornot_run('twice typed', 'a'), actornot_run('twice json', 'a');
SELECT (actornot_state('twice typed', 'a') #>> '{0, posted_at}')::timestamptz
	- (actornot_state('twice json', 'a') #>> '{0, posted_at}')::timestamptz < interval '1 s' AS same_time,
	actornot_state('twice typed', 'a') #- '{0, posted_at}' AS typed,
	actornot_state('twice json', 'a') #- '{0, posted_at}' AS json;
RESET timezone;
RESET datestyle;

--
-- runnable: called by each run, with the state or the initial state.
--
CREATE FUNCTION is_open(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF state = '"error"' THEN
		RAISE EXCEPTION 'runnable does not like "%"', entity;
	END IF;
	RETURN CASE state #>> '{}' WHEN 'open' THEN true WHEN 'shut' THEN false END;
END
$$;
CREATE FUNCTION keep(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT $2 $$;
SELECT actornot_register('door', 'keep', runnable => 'is_open', initial_state => '"shut"',
	max_attempts => 2, retry_delay => '0', retry_delay_max => '0');
SELECT actornot_post('door', 'front') > 0 AS posted;
SELECT actornot_run('door', 'front');
SELECT actornot_pending('door', 'front'), actornot_state('door', 'front');
SELECT actornot_set_state('door', 'front', '"unknown"');
SELECT actornot_run('door', 'front');
CALL actornot_drain('door');
SELECT actornot_wake('door', 'front');
SELECT actornot_run('door', 'front');
SELECT actornot_set_state('door', 'front', '"open"');
SELECT actornot_run('door', 'front');
SELECT actornot_pending('door', 'front'), actornot_state('door', 'front');
-- If nothing is pending runnable is not called.
SELECT actornot_set_state('door', 'front', '"error"');
SELECT actornot_run('door', 'front');
-- An error in it counts as the handler's.
SELECT actornot_post('door', 'front', '"victim"') > 0 AS posted;
SELECT actornot_run('door', 'front');
SELECT actornot_run('door', 'front');
SELECT runner, entity, payload, attempts, sqlstate, message FROM actornot.dead_letters;
SELECT actornot_pending('door', 'front');

--
-- What a handler sees
--
CREATE FUNCTION look(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('entity', $1, 'user', current_user, 'session', session_user,
		'pending', actornot_pending('look', $1), 'state', actornot_state('look', $1))
$$;
SELECT actornot_register('look', 'look', initial_state => '"before"');
SELECT actornot_post('look', 'a') > 0 AS posted;
SELECT actornot_run('look', 'a');
SELECT actornot_state('look', 'a');

--
-- A handler that works on other entities
--
CREATE FUNCTION relay(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload ->> 'do' = 'run' THEN
			state := coalesce(state, '[]') || to_jsonb(actornot_run('relay', m.payload ->> 'on'));
		ELSIF m.payload ->> 'do' = 'set' THEN
			PERFORM actornot_set_state('relay', m.payload ->> 'on', '["set"]');
		ELSIF m.payload ->> 'do' = 'post' THEN
			PERFORM actornot_post('relay', m.payload ->> 'on', '"posted"');
		ELSE
			state := coalesce(state, '[]') || m.payload;
		END IF;
	END LOOP;
	RETURN state;
END
$$;
SELECT actornot_register('relay', 'relay', max_attempts => 1);
SELECT actornot_post('relay', 'b', '"waits"') > 0 AS posted;
SELECT actornot_post('relay', 'a', '{"do": "run", "on": "b"}') > 0 AS posted;
SELECT actornot_run('relay', 'a');
SELECT actornot_state('relay', 'a'), actornot_state('relay', 'b');
SELECT actornot_post('relay', 'a', '{"do": "set", "on": "b"}') > 0 AS posted;
SELECT actornot_post('relay', 'a', '{"do": "post", "on": "b"}') > 0 AS posted;
SELECT actornot_run('relay', 'a');
SELECT actornot_run('relay', 'b');
SELECT actornot_state('relay', 'a'), actornot_state('relay', 'b');
-- Its own entity is being run: 55006, which is its failure if it does not catch it.
SELECT actornot_post('relay', 'a', '{"do": "run", "on": "a"}') > 0 AS posted;
SELECT actornot_run('relay', 'a');
SELECT actornot_post('relay', 'a', '{"do": "set", "on": "a"}') > 0 AS posted;
SELECT actornot_run('relay', 'a');
SELECT payload, attempts, sqlstate, message FROM actornot.dead_letters WHERE runner = 'relay' ORDER BY id;
SELECT actornot_state('relay', 'a');
-- A handler that runs another entity, which runs the first
SELECT actornot_post('relay', 'b', '{"do": "run", "on": "a"}') > 0 AS posted;
SELECT actornot_post('relay', 'a', '{"do": "run", "on": "b"}') > 0 AS posted;
SELECT actornot_run('relay', 'a');
SELECT actornot_state('relay', 'a'), actornot_state('relay', 'b');
-- After that nothing is left open.
SELECT actornot_post('relay', 'a', '"free"') > 0 AS posted;
SELECT actornot_run('relay', 'a');
SELECT actornot_set_state('relay', 'a', NULL);

--
-- A handler that replaces itself while it runs
--
CREATE FUNCTION phoenix(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CREATE OR REPLACE FUNCTION phoenix(entity text, state jsonb, messages actornot_message[])
	RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(''second''::text)';
	RETURN '"first"';
END
$$;
SELECT actornot_register('phoenix', 'phoenix', batch_size => 1);
SELECT array_length(actornot_post_many('phoenix', '{a, a}'), 1);
SELECT actornot_run('phoenix', 'a');
SELECT actornot_state('phoenix', 'a');
SELECT actornot_run('phoenix', 'a');
SELECT actornot_state('phoenix', 'a');

--
-- The caller's statement_timeout is no failure of the entity.
--
CREATE FUNCTION sleepy(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb FROM pg_sleep(60) $$;
SELECT actornot_register('sleepy', 'sleepy');
SELECT actornot_post('sleepy', 'a') > 0 AS posted;
\set SHOW_CONTEXT never
SET statement_timeout = '1s';
SELECT actornot_run('sleepy', 'a');
RESET statement_timeout;
\set SHOW_CONTEXT errors
SELECT actornot_pending('sleepy', 'a');
RESET ROLE;
SELECT count(*) AS mailboxes FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner WHERE r.name = 'sleepy';

DROP OWNED BY regress_run_owner;
DROP EXTENSION actornot;
DROP ROLE regress_run_owner;
