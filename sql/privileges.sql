--
-- privileges: least privilege; in which sessions the code of a role runs, and what
-- it leaves behind
--
CREATE EXTENSION actornot;
CREATE ROLE regress_rights_alice NOLOGIN;
CREATE ROLE regress_rights_bob NOLOGIN;
CREATE ROLE regress_rights_group NOLOGIN;
CREATE ROLE regress_rights_member NOLOGIN IN ROLE regress_rights_group;
CREATE ROLE regress_rights_noinherit NOLOGIN NOINHERIT IN ROLE regress_rights_group;
CREATE ROLE regress_rights_monitor NOLOGIN IN ROLE pg_monitor;
CREATE ROLE regress_rights_reader NOLOGIN IN ROLE pg_read_all_data;
CREATE SCHEMA AUTHORIZATION regress_rights_alice;
CREATE SCHEMA AUTHORIZATION regress_rights_bob;
CREATE SCHEMA regress_rights_shared;
GRANT ALL ON SCHEMA regress_rights_shared TO regress_rights_alice, regress_rights_bob;

--
-- Only roles with a grant may register.
--
SET ROLE regress_rights_alice;
SELECT actornot_register('r');
RESET ROLE;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_rights_alice, regress_rights_bob;

SET ROLE regress_rights_alice;
CREATE FUNCTION whoami(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user::text) $$;
SELECT actornot_register('alice', 'whoami');
SET ROLE regress_rights_bob;
CREATE FUNCTION whoami(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user::text) $$;
SELECT actornot_register('bob', 'whoami');

--
-- A handler of another role never runs in a session.
--
RESET ROLE;
SELECT actornot_post(r, 'a') > 0 AS posted FROM unnest('{alice, bob}'::text[]) r;
-- Not in the session of a superuser,
SELECT actornot_run('bob', 'a');
CALL actornot_drain('bob');
CALL actornot_drain();
SELECT actornot_pending('bob'), actornot_pending('alice');
-- nor of a member of the owner's role,
GRANT regress_rights_bob TO regress_rights_alice;
SET ROLE regress_rights_alice;
SELECT actornot_run('bob', 'a');
CALL actornot_drain('bob');
CALL actornot_drain();
SELECT actornot_pending('bob');
-- which has the owner's other rights,
SELECT actornot_post('bob', 'a') > 0 AS posted;
SELECT actornot_set_state('bob', 'b', '1');
SELECT actornot_state('bob', 'b');
-- nor of any other role.
RESET ROLE;
REVOKE regress_rights_bob FROM regress_rights_alice;
SET ROLE regress_rights_alice;
SELECT actornot_run('bob', 'a');
SELECT actornot_state('bob', 'b');
SET ROLE regress_rights_bob;
CALL actornot_drain();
SELECT actornot_state('bob', 'a'), actornot_state('bob', 'b');
-- In a SECURITY DEFINER function of the owner it runs.
SET ROLE regress_rights_alice;
CREATE FUNCTION run_for_others(entity text) RETURNS int LANGUAGE sql SECURITY DEFINER
	SET search_path = public AS $$ SELECT actornot_run('alice', entity) $$;
GRANT USAGE ON SCHEMA regress_rights_alice TO regress_rights_bob;
SELECT actornot_post('alice', 'definer') > 0 AS posted;
SET ROLE regress_rights_bob;
SELECT regress_rights_alice.run_for_others('definer');
SET ROLE regress_rights_alice;
SELECT actornot_state('alice', 'definer');

