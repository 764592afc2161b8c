--
-- post: putting messages in
--
CREATE EXTENSION actornot;
CREATE ROLE regress_post_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_post_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_post_owner;

SET ROLE regress_post_owner;
-- The state of an entity is the array of its payloads, in order.
CREATE FUNCTION collect(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce($2, '[]') || jsonb_agg(m.payload ORDER BY m.ord)
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
$$;
-- The same with all fields of a message.
CREATE FUNCTION describe(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce($2, '[]') || jsonb_agg(jsonb_build_object(
				'id', m.id - $3[1].id, 'payload', m.payload,
				'headers', m.headers, 'no payload', m.payload IS NULL,
				'no headers', m.headers IS NULL, 'attempt', m.attempt,
				'recent', m.posted_at BETWEEN now() - interval '10 min' AND clock_timestamp())
			ORDER BY m.ord)
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
$$;
SELECT actornot_register('post', 'collect');
SELECT actornot_register('told', 'describe');

--
-- A message has an id, which grows, and makes no row in mailbox.
--
SELECT actornot_post('told', 'a') AS first \gset
SELECT actornot_post('told', 'a', '1') - :first AS id;
SELECT actornot_post('told', 'a', 'null', '{"k": [1, 2]}') - :first AS id;
SELECT actornot_post(entity => 'a', runner => 'told', headers => '"h"') - :first AS id;
SELECT actornot_post('told', 'a', '{"b": {"c": true}}', deliver_at => NULL, dedup_key => NULL) - :first AS id;
RESET ROLE;
SELECT count(*) AS mailboxes FROM actornot.mailbox;
SELECT m.id - :first AS id, r.name, m.entity, m.payload, m.headers,
	m.hash = actornot_hash('told', 'a') AS hash
  FROM actornot.message m JOIN actornot.runner r ON r.id = m.runner
 ORDER BY m.id;
SET ROLE regress_post_owner;
SELECT actornot_pending('told'), actornot_pending('told', 'a'), actornot_pending('told', 'b');
SELECT actornot_run('told', 'a');
SELECT jsonb_pretty(actornot_state('told', 'a'));
SELECT actornot_pending('told'), actornot_pending('told', 'a');

--
-- It exists if and only if its transaction commits.
--
BEGIN;
SELECT actornot_post('post', 'a', '"rolled back"') > 0 AS posted;
SELECT actornot_pending('post', 'a');
ROLLBACK;
SELECT actornot_pending('post', 'a');

BEGIN;
SELECT actornot_post('post', 'a', '1') > 0 AS posted;
SAVEPOINT s;
SELECT actornot_post('post', 'a', '2') > 0 AS posted;
ROLLBACK TO s;
SELECT actornot_post('post', 'a', '3') > 0 AS posted;
SAVEPOINT s;
SELECT actornot_post('post', 'a', '4') > 0 AS posted;
RELEASE s;
SELECT actornot_pending('post', 'a');
-- A message of the own transaction is not yet posted.
SELECT actornot_run('post', 'a');
COMMIT;
SELECT actornot_run('post', 'a');
SELECT actornot_state('post', 'a');

-- An error that is caught undoes the posts of its block.
DO $$
BEGIN
	PERFORM actornot_post('post', 'caught', '"before"');
	BEGIN
		PERFORM actornot_post('post', 'caught', '"within"');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM actornot_post('post', 'caught', '"handler"');
	END;
	PERFORM actornot_post('post', 'caught', '"after"');
END
$$;
SELECT actornot_run('post', 'caught');
SELECT actornot_state('post', 'caught');

-- An error in the middle of post_many leaves no message.
SELECT actornot_post('post', CASE WHEN n < 3 THEN 'half' ELSE '' END)
  FROM generate_series(1, 3) n;
SELECT actornot_post_many('post', '{half, half, ""}');
SELECT actornot_pending('post', 'half');

--
-- Prepared transactions
--
BEGIN;
SELECT actornot_post('post', 'prepared', '1') > 0 AS posted;
PREPARE TRANSACTION 'regress_post_1';
BEGIN;
SELECT actornot_post('post', 'prepared', '2') > 0 AS posted;
PREPARE TRANSACTION 'regress_post_2';
SELECT actornot_pending('post', 'prepared'), actornot_run('post', 'prepared');
COMMIT PREPARED 'regress_post_1';
ROLLBACK PREPARED 'regress_post_2';
SELECT actornot_pending('post', 'prepared');
SELECT actornot_run('post', 'prepared');
SELECT actornot_state('post', 'prepared');

--
-- Every isolation level
--
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT actornot_post('post', 'levels', '"repeatable read"') > 0 AS posted;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT actornot_post('post', 'levels', '"serializable"') > 0 AS posted;
SELECT array_length(actornot_post_many('post', '{levels}', '{1}'), 1) AS posted;
COMMIT;
-- A runner that is registered after the transaction took its snapshot.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM pg_class WHERE relname = 'none';
SELECT actornot_register('new', 'collect');
SELECT actornot_post('new', 'a', '"new"') > 0 AS posted;
COMMIT;
SELECT actornot_run('post', 'levels'), actornot_run('new', 'a');
SELECT actornot_state('post', 'levels'), actornot_state('new', 'a');

--
-- Many at once
--
SELECT array_agg(i - ids[1] ORDER BY ord) AS ids
  FROM (SELECT actornot_post_many('post', '{m, n, m, o, m}',
			'{1, 2, null, null, "5"}',
			ARRAY['{"h": 1}', NULL, '[]', NULL, NULL]::jsonb[]) AS ids) p,
	unnest(ids) WITH ORDINALITY AS u(i, ord);
SELECT actornot_pending('post', 'm'), actornot_pending('post', 'n'), actornot_pending('post', 'o');
SELECT actornot_run('post', 'm'), actornot_run('post', 'n'), actornot_run('post', 'o');
SELECT actornot_state('post', 'm'), actornot_state('post', 'n'), actornot_state('post', 'o');
-- The elements of arrays, whatever their subscripts.
SELECT array_length(actornot_post_many('post', '[5:6]={p,p}', '[-1:0]={1,2}'), 1);
SELECT actornot_run('post', 'p');
SELECT actornot_state('post', 'p');
SELECT actornot_post_many('post', '{}');
SELECT actornot_post_many('post', '{}', '{}', '{}');
SELECT actornot_post_many('post', '{}', '{}', NULL);
-- 10,000 of them, each where it belongs, in order
SELECT array_length(actornot_post_many('post',
	array_agg('many ' || n % 7 ORDER BY n), array_agg(to_jsonb(n) ORDER BY n)), 1)
  FROM generate_series(1, 10000) n;
SELECT actornot_pending('post');
SELECT sum(actornot_pending('post', 'many ' || n)) FROM generate_series(0, 6) n;
CALL actornot_drain('post');
SELECT count(*) AS entities, bool_and(actornot_state('post', 'many ' || n) = expected) AS right
  FROM (SELECT n % 7 AS n, jsonb_agg(n ORDER BY n) AS expected
		  FROM generate_series(1, 10000) n GROUP BY 1) e;

--
-- Names of entities: 1 byte and 1024, and names that look alike
--
SELECT actornot_post('post', e, to_jsonb(n)) > 0 AS posted
  FROM unnest(ARRAY['x', 'X', ' ', 'x ', repeat('x', 1024), repeat('x', 1023),
		repeat('ä', 512), E'a\nb', '''"\%', '0']) WITH ORDINALITY AS u(e, n);
CALL actornot_drain('post');
SELECT n, length(e), actornot_state('post', e)
  FROM unnest(ARRAY['x', 'X', ' ', 'x ', repeat('x', 1024), repeat('x', 1023),
		repeat('ä', 512), E'a\nb', '''"\%', '0']) WITH ORDINALITY AS u(e, n);
SELECT actornot_post('post', repeat('x', 1025));
SELECT actornot_post('post', repeat('ä', 512) || 'x');
SELECT actornot_post('post', '');

--
-- Large payloads, which are stored out of line: 2 MB that cannot be compressed
-- and 20 MB that do
--
CREATE TABLE large (n int, payload jsonb);
INSERT INTO large SELECT 1, to_jsonb(string_agg(md5(n::text), '' ORDER BY n))
  FROM generate_series(1, 65536) n;
INSERT INTO large VALUES (2, to_jsonb(repeat('abcdefgh', 2621440)));
SELECT n, length(payload::text) FROM large ORDER BY n;
SELECT actornot_post('post', 'large', payload, payload) > 0 AS posted FROM large ORDER BY n;
SELECT actornot_run('post', 'large') AS run;
SELECT actornot_run('post', 'large') AS run;
SELECT n, actornot_state('post', 'large') -> (n - 1) = payload AS equal FROM large ORDER BY n;
SELECT actornot_set_state('post', 'large', NULL);
-- In arrays, among small ones: those of an entity are in order and complete.
SELECT array_length(actornot_post_many('post', array_agg(e ORDER BY n), array_agg(payload ORDER BY n)), 1)
  FROM (SELECT n, CASE WHEN n % 3 = 0 THEN 'large' ELSE 'small' END AS e,
			   CASE n WHEN 3 THEN (SELECT payload FROM large WHERE large.n = 1)
					  WHEN 9 THEN (SELECT payload FROM large WHERE large.n = 2)
					  ELSE to_jsonb(n) END AS payload
		  FROM generate_series(1, 2100) n) m;
CALL actornot_drain('post');
SELECT jsonb_array_length(state) AS n, state -> 0 = (SELECT payload FROM large WHERE n = 1) AS first,
	   state -> 2 = (SELECT payload FROM large WHERE n = 2) AS third, state -> 1 AS second, state -> 3 AS fourth
  FROM actornot_state('post', 'large') AS state;
SELECT state = (SELECT jsonb_agg(n ORDER BY n) FROM generate_series(1, 2100) n WHERE n % 3 <> 0) AS equal
  FROM actornot_state('post', 'small') AS state;
SELECT actornot_set_state('post', 'large', NULL), actornot_set_state('post', 'small', NULL);

--
-- From each place that can run SQL
--
CREATE TABLE orders (n int);
CREATE FUNCTION announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_post('post', 'trigger', to_jsonb(NEW.n));
	RETURN NEW;
END
$$;
CREATE TRIGGER announce AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION announce();
CREATE CONSTRAINT TRIGGER announce_later AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION announce();
INSERT INTO orders VALUES (1), (2);
SELECT set_config(CASE WHEN current_setting('server_version_num')::int < 160000
	THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END, 'on', false) AS parallel \gset
SELECT actornot_post('post', 'parallel', '1') > 0 AS posted;
SELECT set_config(CASE WHEN current_setting('server_version_num')::int < 160000
	THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END, 'off', false) AS parallel \gset
DO $$
BEGIN
	FOR n IN 1 .. 3 LOOP
		PERFORM actornot_post('post', 'commits', to_jsonb(n));
		IF n = 2 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END
$$;
BEGIN;
DECLARE c CURSOR FOR SELECT actornot_post('post', 'cursor', to_jsonb(n)) > 0 AS posted
	FROM generate_series(1, 3) n;
FETCH 2 FROM c;
COMMIT;
CALL actornot_drain('post');
SELECT e, actornot_state('post', e)
  FROM unnest('{trigger, parallel, commits, cursor}'::text[]) e;

--
-- The number of an entity is the same everywhere and for ever.
--
SELECT actornot_hash('counter', 'alice'), actornot_hash('counter', 'bob'),
	actornot_hash('count', 'eralice'), actornot_hash('no such runner', 'Zoë');
SELECT actornot_hash(NULL, 'a');
SELECT actornot_hash('a', NULL);

RESET ROLE;
DROP OWNED BY regress_post_owner;
DROP EXTENSION actornot;
DROP ROLE regress_post_owner;
