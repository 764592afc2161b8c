--
-- rotation: segments of the log, from one to the next and back to empty
--
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION actornot;
-- The owner cannot log in: no worker runs for it, so nothing happens by itself.
CREATE ROLE regress_rotate NOLOGIN;
CREATE SCHEMA play AUTHORIZATION regress_rotate;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_rotate;
SET ROLE regress_rotate;
SET search_path = play, public;
CREATE TABLE seen (entity text, place int, id bigint, payload jsonb);
CREATE FUNCTION see(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO play.seen
		SELECT $1, coalesce($2::int, 0) + o, m.id, m.payload
		  FROM unnest($3) WITH ORDINALITY m (id, payload, headers, at, try, o);
	SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3))
$$;
SELECT actornot_register('r', 'play.see', batch_bytes => 1000);
RESET ROLE;

--
-- Copies, made by hand here.  A copied message is in several segments; only a
-- copy that is visible counts.  The ring is locked, so that the manager does not
-- change it.
--
BEGIN;
LOCK TABLE actornot.segment IN SHARE UPDATE EXCLUSIVE MODE;
PREPARE TRANSACTION 'regress_rotate';
CREATE PROCEDURE look_into(segments int[]) LANGUAGE sql AS $$
	UPDATE actornot.segment SET sealed = false, upper = NULL, turn = number
	 WHERE number = ANY (segments);
$$;
CREATE PROCEDURE forget(segments int[]) LANGUAGE sql AS $$
	UPDATE actornot.segment SET sealed = true, upper = '1', turn = 0, done = NULL, copied = false
	 WHERE number = ANY (segments);
$$;
-- A message of which a batch meets two copies
SELECT count(actornot_post('r', 'twice', to_jsonb(n))) FROM generate_series(1, 5) n;
INSERT INTO actornot.message_3 SELECT * FROM actornot.message_0;
CALL look_into('{3}');
SELECT actornot_pending('r', 'twice');
SET ROLE regress_rotate;
SELECT actornot_run('r', 'twice');
SELECT actornot_run('r', 'twice');
SELECT actornot_state('r', 'twice'), actornot_pending('r', 'twice');
RESET ROLE;
-- The bytes of a batch are full at a message whose other copy was rolled back:
-- that message comes in the next batch and is not lost.
SELECT count(actornot_post('r', 'bytes', jsonb_build_object('n', n, 'bytes', repeat('x', 600)))) FROM generate_series(1, 3) n;
WITH moved AS (DELETE FROM actornot.message_0 RETURNING *) INSERT INTO actornot.message_3 SELECT * FROM moved;
SELECT actornot_pending('r', 'bytes');
SET ROLE regress_rotate;
SELECT actornot_run('r', 'bytes') FROM generate_series(1, 4);
SELECT place, payload->'n' AS n FROM seen WHERE entity = 'bytes' ORDER BY place;
-- A list that ends within the copies of a message
SELECT actornot_register('long', 'play.see', batch_size => 1023, batch_bytes => 1000000);
SELECT count(actornot_post('long', 'e', to_jsonb(n))) FROM generate_series(1, 1500) n;
RESET ROLE;
DO $$
BEGIN
	FOR n IN 1 .. 15 LOOP
		EXECUTE format('INSERT INTO actornot.message_%s SELECT m.* FROM actornot.message_0 m JOIN actornot.runner r ON r.id = m.runner WHERE r.name = ''long''', n);
	END LOOP;
END $$;
CALL look_into('{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}');
SET ROLE regress_rotate;
CALL actornot_drain('long');
SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE place::text <> payload::text) AS disordered FROM seen WHERE entity = 'e';
RESET ROLE;
CALL forget('{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}');
TRUNCATE actornot.message_1, actornot.message_2, actornot.message_3, actornot.message_4, actornot.message_5, actornot.message_6, actornot.message_7, actornot.message_8, actornot.message_9, actornot.message_10, actornot.message_11, actornot.message_12, actornot.message_13, actornot.message_14, actornot.message_15;
TRUNCATE play.seen;
ROLLBACK PREPARED 'regress_rotate';

--
-- Now the manager makes the copies.
--
ALTER SYSTEM SET actornot.segment_size = '128 kB';
SELECT pg_reload_conf();
-- Waits for something that the manager does.
CREATE PROCEDURE wait_for(condition text) LANGUAGE plpgsql AS $$
DECLARE
	met		boolean;
