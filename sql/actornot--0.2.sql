/* actornot--0.2.sql: the tables and functions of actornot */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION actornot" to load this file. \quit

-- The tables have a schema of their own, which this script makes: in a schema that
-- existed before, another role could have put objects that our code would call.
DO $$
BEGIN
	IF '@extschema@' = 'actornot' THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_schema_name',
			MESSAGE = 'extension "actornot" cannot be installed in schema "actornot"',
			DETAIL = 'That schema holds the tables of the extension.',
			HINT = 'Choose another schema for its functions, for example: CREATE EXTENSION actornot SCHEMA public.';
	END IF;
END
$$;

CREATE SCHEMA actornot;
REVOKE ALL ON SCHEMA actornot FROM PUBLIC;
GRANT USAGE ON SCHEMA actornot TO PUBLIC;
COMMENT ON SCHEMA actornot IS 'tables and views of the extension actornot';

-- ---------------------------------------------------------------------------
-- Types
-- ---------------------------------------------------------------------------

CREATE TYPE @extschema@.actornot_message AS (
	id bigint,
	payload jsonb,
	headers jsonb,
	posted_at timestamptz,
	attempt int
);
COMMENT ON TYPE @extschema@.actornot_message IS
'A message as a handler sees it; attempt is 1 at the first try.';

CREATE TYPE @extschema@.actornot_batch AS (
	entity text,
	state jsonb,
	messages @extschema@.actornot_message[]
);
COMMENT ON TYPE @extschema@.actornot_batch IS
'An entity as a handler sees it that takes many in one call: its state (the runner''s initial_state, or NULL, if it has none) and its messages in their order, at least one.';

CREATE TYPE @extschema@.actornot_state_of AS (
	entity text,
	state jsonb
);
COMMENT ON TYPE @extschema@.actornot_state_of IS
'A row that a handler returns that takes many entities in one call: the new state of one of them; NULL ends the entity. Entities without a row keep their state.';

CREATE TYPE @extschema@.actornot_lease AS (
	runner text,
	entity text,
	token bigint,
	state jsonb,
	messages jsonb,
	expires_at timestamptz
);
COMMENT ON TYPE @extschema@.actornot_lease IS
'An entity that is lent to a program outside the database; messages is an array of objects with the fields of actornot_message.';

-- ---------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------

CREATE SEQUENCE actornot.id_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE actornot.id_seq IS
'Ids of messages and tokens of leases; CACHE 1, so that ids follow real time.';

CREATE SEQUENCE actornot.runner_seq AS integer CACHE 1;
COMMENT ON SEQUENCE actornot.runner_seq IS 'Numbers of runners; never given twice.';

-- A role, as regrole.  The difference is a role that does not exist any more:
-- regrole shows its number, which in another cluster would be another role.
CREATE TYPE actornot.role;
CREATE FUNCTION actornot.role_in(cstring) RETURNS actornot.role
AS 'regrolein'
LANGUAGE internal STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION actornot.role_out(actornot.role) RETURNS cstring
AS 'MODULE_PATHNAME', 'actornot_role_out'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION actornot.role_recv(internal) RETURNS actornot.role
AS 'oidrecv'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION actornot.role_send(actornot.role) RETURNS bytea
AS 'oidsend'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
CREATE TYPE actornot.role (
	INPUT = actornot.role_in,
	OUTPUT = actornot.role_out,
	RECEIVE = actornot.role_recv,
	SEND = actornot.role_send,
	LIKE = pg_catalog.oid
);
CREATE CAST (actornot.role AS pg_catalog.oid) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (actornot.role AS pg_catalog.regrole) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (pg_catalog.oid AS actornot.role) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (pg_catalog.regrole AS actornot.role) WITHOUT FUNCTION AS ASSIGNMENT;
COMMENT ON TYPE actornot.role IS
'A role, by its name, as regrole; one that does not exist any more is shown, and dumped, as "-" (none).';
COMMENT ON CAST (actornot.role AS pg_catalog.oid) IS 'The same number.';
COMMENT ON CAST (actornot.role AS pg_catalog.regrole) IS 'The same number.';
COMMENT ON CAST (pg_catalog.oid AS actornot.role) IS 'The same number.';
COMMENT ON CAST (pg_catalog.regrole AS actornot.role) IS 'The same number.';
COMMENT ON FUNCTION actornot.role_in(cstring) IS 'I/O of type role.';
COMMENT ON FUNCTION actornot.role_out(actornot.role) IS 'I/O of type role.';
COMMENT ON FUNCTION actornot.role_recv(internal) IS 'I/O of type role.';
COMMENT ON FUNCTION actornot.role_send(actornot.role) IS 'I/O of type role.';

