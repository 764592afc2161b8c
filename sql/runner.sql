--
-- runner: registering, replacing, pausing, changing the owner
--
CREATE EXTENSION actornot;
CREATE ROLE regress_runner_owner NOLOGIN;
CREATE ROLE regress_runner_other NOLOGIN;
CREATE ROLE regress_runner_member NOLOGIN IN ROLE regress_runner_owner;
CREATE SCHEMA AUTHORIZATION regress_runner_owner;
CREATE SCHEMA AUTHORIZATION regress_runner_other;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_runner_owner, regress_runner_other;

SET ROLE regress_runner_owner;
CREATE FUNCTION h(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
CREATE FUNCTION h_void(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION h_jsonb(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb('json form'::text) $$;
CREATE FUNCTION h_jsonb_void(entity text, state jsonb, messages jsonb)
RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION ready(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;

--
-- Defaults, and everything set
--
SELECT actornot_register('plain');
SELECT actornot_register('default', 'h');
SELECT actornot_register('all', handler => 'h', batch_size => 7, batch_bytes => 1,
	max_attempts => NULL, retry_delay => '10 ms', retry_delay_max => '1 day',
	timeout => NULL, lease => '2 min', initial_state => '{"n": 0}', runnable => 'ready',
	concurrency => NULL, rate => NULL, weight => 1, message_ttl => NULL,
	max_backlog => NULL, dedup_window => '1 day');
RESET ROLE;
\x on
SELECT id, name, owner, handler, handler_owner, runnable, runnable_owner, batch_size,
	batch_bytes, max_attempts, retry_delay, retry_delay_max, timeout, lease,
	initial_state, concurrency, rate, weight, message_ttl, max_backlog,
	dedup_window, paused, created_at = updated_at AS fresh, unregistered_at
  FROM actornot.runner ORDER BY id;
\x off
SET ROLE regress_runner_owner;

--
-- A deployment script can run again: the number stays, settings are replaced.
--
SELECT actornot_post('default', 'a') > 0 AS posted;
SELECT actornot_register('default', 'h', batch_size => 3);
SELECT actornot_register('all', 'h_void');
RESET ROLE;
SELECT id, name, owner, handler, batch_size, max_attempts, runnable, initial_state, timeout
  FROM actornot.runner WHERE name IN ('default', 'all') ORDER BY id;
SET ROLE regress_runner_owner;
SELECT actornot_pending('default', 'a');
SELECT actornot_run('default', 'a');
-- A registration that is rolled back leaves nothing.
BEGIN;
SELECT actornot_register('default', NULL);
SELECT actornot_register('never', 'h');
SELECT actornot_post('never', 'a') > 0 AS posted;
SELECT actornot_run('default', 'a');
ROLLBACK;
SELECT actornot_post('never', 'a');
SELECT actornot_run('default', 'a');
BEGIN;
SAVEPOINT s;
SELECT actornot_register('never', 'h');
ROLLBACK TO s;
SELECT actornot_post('never', 'a');
ROLLBACK;

--
-- The four shapes of a handler
--
SELECT actornot_register(f, f) FROM unnest('{h, h_void, h_jsonb, h_jsonb_void}'::text[]) f;
SELECT actornot_post(f, 'a') > 0 AS posted FROM unnest('{h, h_void, h_jsonb, h_jsonb_void}'::text[]) f;
SELECT f, actornot_run(f, 'a') FROM unnest('{h, h_void, h_jsonb, h_jsonb_void}'::text[]) f;
SELECT f, actornot_state(f, 'a') FROM unnest('{h, h_void, h_jsonb, h_jsonb_void}'::text[]) f;
-- Two functions of one name: the one with actornot_message[] is taken.
CREATE FUNCTION twofold(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb('typed'::text) $$;
CREATE FUNCTION twofold(entity text, state jsonb, messages jsonb)
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb('json'::text) $$;
SELECT actornot_register('twofold', 'twofold');
SELECT actornot_post('twofold', 'a') > 0 AS posted;
SELECT actornot_run('twofold', 'a');
SELECT actornot_state('twofold', 'a');

--
-- Names: qualified, quoted, on the search_path
--
CREATE FUNCTION "An odd.name"(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb('odd'::text) $$;
SELECT actornot_register('names', 'regress_runner_owner.h');
SELECT actornot_register('names', ' REGRESS_runner_owner . H ');
SELECT actornot_register('names', '"An odd.name"');
SELECT actornot_register('a "quoted" runner, ä', '"regress_runner_owner"."An odd.name"');
SELECT actornot_post('a "quoted" runner, ä', 'a') > 0 AS posted;
-- It is stored qualified: the search_path of the session that runs it does not
-- matter.
SET search_path = pg_catalog, public;
SELECT actornot_run('a "quoted" runner, ä', 'a');
SELECT actornot_state('a "quoted" runner, ä', 'a');
SELECT actornot_register('names', 'h');
RESET search_path;
SELECT actornot_register('names', 'An odd.name');
SELECT actornot_register('names', 'h(text, jsonb, jsonb)');
SELECT actornot_register('names', 'other_db.regress_runner_owner.h');
SELECT actornot_register('names', '');
SELECT actornot_register('names', 'no_schema.h');
-- The first schema of the search_path that has such a function is taken.
RESET ROLE;
CREATE SCHEMA regress_runner_first AUTHORIZATION regress_runner_owner;
SET ROLE regress_runner_owner;
CREATE FUNCTION regress_runner_first.h(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb('first'::text) $$;
CREATE FUNCTION regress_runner_first.h_void(n int) RETURNS void LANGUAGE sql AS $$ $$;
SET search_path = regress_runner_first, regress_runner_owner, public;
SELECT actornot_register('names', 'h');
SELECT actornot_register('names 2', 'h_void');
RESET search_path;
RESET ROLE;
SELECT name, handler FROM actornot.runner WHERE name LIKE 'names%' OR name LIKE 'a "%' ORDER BY name;
SET ROLE regress_runner_owner;
-- Temporary functions are not taken: other sessions do not have them.
CREATE FUNCTION pg_temp.h_temp(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
SELECT actornot_register('names', 'h_temp');
SELECT actornot_register('names', 'pg_temp.h_temp');

--
-- Functions that are no handler
--
CREATE FUNCTION w_int(entity text, state jsonb, messages actornot_message[])
RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION w_json(entity text, state jsonb, messages actornot_message[])
RETURNS json LANGUAGE sql AS $$ SELECT '1'::json $$;
CREATE FUNCTION w_set(entity text, state jsonb, messages actornot_message[])
RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
CREATE FUNCTION w_one(entity text, state jsonb, message actornot_message)
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
CREATE FUNCTION w_varchar(entity varchar, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
CREATE FUNCTION w_two(entity text, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
CREATE FUNCTION w_four(entity text, state jsonb, messages jsonb, more int DEFAULT 1)
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
CREATE FUNCTION w_strict(entity text, state jsonb, messages jsonb) RETURNS jsonb STRICT LANGUAGE sql AS $$ SELECT state $$;
CREATE PROCEDURE w_proc(entity text, state jsonb, messages jsonb) LANGUAGE sql AS $$ $$;
CREATE FUNCTION w_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
SELECT actornot_register('wrong', 'w_int');
SELECT actornot_register('wrong', 'w_json');
SELECT actornot_register('wrong', 'w_set');
SELECT actornot_register('wrong', 'w_one');
SELECT actornot_register('wrong', 'w_varchar');
SELECT actornot_register('wrong', 'w_two');
SELECT actornot_register('wrong', 'w_four');
SELECT actornot_register('wrong', 'w_strict');
SELECT actornot_register('wrong', 'w_proc');
SELECT actornot_register('wrong', 'w_trigger');
SELECT actornot_register('wrong', 'jsonb_agg');
SELECT actornot_register('wrong', 'no_such_function');
SELECT actornot_register('wrong', 'h', runnable => 'h');
SELECT actornot_register('wrong', 'h', runnable => 'no_such_function');
CREATE FUNCTION r_int(entity text, state jsonb) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
SELECT actornot_register('wrong', 'h', runnable => 'r_int');
SELECT actornot_post('wrong', 'a');

--
-- Values out of range, and settings that are not yet built
--
SELECT actornot_register(repeat('r', 255));
SELECT actornot_post(repeat('r', 255), 'a') > 0 AS posted;
SELECT actornot_register(repeat('r', 256));
SELECT actornot_register('');
SELECT actornot_register(NULL);
SELECT actornot_register('v', 'h', batch_size => 0);
SELECT actornot_register('v', 'h', batch_size => -1);
SELECT actornot_register('v', 'h', batch_size => 10000);
SELECT actornot_register('v', 'h', batch_size => 10001);
SELECT actornot_register('v', 'h', batch_size => NULL);
SELECT actornot_register('v', 'h', batch_bytes => 0);
SELECT actornot_register('v', 'h', batch_bytes => -1);
SELECT actornot_register('v', 'h', batch_bytes => 2147483647);
SELECT actornot_register('v', 'h', batch_bytes => NULL);
SELECT actornot_register('v', 'h', max_attempts => 0);
SELECT actornot_register('v', 'h', max_attempts => -1);
SELECT actornot_register('v', 'h', max_attempts => 1);
SELECT actornot_register('v', 'h', retry_delay => '-1 s');
SELECT actornot_register('v', 'h', retry_delay => NULL);
SELECT actornot_register('v', 'h', retry_delay => '2 h');
SELECT actornot_register('v', 'h', retry_delay => '2 h', retry_delay_max => '2 h');
SELECT actornot_register('v', 'h', retry_delay_max => '-1 s');
SELECT actornot_register('v', 'h', retry_delay_max => NULL);
SELECT actornot_register('v', 'h', retry_delay_max => '178000000 years');
SELECT actornot_register('v', 'h', timeout => '0');
SELECT actornot_register('v', 'h', timeout => '-1 s');
SELECT actornot_register('v', 'h', timeout => '1 us');
SELECT actornot_register('v', 'h', timeout => '24 days');
SELECT actornot_register('v', 'h', timeout => '25 days');
SELECT actornot_register('v', 'h', lease => '0');
SELECT actornot_register('v', 'h', lease => '-1 day');
SELECT actornot_register('v', 'h', lease => '1 month');
SELECT actornot_register('v', 'h', lease => '1 month 1 us');
SELECT actornot_register('v', 'h', lease => NULL);
SELECT actornot_register('v', 'h', concurrency => 1);
SELECT actornot_register('v', 'h', rate => 1.5);
SELECT actornot_register('v', 'h', weight => 2);
SELECT actornot_register('v', 'h', weight => 0);
SELECT actornot_register('v', 'h', weight => NULL);
SELECT actornot_register('v', 'h', message_ttl => '1 day');
SELECT actornot_register('v', 'h', max_backlog => 1);
SELECT actornot_register('v', 'h', dedup_window => '1 hour');
SELECT actornot_register('v', 'h', dedup_window => '0');
SELECT actornot_register('v', 'h', dedup_window => NULL);

--
-- Which roles may replace it
--
RESET ROLE;
GRANT USAGE ON SCHEMA regress_runner_owner TO regress_runner_other;
SET ROLE regress_runner_other;
CREATE FUNCTION h_other(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user::text) $$;
SELECT actornot_register('default', 'h_other');
-- A member of the owner's role may; the owner does not change.
SET ROLE regress_runner_member;
SELECT actornot_register('default', 'regress_runner_owner.h', batch_size => 11);
-- A superuser may, too; the owner must be able to execute the handler.
RESET ROLE;
SELECT actornot_register('default', 'regress_runner_owner.h', batch_size => 12);
REVOKE EXECUTE ON FUNCTION regress_runner_other.h_other FROM PUBLIC;
SELECT actornot_register('default', 'regress_runner_other.h_other');
SELECT name, owner, handler, batch_size FROM actornot.runner WHERE name = 'default';
-- The caller must have the right to execute it.
SET ROLE regress_runner_owner;
SELECT actornot_register('default', 'regress_runner_other.h_other');
RESET ROLE;
GRANT USAGE ON SCHEMA regress_runner_other TO regress_runner_owner;
SET ROLE regress_runner_owner;
SELECT actornot_register('default', 'regress_runner_other.h_other');
RESET ROLE;
GRANT EXECUTE ON FUNCTION regress_runner_other.h_other TO regress_runner_owner;
SET ROLE regress_runner_owner;
-- A function of another role runs with the rights of the runner's owner.
SELECT actornot_register('default', 'regress_runner_other.h_other');
SELECT actornot_post('default', 'whose') > 0 AS posted;
SELECT actornot_run('default', 'whose');
SELECT actornot_state('default', 'whose');
SELECT actornot_register('default', 'h');

--
-- Pause and resume
--
SELECT actornot_post('default', 'p') > 0 AS posted;
SELECT actornot_pause('default');
SELECT actornot_pause('default');
SELECT actornot_run('default', 'p');
CALL actornot_drain('default');
-- Posts go on; a replacement does not end a pause.
SELECT actornot_post('default', 'p') > 0 AS posted;
SELECT actornot_register('default', 'h');
SELECT actornot_run('default', 'p');
SELECT actornot_pending('default');
BEGIN;
SELECT actornot_resume('default');
SELECT actornot_run('default', 'p');
ROLLBACK;
SELECT actornot_run('default', 'p');
SELECT actornot_resume('default');
SELECT actornot_resume('default');
SELECT actornot_run('default', 'p');
SELECT actornot_state('default', 'p');

--
-- Which roles may post
--
SET ROLE regress_runner_other;
SELECT actornot_post('default', 'g');
SET ROLE regress_runner_owner;
SELECT actornot_grant('default', 'regress_runner_other');
SELECT actornot_grant('default', 'regress_runner_other');
SET ROLE regress_runner_other;
SELECT actornot_post('default', 'g') > 0 AS posted;
SELECT array_length(actornot_post_many('default', '{g, g}'), 1);
-- The grant gives no other right.
SELECT actornot_grant('default', 'regress_runner_other');
SELECT actornot_revoke('default', 'regress_runner_other');
SELECT actornot_pause('default');
SELECT actornot_resume('default');
SELECT actornot_set_owner('default', 'regress_runner_other');
SELECT actornot_unregister('default', true);
SELECT actornot_pending('default');
SELECT actornot_state('default', 'g');
SET ROLE regress_runner_owner;
SELECT actornot_revoke('default', 'regress_runner_other');
SELECT actornot_revoke('default', 'regress_runner_other');
SET ROLE regress_runner_other;
SELECT actornot_post('default', 'g');
SET ROLE regress_runner_owner;
SELECT actornot_grant('default', 'public');
SET ROLE regress_runner_other;
SELECT actornot_post('default', 'g') > 0 AS posted;
SET ROLE regress_runner_owner;
-- Revoking from a role leaves the grant to PUBLIC.
SELECT actornot_revoke('default', 'regress_runner_other');
SET ROLE regress_runner_other;
SELECT actornot_post('default', 'g') > 0 AS posted;
SET ROLE regress_runner_owner;
SELECT actornot_revoke('default', 'public');
SET ROLE regress_runner_other;
SELECT actornot_post('default', 'g');
SET ROLE regress_runner_owner;
SELECT actornot_grant('default', 'regress_runner_nobody');
SELECT actornot_revoke('default', 'regress_runner_nobody');
SELECT actornot_grant('default', NULL);
SELECT actornot_grant('nobody''s', 'public');
-- More grants than fit in the first piece of memory
RESET ROLE;
SELECT format('CREATE ROLE regress_runner_g%s', n) FROM generate_series(1, 9) n \gexec
SET ROLE regress_runner_owner;
SELECT count(actornot_grant('default', 'regress_runner_g' || n)) FROM generate_series(1, 9) n;
RESET ROLE;
SET ROLE regress_runner_g1;
SELECT actornot_post('default', 'g') > 0 AS posted;
RESET ROLE;
SET ROLE regress_runner_g9;
SELECT actornot_post('default', 'g') > 0 AS posted;
RESET ROLE;
SELECT format('DROP ROLE regress_runner_g%s', n) FROM generate_series(1, 9) n \gexec
SET ROLE regress_runner_owner;
SELECT actornot_run('default', 'g');

--
-- Another owner
--
SELECT actornot_set_owner('default', 'regress_runner_other');
RESET ROLE;
SELECT actornot_set_owner('default', 'regress_runner_nobody');
SELECT actornot_set_owner('default', 'public');
GRANT regress_runner_other TO regress_runner_owner;
SET ROLE regress_runner_owner;
SELECT actornot_register('given', 'h_void');
SELECT actornot_post('given', 'a') > 0 AS posted;
SELECT actornot_set_owner('given', 'regress_runner_other');
-- It has another owner now, whose rights the old owner has as a member.
SELECT actornot_run('given', 'a');
SET ROLE regress_runner_other;
SELECT actornot_run('given', 'a');
SELECT actornot_set_owner('given', 'regress_runner_owner');
RESET ROLE;
REVOKE regress_runner_other FROM regress_runner_owner;
SET ROLE regress_runner_owner;
SELECT actornot_pause('given');
SELECT actornot_post('given', 'a');
RESET ROLE;
SELECT actornot_set_owner('given', 'regress_runner_owner');
SELECT name, owner FROM actornot.runner WHERE name = 'given';

--
-- Unregister
--
SET ROLE regress_runner_owner;
SELECT actornot_post('given', 'a') > 0 AS posted;
SELECT actornot_grant('given', 'public');
SELECT actornot_unregister('given');
SELECT actornot_post('given', 'b') > 0 AS posted;
SELECT actornot_unregister('given');
SELECT actornot_unregister('given', NULL);
BEGIN;
SELECT actornot_unregister('given', force => true);
SELECT actornot_post('given', 'a');
ROLLBACK;
SELECT actornot_pending('given');
CALL actornot_drain('given');
SELECT actornot_unregister('given');
SELECT actornot_post('given', 'a');
SELECT actornot_unregister('given');
SELECT actornot_register('again', 'h', initial_state => '10');
SELECT actornot_post('again', 'a') > 0 AS posted;
SELECT actornot_run('again', 'a');
SELECT actornot_post('again', 'a') > 0 AS posted;
SELECT actornot_unregister('again', force => true);
-- A new runner of that name is another one: no state, no messages, no grants.
SELECT actornot_register('again', 'h');
SELECT actornot_state('again', 'a'), actornot_pending('again');
SELECT actornot_run('again', 'a');
SELECT actornot_post('again', 'a') > 0 AS posted;
SELECT actornot_run('again', 'a');
SELECT actornot_state('again', 'a');
SET ROLE regress_runner_other;
SELECT actornot_post('given', 'a');
RESET ROLE;
SELECT r.name, r.unregistered_at IS NULL AS live, count(b.entity) AS mailboxes
  FROM actornot.runner r LEFT JOIN actornot.mailbox b ON b.runner = r.id
 WHERE name IN ('again', 'given')
 GROUP BY r.id ORDER BY r.id;
SELECT count(*) FROM actornot.runner_grant g
 WHERE NOT EXISTS (SELECT FROM actornot.runner r WHERE r.id = g.runner AND r.unregistered_at IS NULL);

DROP OWNED BY regress_runner_owner, regress_runner_other;
DROP EXTENSION actornot;
DROP ROLE regress_runner_owner, regress_runner_other, regress_runner_member;
