--
-- cursor: what an entity has consumed
--
CREATE EXTENSION actornot;

--
-- The packed form: xmax, number of xips, distances from the highest down
--
SELECT actornot.cursor_text('\x0100') AS nothing,
	actornot.cursor_text('\x7f00') AS one_byte,
	actornot.cursor_text('\x8001 00') AS two_bytes,
	actornot.cursor_text('\xac02 02 05 5f') AS two_xips,
	actornot.cursor_text('\xffffffffffffffffff01 00') AS greatest,
	actornot.cursor_text('\xffffffffffffffffff01 01 feffffffffffffffff01') AS widest;
SELECT actornot.cursor_text(NULL);
-- Values that are no cursor
SELECT actornot.cursor_text('');
SELECT actornot.cursor_text('\x05');
SELECT actornot.cursor_text('\x80');
SELECT actornot.cursor_text('\x0502 01');
SELECT actornot.cursor_text('\x0500 00');
SELECT actornot.cursor_text('\x05ffffffffffffffffff01');

CREATE ROLE regress_cursor_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_cursor_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_cursor_owner;
-- The mailboxes, without numbers that differ from run to run.
CREATE VIEW public.cursors AS
SELECT entity, actornot.cursor_text(done) = '1:1:' AS nothing,
	target IS NOT NULL AS pinned, last_id > 0 AS within,
	state, attempts
  FROM actornot.mailbox;
