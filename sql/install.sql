--
-- install: CREATE and DROP EXTENSION, and what they make
--
CREATE ROLE regress_install_user NOLOGIN;

--
-- It cannot be installed in the schema of its tables, nor where a schema of that
-- name exists.
--
-- (the context of the error is longer in PostgreSQL 18)
\set SHOW_CONTEXT never
CREATE EXTENSION actornot SCHEMA actornot;
CREATE SCHEMA actornot;
CREATE EXTENSION actornot SCHEMA actornot;
CREATE EXTENSION actornot;
\set SHOW_CONTEXT errors
DROP SCHEMA actornot;
SELECT count(*) FROM pg_proc WHERE proname LIKE 'actornot%';
GRANT CREATE ON DATABASE :DBNAME TO regress_install_user;
GRANT CREATE ON SCHEMA public TO regress_install_user;
SET ROLE regress_install_user;
CREATE EXTENSION actornot;
RESET ROLE;
SELECT count(*) FROM pg_extension WHERE extname = 'actornot';

--
-- In a schema that the user chooses
--
CREATE SCHEMA "Odd schema";
CREATE EXTENSION actornot SCHEMA "Odd schema";
SELECT DISTINCT n.nspname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.proname LIKE 'actornot%' ORDER BY 1;
GRANT USAGE ON SCHEMA "Odd schema" TO regress_install_user;
GRANT EXECUTE ON FUNCTION "Odd schema".actornot_register TO regress_install_user;
SET ROLE regress_install_user;
CREATE FUNCTION h(entity text, state jsonb, messages "Odd schema".actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
SELECT "Odd schema".actornot_register('r', 'h', max_attempts => 1, retry_delay => '0');
SELECT "Odd schema".actornot_post('r', 'a') > 0 AS posted;
SELECT "Odd schema".actornot_run('r', 'a');
SELECT "Odd schema".actornot_state('r', 'a');
SELECT "Odd schema".actornot_post('r', 'a') > 0 AS posted;
SELECT "Odd schema".actornot_skip('r', 'a') > 0 AS skipped;
SELECT "Odd schema".actornot_redrive_all('r');
CALL "Odd schema".actornot_drain();
RESET ROLE;
-- It cannot be moved: the functions know where their types are.
ALTER EXTENSION actornot SET SCHEMA public;
CREATE EXTENSION actornot;

--
-- DROP, and CREATE again in the same session: nothing is left of the old one.
--
DROP EXTENSION actornot;
\set VERBOSITY terse
DROP EXTENSION actornot CASCADE;
\set VERBOSITY default
DROP SCHEMA "Odd schema";
SELECT count(*) FROM pg_namespace WHERE nspname = 'actornot';
SELECT count(*) FROM pg_proc WHERE proname LIKE 'actornot%';
CREATE EXTENSION actornot;
SELECT actornot_post('r', 'a');
SELECT count(*) FROM actornot.mailbox;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_install_user;
SET ROLE regress_install_user;
CREATE FUNCTION h(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
SELECT actornot_register('r', 'h');
SELECT actornot_post('r', 'a') > 0 AS posted;
SELECT actornot_run('r', 'a');
SELECT actornot_state('r', 'a');
RESET ROLE;
-- CREATE and DROP that are rolled back leave no trace.
BEGIN;
DROP EXTENSION actornot CASCADE;
-- Details and hints differ by version.
\set VERBOSITY terse
SELECT actornot_post('r', 'a');
\set VERBOSITY default
ROLLBACK;
SELECT actornot_post('r', 'a') > 0 AS posted;
SELECT actornot_pending('r', 'a'), actornot_state('r', 'a');
BEGIN;
SET LOCAL client_min_messages = warning;
DROP EXTENSION actornot CASCADE;
CREATE EXTENSION actornot;
SELECT actornot_register('other');
SELECT actornot_post('other', 'a') > 0 AS posted;
SELECT actornot_post('r', 'a');
ROLLBACK;
SELECT actornot_post('other', 'a');
SELECT actornot_pending('r', 'a'), actornot_state('r', 'a');

--
-- Each object has a comment.
--
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS without_comment
  FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'actornot')
   AND CASE d.classid
		WHEN 'pg_class'::regclass THEN (SELECT relkind IN ('r', 'v', 'S') FROM pg_class WHERE oid = d.objid)
		WHEN 'pg_type'::regclass THEN (SELECT typtype <> 'b' AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND c.relkind <> 'c')
			FROM pg_type WHERE oid = d.objid)
		ELSE true END
   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
 ORDER BY 1;

--
-- No function runs with other rights than its caller's; roles have only the rights
-- that they need.
--
SELECT p.oid::regprocedure AS definer FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
 WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'actornot') AND p.prosecdef;
SELECT p.oid::regprocedure AS not_for_everybody FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
 WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'actornot')
   AND NOT has_function_privilege('regress_install_user', p.oid, 'EXECUTE')
 ORDER BY p.proname;
SELECT c.relname AS readable FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'actornot' AND c.relkind IN ('r', 'v')
   AND has_table_privilege('regress_install_user', c.oid, 'SELECT') ORDER BY 1;
-- SQL-language functions have a search_path of their own, C functions none.
SELECT p.oid::regprocedure AS unexpected FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
 WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'actornot')
   AND CASE WHEN l.lanname IN ('c', 'internal') THEN p.proconfig IS NOT NULL
		ELSE coalesce(array_to_string(p.proconfig, ','), '') !~ 'search_path' AND p.prosqlbody IS NULL END;

--
-- A dump holds all tables and sequences with data of users.
--
SELECT c.relname, c.relkind
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'actornot' AND c.relkind IN ('r', 'S')
   AND c.oid <> ALL ((SELECT extconfig FROM pg_extension WHERE extname = 'actornot')::oid[])
 ORDER BY 1;

--
-- Settings
--
SELECT name, context FROM pg_settings WHERE name LIKE 'actornot.%' ORDER BY name;

SET client_min_messages = warning;
DROP EXTENSION actornot CASCADE;
RESET client_min_messages;
DROP OWNED BY regress_install_user;
DROP ROLE regress_install_user;