CREATE TABLE actornot.runner (
	id int PRIMARY KEY,
	name text NOT NULL,
	owner actornot.role NOT NULL,
	handler text,
	handler_owner actornot.role,
	runnable text,
	runnable_owner actornot.role,
	batch_size int NOT NULL,
	batch_bytes int NOT NULL,
	max_attempts int,
	retry_delay interval NOT NULL,
	retry_delay_max interval NOT NULL,
	timeout interval,
	lease interval NOT NULL,
	initial_state jsonb,
	concurrency int,
	rate real,
	weight int NOT NULL,
	message_ttl interval,
	max_backlog bigint,
	dedup_window interval NOT NULL,
	paused boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	unregistered_at timestamptz
);
CREATE UNIQUE INDEX runner_name_key ON actornot.runner (name)
	WHERE unregistered_at IS NULL;
COMMENT ON TABLE actornot.runner IS
'A registered runner. Handlers are kept by name (reg* types but regrole would block pg_upgrade). A row with unregistered_at is a tombstone: it keeps the messages of its number from being taken for those of an unknown runner.';

CREATE TABLE actornot.runner_grant (
	runner int NOT NULL,
	grantee regrole NOT NULL,
	PRIMARY KEY (runner, grantee)
);
COMMENT ON TABLE actornot.runner_grant IS
'Roles that may post to a runner; 0 (-) stands for PUBLIC.';

-- The segments of the log, all alike (ACT_SEGMENTS of the library), and the
-- view of all of them.  Their rows are dumped; see below for the other tables.
DO $$
DECLARE
	branches text;
BEGIN
	FOR n IN 0 .. 15 LOOP
		EXECUTE pg_catalog.format($segment$
CREATE TABLE actornot.message_%1$s (
	hash bigint NOT NULL,
	tick xid8 NOT NULL,
	id bigint NOT NULL,
	posted_at timestamptz NOT NULL,
	runner int NOT NULL,
	entity text NOT NULL,
	payload jsonb,
	headers jsonb
) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off, vacuum_truncate = off);
CREATE INDEX message_%1$s_key ON actornot.message_%1$s (hash, tick, id);
COMMENT ON TABLE actornot.message_%1$s IS 'Segment %1$s of the log of messages; see view actornot.message.';
SELECT pg_catalog.pg_extension_config_dump('actornot.message_%1$s', '');
$segment$, n);
		branches := pg_catalog.concat_ws(' UNION ALL ', branches,
			pg_catalog.format('SELECT hash, tick, id, posted_at, runner, entity, payload, headers FROM actornot.message_%s', n));
	END LOOP;
	EXECUTE pg_catalog.concat('CREATE VIEW actornot.message AS ', branches);
END
$$;
COMMENT ON VIEW actornot.message IS
'All messages of the log, done and pending, of all segments.';

-- vacuum_truncate: to give back the end of a table, autovacuum would lock it
-- AccessExclusive, and pg_dump -j fails where one of its processes meets that.
CREATE TABLE actornot.segment (
	number int PRIMARY KEY,
	current boolean NOT NULL,
	sealed boolean NOT NULL,
	upper xid8,
	turn bigint NOT NULL DEFAULT 0,
	done xid8,
	mixed boolean NOT NULL DEFAULT false,
	copied boolean NOT NULL DEFAULT false
) WITH (vacuum_truncate = off);
COMMENT ON TABLE actornot.segment IS
'What is known of a segment of the log: whether posts go to it (current), whether it is sealed (no transaction will write to it any more), and then the tick below which all of its messages lie (upper; 1: it is empty). turn: the larger, the later it became current. done: the transaction that found that nothing in it is pending; when no older snapshot is left it is emptied. mixed: it may hold messages that were brought from elsewhere. copied: pending messages of it were copied to later segments.';
INSERT INTO actornot.segment (number, current, sealed, upper)
	SELECT n, n = 0, n > 0, CASE WHEN n > 0 THEN '1'::xid8 END
	  FROM generate_series(0, 15) n;