BEGIN
	FOR i IN 1 .. 12000 LOOP
		EXECUTE 'SELECT ' || condition INTO met;
		COMMIT;
		EXIT WHEN met;
		PERFORM pg_sleep(0.01);
	END LOOP;
	IF NOT met THEN
		RAISE EXCEPTION 'timed out waiting for %', condition;
	END IF;
END $$;
CREATE FUNCTION current_segment() RETURNS int LANGUAGE sql AS $$
	SELECT number FROM actornot.segment WHERE current
$$;
-- Segments that are not empty.
CREATE FUNCTION in_use() RETURNS int LANGUAGE sql AS $$
	SELECT count(*)::int FROM actornot.segment WHERE upper IS DISTINCT FROM '1'
$$;
CREATE TABLE posted (entity text, id bigint);
-- Posts to an entity until the log has moved on, however many posts that takes.
CREATE PROCEDURE fill(runner text, entity text) LANGUAGE plpgsql AS $$
DECLARE
	was		int := current_segment();
BEGIN
	FOR n IN 1 .. 6000 LOOP
		INSERT INTO posted SELECT entity, actornot_post(runner, entity, to_jsonb(repeat('x', 400)));
		COMMIT;
		EXIT WHEN current_segment() <> was;
		PERFORM pg_sleep(0.001) FROM generate_series(1, n / 300);
	END LOOP;
	IF current_segment() = was THEN
		RAISE EXCEPTION 'the log has not moved on';
	END IF;
