--
-- entity_admin: reading and repairing entities by hand
--
CREATE EXTENSION actornot;
CREATE ROLE regress_mend_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_mend_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_mend_owner;
SET ROLE regress_mend_owner;
CREATE FUNCTION collect(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		IF m.payload = '"poison"' THEN
			RAISE EXCEPTION 'poison' USING DETAIL = 'of this kind';
		END IF;
		state := coalesce(state, '[]') || m.payload;
	END LOOP;
	RETURN state;
END
$$;
SELECT actornot_register('r', 'collect', batch_size => 2, retry_delay => '1 h');

--
-- state
--
SELECT actornot_state('r', 'a');
SELECT actornot_post('r', 'a', to_jsonb(n)) > 0 AS posted FROM generate_series(1, 5) n;
SELECT actornot_state('r', 'a');
SELECT actornot_run('r', 'a');
SELECT actornot_state('r', 'a'), actornot_state('r', 'A');
-- It is read with the caller's snapshot.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT actornot_state('r', 'a');
SELECT actornot_pending('r', 'a'), actornot_pending('r');
COMMIT;
BEGIN;
SELECT actornot_run('r', 'a');
SELECT actornot_state('r', 'a');
ROLLBACK;
SELECT actornot_state('r', 'a');
-- Also in parallel workers
SELECT set_config(CASE WHEN current_setting('server_version_num')::int < 160000
	THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END, 'on', false) AS parallel \gset
SELECT actornot_state('r', 'a');
SELECT set_config(CASE WHEN current_setting('server_version_num')::int < 160000
	THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END, 'off', false) AS parallel \gset

--
-- pending: of an entity, of a runner
--
SELECT actornot_pending('r', 'a'), actornot_pending('r', 'none'), actornot_pending('r');
SELECT actornot_post('r', 'b') > 0 AS posted;
SELECT actornot_pending('r', 'a'), actornot_pending('r', 'b'), actornot_pending('r');
BEGIN;
SELECT actornot_post('r', 'b') > 0 AS posted;
SELECT actornot_pending('r', 'b'), actornot_pending('r');
SAVEPOINT s;
SELECT actornot_post('r', 'b') > 0 AS posted;
SELECT actornot_post('r', 'c') > 0 AS posted;
SELECT actornot_pending('r', 'b'), actornot_pending('r');
ROLLBACK TO s;
SELECT actornot_pending('r', 'b'), actornot_pending('r');
ROLLBACK;
SELECT actornot_pending('r', 'b'), actornot_pending('r');
SELECT actornot_run('r', 'b');

--
-- set_state: before the first message, within a backlog, after
--
SELECT actornot_set_state('r', 'new', '["set"]');
SELECT actornot_state('r', 'new'), actornot_pending('r', 'new');
SELECT actornot_post('r', 'new', '1') > 0 AS posted;
SELECT actornot_run('r', 'new');
SELECT actornot_state('r', 'new');
SELECT actornot_set_state('r', 'a', '["set"]');
SELECT actornot_state('r', 'a'), actornot_pending('r', 'a');
CALL actornot_drain('r');
SELECT actornot_state('r', 'a'), actornot_pending('r', 'a');
BEGIN;
SELECT actornot_set_state('r', 'a', '["undone"]');
SELECT actornot_state('r', 'a');
ROLLBACK;
SELECT actornot_state('r', 'a');
SELECT actornot_set_state('r', 'a', NULL);
SELECT actornot_state('r', 'a');
SELECT actornot_set_state('r', 'a', 'null', force => true);
SELECT actornot_state('r', 'a');
SELECT actornot_set_state('r', 'a', to_jsonb(repeat('0123456789', 100000)));
SELECT length(actornot_state('r', 'a')::text);
SELECT actornot_set_state('r', 'a', NULL);
-- Setting the state of an entity that never existed makes nothing pending.
SELECT actornot_set_state('r', 'none', NULL);
SELECT actornot_state('r', 'none'), actornot_run('r', 'none');
-- A message that was posted before set_state is still pending after it.
SELECT actornot_post('r', 'later', '1') > 0 AS posted;
SELECT actornot_set_state('r', 'later', '[]');
SELECT actornot_run('r', 'later');
SELECT actornot_state('r', 'later');

--
-- skip: the head to the dead letters
--
SELECT actornot_skip('r', 'empty');
SELECT array_agg(id) AS ids FROM (SELECT actornot_post('r', 's', to_jsonb(n)) AS id FROM generate_series(1, 5) n) p \gset
SELECT actornot_skip('r', 's') = (:'ids'::bigint[])[1] AS first;
SELECT actornot_pending('r', 's'), actornot_state('r', 's');
-- within a backlog
SELECT actornot_run('r', 's');
SELECT actornot_skip('r', 's') = (:'ids'::bigint[])[4] AS fourth;
SELECT actornot_run('r', 's');
SELECT actornot_state('r', 's'), actornot_pending('r', 's');
SELECT actornot_skip('r', 's');
SELECT entity, payload, attempts, sqlstate, message, detail, context FROM actornot.dead_letters ORDER BY id;
-- the last one, and then the next post
SELECT actornot_post('r', 's', '6') > 0 AS posted;
SELECT actornot_skip('r', 's') > 0 AS skipped;
SELECT actornot_skip('r', 's');
SELECT actornot_post('r', 's', '7') > 0 AS posted;
SELECT actornot_run('r', 's');
SELECT actornot_state('r', 's');
-- A poisoned head: the entity goes on at once.
SELECT array_length(actornot_post_many('r', '{p, p, p}', '{1, "\"poison\"", 3}'), 1);
\set VERBOSITY terse
SELECT actornot_run('r', 'p');
\set VERBOSITY default
SELECT actornot_run('r', 'p');
SELECT actornot_skip('r', 'p') > 0 AS skipped;
SELECT actornot_run('r', 'p');
SELECT actornot_state('r', 'p');
SELECT entity, payload, attempts, sqlstate, message FROM actornot.dead_letters WHERE entity = 'p';
BEGIN;
SELECT actornot_post('r', 's', '8') > 0 AS posted;
-- A message of the own transaction is not skipped: it is not yet posted.
SELECT actornot_skip('r', 's');
COMMIT;
BEGIN;
SELECT actornot_skip('r', 's') > 0 AS skipped;
ROLLBACK;
SELECT actornot_run('r', 's');
SELECT actornot_state('r', 's');

--
-- purge: all pending messages and the state
--
SELECT actornot_purge('r', 'empty');
SELECT actornot_post('r', 'u', to_jsonb(n)) > 0 AS posted FROM generate_series(1, 5) n;
SELECT actornot_run('r', 'u');
BEGIN;
SELECT actornot_purge('r', 'u');
SELECT actornot_state('r', 'u'), actornot_pending('r', 'u'), actornot_run('r', 'u');
ROLLBACK;
SELECT actornot_state('r', 'u'), actornot_pending('r', 'u');
-- Messages of open transactions are not purged.
BEGIN;
SELECT actornot_post('r', 'u', '"open"') > 0 AS posted;
PREPARE TRANSACTION 'regress_mend';
SELECT actornot_purge('r', 'u');
SELECT actornot_state('r', 'u'), actornot_pending('r', 'u');
COMMIT PREPARED 'regress_mend';
SELECT actornot_pending('r', 'u');
SELECT actornot_post('r', 'u', '"next"') > 0 AS posted;
SELECT actornot_run('r', 'u');
SELECT actornot_state('r', 'u');
-- With a failed head go its attempts and its back-off.
SELECT array_length(actornot_post_many('r', '{v, v}', '{"\"poison\"", 2}'), 1);
\set VERBOSITY terse
SELECT actornot_run('r', 'v');
\set VERBOSITY default
SELECT actornot_purge('r', 'v', force => true);
SELECT actornot_post('r', 'v', '3') > 0 AS posted;
SELECT actornot_run('r', 'v');
SELECT actornot_state('r', 'v');
SELECT count(*) FROM actornot.dead_letters WHERE entity IN ('u', 'v');

--
-- wake ends a back-off, and only that.
--
SELECT actornot_wake('r', 'none');
SELECT actornot_post('r', 'w', '"poison"') > 0 AS posted;
\set VERBOSITY terse
SELECT actornot_run('r', 'w');
SELECT actornot_run('r', 'w');
SELECT actornot_wake('r', 'w');
SELECT actornot_run('r', 'w');
\set VERBOSITY default
RESET ROLE;
SELECT attempts, last_error, wake_at > now() AS waits FROM actornot.mailbox WHERE entity = 'w';
SET ROLE regress_mend_owner;

--
-- pause and resume of an entity
--
SELECT actornot_pause('r', 'z');
SELECT actornot_pause('r', 'z', force => true);
SELECT actornot_post('r', 'z', '1') > 0 AS posted;
SELECT actornot_post('r', 'y', '1') > 0 AS posted;
SELECT actornot_run('r', 'z'), actornot_run('r', 'y');
CALL actornot_drain('r');
SELECT actornot_wake('r', 'z');
SELECT actornot_run('r', 'z');
SELECT actornot_pending('r', 'z');
-- A paused entity can be repaired.
SELECT actornot_set_state('r', 'z', '[0]');
SELECT actornot_post('r', 'z', '2') > 0 AS posted;
SELECT actornot_skip('r', 'z') > 0 AS skipped;
SELECT actornot_run('r', 'z');
BEGIN;
SELECT actornot_resume('r', 'z');
SELECT actornot_run('r', 'z');
ROLLBACK;
SELECT actornot_run('r', 'z');
SELECT actornot_resume('r', 'z');
SELECT actornot_resume('r', 'z');
SELECT actornot_run('r', 'z');
SELECT actornot_state('r', 'z');
SELECT actornot_resume('r', 'none');
-- A pause of the runner is independent of the entity's.
SELECT actornot_pause('r');
SELECT actornot_resume('r', 'y');
SELECT actornot_post('r', 'y', '2') > 0 AS posted;
SELECT actornot_run('r', 'y');
SELECT actornot_resume('r');
SELECT actornot_run('r', 'y');

--
-- Columns of a lease that were set by hand are respected.
--
RESET ROLE;
UPDATE actornot.mailbox SET lease_token = 1, lease_until = now() + interval '1 day', lease_owner = 'somebody'
 WHERE entity = 'y';
SET ROLE regress_mend_owner;
SELECT actornot_post('r', 'y', to_jsonb(n)) > 0 AS posted FROM generate_series(3, 4) n;
SELECT actornot_run('r', 'y');
SELECT actornot_set_state('r', 'y', '[]');
SELECT actornot_pause('r', 'y');
SELECT actornot_skip('r', 'y');
SELECT actornot_purge('r', 'y');
SELECT actornot_state('r', 'y'), actornot_pending('r', 'y');
SELECT actornot_set_state('r', 'y', '["forced"]', force => true);
SELECT actornot_run('r', 'y');
SELECT actornot_state('r', 'y');
RESET ROLE;
UPDATE actornot.mailbox SET lease_until = now() + interval '1 day' WHERE entity = 'y';
SET ROLE regress_mend_owner;
SELECT actornot_pause('r', 'y', true);
SELECT actornot_resume('r', 'y');
SELECT actornot_post('r', 'y', '5') > 0 AS posted;
SELECT actornot_run('r', 'y');
RESET ROLE;
UPDATE actornot.mailbox SET lease_until = now() + interval '1 day' WHERE entity = 'y';
SET ROLE regress_mend_owner;
SELECT actornot_post('r', 'y', '6') > 0 AS posted;
SELECT actornot_purge('r', 'y', true);
RESET ROLE;
UPDATE actornot.mailbox SET lease_until = now() - interval '1 s' WHERE entity = 'y';
SET ROLE regress_mend_owner;
SELECT actornot_post('r', 'y', '7') > 0 AS posted;
SELECT actornot_run('r', 'y');
SELECT actornot_state('r', 'y');

RESET ROLE;
DROP OWNED BY regress_mend_owner;
DROP EXTENSION actornot;
DROP ROLE regress_mend_owner;