--
-- A handler cannot become another role, though the session is a superuser's.
--
CREATE FUNCTION tries(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE messages[1].payload #>> '{}';
	RETURN to_jsonb(current_user::text);
END
$$;
SELECT actornot_register('tries', 'tries', max_attempts => 1);
SELECT actornot_post('tries', e, to_jsonb(e)) > 0 AS posted
  FROM unnest('{RESET ROLE, SET ROLE postgres, SET ROLE regress_rights_bob, SET SESSION AUTHORIZATION DEFAULT, RESET SESSION AUTHORIZATION, SET LOCAL ROLE none, DISCARD ALL, "SELECT set_config(''role'', ''postgres'', false)", "SELECT count(*) FROM pg_authid", COMMIT}'::text[]) e;
SELECT actornot_run('tries', e)
  FROM unnest('{RESET ROLE, SET ROLE postgres, SET ROLE regress_rights_bob, SET SESSION AUTHORIZATION DEFAULT, RESET SESSION AUTHORIZATION, SET LOCAL ROLE none, DISCARD ALL, "SELECT set_config(''role'', ''postgres'', false)", "SELECT count(*) FROM pg_authid", COMMIT}'::text[]) e;
SELECT entity, sqlstate, message FROM actornot.dead_letters WHERE runner = 'tries' ORDER BY id;
SELECT current_user;

--
-- Settings that a handler leaves behind are undone after each call, also after an
-- error.
--
CREATE FUNCTION sets(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	before text := current_setting('search_path') || '/' || current_setting('work_mem') || '/'
		|| current_setting('app.secret', true) || '/' || current_setting('statement_timeout');
BEGIN
	SET search_path = pg_temp, public;
	SET LOCAL work_mem = '1MB';
	PERFORM set_config('app.secret', 'leaked', false);
	SET statement_timeout = '1h';
	IF entity = 'fails' THEN
		RAISE EXCEPTION 'with settings changed';
	END IF;
	RETURN coalesce(state, '[]') || to_jsonb(before);
END
$$;
SET app.secret = 'mine';
SET work_mem = '8MB';
SELECT actornot_register('sets', 'sets', batch_size => 1, max_attempts => 1);
SELECT array_length(actornot_post_many('sets', '{a, a, a}'), 1);
SELECT actornot_post('sets', 'fails') > 0 AS posted;
BEGIN;
SELECT actornot_run('sets', 'a');
SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('app.secret'), current_setting('statement_timeout');
COMMIT;
SELECT actornot_run('sets', 'a');
SELECT actornot_run('sets', 'fails');
SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('app.secret'), current_setting('statement_timeout');
CALL actornot_drain('sets');
SELECT actornot_state('sets', 'a');
SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('app.secret'), current_setting('statement_timeout');
RESET work_mem;
RESET app.secret;

--
-- Names: the caller's search_path and temporary objects do not change which
-- functions are called and which tables are written.
--
CREATE FUNCTION regress_rights_shared.plain(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"the real one"'::jsonb $$;
SELECT actornot_register('plain', 'regress_rights_shared.plain');
CREATE FUNCTION pg_temp.plain(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '"a temporary one"'::jsonb $$;
CREATE TEMP TABLE mailbox (n int);
CREATE TEMP TABLE runner (n int);
CREATE TEMP TABLE dead_letter (n int);
CREATE TEMP TABLE runner_grant (n int);
SET search_path = pg_temp, regress_rights_alice, public;
SELECT actornot_post('plain', 'a') > 0 AS posted;
SELECT actornot_run('plain', 'a');
SELECT actornot_state('plain', 'a');
SELECT actornot_register('plain', 'regress_rights_shared.plain', max_attempts => 1);
SELECT actornot_grant('plain', 'public');
SELECT actornot_revoke('plain', 'public');
SELECT actornot_post('plain', 'b') > 0 AS posted;
SELECT actornot_skip('plain', 'b') > 0 AS skipped;
SELECT actornot_redrive_all('plain');
SELECT actornot_purge('plain', 'b');
SELECT (SELECT count(*) FROM mailbox) + (SELECT count(*) FROM runner) + (SELECT count(*) FROM dead_letter)
	+ (SELECT count(*) FROM runner_grant) AS rows;
RESET search_path;
DROP TABLE pg_temp.mailbox, pg_temp.runner, pg_temp.dead_letter, pg_temp.runner_grant;
-- Operators, functions and casts of other roles, found before the system's
SET ROLE regress_rights_bob;
CREATE FUNCTION regress_rights_shared.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'trapped as %', current_user;
	RETURN true;
END
$$;
CREATE OPERATOR regress_rights_shared.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_rights_shared.trap);
CREATE FUNCTION regress_rights_shared.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'trapped as %', current_user;
	RETURN now();
END
$$;
SET ROLE regress_rights_alice;
SET search_path = regress_rights_shared, pg_catalog, public;
SELECT actornot_register('plain', 'regress_rights_shared.plain');
SELECT actornot_pause('plain');
SELECT actornot_resume('plain');
SELECT actornot_post('plain', 'a') OPERATOR(pg_catalog.>) 0 AS posted;
CALL actornot_drain();
RESET search_path;

--
-- A function that another role made under the handler's name is not called.
--
GRANT EXECUTE ON FUNCTION regress_rights_shared.plain TO PUBLIC;
SELECT actornot_post('plain', 's') > 0 AS posted;
DROP FUNCTION regress_rights_shared.plain;
SET ROLE regress_rights_bob;
CREATE FUNCTION regress_rights_shared.plain(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'squatted as %', current_user;
	RETURN '"squatted"';
END
$$;
SET ROLE regress_rights_alice;
\set VERBOSITY terse
SELECT actornot_run('plain', 's');
\set VERBOSITY default
SELECT actornot_state('plain', 's'), actornot_pending('plain', 's');
-- The same for runnable.
CREATE FUNCTION regress_rights_shared.may_run(entity text, state jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
SELECT actornot_register('runnable', 'whoami', runnable => 'regress_rights_shared.may_run');
DROP FUNCTION regress_rights_shared.may_run;
SET ROLE regress_rights_bob;
CREATE FUNCTION regress_rights_shared.may_run(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'squatted as %', current_user;
	RETURN true;
END
$$;
SET ROLE regress_rights_alice;
SELECT actornot_post('runnable', 's') > 0 AS posted;
\set VERBOSITY terse
SELECT actornot_run('runnable', 's');
\set VERBOSITY default
SELECT actornot_state('runnable', 's'), actornot_pending('runnable', 's');
-- A function whose owner has changed is another function.
CREATE FUNCTION regress_rights_shared.given(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
SELECT actornot_register('given', 'regress_rights_shared.given');
SELECT actornot_post('given', 'a') > 0 AS posted;
RESET ROLE;
ALTER FUNCTION regress_rights_shared.given OWNER TO regress_rights_bob;
SET ROLE regress_rights_alice;
\set VERBOSITY terse
SELECT actornot_run('given', 'a');
-- So is one that the runner's owner may no longer execute,
RESET ROLE;
ALTER FUNCTION regress_rights_shared.given OWNER TO regress_rights_alice;
REVOKE EXECUTE ON FUNCTION regress_rights_shared.given FROM PUBLIC, regress_rights_alice;
SET ROLE regress_rights_alice;
SELECT actornot_wake('given', 'a');
SELECT actornot_run('given', 'a');
\set VERBOSITY default
GRANT EXECUTE ON FUNCTION regress_rights_shared.given TO regress_rights_alice;
SELECT actornot_wake('given', 'a');
SELECT actornot_run('given', 'a');
-- also in the middle of a transaction.
SELECT array_length(actornot_post_many('given', '{a, b}'), 1);
BEGIN;
SELECT actornot_run('given', 'a');
REVOKE EXECUTE ON FUNCTION regress_rights_shared.given FROM regress_rights_alice;
\set VERBOSITY terse
SELECT actornot_run('given', 'b');
\set VERBOSITY default
ROLLBACK;
SELECT actornot_purge('given', 'a'), actornot_purge('given', 'b');
SELECT count(*) FROM actornot.dead_letters WHERE runner IN ('plain', 'runnable', 'given');

--
-- A SECURITY DEFINER handler is its owner's code.
--
SET ROLE regress_rights_bob;
CREATE FUNCTION regress_rights_shared.definer(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql SECURITY DEFINER AS $$ SELECT to_jsonb(current_user::text) $$;
SET ROLE regress_rights_alice;
SELECT actornot_register('definer', 'regress_rights_shared.definer');
SELECT actornot_post('definer', 'a') > 0 AS posted;
SELECT actornot_run('definer', 'a');
SELECT actornot_state('definer', 'a'), current_user;

--
-- Posting is granted for a runner: to a role and its members, or to PUBLIC.
--
SELECT actornot_grant('alice', 'regress_rights_group');
SET ROLE regress_rights_group;
SELECT actornot_post('alice', 'g') > 0 AS posted;
SELECT actornot_post('plain', 'g');
RESET ROLE;
SET ROLE regress_rights_member;
SELECT actornot_post('alice', 'g') > 0 AS posted;
SELECT array_length(actornot_post_many('alice', '{g, g}'), 1);
-- Members that do not inherit have to SET ROLE, as everywhere.
SET ROLE regress_rights_noinherit;
SELECT actornot_post('alice', 'g');
SET ROLE regress_rights_bob;
SELECT actornot_post('alice', 'g');
SELECT actornot_post_many('alice', '{g}');
-- A new member may post at once, a former member no longer.
RESET ROLE;
GRANT regress_rights_group TO regress_rights_bob;
SET ROLE regress_rights_bob;
SELECT actornot_post('alice', 'g') > 0 AS posted;
RESET ROLE;
REVOKE regress_rights_group FROM regress_rights_bob;
SET ROLE regress_rights_bob;
SELECT actornot_post('alice', 'g');
SET ROLE regress_rights_alice;
SELECT actornot_revoke('alice', 'regress_rights_group');
SET ROLE regress_rights_member;
SELECT actornot_post('alice', 'g');
SET ROLE regress_rights_alice;
SELECT actornot_grant('alice', 'public');
SET ROLE regress_rights_noinherit;
SELECT actornot_post('alice', 'g') > 0 AS posted;
SET ROLE regress_rights_alice;
SELECT actornot_revoke('alice', 'public');
-- A member of the owner's role may always post.
RESET ROLE;
GRANT regress_rights_alice TO regress_rights_member;
SET ROLE regress_rights_member;
SELECT actornot_post('alice', 'g') > 0 AS posted;
RESET ROLE;
REVOKE regress_rights_alice FROM regress_rights_member;
SET ROLE regress_rights_alice;
SELECT actornot_pending('alice', 'g');
SELECT actornot_purge('alice', 'g');

--
-- Only the owner of the extension has rights on the tables.
--
RESET ROLE;
-- (17 has another right, m, for its owner)
SELECT relname, relkind, replace(relacl::text, 'm/', '/') AS relacl FROM pg_class
 WHERE relnamespace = 'actornot'::regnamespace AND relkind IN ('r', 'v', 'S', 'm', 'p', 'f')
   AND (has_table_privilege('regress_rights_alice', oid, 'SELECT')
		OR has_table_privilege('regress_rights_alice', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
		OR relkind = 'S' AND has_sequence_privilege('regress_rights_alice', oid, 'USAGE, SELECT, UPDATE'))
 ORDER BY relname;
SELECT has_schema_privilege('regress_rights_alice', 'actornot', 'CREATE') AS may_create,
	has_schema_privilege('regress_rights_alice', 'actornot', 'USAGE') AS may_use;
SET ROLE regress_rights_alice;
SELECT * FROM actornot.runner;
SELECT * FROM actornot.message_0;
SELECT * FROM actornot.message;
SELECT * FROM actornot.mailbox;
SELECT * FROM actornot.dead_letter;
DELETE FROM actornot.mailbox;
INSERT INTO actornot.runner_grant VALUES (1, 'regress_rights_alice'::regrole);
SELECT nextval('actornot.id_seq');
DELETE FROM actornot.dead_letters;
SELECT actornot_start();
SELECT actornot_advance_clock();
SET actornot.debug_hash_bits = 0;

--
-- Dead letters: a role sees its own, and those of roles whose rights it has;
-- monitors see all
--
SELECT actornot_post('alice', 'd', '"alice"') > 0 AS posted;
SELECT actornot_skip('alice', 'd') > 0 AS skipped;
SELECT runner, payload FROM actornot.dead_letters WHERE runner IN ('alice', 'bob') ORDER BY id;
SET ROLE regress_rights_bob;
SELECT actornot_post('bob', 'd', '"bob"') > 0 AS posted;
SELECT actornot_skip('bob', 'd') > 0 AS skipped;
SELECT runner, payload FROM actornot.dead_letters ORDER BY id;
-- A function in WHERE sees no row that the view leaves out.
CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	RAISE NOTICE 'leaked %', $1;
	RETURN true;
END
$$;
SELECT runner FROM actornot.dead_letters WHERE leak(runner);
SET ROLE regress_rights_group;
SELECT runner, payload FROM actornot.dead_letters ORDER BY id;
SET ROLE regress_rights_monitor;
SELECT runner, payload FROM actornot.dead_letters WHERE runner IN ('alice', 'bob') ORDER BY id;
SET ROLE regress_rights_reader;
SELECT runner, payload FROM actornot.dead_letters WHERE runner IN ('alice', 'bob') ORDER BY id;
-- The right to see them is no right to post them again.
SELECT actornot_redrive_all('bob');
SELECT actornot_redrive('alice', id) FROM actornot.dead_letters WHERE runner = 'alice';
RESET ROLE;
GRANT regress_rights_bob TO regress_rights_alice;
SET ROLE regress_rights_alice;
SELECT runner, payload FROM actornot.dead_letters WHERE runner IN ('alice', 'bob') ORDER BY id;
SELECT actornot_redrive_all('bob');
SELECT actornot_pending('bob', 'd');
RESET ROLE;
REVOKE regress_rights_bob FROM regress_rights_alice;
-- Dead letters of an unregistered runner stay its owner's.  They are not for the
-- owner of a later runner of that name.
SET ROLE regress_rights_alice;
SELECT actornot_unregister('alice', force => true);
SET ROLE regress_rights_bob;
SELECT actornot_register('alice', 'whoami');
SELECT runner, payload FROM actornot.dead_letters ORDER BY id;
SELECT actornot_redrive_all('alice');
SET ROLE regress_rights_alice;
SELECT runner, payload FROM actornot.dead_letters WHERE runner = 'alice' ORDER BY id;

--
-- A runner whose owner was dropped does nothing until it has a new owner.
--
RESET ROLE;
CREATE ROLE regress_rights_gone NOLOGIN;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_rights_gone;
CREATE FUNCTION regress_rights_shared.stays(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user::text) $$;
GRANT USAGE ON SCHEMA regress_rights_shared TO regress_rights_gone;
SET ROLE regress_rights_gone;
SELECT actornot_register('orphan', 'regress_rights_shared.stays');
SELECT actornot_grant('orphan', 'regress_rights_bob');
SELECT actornot_post('orphan', 'a') > 0 AS posted;
RESET ROLE;
DROP OWNED BY regress_rights_gone;
DROP ROLE regress_rights_gone;
SET ROLE regress_rights_alice;
SELECT actornot_run('orphan', 'a');
SELECT actornot_post('orphan', 'a');
SELECT actornot_set_owner('orphan', 'regress_rights_alice');
SELECT actornot_register('orphan', 'whoami');
SET ROLE regress_rights_bob;
SELECT actornot_post('orphan', 'a') > 0 AS posted;
RESET ROLE;
SELECT actornot_run('orphan', 'a');
CALL actornot_drain();
SELECT actornot_pending('orphan');
-- A new role of that name is another one.
CREATE ROLE regress_rights_gone NOLOGIN;
SET ROLE regress_rights_gone;
SELECT actornot_run('orphan', 'a');
SELECT actornot_pending('orphan');
RESET ROLE;
DROP ROLE regress_rights_gone;
SELECT actornot_set_owner('orphan', 'regress_rights_bob');
SET ROLE regress_rights_bob;
SELECT actornot_run('orphan', 'a');
SELECT actornot_state('orphan', 'a');

RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA regress_rights_shared CASCADE;
RESET client_min_messages;
DROP OWNED BY regress_rights_alice, regress_rights_bob;
DROP EXTENSION actornot;
DROP ROLE regress_rights_alice, regress_rights_bob, regress_rights_group, regress_rights_member,
	regress_rights_noinherit, regress_rights_monitor, regress_rights_reader;