END $$;
SET ROLE regress_rotate;
SELECT actornot_register('s', 'play.see');
CREATE FUNCTION fail(entity text, state jsonb, messages jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(1 / 0) $$;
SELECT actornot_register('fail', 'play.fail', retry_delay => '1 hour', retry_delay_max => '1 hour');
RESET ROLE;

-- A session takes new settings between two commands, if they are there.
SELECT pg_sleep(1) WHERE current_setting('actornot.segment_size') <> '128kB' \g /dev/null
SELECT pg_sleep(4) WHERE current_setting('actornot.segment_size') <> '128kB' \g /dev/null
SELECT pg_sleep(15) WHERE current_setting('actornot.segment_size') <> '128kB' \g /dev/null
SELECT pg_sleep(40) WHERE current_setting('actornot.segment_size') <> '128kB' \g /dev/null
SHOW actornot.segment_size;
-- Done messages are removed, by whole segments.
CALL fill('s', 'busy');
SET ROLE regress_rotate;
CALL actornot_drain() \g /dev/null
RESET ROLE;
CALL wait_for('in_use() = 1');
SELECT count(*) > 0 AS any, count(DISTINCT id) = count(*) AS once, actornot_state('s', 'busy')::int = count(*) AS counted FROM play.seen;

-- Pending messages are not: a backlog stays where it is.
CALL fill('s', 'busy');
CALL fill('s', 'busy');
CALL wait_for('(SELECT count(*) = 2 FROM actornot.segment WHERE sealed AND upper > ''1'')');
CREATE FUNCTION left_over(entity text) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM posted p WHERE p.entity = $1 AND NOT EXISTS (SELECT FROM play.seen s WHERE s.id = p.id)
$$;
SELECT actornot_pending('s', 'busy') = left_over('busy') AS pending, actornot_pending('s') = left_over('busy') AS of_all;
-- A few that wait for something are copied: one is paused, one is leased, one is
-- in back-off, and one is of a runner that does not exist.  One has a payload in
-- TOAST, another has no payload.
SELECT setseed(0.5);
SELECT actornot_pause('s', 'paused');
SELECT actornot_post('s', 'paused', to_jsonb(string_agg(md5(random()::text), ''))) > 0 AS posted FROM generate_series(1, 1000);
SELECT actornot_post('s', 'paused') > 0 AS posted;
SELECT actornot_post('s', 'paused', '1', headers => '{"k": "v"}') > 0 AS posted;
SELECT payload AS big, posted_at AS posted_at, tick AS tick FROM actornot.message WHERE entity = 'paused' AND length(payload::text) > 10000 \gset
SELECT actornot_post('s', 'lent', to_jsonb(n)) > 0 AS posted FROM generate_series(1, 3) n;
SELECT token FROM actornot_acquire('s', 'lent', max_messages => 2, lease => '1 hour') \gset
SELECT actornot_post('fail', 'e', '"fails"') > 0 AS posted;
SELECT actornot_post('s', 'nobody''s') > 0 AS posted;
DO $$ BEGIN EXECUTE format('UPDATE actornot.message_%s SET runner = 1000, hash = 1000 WHERE entity = ''nobody''''s''', current_segment()); END $$;
SET ROLE regress_rotate;
SET client_min_messages = error;
CALL actornot_drain() \g /dev/null
SET client_min_messages = warning;
RESET ROLE;
SELECT actornot_pending('s', 'paused') AS paused, actornot_pending('s', 'lent') AS lent, actornot_pending('fail', 'e') AS fails;
CALL fill('s', 'busy');
SET ROLE regress_rotate;
CALL actornot_drain() \g /dev/null
RESET ROLE;
CALL wait_for('in_use() = 1');
SELECT actornot_pending('s', 'paused') AS paused, actornot_pending('s', 'lent') AS lent, actornot_pending('fail', 'e') AS fails, actornot_pending('s') AS all_of_s;
SELECT payload = :'big'::jsonb AS same, posted_at = :'posted_at' AS same, tick = :'tick' AS same FROM actornot.message WHERE entity = 'paused' AND length(payload::text) > 10000;
SELECT entity, length(payload::text), headers, count(*) FROM actornot.message WHERE entity <> 'busy' GROUP BY id, 1, 2, 3 ORDER BY id;
-- They go on where they were.
SELECT jsonb_path_query_array(messages, '$[*].payload') FROM actornot_update_locked('s', 'lent', :token, '2');
SELECT actornot_purge('fail', 'e');
SELECT actornot_resume('s', 'paused');
SET ROLE regress_rotate;
CALL actornot_drain() \g /dev/null
SELECT place, length(payload::text) FROM play.seen WHERE entity = 'paused' ORDER BY place;
RESET ROLE;

-- Two entities with one hash: a message that one of them has passed is not done
-- for the other.
SET actornot.debug_hash_bits = 0;
SELECT actornot_pause('s', 'a');
SELECT actornot_post('s', entity, to_jsonb(entity)) > 0 AS posted FROM unnest('{b,a,b}'::text[]) entity;
CALL fill('s', 'b');
SET ROLE regress_rotate;
CALL actornot_drain('s') \g /dev/null
RESET ROLE;
SELECT count(*) FROM actornot.collision;
CALL wait_for('in_use() = 1');
SELECT actornot_pending('s', 'a') AS a, actornot_pending('s', 'b') AS b, count(*) AS in_log FROM actornot.message WHERE entity = 'a';
SELECT actornot_resume('s', 'a');
SET ROLE regress_rotate;
CALL actornot_drain('s') \g /dev/null
SELECT entity, payload FROM play.seen WHERE entity = 'a';
RESET ROLE;
RESET actornot.debug_hash_bits;

-- A ring that is full: the current segment grows.
TRUNCATE play.seen;
DO $$
BEGIN
	WHILE EXISTS (SELECT FROM actornot.segment WHERE upper = '1') LOOP
		CALL fill('s', 'heap');
	END LOOP;
END $$;
SELECT current_segment() AS was \gset
SELECT count(actornot_post('s', 'heap', to_jsonb(repeat('y', 400)))) FROM generate_series(1, 1000) n;
CALL wait_for('(SELECT count(*) = 15 FROM actornot.segment WHERE sealed)');
SELECT current_segment() = :was AS stayed, in_use(), pg_relation_size('actornot.message_' || :was) > 300000 AS grown;
SELECT actornot_pending('s', 'heap') = left_over('heap') + 1000 AS pending;
SET ROLE regress_rotate;
CALL actornot_drain('s') \g /dev/null
RESET ROLE;
CALL wait_for('in_use() = 1 OR current_segment() <> ' || :was);
SELECT actornot_post('s', 'heap', '"last"') > 0 AS posted;
CALL wait_for('in_use() <= 2 AND current_segment() <> ' || :was);
SET ROLE regress_rotate;
CALL actornot_drain('s') \g /dev/null
RESET ROLE;
CALL wait_for('in_use() = 1');
SELECT count(*) > 1000 AS many, count(DISTINCT id) = count(*) AS once, max(place) = count(*) AS counted, count(*) FILTER (WHERE wrong) AS disordered
  FROM (SELECT *, lag(id) OVER (ORDER BY place) > id AS wrong FROM play.seen WHERE entity = 'heap') s;

ALTER SYSTEM RESET actornot.segment_size;
SELECT pg_reload_conf();
DROP EXTENSION actornot CASCADE;
DROP SCHEMA play CASCADE;
DROP ROLE regress_rotate;