-- Is a message done according to the cursor?
CREATE FUNCTION public.is_done(of_id bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
BEGIN ATOMIC
	SELECT pg_visible_in_snapshot(m.tick, actornot.cursor_text(b.done)::pg_snapshot)
	  FROM actornot.message m JOIN actornot.mailbox b USING (hash, runner, entity)
	 WHERE m.id = of_id;
END;
GRANT SELECT ON public.cursors TO regress_cursor_owner;

SET ROLE regress_cursor_owner;
CREATE FUNCTION collect(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce($2, '[]') || jsonb_agg(m.payload ORDER BY m.ord)
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
$$;
SELECT actornot_register('collect', 'collect', batch_size => 2);

--
-- A batch that takes all moves done; one that does not pins its target.
--
SELECT actornot_post('collect', 'a', '1') AS id1 \gset
SELECT * FROM cursors;
SELECT actornot_run('collect', 'a');
SELECT * FROM cursors;
SELECT is_done(:id1);
SELECT actornot_post('collect', 'a', to_jsonb(n)) > 0 AS posted FROM generate_series(2, 6) n;
SELECT actornot_run('collect', 'a');
SELECT * FROM cursors;
-- A message that is posted meanwhile comes after the pinned ones.
SELECT actornot_post('collect', 'a', '7') AS id7 \gset
SELECT actornot_run('collect', 'a');
SELECT is_done(:id7), * FROM cursors;
SELECT actornot_pending('collect', 'a');
SELECT actornot_run('collect', 'a');
SELECT actornot_run('collect', 'a');
SELECT actornot_run('collect', 'a');
SELECT is_done(:id7), * FROM cursors;
SELECT actornot_pending('collect', 'a');

--
-- A run that is rolled back consumed nothing.
--
SELECT actornot_post('collect', 'back', to_jsonb(n)) > 0 AS posted FROM generate_series(1, 3) n;
BEGIN;
SELECT actornot_run('collect', 'back');
ROLLBACK;
SELECT * FROM cursors WHERE entity = 'back';
BEGIN;
SELECT actornot_run('collect', 'back');
SAVEPOINT s;
SELECT actornot_run('collect', 'back');
SELECT actornot_state('collect', 'back');
ROLLBACK TO s;
SELECT actornot_state('collect', 'back'), actornot_pending('collect', 'back');
SELECT actornot_run('collect', 'back');
SELECT actornot_run('collect', 'back');
COMMIT;
SELECT * FROM cursors WHERE entity = 'back';

--
-- A transaction that was open while later ids were processed
--
BEGIN;
SELECT actornot_post('collect', 'late', '"early id, late commit"') AS late \gset
PREPARE TRANSACTION 'regress_cursor_late';
SELECT actornot_post('collect', 'late', '"late id, early commit"') AS early \gset
SELECT :late < :early AS smaller;
SELECT actornot_run('collect', 'late');
SELECT actornot_run('collect', 'late');
SELECT is_done(:late) AS late, is_done(:early) AS early;
SELECT actornot_post('collect', 'late', '"next"') > 0 AS posted;
SELECT actornot_run('collect', 'late');
SELECT is_done(:late);
COMMIT PREPARED 'regress_cursor_late';
SELECT is_done(:late), actornot_pending('collect', 'late');
SELECT actornot_run('collect', 'late');
SELECT is_done(:late), actornot_pending('collect', 'late');
SELECT actornot_run('collect', 'late');
SELECT actornot_state('collect', 'late');
-- Two such transactions, and one that never commits
BEGIN;
SELECT actornot_post('collect', 'later', '1') > 0 AS posted;
PREPARE TRANSACTION 'regress_cursor_1';
BEGIN;
SELECT actornot_post('collect', 'later', '2') > 0 AS posted;
PREPARE TRANSACTION 'regress_cursor_2';
BEGIN;
SELECT actornot_post('collect', 'later', '3') > 0 AS posted;
PREPARE TRANSACTION 'regress_cursor_3';
SELECT actornot_post('collect', 'later', '4') > 0 AS posted;
SELECT actornot_run('collect', 'later');
COMMIT PREPARED 'regress_cursor_2';
SELECT actornot_run('collect', 'later');
ROLLBACK PREPARED 'regress_cursor_3';
SELECT actornot_run('collect', 'later');
COMMIT PREPARED 'regress_cursor_1';
SELECT actornot_run('collect', 'later');
SELECT actornot_run('collect', 'later');
SELECT actornot_state('collect', 'later');
-- A transaction that was open when a target was pinned: its message waits until
-- that target is reached.
BEGIN;
SELECT actornot_post('collect', 'pinned', '0') > 0 AS posted;
PREPARE TRANSACTION 'regress_cursor_pinned';
SELECT actornot_post('collect', 'pinned', to_jsonb(n)) > 0 AS posted FROM generate_series(1, 3) n;
SELECT actornot_run('collect', 'pinned');
COMMIT PREPARED 'regress_cursor_pinned';
SELECT actornot_pending('collect', 'pinned');
SELECT actornot_run('collect', 'pinned');
SELECT actornot_run('collect', 'pinned');
SELECT actornot_state('collect', 'pinned');

--
-- A failed head stays in front of a message with a smaller id that commits later.
--
CREATE FUNCTION picky(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload = '"bad"' AND m.attempt < 3 THEN
			RAISE EXCEPTION 'I do not like attempt %', m.attempt;
		END IF;
		state := coalesce(state, '[]') || m.payload;
	END LOOP;
	RETURN state;
END
$$;
SELECT actornot_register('picky', 'picky', retry_delay => '0', retry_delay_max => '0');
BEGIN;
SELECT actornot_post('picky', 'a', '"smaller id"') > 0 AS posted;
PREPARE TRANSACTION 'regress_cursor_smaller';
SELECT actornot_post('picky', 'a', '"bad"') > 0 AS posted;
SELECT actornot_run('picky', 'a');
COMMIT PREPARED 'regress_cursor_smaller';
SELECT actornot_run('picky', 'a');
SELECT attempts, pinned FROM cursors WHERE entity = 'a' AND state IS NULL;
SELECT actornot_run('picky', 'a');
SELECT actornot_run('picky', 'a');
SELECT actornot_state('picky', 'a');
SELECT actornot_pending('picky', 'a');

--
-- A handler that posts to its own entity
--
CREATE FUNCTION countdown(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		state := coalesce(state, '[]') || m.payload;
		IF m.payload > '0' THEN
			PERFORM actornot_post('countdown', entity, to_jsonb(m.payload::int - 1));
		END IF;
	END LOOP;
	RETURN state;
END
$$;
SELECT actornot_register('countdown', 'countdown');
-- Its transaction has no id before the handler runs: above the snapshot's xmax
SELECT actornot_post('countdown', 'above', '2') > 0 AS posted;
SELECT actornot_run('countdown', 'above');
SELECT actornot_pending('countdown', 'above');
SELECT actornot_run('countdown', 'above');
SELECT actornot_run('countdown', 'above');
SELECT actornot_run('countdown', 'above');
SELECT actornot_state('countdown', 'above');
-- Its transaction has an id, and an aborted subtransaction has made xmax pass
-- it: below.
SELECT actornot_post('countdown', 'below', '1') > 0 AS posted;
BEGIN;
SELECT pg_current_xact_id() IS NOT NULL AS has_id;
SAVEPOINT s;
SELECT actornot_post('countdown', 'elsewhere', '0') > 0 AS posted;
ROLLBACK TO s;
SELECT pg_snapshot_xmax(pg_current_snapshot()) > pg_current_xact_id() AS below;
SELECT actornot_run('countdown', 'below');
SELECT actornot_run('countdown', 'below');
COMMIT;
SELECT actornot_pending('countdown', 'below');
SELECT actornot_run('countdown', 'below');
SELECT actornot_run('countdown', 'below');
SELECT actornot_state('countdown', 'below');
-- The same for a message that the transaction posted before the run
BEGIN;
SELECT actornot_post('countdown', 'both', '0') > 0 AS posted;
SAVEPOINT s;
SELECT actornot_post('countdown', 'elsewhere', '0') > 0 AS posted;
ROLLBACK TO s;
SELECT actornot_run('countdown', 'both');
COMMIT;
SELECT actornot_run('countdown', 'both');
SELECT actornot_state('countdown', 'both');
-- drain ends although each batch posts another message.
CREATE FUNCTION echo(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM actornot_post('echo', entity);
	RETURN to_jsonb(coalesce(state::int, 0) + cardinality(messages));
END
$$;
SELECT actornot_register('echo', 'echo');
SELECT actornot_post('echo', 'a') > 0 AS posted;
CALL actornot_drain('echo');
SELECT actornot_pending('echo', 'a') AS pending, actornot_state('echo', 'a')::int >= 1 AS ran;
SELECT actornot_unregister('echo', force => true);

--
-- A backlog of many batches: in order, each once, while others come
--
CREATE FUNCTION ordered(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
	n int := coalesce(state::int, 0);
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload::int <> n + 1 THEN
			RAISE EXCEPTION '% came after %', m.payload, n;
		END IF;
		n := n + 1;
	END LOOP;
	RETURN to_jsonb(n);
END
$$;
SELECT actornot_register('ordered', 'ordered', batch_size => 7000);
SELECT array_length(actornot_post_many('ordered', array_agg('a'::text), array_agg(to_jsonb(n) ORDER BY n)), 1)
  FROM generate_series(1, 25000) n;
SELECT actornot_run('ordered', 'a');
SELECT actornot_pending('ordered', 'a'), actornot_state('ordered', 'a');
SELECT actornot_post('ordered', 'a', '25001') > 0 AS posted;
SELECT actornot_run('ordered', 'a');
SELECT actornot_run('ordered', 'a');
SELECT actornot_run('ordered', 'a');
SELECT actornot_pending('ordered', 'a'), actornot_state('ordered', 'a');
SELECT actornot_run('ordered', 'a');
SELECT actornot_run('ordered', 'a');
SELECT actornot_state('ordered', 'a');
-- In small pieces, and with another limit half-way
SELECT actornot_register('ordered', 'ordered', batch_size => 13);
SELECT array_length(actornot_post_many('ordered', array_agg('b'::text), array_agg(to_jsonb(n) ORDER BY n)), 1)
  FROM generate_series(1, 25000) n;
SELECT actornot_run('ordered', 'b');
SELECT actornot_register('ordered', 'ordered', batch_size => 10000);
SELECT actornot_run('ordered', 'b');
SELECT actornot_register('ordered', 'ordered', batch_size => 13);
CALL actornot_drain('ordered');
SELECT actornot_state('ordered', 'b'), actornot_pending('ordered', 'b');

--
-- Entities of one hash share a lock, and nothing else.
--
RESET ROLE;
SET actornot.debug_hash_bits = 0;
SELECT actornot_hash('collect', 'c'), actornot_hash('picky', 'd');
SET ROLE regress_cursor_owner;
SELECT actornot_post('collect', 'c', '1') > 0 AS posted;
SELECT actornot_post('collect', 'd', '2') > 0 AS posted;
SELECT actornot_post('picky', 'c', '3') > 0 AS posted;
SELECT actornot_post('collect', 'c', '4') > 0 AS posted;
SELECT actornot_pending('collect', 'c') AS c, actornot_pending('collect', 'd') AS d,
	actornot_pending('picky', 'c') AS pc, actornot_pending('picky', 'd') AS pd;
SELECT actornot_run('collect', 'd');
SELECT actornot_pending('collect', 'c') AS c, actornot_pending('collect', 'd') AS d,
	actornot_pending('picky', 'c') AS pc;
SELECT actornot_run('picky', 'c'), actornot_run('picky', 'd');
SELECT actornot_run('collect', 'c');
SELECT actornot_state('collect', 'c') AS c, actornot_state('collect', 'd') AS d,
	actornot_state('picky', 'c') AS pc, actornot_state('picky', 'd') AS pd;
-- A failure or a pause concerns one of them only.
SELECT actornot_post('collect', 'c', '5') > 0 AS posted;
SELECT actornot_post('picky', 'c', '"bad"') > 0 AS posted;
SELECT actornot_pause('collect', 'd');
SELECT actornot_run('picky', 'c');
SELECT actornot_run('collect', 'c');
SELECT actornot_purge('picky', 'c');
SELECT actornot_state('collect', 'c') AS c, actornot_state('collect', 'd') AS d,
	actornot_state('picky', 'c') AS pc;
-- drain finds each of them.
SELECT actornot_post('collect', e, to_jsonb(n)) > 0 AS posted
  FROM generate_series(6, 8) n, unnest('{c, d, e, f}'::text[]) e;
SELECT actornot_resume('collect', 'd');
CALL actornot_drain();
SELECT e, actornot_state('collect', e) FROM unnest('{c, d, e, f}'::text[]) e;
-- A handler cannot run another one of the same hash.
CREATE FUNCTION runs_other(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(actornot_run('collect', 'c')) $$;
SELECT actornot_register('runs other', 'runs_other', max_attempts => 1);
SELECT actornot_post('runs other', 'z') > 0 AS posted;
SELECT actornot_run('runs other', 'z');
RESET ROLE;
RESET actornot.debug_hash_bits;

DROP VIEW public.cursors;
DROP FUNCTION public.is_done;
DROP OWNED BY regress_cursor_owner;
DROP EXTENSION actornot;
DROP ROLE regress_cursor_owner;