CREATE TABLE actornot.collision (
	hash bigint NOT NULL
);
COMMENT ON TABLE actornot.collision IS
'Hashes that two entities share, noted when the batch of one of them meets a message of the other. With 64 bits there should never be any.';

CREATE TABLE actornot.mailbox (
	hash bigint NOT NULL,
	last_id bigint NOT NULL DEFAULT 0,
	wake_at timestamptz,
	lease_token bigint,
	lease_until timestamptz,
	lease_last_id bigint,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	runner int NOT NULL,
	attempts int NOT NULL DEFAULT 0,
	crashes int NOT NULL DEFAULT 0,
	paused boolean NOT NULL DEFAULT false,
	entity text NOT NULL,
	done bytea NOT NULL,
	target bytea,
	plan bytea,
	state jsonb,
	last_error text,
	lease_owner text,
	lease_all boolean,
	CONSTRAINT mailbox_key PRIMARY KEY (hash, runner, entity)
) WITH (fillfactor = 50, toast_tuple_target = 4080, vacuum_truncate = off);
-- toast_tuple_target: two cursors with hundreds of open writers, and a plan, stay
-- in the row; the row and its next version still fit in a page.
-- EXTERNAL: these columns are packed already, so compressing them at each save
-- would be useless.
ALTER TABLE actornot.mailbox
	ALTER done SET STORAGE EXTERNAL,
	ALTER target SET STORAGE EXTERNAL,
	ALTER plan SET STORAGE EXTERNAL;
CREATE INDEX mailbox_wake ON actornot.mailbox (wake_at) WHERE wake_at IS NOT NULL;
COMMENT ON TABLE actornot.mailbox IS
'An entity that has been run: its state and the cursor of what it has consumed. done and target are packed snapshots of ticks (see src/README).';

CREATE TABLE actornot.dead_letter (
	id bigint PRIMARY KEY,
	runner int NOT NULL,
	runner_name text NOT NULL,
	entity text NOT NULL,
	payload jsonb,
	headers jsonb,
	posted_at timestamptz NOT NULL,
	attempts int NOT NULL,
	sqlstate text,
	message text,
	detail text,
	context text,
	died_at timestamptz NOT NULL
) WITH (vacuum_truncate = off);
CREATE INDEX dead_letter_runner ON actornot.dead_letter (runner, id);
COMMENT ON TABLE actornot.dead_letter IS 'Messages given up, with the error of the last attempt.';

CREATE TABLE actornot.timer (
	id bigint PRIMARY KEY,
	runner int NOT NULL,
	entity text NOT NULL,
	due_at timestamptz NOT NULL,
	payload jsonb,
	headers jsonb,
	name text,
	every interval
) WITH (vacuum_truncate = off);
COMMENT ON TABLE actornot.timer IS 'Messages that are not yet due.';

CREATE TABLE actornot.dedup (
	runner int NOT NULL,
	entity text NOT NULL,
	dedup_key text NOT NULL,
	id bigint NOT NULL,
	expires_at timestamptz NOT NULL,
	PRIMARY KEY (runner, entity, dedup_key)
) WITH (vacuum_truncate = off);
COMMENT ON TABLE actornot.dedup IS 'Keys of messages that are not to be posted twice.';

CREATE TABLE actornot.clock (
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	tick_offset xid8 NOT NULL,
	installation oid NOT NULL,
	timeline int NOT NULL DEFAULT 0
);
-- It has no key: a publication FOR ALL TABLES could not publish its changes.
ALTER TABLE actornot.clock REPLICA IDENTITY FULL;
COMMENT ON TABLE actornot.clock IS
'A cluster and database that this data has lived in, and what is added to transaction ids there to make ticks. Without a row of the present one the engine waits for the first writing call or actornot_start(). installation is the OID of the extension when the row was written: a row that was restored into the same database is another''s. timeline: the greatest one in a token of a row that was removed; no new token has a smaller one.';

