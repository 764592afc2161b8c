--
-- The public API as a contract: names, arguments, defaults, results, rights.
-- Things may be added to it; what is in it does not change.
--
\set QUIET on
SET client_min_messages = warning;
DROP ROLE IF EXISTS pgtap_api_nobody;
CREATE ROLE pgtap_api_nobody NOLOGIN;
SELECT no_plan();

--
-- Functions and procedures
--
CREATE TEMP TABLE api (signature text, arguments text, result text, volatility "char", parallel "char", for_all boolean);
INSERT INTO api VALUES
('actornot_register(text,text,int,int,int,interval,interval,interval,interval,jsonb,text,int,real,int,interval,bigint,interval)',
 'runner text, handler text DEFAULT NULL::text, batch_size integer DEFAULT 100, batch_bytes integer DEFAULT 16777216, '
 'max_attempts integer DEFAULT 20, retry_delay interval DEFAULT ''00:00:01''::interval, retry_delay_max interval DEFAULT ''01:00:00''::interval, '
 'timeout interval DEFAULT ''00:01:00''::interval, lease interval DEFAULT ''00:00:30''::interval, initial_state jsonb DEFAULT NULL::jsonb, '
 'runnable text DEFAULT NULL::text, concurrency integer DEFAULT NULL::integer, rate real DEFAULT NULL::real, weight integer DEFAULT 1, '
 'message_ttl interval DEFAULT NULL::interval, max_backlog bigint DEFAULT NULL::bigint, dedup_window interval DEFAULT ''1 day''::interval',
 'void', 'v', 'u', false),
('actornot_unregister(text,boolean)', 'runner text, force boolean DEFAULT false', 'void', 'v', 'u', true),
('actornot_set_owner(text,text)', 'runner text, role text', 'void', 'v', 'u', true),
('actornot_pause(text)', 'runner text', 'void', 'v', 'u', true),
('actornot_pause(text,text,boolean)', 'runner text, entity text, force boolean DEFAULT false', 'void', 'v', 'u', true),
('actornot_resume(text)', 'runner text', 'void', 'v', 'u', true),
('actornot_resume(text,text)', 'runner text, entity text', 'void', 'v', 'u', true),
('actornot_grant(text,text)', 'runner text, role text', 'void', 'v', 'u', true),
('actornot_revoke(text,text)', 'runner text, role text', 'void', 'v', 'u', true),
('actornot_wake(text,text)', 'runner text, entity text', 'void', 'v', 'u', true),
('actornot_post(text,text,jsonb,jsonb,timestamptz,text)',
 'runner text, entity text, payload jsonb DEFAULT NULL::jsonb, headers jsonb DEFAULT NULL::jsonb, '
 'deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, dedup_key text DEFAULT NULL::text',
 'bigint', 'v', 'u', true),
('actornot_post_many(text,text[],jsonb[],jsonb[])',
 'runner text, entities text[], payloads jsonb[] DEFAULT NULL::jsonb[], headers jsonb[] DEFAULT NULL::jsonb[]',
 'bigint[]', 'v', 'u', true),
('actornot_run(text,text)', 'runner text, entity text', 'integer', 'v', 'u', true),
('actornot_drain(bigint)', 'INOUT processed bigint DEFAULT 0', NULL, 'v', 'u', true),
('actornot_drain(text,bigint)', 'IN runner text, INOUT processed bigint DEFAULT 0', NULL, 'v', 'u', true),
('actornot_state(text,text)', 'runner text, entity text', 'jsonb', 's', 's', true),
('actornot_pending(text)', 'runner text', 'bigint', 'v', 'u', true),
('actornot_pending(text,text)', 'runner text, entity text', 'bigint', 'v', 'u', true),
('actornot_set_state(text,text,jsonb,boolean)', 'runner text, entity text, state jsonb, force boolean DEFAULT false', 'void', 'v', 'u', true),
('actornot_skip(text,text)', 'runner text, entity text', 'bigint', 'v', 'u', true),
('actornot_purge(text,text,boolean)', 'runner text, entity text, force boolean DEFAULT false', 'bigint', 'v', 'u', true),
('actornot_start()', '', 'void', 'v', 'u', false),
('actornot_advance_clock()', '', 'void', 'v', 'u', false),
('actornot_redrive(text,bigint)', 'runner text, id bigint', 'bigint', 'v', 'u', true),
('actornot_redrive_all(text)', 'runner text', 'bigint', 'v', 'u', true),
('actornot_acquire(text,text,interval,int,int,interval,text)',
 'runner text, entity text DEFAULT NULL::text, lease interval DEFAULT NULL::interval, max_messages integer DEFAULT NULL::integer, '
 'max_entities integer DEFAULT 1, wait interval DEFAULT ''00:00:00''::interval, owner text DEFAULT NULL::text',
 'SETOF actornot_lease', 'v', 'u', true),
