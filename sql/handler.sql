--
-- handler: what a function may do with its arguments, to its runner and to
-- the session, and which errors it passes on
--
CREATE EXTENSION actornot;
CREATE ROLE regress_handler_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_handler_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_handler_owner;
SET ROLE regress_handler_owner;
CREATE FUNCTION post_all(runner text, entity text, payloads jsonb[]) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM unnest(actornot_post_many($1, array_fill($2, ARRAY[cardinality($3)]), $3))
$$;

--
-- Arrays behave as the server's own: joined, sliced, gathered, taken apart.
-- Payloads of 1 to 9 bytes, so that elements end anywhere.
--
CREATE FUNCTION arrays(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	twice actornot_message[] := messages || messages;
	mixed actornot_message[];
BEGIN
	SELECT array_agg(m) INTO mixed FROM unnest(twice || messages[2:3] || messages[1]) m;
	RETURN jsonb_build_object(
		'own', pg_column_size(messages) = pg_column_size(ARRAY(SELECT m FROM unnest(messages) m)),
		'twice', (SELECT string_agg(m.payload ->> 'a', ' ') FROM unnest(twice) m),
		'mixed', (SELECT string_agg(m.payload ->> 'a', ' ') FROM unnest(mixed) m),
		'slices', (SELECT string_agg(m.payload ->> 'a', ' ') FROM unnest(messages[3:] || messages[:1]) m),
		'nested', (SELECT string_agg(m.payload ->> 'a', ' ')
			FROM (SELECT array_agg(x) AS a FROM (SELECT messages AS x UNION ALL SELECT messages) s) t, unnest(t.a) m));
END
$$;
SELECT actornot_register('arrays', 'arrays');
SELECT post_all('arrays', 'e', array_agg(jsonb_build_object('a', repeat(i::text, i)))) FROM generate_series(1, 9) i;
SELECT actornot_run('arrays', 'e');
SELECT * FROM jsonb_each_text(actornot_state('arrays', 'e')) ORDER BY key;

CREATE FUNCTION whole_arrays(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
DECLARE
	b    actornot_batch;
	more actornot_batch[] := batches || batches || batches[1];
	m    actornot_message[];
BEGIN
	FOREACH b IN ARRAY batches LOOP
		m := b.messages || b.messages || b.messages[2:];
		RETURN NEXT ROW(b.entity, jsonb_build_object('batches', cardinality(more),
			'all', (SELECT string_agg(u.payload ->> 'a', ' ') FROM unnest(m) u),
			'more', (SELECT string_agg(u.entity, ' ') FROM unnest(more) u)))::actornot_state_of;
	END LOOP;
END
$$;
SELECT actornot_register('whole', 'whole_arrays', batch_size => 1000);
SELECT post_all('whole', repeat('e', e), ARRAY(SELECT jsonb_build_object('a', repeat(i::text, i + e)) FROM generate_series(1, 3) i))
  FROM generate_series(1, 3) e;
CALL actornot_drain('whole');
SELECT e, s.* FROM generate_series(1, 3) e, jsonb_each_text(actornot_state('whole', repeat('e', e))) s ORDER BY 1, 2;

--
-- A function in LANGUAGE sql keeps its position in the call that invoked it.  It
-- runs an entity of the same runner, and so does "runnable".
--
CREATE TABLE log (n serial, entity text, what text);
CREATE FUNCTION within(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO log (entity, what) VALUES (entity, 'begins');
	SELECT CASE entity WHEN 'a' THEN actornot_run('within', 'b') WHEN 'b' THEN actornot_run('within', 'c') END;
	INSERT INTO log (entity, what) VALUES (entity, 'ends');
	SELECT to_jsonb(entity)
$$;
CREATE FUNCTION if_free(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE entity WHEN 'x' THEN actornot_run('within', 'y') END;
	SELECT true
$$;
SELECT actornot_register('within', 'within', runnable => 'if_free');
SELECT count(actornot_post('within', e)) FROM unnest('{a,b,c,x,y}'::text[]) e;
SELECT actornot_run('within', 'a');
SELECT actornot_run('within', 'x');
SELECT entity, what FROM log ORDER BY n;
SELECT e, actornot_state('within', e) FROM unnest('{a,b,c,x,y}'::text[]) e;
CREATE FUNCTION fails_within(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE entity WHEN 'a' THEN actornot_run('fails', 'b') ELSE 1 / (entity = 'a')::int END;
	SELECT to_jsonb(entity)
$$;
SELECT actornot_register('fails', 'fails_within', retry_delay => '1 h');
SELECT count(actornot_post('fails', e)) FROM unnest('{a,b}'::text[]) e;
SET client_min_messages = error;
SELECT actornot_run('fails', 'a');
RESET client_min_messages;
SELECT actornot_state('fails', 'a'), actornot_pending('fails', 'b');

--
-- A handler registers its runner without a handler while more batches wait: they
-- stay pending, for a program outside or the next handler.
--
CREATE FUNCTION leaves(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_register('leaves', NULL, batch_size => 1);
	RETURN coalesce(state::int, 0) + 1;
END
$$;
SELECT actornot_register('leaves', 'leaves', batch_size => 1);
SELECT post_all('leaves', 'e', array_fill('1'::jsonb, ARRAY[3]));
CALL actornot_drain('leaves');
SELECT actornot_state('leaves', 'e'), actornot_pending('leaves', 'e');
SELECT entity, jsonb_array_length(messages) FROM actornot_acquire('leaves', 'e', max_messages => 10);
CREATE FUNCTION leaves_whole(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_register('leaves_whole', NULL, batch_size => 1);
	RETURN QUERY SELECT b.entity, to_jsonb(cardinality(b.messages)) FROM unnest(batches) b;
END
$$;
SELECT actornot_register('leaves_whole', 'leaves_whole', batch_size => 1);
SELECT post_all('leaves_whole', e, array_fill('1'::jsonb, ARRAY[3])) FROM unnest('{a,b}'::text[]) e;
CALL actornot_drain('leaves_whole');
SELECT sum(actornot_pending('leaves_whole', e)) FROM unnest('{a,b}'::text[]) e;

--
-- A handler cannot unregister the runner that is being run in its session.
--
CREATE FUNCTION ends_itself(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_unregister('ends_itself', force => true);
	RETURN '1';
END
$$;
SELECT actornot_register('ends_itself', 'ends_itself', max_attempts => 1);
SELECT actornot_post('ends_itself', 'e') > 0 AS posted;
SELECT actornot_run('ends_itself', 'e');
SELECT runner, sqlstate, message FROM actornot.dead_letters WHERE runner = 'ends_itself';

--
-- An error that came from another server is the handler's error, whatever its
-- class: it is recorded, and the other entities go on.
--
CREATE FUNCTION remote(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF entity LIKE '57%' THEN
		RAISE EXCEPTION 'the other server said %', entity USING ERRCODE = entity;
	END IF;
	RETURN '1';
END
$$;
SELECT actornot_register('remote', 'remote', retry_delay => '1 h');
SELECT count(actornot_post('remote', e)) FROM unnest('{a,57P03,57014,57P01,z}'::text[]) e;
\set SHOW_CONTEXT never
SET client_min_messages = error;
BEGIN;
SELECT actornot_run('remote', '57P03');
SELECT actornot_pending('remote', '57P03');
COMMIT;
CALL actornot_drain('remote');
RESET client_min_messages;
\set SHOW_CONTEXT errors
SELECT e, actornot_state('remote', e), actornot_pending('remote', e) FROM unnest('{a,57P03,57014,57P01,z}'::text[]) e;
-- But a cancel of this session ends all nested calls.
CREATE FUNCTION sleeps(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(pg_sleep(600)::text) $$;
CREATE FUNCTION runs(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(actornot_run('sleeps', 'e')) $$;
SELECT actornot_register('sleeps', 'sleeps'), actornot_register('runs', 'runs');
SELECT actornot_post('sleeps', 'e') > 0, actornot_post('runs', 'e') > 0 AS posted;
\set SHOW_CONTEXT never
SET statement_timeout = '1s';
SELECT actornot_run('runs', 'e');
RESET statement_timeout;
\set SHOW_CONTEXT errors
SELECT actornot_pending('sleeps', 'e'), actornot_pending('runs', 'e');
-- Also if the function catches the cancel and raises an error of its own.
CREATE FUNCTION retells(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(600);
EXCEPTION WHEN query_canceled THEN
	RAISE EXCEPTION 'in other words' USING ERRCODE = 'query_canceled';
END
$$;
SELECT actornot_register('retells', 'retells');
SELECT actornot_post('retells', 'e') > 0 AS posted;
\set SHOW_CONTEXT never
SET statement_timeout = '1s';
SELECT actornot_run('retells', 'e');
CALL actornot_drain('retells');
RESET statement_timeout;
\set SHOW_CONTEXT errors
SELECT actornot_pending('retells', 'e');
-- Nothing of the cancelled call is left.
CREATE FUNCTION dozes(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(CASE WHEN current_setting('statement_timeout') = '0' THEN 0 ELSE 600 END);
	RETURN true;
END
$$;
SELECT actornot_register('dozes', runnable => 'dozes');
SELECT actornot_post('dozes', 'e') > 0 AS posted;
\set SHOW_CONTEXT never
SET statement_timeout = '1s';
SELECT entity FROM actornot_acquire('dozes', 'e');
RESET statement_timeout;
\set SHOW_CONTEXT errors
SELECT entity FROM actornot_acquire('dozes', 'e');
RESET ROLE;
SELECT entity, attempts, last_error, wake_at > clock_timestamp() AS waits
  FROM actornot.mailbox WHERE attempts > 0 OR last_error IS NOT NULL ORDER BY entity COLLATE "C";

--
-- After a change of its owner a runner is not run with the rights of the old owner,
-- not even by the call that is under way.
--
CREATE ROLE regress_handler_heir NOLOGIN;
GRANT regress_handler_heir TO regress_handler_owner;
SET ROLE regress_handler_owner;
CREATE FUNCTION given(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_set_owner('given', 'regress_handler_heir');
	RETURN coalesce(state::int, 0) + 1;
END
$$;
SELECT actornot_register('given', 'given', batch_size => 1);
SELECT post_all('given', 'e', array_fill('1'::jsonb, ARRAY[3]));
CALL actornot_drain('given');
SELECT actornot_state('given', 'e'), actornot_pending('given', 'e');
CREATE FUNCTION gives(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_set_owner('gives', 'regress_handler_heir');
	RETURN true;
END
$$;
SELECT actornot_register('gives', runnable => 'gives');
SELECT count(actornot_post('gives', e)) FROM unnest('{a,b,c}'::text[]) e;
SELECT count(*) FROM actornot_acquire('gives', max_entities => 10);
SELECT count(*) FROM actornot_acquire('gives', max_entities => 10);
RESET ROLE;

--
-- A function of the same name that another role makes has no effect.
--
SET ROLE regress_handler_owner;
GRANT CREATE, USAGE ON SCHEMA regress_handler_owner TO regress_handler_heir;
CREATE FUNCTION mine(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"mine"'::jsonb $$;
SELECT actornot_register('mine', 'mine');
SET ROLE regress_handler_heir;
CREATE FUNCTION regress_handler_owner.mine(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"another"'::jsonb $$;
SET ROLE regress_handler_owner;
SELECT actornot_post('mine', 'e') > 0 AS posted;
SELECT actornot_run('mine', 'e');
SELECT actornot_state('mine', 'e');
RESET ROLE;

DROP OWNED BY regress_handler_owner, regress_handler_heir;
SET client_min_messages = error;
DROP EXTENSION actornot CASCADE;
DROP ROLE regress_handler_owner, regress_handler_heir;