-- Every session keeps rows of these tables in memory.  All sessions have to be told
-- of each change, also of those by pg_restore or an administrator.
CREATE FUNCTION actornot.tell_of_change()
RETURNS trigger
AS 'MODULE_PATHNAME', 'actornot_tell_of_change'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION actornot.tell_of_change() FROM PUBLIC;
COMMENT ON FUNCTION actornot.tell_of_change() IS
'Trigger of tables whose rows are kept in memory: makes all sessions read them again.';
CREATE TRIGGER tell_of_change AFTER INSERT OR UPDATE OR DELETE ON actornot.runner
	EXECUTE FUNCTION actornot.tell_of_change();
CREATE TRIGGER tell_of_change AFTER INSERT OR UPDATE OR DELETE ON actornot.runner_grant
	EXECUTE FUNCTION actornot.tell_of_change();
CREATE TRIGGER tell_of_change AFTER INSERT OR UPDATE OR DELETE ON actornot.segment
	EXECUTE FUNCTION actornot.tell_of_change();
CREATE TRIGGER tell_of_change AFTER INSERT OR UPDATE OR DELETE ON actornot.clock
	EXECUTE FUNCTION actornot.tell_of_change();
ALTER TABLE actornot.runner ENABLE ALWAYS TRIGGER tell_of_change;
ALTER TABLE actornot.runner_grant ENABLE ALWAYS TRIGGER tell_of_change;
ALTER TABLE actornot.segment ENABLE ALWAYS TRIGGER tell_of_change;
ALTER TABLE actornot.clock ENABLE ALWAYS TRIGGER tell_of_change;