('actornot_update_locked(text,text,bigint,jsonb,interval,int)',
 'runner text, entity text, token bigint, state jsonb, lease interval DEFAULT NULL::interval, max_messages integer DEFAULT NULL::integer',
 'SETOF actornot_lease', 'v', 'u', true),
('actornot_renew(text,text,bigint,interval)', 'runner text, entity text, token bigint, lease interval DEFAULT NULL::interval',
 'timestamp with time zone', 'v', 'u', true),
('actornot_release(text,text,bigint,interval)',
 'runner text, entity text, token bigint, retry_in interval DEFAULT ''00:00:00''::interval', 'void', 'v', 'u', true),
('actornot_fail(text,text,bigint,text,interval)',
 'runner text, entity text, token bigint, error text, retry_in interval DEFAULT NULL::interval', 'void', 'v', 'u', true),
('actornot_hash(text,text)', 'runner text, entity text', 'bigint', 's', 's', true),
('actornot.cursor_text(bytea)', 'cursor bytea', 'text', 'i', 's', true),
('actornot.tell_of_change()', '', 'trigger', 'v', 'u', false);

SELECT isnt(to_regprocedure(signature), NULL, signature || ' exists') FROM api;
SELECT is(pg_get_function_arguments(to_regprocedure(signature)), arguments, 'arguments of ' || signature) FROM api;
SELECT is(pg_get_function_result(to_regprocedure(signature)), result, 'result of ' || signature) FROM api;
SELECT unnest(ARRAY[
	is(p.provolatile, volatility, 'volatility of ' || signature),
	is(p.proparallel, parallel, 'parallel safety of ' || signature),
	ok(NOT p.prosecdef, signature || ' runs as its caller'),
	is(p.proretset, coalesce(result LIKE 'SETOF %', false), signature || ' returns ' || CASE WHEN p.proretset THEN 'rows' ELSE 'one row' END),
	is(has_function_privilege('pgtap_api_nobody', p.oid, 'EXECUTE'), for_all, 'which roles may execute ' || signature),
	isnt(obj_description(p.oid, 'pg_proc'), NULL, signature || ' has a comment')])
  FROM api JOIN pg_proc p ON p.oid = to_regprocedure(signature);
-- The functions are called with NULL arguments and refuse them with an error.
SELECT ok(NOT p.proisstrict, signature || ' is called with NULL') FROM api JOIN pg_proc p ON p.oid = to_regprocedure(signature)
 WHERE signature LIKE 'actornot\_%(%_)';
SELECT set_eq(
	$$SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
		JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'actornot' AND d.deptype = 'e'
		AND p.oid::regprocedure::text NOT LIKE 'actornot.role\_%'	-- I/O of a type
		$$,
	$$SELECT to_regprocedure(signature)::text FROM api$$,
	'there are no other functions');
SELECT is(p.prokind, 'p', p.oid::regprocedure || ' is a procedure') FROM pg_proc p WHERE p.proname = 'actornot_drain';

--
-- Types
--
SELECT has_type('public', 'actornot_message', 'type actornot_message exists');
SELECT is(string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum),
	'id bigint, payload jsonb, headers jsonb, posted_at timestamp with time zone, attempt integer', 'its fields')
  FROM pg_attribute a WHERE a.attrelid = 'actornot_message'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
