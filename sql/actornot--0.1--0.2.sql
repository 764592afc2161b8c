/* actornot--0.1--0.2.sql: what makes version 0.2 of version 0.1 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION actornot UPDATE TO '0.2'" to load this file. \quit

-- Each object is made here as actornot--0.2.sql makes it, its comment and its
-- rights included.  So far the two versions have the same objects; these comments
-- are new.

COMMENT ON FUNCTION @extschema@.actornot_register(text, text, int, int, int, interval, interval, interval, interval, jsonb, text, int, real, int, interval, bigint, interval) IS
'Registers a runner, or replaces its handler and all of its settings; the current user becomes its owner, replacement does not change the owner. Only superusers may execute this until it is granted.
runner: 1 to 255 bytes. handler: name, qualified or found on the search_path, of f(entity text, state jsonb, messages actornot_message[]) or f(entity text, state jsonb, messages jsonb) that returns jsonb (the new state; NULL ends the entity) or void (no state is kept); or of f(batches actornot_batch[]) that returns SETOF actornot_state_of and takes many entities in one call (an entity without a row keeps its state; one that comes twice, or was not given, is an error, 21000; when a call fails, its entities are run one by one); NULL: only outside workers run it.
batch_size: messages in one call, of all of its entities, 1 to 10000. batch_bytes: their size, at least 1 (one message always fits); where a call takes several entities, their states count, too. max_attempts: before a message goes to the dead letters; NULL: for ever; serialization failures, deadlocks and errors of the SQLSTATE classes 53, 57 and 58 are none. retry_delay, retry_delay_max: first and longest back-off, at most 366 days. timeout: of one call, at most 24 days; NULL: none. lease: default length of an outside lease, at most 30 days. initial_state: state of an entity that has none. runnable: name of f(entity text, state jsonb) returning boolean; while it is false the entity''s messages wait.
concurrency, rate, message_ttl, max_backlog, weight other than 1 and dedup_window other than 1 day are not yet built.
Errors: 22004 NULL where it has no meaning, 22023 value out of range, 42883 no function with an accepted signature, 42501 no right to execute it or to replace the runner, 0A000 not yet built, 25006 read-only transaction.';

COMMENT ON FUNCTION @extschema@.actornot_start() IS
'After a restore, an upgrade of the cluster or a copy of the database: lets the engine go on here with what the tables hold. The first post, registration or run does the same; until then nothing happens, so that a restore is not disturbed. Waits for transactions that have posted. Only superusers may execute this until it is granted.
Does nothing where that has been done. Errors: 25006 in a read-only transaction or on a standby, if there is something to do.';

COMMENT ON FUNCTION @extschema@.actornot_post(runner text, entity text, payload jsonb, headers jsonb, deliver_at timestamptz, dedup_key text) IS
'Puts a message into the mailbox of an entity, in the caller''s own transaction: it exists if and only if that commits. Returns the message''s id. Waits for no other session. Changes the session''s lastval(). Needs the owner''s rights or a grant (actornot_grant). deliver_at and dedup_key are not yet built (0A000). Errors: 42704 unknown runner; 22004 runner or entity is null; 22023 entity is empty or longer than 1024 bytes; 54000 payload and headers have more than 240 MB; 42501 no right to post; 25006 read-only transaction.';

COMMENT ON FUNCTION @extschema@.actornot_run(runner text, entity text) IS
'Runs one batch of an entity in this session and transaction. Returns how many messages were consumed: 0 if there was nothing to do or the first one failed, NULL if another session runs the entity. A failing handler is recorded as a worker would and reported as a WARNING. Messages that this very transaction posted are not yet posted. current_user must be the runner''s owner (42501). Errors: 25001 in a REPEATABLE READ or SERIALIZABLE transaction; 55006 when called by a handler for its own entity; 55000 if the runner has no handler; 42704, 22004, 22023 as of actornot_post.';

COMMENT ON PROCEDURE @extschema@.actornot_drain(INOUT processed bigint) IS
'Runs all that is pending now of the current user''s own runners, committing as it goes; needs no background worker. processed: how many messages were consumed. Entities that another session runs, and those that are leased, paused or backing off, are skipped. Errors: 25001 inside a transaction block.';

COMMENT ON FUNCTION @extschema@.actornot_acquire(text, text, interval, int, int, interval, text) IS
'Lends entities with their next batch of messages to a program outside the database, until expires_at. A row for each; none if there is nothing to do within wait. The lease is valid from the commit on and survives the session.
entity: this one, also if nothing is pending (then messages is []); NULL: any that have work. lease: its length, up to 30 days; default as registered. max_messages: of a batch, 1 to 10000; default as registered. max_entities: 1 to 1000; fewer may come. wait: for work to come or the entity to be free, up to 60 seconds: a waiting statement holds back vacuum. owner: any word for the holder, kept in actornot.mailbox.lease_owner.
Paused runners and entities, entities in back-off and those whose runnable returns false are not lent. Needs the owner''s rights; for a runner with runnable, which runs in this session, the owner itself.
Errors: 42704 unknown runner, 22004 NULL, 22023 value out of range, 42501 no right, 55006 the entity is being run by this session, 25001 REPEATABLE READ or SERIALIZABLE, 25006 read-only transaction or standby.';

COMMENT ON FUNCTION @extschema@.actornot_update_locked(text, text, bigint, jsonb, interval, int) IS
'Saves the state of a leased entity (NULL ends it), marks its batch as done and, in the same step, returns the next batch under a new, larger token and a new lease; or, if nothing is pending or max_messages is 0, lets go and returns no row. What the caller wrote in the same transaction commits with it. A caller that does not get the answer finds the token stale: acquire again, nothing was consumed unseen.
lease: length of the next one; max_messages: of the next batch, 0 to 10000; both default as registered.
Errors: 55AN1 the lease is no longer held, nothing was changed; 42704, 22004, 22023, 42501, 55006, 25001, 25006 as actornot_acquire.';

COMMENT ON FUNCTION @extschema@.actornot_renew(text, text, bigint, interval) IS
'Lets a lease end that long from now, and returns when; the token stays. A lease whose time is over can be renewed until another caller has taken the entity.
Errors: 55AN1 the lease is no longer held; 42704, 22004, 22023, 42501, 55006, 25001, 25006 as actornot_acquire.';

COMMENT ON FUNCTION @extschema@.actornot_release(text, text, bigint, interval) IS
'Gives a leased entity back with its batch, which is the next one to be run or leased, after retry_in (up to 366 days; NULL: at once). No attempt is counted, the state stays.
Errors: 55AN1 the lease is no longer held; 42704, 22004, 22023, 42501, 55006, 25001, 25006 as actornot_acquire.';
