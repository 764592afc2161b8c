--
-- whole_batch: handlers that take many entities in one call
--
CREATE EXTENSION actornot;
CREATE ROLE regress_whole_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_whole_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_whole_owner;
CREATE VIEW public.failures AS
SELECT r.name AS runner, b.entity, b.attempts, b.last_error, b.wake_at > b.updated_at AS waits
  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner
 WHERE b.attempts > 0 OR b.last_error IS NOT NULL;
GRANT SELECT ON public.failures TO regress_whole_owner;
SET ROLE regress_whole_owner;

--
-- Signatures: one argument of this very type, a set of that very type
--
CREATE FUNCTION good(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION good_sql(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE sql AS $$ SELECT entity, state FROM unnest($1) $$;
CREATE FUNCTION bad_void(batches actornot_batch[]) RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION bad_single(batches actornot_batch[]) RETURNS actornot_state_of LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION bad_set(batches actornot_batch[]) RETURNS SETOF jsonb LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION bad_table(batches actornot_batch[]) RETURNS TABLE (entity text, state jsonb) LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION bad_strict(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql STRICT AS $$ BEGIN END $$;
CREATE FUNCTION bad_one(batch actornot_batch) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION bad_jsonb(batches jsonb) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION bad_more(batches actornot_batch[], more int DEFAULT 0) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION bad_three(entity text, state jsonb, messages actornot_message[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE PROCEDURE bad_procedure(batches actornot_batch[]) LANGUAGE plpgsql AS $$ BEGIN END $$;
SELECT actornot_register('w', 'good');
SELECT actornot_register('w', 'good_sql');
SELECT actornot_register('w', 'bad_void');
SELECT actornot_register('w', 'bad_single');
SELECT actornot_register('w', 'bad_set');
SELECT actornot_register('w', 'bad_table');
SELECT actornot_register('w', 'bad_strict');
SELECT actornot_register('w', 'bad_one');
SELECT actornot_register('w', 'bad_jsonb');
SELECT actornot_register('w', 'bad_more');
SELECT actornot_register('w', 'bad_three');
SELECT actornot_register('w', 'bad_procedure');
-- runnable is called for each entity; it cannot be such a function.
SELECT actornot_register('w', 'good', runnable => 'good');
-- Of several functions of a name the one for a single entity is taken.
CREATE FUNCTION twofold(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$ BEGIN RAISE 'many'; END $$;
CREATE FUNCTION twofold(entity text, state jsonb, messages jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"one"'::jsonb $$;
SELECT actornot_register('twofold', 'twofold');
SELECT actornot_post('twofold', 'a') > 0 AS posted;
SELECT actornot_run('twofold', 'a');
SELECT actornot_state('twofold', 'a');

--
-- What a handler sees, and what becomes of the states
--
CREATE TABLE calls (n serial, entities text[], messages int, bytes int);
CREATE TABLE seen (n serial, entity text, state jsonb, payload jsonb, headers jsonb, attempt int, id bigint);
-- Does what the last message of each entity says: "set" a state, "end" it, or
-- leave it.
CREATE FUNCTION obey(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO calls (entities, messages, bytes)
	SELECT array_agg(b.entity ORDER BY b.entity), sum(cardinality(b.messages)),
		sum((SELECT sum(length(m.payload::text)) FROM unnest(b.messages) m))
	  FROM unnest(batches) b;
	INSERT INTO seen (entity, state, payload, headers, attempt, id)
	SELECT b.entity, b.state, m.payload, m.headers, m.attempt, m.id
	  FROM unnest(batches) b, unnest(b.messages) m ORDER BY b.entity, m.id;
	RETURN QUERY
	SELECT b.entity, last.payload -> 'set'
	  FROM unnest(batches) b,
		LATERAL (SELECT b.messages[cardinality(b.messages)].payload AS payload) last
	 WHERE last.payload ? 'set' OR last.payload ? 'end';
END
$$;
SELECT actornot_register('w', 'obey', initial_state => '"new"');
SELECT actornot_post('w', entity, payload, headers) > 0 AS posted
  FROM (VALUES ('a', '{"set": 1}'::jsonb, NULL::jsonb), ('b', '{"set": null}', '{"h": 1}'), ('c', '{"leave": 1}', NULL),
	('d', '{"end": 1}', NULL), ('a', '{"set": [2]}', NULL)) AS v (entity, payload, headers);
-- One entity alone, in the caller's transaction
SELECT actornot_run('w', 'a'), actornot_run('w', 'a');
SELECT actornot_run('w', 'nobody');
CALL actornot_drain('w');
SELECT entities, messages FROM calls ORDER BY n;
SELECT entity, state, payload, headers, attempt FROM seen ORDER BY n;
SELECT e, actornot_state('w', e) FROM unnest('{a,b,c,d}'::text[]) e;
SELECT actornot_pending('w');
-- Now with states: changed, left as they are, ended.
TRUNCATE calls, seen;
SELECT actornot_post('w', entity, payload) > 0 AS posted
  FROM (VALUES ('a', '{"leave": 1}'::jsonb), ('b', '{"leave": 1}'), ('c', '{"set": "c"}'), ('d', '{"set": {"big": true}}')) AS v (entity, payload);
CALL actornot_drain('w');
SELECT actornot_post('w', entity, payload) > 0 AS posted
  FROM (VALUES ('a', '{"end": 1}'::jsonb), ('c', '{"leave": 1}'), ('d', '{"set": 0}')) AS v (entity, payload);
CALL actornot_drain('w');
SELECT entity, state, payload, attempt FROM seen ORDER BY n;
SELECT e, actornot_state('w', e) FROM unnest('{a,b,c,d}'::text[]) e;
-- Values that are stored out of line come complete; large states are kept.
SELECT actornot_post('w', 'large' || n, jsonb_build_object('set', repeat(md5(n::text), 5000))) > 0 AS posted FROM generate_series(1, 3) n;
CALL actornot_drain('w');
SELECT actornot_post('w', 'large' || n, '{"leave": 1}') > 0 AS posted FROM generate_series(1, 3) n;
TRUNCATE seen;
CALL actornot_drain('w');
SELECT entity, length(state #>> '{}'), state = to_jsonb(repeat(md5(right(entity, 1)), 5000)) AS same FROM seen ORDER BY n;

--
-- How much comes in one call: batch_size messages of all entities; an entity that
-- has more gets calls of its own
--
CREATE FUNCTION note(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO calls (entities, messages, bytes)
	SELECT array_agg(b.entity ORDER BY b.entity), sum(cardinality(b.messages)),
		sum((SELECT sum(length(m.payload::text)) FROM unnest(b.messages) m))
	  FROM unnest(batches) b;
	RETURN QUERY
	SELECT b.entity, to_jsonb(coalesce(b.state::int, 0) + cardinality(b.messages)) FROM unnest(batches) b;
END
$$;
SELECT actornot_register('n', 'note', batch_size => 10);
TRUNCATE calls;
-- The first entity of a drain is run alone: its runner is not known before.
SELECT array_length(actornot_post_many('n', array_agg('e' || n / 3)), 1) FROM generate_series(0, 59) n;
SELECT array_length(actornot_post_many('n', array_fill('big'::text, ARRAY[25])), 1);
SELECT array_length(actornot_post_many('n', array_fill('ten'::text, ARRAY[10])), 1);
SELECT actornot_post('n', 'one') > 0 AS posted;
CALL actornot_drain('n');
SELECT entities, messages FROM calls ORDER BY n;
SELECT max(messages) AS at_most, sum(messages) AS all FROM calls;
SELECT actornot_state('n', 'big'), actornot_state('n', 'ten'), actornot_state('n', 'one'),
	(SELECT sum(actornot_state('n', 'e' || n)::int) FROM generate_series(0, 19) n);
-- One message a call
SELECT actornot_register('n', 'note', batch_size => 1);
TRUNCATE calls;
SELECT array_length(actornot_post_many('n', '{x, y, z, x}'), 1);
CALL actornot_drain('n');
SELECT entities, messages FROM calls ORDER BY n;
-- batch_bytes: of all messages and, of several entities, their states
SELECT actornot_register('n', 'note', batch_bytes => 2500);
TRUNCATE calls;
SELECT array_length(actornot_post_many('n', array_agg('b' || n), array_agg(to_jsonb(repeat('x', 1000)))), 1) FROM generate_series(1, 7) n;
SELECT array_length(actornot_post_many('n', array_fill('b8'::text, ARRAY[3]), array_fill(to_jsonb(repeat('x', 2000)), ARRAY[3])), 1);
SELECT array_length(actornot_post_many('n', array_fill('b9'::text, ARRAY[3]), array_fill(to_jsonb(repeat('x', 1000)), ARRAY[3])), 1);
CALL actornot_drain('n');
SELECT entities, messages, bytes FROM calls ORDER BY n;
SELECT sum(actornot_state('n', 'b' || n)::int) FROM generate_series(1, 9) n;
SELECT actornot_register('w', 'obey', batch_bytes => 100000);
SELECT actornot_post('w', 'large' || n, '{"leave": 1}') > 0 AS posted FROM generate_series(1, 3) n;
TRUNCATE calls;
CALL actornot_drain('w');
SELECT entities, messages FROM calls ORDER BY n;
-- More entities than a transaction takes
SELECT actornot_register('n', 'note', batch_size => 10000);
TRUNCATE calls;
SELECT array_length(actornot_post_many('n', array_agg('many' || n)), 1) FROM generate_series(1, 3000) n;
CALL actornot_drain('n');
SELECT sum(messages), count(*) < 100 AS in_few_calls, max(cardinality(entities)) > 100 AS of_many FROM calls;
SELECT sum(actornot_state('n', 'many' || n)::int) FROM generate_series(1, 3000) n;

--
-- A call that returns wrong rows fails.  Then each entity is run alone, and an
-- entity for which wrong rows are returned again has failed.
--
CREATE TABLE said (entity text, state jsonb);
CREATE FUNCTION say(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO said SELECT entity, state FROM unnest(batches);
	RETURN QUERY SELECT r.entity, r.state
	  FROM unnest(batches) b, unnest(b.messages) m, jsonb_populate_recordset(NULL::actornot_state_of, m.payload) r;
END
$$;
SELECT actornot_register('say', 'say', max_attempts => 1);
-- Each alone
SELECT actornot_post('say', entity, payload) > 0 AS posted
  FROM (VALUES ('twice', '[{"entity": "twice", "state": 1}, {"entity": "twice", "state": 1}]'::jsonb),
	('stranger', '[{"entity": "somebody else", "state": 1}]'), ('null', '[{"state": 1}]'), ('good', '[{"entity": "good", "state": 1}]')) AS v (entity, payload);
SELECT actornot_run('say', 'twice');
SELECT actornot_run('say', 'stranger');
SELECT actornot_run('say', 'null');
SELECT actornot_run('say', 'good');
SELECT actornot_state('say', 'good');
SELECT entity, sqlstate, message, attempts FROM actornot.dead_letters ORDER BY id;
-- In a group: two that return each other's rows succeed only together.
SELECT actornot_post('say', entity, payload) > 0 AS posted
  FROM (VALUES ('first', '[]'::jsonb), ('p', '[{"entity": "q", "state": "from p"}]'), ('q', '[{"entity": "p", "state": "from q"}]')) AS v (entity, payload);
CALL actornot_drain('say');
SELECT actornot_state('say', 'p'), actornot_state('say', 'q');
SELECT actornot_post('say', entity, payload) > 0 AS posted
  FROM (VALUES ('first', '[]'::jsonb), ('p', '[{"entity": "q", "state": 1}]'), ('q', '[{"entity": "q", "state": 2}]'), ('r', '[{"entity": "r", "state": 3}]')) AS v (entity, payload);
CALL actornot_drain('say');
SELECT e, actornot_state('say', e) FROM unnest('{p,q,r}'::text[]) e;

--
-- A poison message harms its entity only: all before it, and all others, are
-- done, once; rows that failed calls wrote are not there.
--
\set VERBOSITY terse
CREATE TABLE effects (n serial, entity text, what int, attempt int);
CREATE FUNCTION work(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
DECLARE
	b actornot_batch;
	m actornot_message;
BEGIN
	FOREACH b IN ARRAY batches LOOP
		FOREACH m IN ARRAY b.messages LOOP
			INSERT INTO effects (entity, what, attempt) VALUES (b.entity, (m.payload -> 'n')::int, m.attempt);
			IF m.payload ? 'raise' AND m.attempt <= (m.payload -> 'raise')::int THEN
				RAISE EXCEPTION 'poison of %', b.entity;
			END IF;
			IF m.payload ? 'post' THEN
				PERFORM actornot_post('work', m.payload ->> 'post', '{"n": 100}');
			END IF;
			IF m.payload ? 'run' THEN
				PERFORM actornot_run('work', m.payload ->> 'run');
			END IF;
		END LOOP;
		RETURN NEXT ROW(b.entity, to_jsonb(coalesce(b.state::int, 0) + cardinality(b.messages)))::actornot_state_of;
	END LOOP;
END
$$;
SELECT actornot_register('work', 'work', max_attempts => 2, retry_delay => '0', retry_delay_max => '0');
SELECT array_length(actornot_post_many('work', array_agg('e' || n % 100 ORDER BY n),
	array_agg(CASE n WHEN 150 THEN '{"n": 1, "raise": 9}' WHEN 160 THEN '{"n": 1, "raise": 1}' ELSE jsonb_build_object('n', n / 100) END ORDER BY n)), 1)
  FROM generate_series(0, 299) n;
CALL actornot_drain('work');
SELECT entity, array_agg(what ORDER BY n) AS what, array_agg(attempt ORDER BY n) AS attempts FROM effects
 GROUP BY entity HAVING array_agg(what ORDER BY n) <> '{0,1,2}' OR max(attempt) > 1;
SELECT count(DISTINCT entity), count(*) FROM effects;
SELECT sum(actornot_state('work', 'e' || n)::int) FROM generate_series(0, 99) n;
SELECT entity, payload, attempts, sqlstate, message FROM actornot.dead_letters WHERE runner = 'work';
SELECT * FROM failures WHERE runner = 'work';
SELECT actornot_pending('work');
-- The back-off of one entity does not stop the others; its head then comes alone.
SELECT actornot_register('work', 'work', max_attempts => 5, retry_delay => '1 h', retry_delay_max => '1 h');
TRUNCATE effects;
SELECT array_length(actornot_post_many('work', array_agg('e' || n ORDER BY n),
	array_agg(CASE n WHEN 5 THEN '{"n": 1, "raise": 1}' ELSE '{"n": 0}' END::jsonb ORDER BY n)), 1)
  FROM generate_series(0, 19) n;
CALL actornot_drain('work');
SELECT count(*), count(*) FILTER (WHERE entity = 'e5') AS failed FROM effects;
SELECT * FROM failures WHERE runner = 'work';

--
-- A handler may post, also to an entity of its own call; it cannot run one.
--
TRUNCATE effects;
SELECT array_length(actornot_post_many('work', '{h0, h1, h2, h3}',
	'{"{\"n\": 0}", "{\"n\": 1, \"post\": \"h3\"}", "{\"n\": 2, \"post\": \"h2\"}", "{\"n\": 3, \"post\": \"other\"}"}'), 1);
CALL actornot_drain('work');
SELECT entity, what FROM effects ORDER BY n;
CALL actornot_drain('work');
SELECT entity, what FROM effects WHERE what = 100 ORDER BY entity;
SELECT array_length(actornot_post_many('work', '{i0, i1, i2, i3}',
	'{"{\"n\": 0}", "{\"n\": 1}", "{\"n\": 2, \"run\": \"i3\"}", "{\"n\": 3}"}'), 1);
CALL actornot_drain('work');
SELECT entity, attempts, waits, last_error FROM failures WHERE runner = 'work' ORDER BY 1;
SELECT entity, what FROM effects WHERE entity LIKE 'i%' ORDER BY n;

--
-- runnable, pause, leases: each entity for itself
--
CREATE TABLE closed (entity text);
CREATE FUNCTION is_open(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE $1 WHEN 'bad' THEN (1 / (length($1) - 3))::boolean ELSE NOT EXISTS (SELECT FROM closed c WHERE c.entity = $1) END
$$;
INSERT INTO closed VALUES ('r3'), ('r5');
SELECT actornot_register('r', 'note', runnable => 'is_open', retry_delay => '1 h');
TRUNCATE calls;
SELECT array_length(actornot_post_many('r', array_agg('r' || n ORDER BY n)), 1) FROM generate_series(0, 9) n;
SELECT actornot_pause('r', 'r7');
SELECT entity, cardinality(messages::text[]) AS messages FROM (
	SELECT entity, ARRAY(SELECT jsonb_array_elements(messages)) AS messages FROM actornot_acquire('r', 'r8', lease => '1 h')) AS lent;
CALL actornot_drain('r');
SELECT entities FROM calls ORDER BY n;
SELECT actornot_pending('r');
TRUNCATE closed;
SELECT actornot_resume('r', 'r7');
TRUNCATE calls;
CALL actornot_drain('r');
SELECT entities FROM calls ORDER BY n;
-- An error in runnable counts as the handler's.
SELECT array_length(actornot_post_many('r', '{r0, r1, bad, r2}'), 1);
CALL actornot_drain('r');
SELECT entity, attempts, last_error FROM failures WHERE runner = 'r';
SELECT actornot_state('r', 'r0'), actornot_state('r', 'r1'), actornot_state('r', 'r2');

--
-- A broken deferred constraint fails the entity that broke it; settings and roles
-- are undone.
--
CREATE TABLE parents (name text PRIMARY KEY);
CREATE TABLE children (name text REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
INSERT INTO parents VALUES ('k0'), ('k1'), ('k3');
CREATE FUNCTION bear(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE sql AS $$
	INSERT INTO children SELECT entity FROM unnest($1);
	SELECT set_config('actornot_test.left', 'behind', false);
	SELECT entity, '"born"'::jsonb FROM unnest($1);
$$;
SELECT actornot_register('bear', 'bear', max_attempts => 1);
SELECT array_length(actornot_post_many('bear', '{k0, k1, k2, k3}'), 1);
CALL actornot_drain('bear');
SELECT name FROM children ORDER BY 1;
SELECT entity, sqlstate FROM actornot.dead_letters WHERE runner = 'bear';
SELECT current_setting('actornot_test.left', true) AS left_behind;

--
-- The recipes of doc/whole-batch.md
--
CREATE TABLE account (entity text PRIMARY KEY, total bigint NOT NULL);

CREATE FUNCTION book(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO account AS a
	SELECT j.entity, sum(((j.m).payload->>'delta')::bigint)
	  FROM (SELECT b.entity, unnest(b.messages) AS m FROM unnest(batches) b) j
	 GROUP BY j.entity
		ON CONFLICT ON CONSTRAINT account_pkey DO UPDATE SET total = a.total + excluded.total;
END $$;
CREATE FUNCTION count_up(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
	SELECT b.entity, jsonb_build_object('total', coalesce((b.state->>'total')::bigint, 0)
		+ (SELECT sum((m.payload->>'delta')::bigint) FROM unnest(b.messages) m))
	  FROM unnest(batches) b;
END $$;
CREATE FUNCTION walk(batches actornot_batch[]) RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
DECLARE
	b actornot_batch;
	m actornot_message;
	total bigint;
BEGIN
	FOREACH b IN ARRAY batches LOOP
		total := coalesce((b.state->>'total')::bigint, 0);
		FOREACH m IN ARRAY b.messages LOOP
			total := total + (m.payload->>'delta')::bigint;
		END LOOP;
		RETURN NEXT ROW(b.entity, jsonb_build_object('total', total))::actornot_state_of;
	END LOOP;
END $$;
SELECT actornot_register('book', 'book'), actornot_register('count_up', 'count_up'), actornot_register('walk', 'walk');
SELECT runner, array_length(actornot_post_many(runner, array_agg('e' || n % 4), array_agg(jsonb_build_object('delta', n))), 1)
  FROM generate_series(1, 40) n, unnest('{book, count_up, walk}'::text[]) runner GROUP BY runner ORDER BY runner;
CALL actornot_drain();
SELECT runner, array_length(actornot_post_many(runner, array_agg('e' || n % 4), array_agg(jsonb_build_object('delta', n))), 1)
  FROM generate_series(1, 4) n, unnest('{book, count_up, walk}'::text[]) runner GROUP BY runner ORDER BY runner;
CALL actornot_drain();
SELECT entity, total, actornot_state('book', entity), actornot_state('count_up', entity), actornot_state('walk', entity)
  FROM account ORDER BY entity;

--
-- A runner whose handler changes between one entity and many, others beside it
--
CREATE FUNCTION single(entity text, state jsonb, messages actornot_message[]) RETURNS jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3))
$$;
SELECT actornot_register('change', 'note');
SELECT actornot_register('plain', 'single');
SELECT array_length(actornot_post_many('change', array_agg('c' || n)), 1) FROM generate_series(1, 50) n;
SELECT array_length(actornot_post_many('plain', array_agg('c' || n)), 1) FROM generate_series(1, 50) n;
CALL actornot_drain();
SELECT actornot_register('change', 'single');
SELECT array_length(actornot_post_many('change', array_agg('c' || n)), 1) FROM generate_series(1, 50) n;
SELECT array_length(actornot_post_many('plain', array_agg('c' || n)), 1) FROM generate_series(1, 50) n;
CALL actornot_drain();
SELECT actornot_register('change', 'good_sql');
SELECT array_length(actornot_post_many('change', array_agg('c' || n)), 1) FROM generate_series(1, 50) n;
CALL actornot_drain();
SELECT sum(actornot_state('change', 'c' || n)::int), sum(actornot_state('plain', 'c' || n)::int) FROM generate_series(1, 50) n;
-- A handler that was dropped counts as no failure.
DROP FUNCTION good_sql;
SELECT array_length(actornot_post_many('change', '{c1, c2}'), 1);
CALL actornot_drain('change');
SELECT actornot_pending('change');

RESET ROLE;
DROP VIEW public.failures;
DROP OWNED BY regress_whole_owner;
DROP EXTENSION actornot;
DROP ROLE regress_whole_owner;