SELECT has_type('public', 'actornot_lease', 'type actornot_lease exists');
SELECT is(string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum),
	'runner text, entity text, token bigint, state jsonb, messages jsonb, expires_at timestamp with time zone', 'its fields')
  FROM pg_attribute a WHERE a.attrelid = 'actornot_lease'::regclass AND a.attnum > 0 AND NOT a.attisdropped;

--
-- The view of dead letters
--
SELECT has_view('actornot', 'dead_letters', 'view actornot.dead_letters exists');
SELECT is(string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum),
	'id bigint, runner text, entity text, payload jsonb, headers jsonb, posted_at timestamp with time zone, attempts integer, '
	'sqlstate text, message text, detail text, context text, died_at timestamp with time zone', 'its columns')
  FROM pg_attribute a WHERE a.attrelid = 'actornot.dead_letters'::regclass AND a.attnum > 0;
SELECT ok('security_barrier=true' = ANY (reloptions) OR 'security_barrier' = ANY (reloptions), 'it is a security barrier')
  FROM pg_class WHERE oid = 'actornot.dead_letters'::regclass;
SELECT ok(has_table_privilege('pgtap_api_nobody', 'actornot.dead_letters', 'SELECT'), 'each role may read it');
SELECT ok(NOT has_any_column_privilege('pgtap_api_nobody', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
	AND NOT has_table_privilege('pgtap_api_nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER'),
	'only the owner has rights on ' || c.relname)
  FROM pg_class c WHERE c.relnamespace = 'actornot'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname <> 'dead_letters' ORDER BY c.relname;
SELECT ok(NOT has_sequence_privilege('pgtap_api_nobody', c.oid, 'USAGE, SELECT, UPDATE'), 'only the owner has rights on ' || c.relname)
  FROM pg_class c WHERE c.relnamespace = 'actornot'::regnamespace AND c.relkind = 'S' ORDER BY c.relname;
SELECT ok(has_schema_privilege('pgtap_api_nobody', 'actornot', 'USAGE') AND NOT has_schema_privilege('pgtap_api_nobody', 'actornot', 'CREATE'),
	'each role may look into schema actornot, and none may create objects there');

--
-- Tables: properties that dump, upgrade and the size of the log depend on
--
SELECT has_table('actornot', t, 'table ' || t)
  FROM unnest('{runner, runner_grant, segment, mailbox, timer, dead_letter, dedup, clock}'::text[]) t;
SELECT unnest(ARRAY[
	has_table('actornot', 'message_' || n, 'segment ' || n),
	has_index('actornot', 'message_' || n, 'message_' || n || '_key', ARRAY['hash', 'tick', 'id'], 'its index')])
  FROM generate_series(0, 15) n;
SELECT col_is_pk('actornot', 'mailbox', ARRAY['hash', 'runner', 'entity'], 'key of mailbox');
SELECT is(seqcache, 1::bigint, 'ids follow real time') FROM pg_sequence WHERE seqrelid = 'actornot.id_seq'::regclass;
SELECT is((SELECT count(*)::int FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
			WHERE c.relnamespace = 'actornot'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
			  AND a.atttypid IN ('regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype,
				'regclass'::regtype, 'regtype'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype,
				'regnamespace'::regtype, 'regcollation'::regtype)), 0, 'no column would block pg_upgrade');
SELECT is((SELECT count(*)::int FROM actornot.clock), 0, 'the script writes no row of clock');

--
-- Settings
--
SELECT isnt(current_setting(s, true), NULL, 'setting ' || s)
  FROM unnest('{actornot.max_workers, actornot.ready_queue_size, actornot.synchronous_commit, actornot.group_time,
	actornot.sweep_interval, actornot.worker_idle_timeout}'::text[]) s;
SELECT is(context, 'postmaster', name || ' needs a restart') FROM pg_settings WHERE name IN ('actornot.max_workers', 'actornot.ready_queue_size');
SELECT is(boot_val, 'off', 'workers commit asynchronously by default') FROM pg_settings WHERE name = 'actornot.synchronous_commit';

SELECT * FROM finish();
DROP ROLE pgtap_api_nobody;