-- Data of users is dumped with the database: the segments of the log (above) and
-- these tables.  If the owner of a runner was dropped, "-" is dumped instead of the
-- role, and a grant to a dropped role is left out: its number would be another role
-- there.  The table segment is not dumped: this script makes its rows, and
-- adopting the clock (which every restore needs) sets them from the contents of the
-- log.
SELECT pg_catalog.pg_extension_config_dump('actornot.id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('actornot.runner_seq', '');
SELECT pg_catalog.pg_extension_config_dump('actornot.runner', '');
SELECT pg_catalog.pg_extension_config_dump('actornot.runner_grant', 'WHERE grantee = 0 OR grantee IN (SELECT oid FROM pg_catalog.pg_roles)');
SELECT pg_catalog.pg_extension_config_dump('actornot.mailbox', '');
SELECT pg_catalog.pg_extension_config_dump('actornot.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('actornot.timer', '');
SELECT pg_catalog.pg_extension_config_dump('actornot.dedup', '');
SELECT pg_catalog.pg_extension_config_dump('actornot.clock', '');

-- ---------------------------------------------------------------------------
-- Runners
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.actornot_register(
	runner text,
	handler text DEFAULT NULL,
	batch_size int DEFAULT 100,
	batch_bytes int DEFAULT 16777216,
	max_attempts int DEFAULT 20,
	retry_delay interval DEFAULT '1 s',
	retry_delay_max interval DEFAULT '1 h',
	timeout interval DEFAULT '1 min',
	lease interval DEFAULT '30 s',
	initial_state jsonb DEFAULT NULL,
	runnable text DEFAULT NULL,
	concurrency int DEFAULT NULL,
	rate real DEFAULT NULL,
	weight int DEFAULT 1,
	message_ttl interval DEFAULT NULL,
	max_backlog bigint DEFAULT NULL,
	dedup_window interval DEFAULT '1 day')
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_register'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.actornot_register(text, text, int, int, int, interval, interval, interval, interval, jsonb, text, int, real, int, interval, bigint, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.actornot_register(text, text, int, int, int, interval, interval, interval, interval, jsonb, text, int, real, int, interval, bigint, interval) IS
'Registers a runner, or replaces its handler and all of its settings; the current user becomes its owner, replacement does not change the owner. Only superusers may execute this until it is granted.
runner: 1 to 255 bytes. handler: name, qualified or found on the search_path, of f(entity text, state jsonb, messages actornot_message[]) or f(entity text, state jsonb, messages jsonb) that returns jsonb (the new state; NULL ends the entity) or void (no state is kept); or of f(batches actornot_batch[]) that returns SETOF actornot_state_of and takes many entities in one call (an entity without a row keeps its state; one that comes twice, or was not given, is an error, 21000; when a call fails, its entities are run one by one); NULL: only outside workers run it.
batch_size: messages in one call, of all of its entities, 1 to 10000. batch_bytes: their size, at least 1 (one message always fits); where a call takes several entities, their states count, too. max_attempts: before a message goes to the dead letters; NULL: for ever; serialization failures, deadlocks and errors of the SQLSTATE classes 53, 57 and 58 are none. retry_delay, retry_delay_max: first and longest back-off, at most 366 days. timeout: of one call, at most 24 days; NULL: none. lease: default length of an outside lease, at most 30 days. initial_state: state of an entity that has none. runnable: name of f(entity text, state jsonb) returning boolean; while it is false the entity''s messages wait.
concurrency, rate, message_ttl, max_backlog, weight other than 1 and dedup_window other than 1 day are not yet built.
Errors: 22004 NULL where it has no meaning, 22023 value out of range, 42883 no function with an accepted signature, 42501 no right to execute it or to replace the runner, 0A000 not yet built, 25006 read-only transaction.';

CREATE FUNCTION @extschema@.actornot_unregister(runner text, force boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_unregister'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_unregister(text, boolean) IS
'Removes a runner with the states of its entities and its grants; its dead letters stay, and can be posted again to a runner of the same name and owner. With force its pending messages are given up. A batch that is under way elsewhere is finished; the state that it saves goes when the log is next emptied. Messages of transactions that are still open are not seen, and are given up when these commit: stop posting first. For those who have the rights of its owner.
Errors: 42704 unknown runner, 42501 not its owner, 55006 it has pending messages and force is false, 22004 NULL.';

CREATE FUNCTION @extschema@.actornot_set_owner(runner text, role text)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_set_owner'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_set_owner(text, text) IS
'Gives a runner to another role, with whose rights its handler runs from then on. For those who have the rights of its owner and are members of the new one; a superuser may always, also when the old owner no longer exists.
Errors: 42704 unknown runner or role, 42501 no right, 22004 NULL.';

CREATE FUNCTION @extschema@.actornot_pause(runner text)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_pause_runner'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_pause(text) IS
'Pauses a runner: its messages wait, batches that are running end as usual. For those who have the rights of its owner.
Errors: 42704 unknown runner, 42501 not its owner, 22004 NULL.';

CREATE FUNCTION @extschema@.actornot_resume(runner text)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_resume_runner'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_resume(text) IS
'Ends the pause of a runner; its messages are run from the commit on. For those who have the rights of its owner.
Errors: 42704 unknown runner, 42501 not its owner, 22004 NULL.';

CREATE FUNCTION @extschema@.actornot_grant(runner text, role text)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_grant'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_grant(text, text) IS
'Lets a role and its members post to a runner; "public" stands for everybody. Its owner may always post. For those who have the rights of its owner.
Errors: 42704 unknown runner or role, 42501 not its owner, 22004 NULL.';

CREATE FUNCTION @extschema@.actornot_revoke(runner text, role text)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_revoke'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_revoke(text, text) IS
'Takes back what actornot_grant gave; it is no error if nothing had been given. For those who have the rights of the runner''s owner.
Errors: 42704 unknown runner or role, 42501 not its owner, 22004 NULL.';

CREATE FUNCTION @extschema@.actornot_hash(runner text, entity text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_hash'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.actornot_hash(text, text) IS
'The number of an entity, by which it is stored, locked and can be routed: the same on every server and in every version. The runner need not exist.
Errors: 22004 NULL.';

-- ---------------------------------------------------------------------------
-- The clock
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.actornot_start()
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_start'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.actornot_start() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.actornot_start() IS
'After a restore, an upgrade of the cluster or a copy of the database: lets the engine go on here with what the tables hold. The first post, registration or run does the same; until then nothing happens, so that a restore is not disturbed. Waits for transactions that have posted. Only superusers may execute this until it is granted.
Does nothing where that has been done. Errors: 25006 in a read-only transaction or on a standby, if there is something to do.';

CREATE FUNCTION @extschema@.actornot_advance_clock()
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_advance_clock'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.actornot_advance_clock() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.actornot_advance_clock() IS
'After rows of messages and mailboxes were copied in from another cluster: sets the clock beyond them, so that what was done stays done and the rest is pending. Waits for transactions that have posted. For the owner of the extension.
Errors: 42501 not its owner, 25006 read-only transaction or standby.';

-- ---------------------------------------------------------------------------
-- Dead letters
-- ---------------------------------------------------------------------------

CREATE VIEW actornot.dead_letters WITH (security_barrier) AS
SELECT d.id, d.runner_name AS runner, d.entity, d.payload, d.headers,
	d.posted_at, d.attempts, d.sqlstate, d.message, d.detail, d.context,
	d.died_at
  FROM actornot.dead_letter d
	LEFT JOIN actornot.runner r ON r.id = d.runner
 WHERE pg_catalog.pg_has_role(r.owner::oid, 'USAGE')
	OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
	OR pg_catalog.pg_has_role('pg_read_all_data', 'USAGE');
REVOKE ALL ON actornot.dead_letters FROM PUBLIC;
GRANT SELECT ON actornot.dead_letters TO PUBLIC;
COMMENT ON VIEW actornot.dead_letters IS
'Messages given up, with the SQLSTATE, message, detail and context of the last error (of each at most 64 kB; of what actornot_skip took out the message of its last error only): those of runners, also of unregistered ones, whose owner''s rights the current user has; members of pg_monitor and pg_read_all_data see all. actornot_redrive posts one again.';

-- ---------------------------------------------------------------------------
-- Posting
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.actornot_post(runner text, entity text, payload jsonb DEFAULT NULL, headers jsonb DEFAULT NULL, deliver_at timestamptz DEFAULT NULL, dedup_key text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_post'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_post(runner text, entity text, payload jsonb, headers jsonb, deliver_at timestamptz, dedup_key text) IS
'Puts a message into the mailbox of an entity, in the caller''s own transaction: it exists if and only if that commits. Returns the message''s id. Waits for no other session. Changes the session''s lastval(). Needs the owner''s rights or a grant (actornot_grant). deliver_at and dedup_key are not yet built (0A000). Errors: 42704 unknown runner; 22004 runner or entity is null; 22023 entity is empty or longer than 1024 bytes; 54000 payload and headers have more than 240 MB; 42501 no right to post; 25006 read-only transaction.';

CREATE FUNCTION @extschema@.actornot_post_many(runner text, entities text[], payloads jsonb[] DEFAULT NULL, headers jsonb[] DEFAULT NULL)
RETURNS bigint[]
AS 'MODULE_PATHNAME', 'actornot_post_many'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_post_many(runner text, entities text[], payloads jsonb[], headers jsonb[]) IS
'Puts a message into the mailbox of each entity of an array, in that order; an entity may come several times. payloads and headers are null or as long as entities. Returns the ids, in the same order. Errors as of actornot_post; 22023 also for arrays of different length.';

-- ---------------------------------------------------------------------------
-- Running in one's own session
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.actornot_run(runner text, entity text)
RETURNS int
AS 'MODULE_PATHNAME', 'actornot_run'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_run(runner text, entity text) IS
'Runs one batch of an entity in this session and transaction. Returns how many messages were consumed: 0 if there was nothing to do or the first one failed, NULL if another session runs the entity. A failing handler is recorded as a worker would and reported as a WARNING. Messages that this very transaction posted are not yet posted. current_user must be the runner''s owner (42501). Errors: 25001 in a REPEATABLE READ or SERIALIZABLE transaction; 55006 when called by a handler for its own entity; 55000 if the runner has no handler; 42704, 22004, 22023 as of actornot_post.';

CREATE PROCEDURE @extschema@.actornot_drain(INOUT processed bigint DEFAULT 0)
AS 'MODULE_PATHNAME', 'actornot_drain'
LANGUAGE C;
COMMENT ON PROCEDURE @extschema@.actornot_drain(INOUT processed bigint) IS
'Runs all that is pending now of the current user''s own runners, committing as it goes; needs no background worker. processed: how many messages were consumed. Entities that another session runs, and those that are leased, paused or backing off, are skipped. Errors: 25001 inside a transaction block.';

CREATE PROCEDURE @extschema@.actornot_drain(runner text, INOUT processed bigint DEFAULT 0)
AS 'MODULE_PATHNAME', 'actornot_drain_runner'
LANGUAGE C;
COMMENT ON PROCEDURE @extschema@.actornot_drain(runner text, INOUT processed bigint) IS
'As actornot_drain(), for one runner, which current_user must own (42501).';

-- ---------------------------------------------------------------------------
-- Reading and repairing
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.actornot_state(runner text, entity text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'actornot_state'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.actornot_state(runner text, entity text) IS
'The state of an entity as the caller''s snapshot sees it; NULL if it has none. Needs the owner''s rights (42501). Errors: 42704 unknown runner; 22004; 22023.';

CREATE FUNCTION @extschema@.actornot_pending(runner text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_pending'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_pending(runner text) IS
'How many messages of a runner wait to be processed, the caller''s own uncommitted ones included. Reads the whole log: for operators, not for a loop. Needs the owner''s rights (42501).';

CREATE FUNCTION @extschema@.actornot_pending(runner text, entity text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_pending_entity'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_pending(runner text, entity text) IS
'How many messages of an entity wait to be processed, the caller''s own uncommitted ones included. Needs the owner''s rights (42501).';

CREATE FUNCTION @extschema@.actornot_set_state(runner text, entity text, state jsonb, force boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_set_state'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_set_state(runner text, entity text, state jsonb, force boolean) IS
'Sets the state of an entity, under its lock, for which it waits; NULL ends the entity. Needs the owner''s rights (42501). Errors: 55006 if the entity is leased (force => true ends the lease) or run by this very session; 25001 in a REPEATABLE READ or SERIALIZABLE transaction.';

CREATE FUNCTION @extschema@.actornot_pause(runner text, entity text, force boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_pause_entity'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_pause(runner text, entity text, force boolean) IS
'Stops the processing of an entity until actornot_resume(runner, entity); posts go on. Waits for a running batch. Needs the owner''s rights (42501). Errors: 55006 if the entity is leased (force => true ends the lease) or run by this very session; 25001 in a REPEATABLE READ or SERIALIZABLE transaction.';

CREATE FUNCTION @extschema@.actornot_resume(runner text, entity text)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_resume_entity'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_resume(runner text, entity text) IS
'Goes on with the processing of a paused entity. Needs the owner''s rights (42501). Errors: 55006 if it is run by this very session; 25001 in a REPEATABLE READ or SERIALIZABLE transaction.';

CREATE FUNCTION @extschema@.actornot_wake(runner text, entity text)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_wake'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_wake(runner text, entity text) IS
'Asks again whether an entity is runnable, and ends its back-off after a failure. Needs the owner''s rights (42501). Errors: 55006 if it is run by this very session; 25001 in a REPEATABLE READ or SERIALIZABLE transaction.';

CREATE FUNCTION @extschema@.actornot_skip(runner text, entity text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_skip'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_skip(runner text, entity text) IS
'Moves the first pending message of an entity to the dead letters and returns its id; NULL if nothing is pending. Needs the owner''s rights (42501). Errors: 55006 if the entity is leased or run by this very session; 25001 in a REPEATABLE READ or SERIALIZABLE transaction.';

CREATE FUNCTION @extschema@.actornot_purge(runner text, entity text, force boolean DEFAULT false)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_purge'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_purge(runner text, entity text, force boolean) IS
'Throws all pending messages and the state of an entity away; returns how many messages. Messages of transactions that are open now are not purged. Needs the owner''s rights (42501). Errors: 55006 if the entity is leased (force => true ends the lease) or run by this very session; 25001 in a REPEATABLE READ or SERIALIZABLE transaction.';

-- ---------------------------------------------------------------------------
-- Dead letters
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.actornot_redrive(runner text, id bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_redrive'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_redrive(runner text, id bigint) IS
'Posts a dead letter of a runner, or of an earlier one of the same name and owner, again, as a new message whose headers tell its origin (actornot_origin: id, posted_at, attempts, died_at, message), and returns the new id. Needs the owner''s rights (42501). Errors: 42704 no such dead letter.';

CREATE FUNCTION @extschema@.actornot_redrive_all(runner text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'actornot_redrive_all'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_redrive_all(runner text) IS
'Posts all dead letters of a runner, and of earlier ones of the same name and owner, again, in the order of their ids; returns how many. Needs the owner''s rights (42501).';

-- ---------------------------------------------------------------------------
-- Leases
-- ---------------------------------------------------------------------------

CREATE FUNCTION @extschema@.actornot_acquire(
	runner text,
	entity text DEFAULT NULL,
	lease interval DEFAULT NULL,
	max_messages int DEFAULT NULL,
	max_entities int DEFAULT 1,
	wait interval DEFAULT '0',
	owner text DEFAULT NULL)
RETURNS SETOF @extschema@.actornot_lease
AS 'MODULE_PATHNAME', 'actornot_acquire'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION @extschema@.actornot_acquire(text, text, interval, int, int, interval, text) IS
'Lends entities with their next batch of messages to a program outside the database, until expires_at. A row for each; none if there is nothing to do within wait. The lease is valid from the commit on and survives the session.
entity: this one, also if nothing is pending (then messages is []); NULL: any that have work. lease: its length, up to 30 days; default as registered. max_messages: of a batch, 1 to 10000; default as registered. max_entities: 1 to 1000; fewer may come. wait: for work to come or the entity to be free, up to 60 seconds: a waiting statement holds back vacuum. owner: any word for the holder, kept in actornot.mailbox.lease_owner.
Paused runners and entities, entities in back-off and those whose runnable returns false are not lent. Needs the owner''s rights; for a runner with runnable, which runs in this session, the owner itself.
Errors: 42704 unknown runner, 22004 NULL, 22023 value out of range, 42501 no right, 55006 the entity is being run by this session, 25001 REPEATABLE READ or SERIALIZABLE, 25006 read-only transaction or standby.';

CREATE FUNCTION @extschema@.actornot_update_locked(
	runner text,
	entity text,
	token bigint,
	state jsonb,
	lease interval DEFAULT NULL,
	max_messages int DEFAULT NULL)
RETURNS SETOF @extschema@.actornot_lease
AS 'MODULE_PATHNAME', 'actornot_update_locked'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION @extschema@.actornot_update_locked(text, text, bigint, jsonb, interval, int) IS
'Saves the state of a leased entity (NULL ends it), marks its batch as done and, in the same step, returns the next batch under a new, larger token and a new lease; or, if nothing is pending or max_messages is 0, lets go and returns no row. What the caller wrote in the same transaction commits with it. A caller that does not get the answer finds the token stale: acquire again, nothing was consumed unseen.
lease: length of the next one; max_messages: of the next batch, 0 to 10000; both default as registered.
Errors: 55AN1 the lease is no longer held, nothing was changed; 42704, 22004, 22023, 42501, 55006, 25001, 25006 as actornot_acquire.';

CREATE FUNCTION @extschema@.actornot_renew(runner text, entity text, token bigint, lease interval DEFAULT NULL)
RETURNS timestamptz
AS 'MODULE_PATHNAME', 'actornot_renew'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_renew(text, text, bigint, interval) IS
'Lets a lease end that long from now, and returns when; the token stays. A lease whose time is over can be renewed until another caller has taken the entity.
Errors: 55AN1 the lease is no longer held; 42704, 22004, 22023, 42501, 55006, 25001, 25006 as actornot_acquire.';

CREATE FUNCTION @extschema@.actornot_release(runner text, entity text, token bigint, retry_in interval DEFAULT '0')
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_release'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_release(text, text, bigint, interval) IS
'Gives a leased entity back with its batch, which is the next one to be run or leased, after retry_in (up to 366 days; NULL: at once). No attempt is counted, the state stays.
Errors: 55AN1 the lease is no longer held; 42704, 22004, 22023, 42501, 55006, 25001, 25006 as actornot_acquire.';

CREATE FUNCTION @extschema@.actornot_fail(runner text, entity text, token bigint, error text, retry_in interval DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'actornot_fail'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.actornot_fail(text, text, bigint, text, interval) IS
'Gives a leased entity back, as if a handler had raised the error: an attempt is counted for the first message of the batch, which comes alone from then on, after the runner''s back-off or retry_in (up to 366 days); after max_attempts it goes to the dead letters. Of error at most 64 kB are kept.
Errors: 55AN1 the lease is no longer held; 42704, 22004, 22023, 42501, 55006, 25001, 25006 as actornot_acquire.';

-- ---------------------------------------------------------------------------
-- For operators
-- ---------------------------------------------------------------------------

CREATE FUNCTION actornot.cursor_text(cursor bytea)
RETURNS text
AS 'MODULE_PATHNAME', 'actornot_cursor_text'
LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT;
COMMENT ON FUNCTION actornot.cursor_text(cursor bytea) IS
'A packed cursor of actornot.mailbox (done, target) as text, in the form of pg_snapshot: xmin:xmax:xip,...';
