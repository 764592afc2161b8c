--
-- user_indexes: indexes and triggers on the tables that a user added
--
CREATE EXTENSION actornot;
CREATE ROLE regress_indexes_owner NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_indexes_owner;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_indexes_owner;
SET ROLE regress_indexes_owner;
CREATE FUNCTION counter(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(coalesce($2::int, 0) + cardinality($3)) $$;
CREATE FUNCTION fails(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
SELECT actornot_register('counter', 'counter');
SELECT actornot_register('fails', 'fails', max_attempts => 1);
RESET ROLE;

-- Plain indexes, partial ones, one of an expression, and one that summarizes
-- blocks.
CREATE INDEX ON actornot.message_0 (entity);
CREATE INDEX ON actornot.message_0 ((payload ->> 'a')) WHERE payload IS NOT NULL;
CREATE INDEX ON actornot.mailbox (runner, updated_at);
CREATE INDEX ON actornot.mailbox ((state::text)) WHERE state IS NOT NULL;
CREATE INDEX ON actornot.mailbox USING brin (created_at, last_id);
CREATE UNIQUE INDEX ON actornot.mailbox (entity, runner);
CREATE INDEX ON actornot.dead_letter (entity);
SET ROLE regress_indexes_owner;
SELECT actornot_post('counter', 'one', '{"a": 1}') > 0 AS posted;
SELECT cardinality(actornot_post_many('counter', ARRAY['two', 'three', 'two'], ARRAY['{"a": 2}', NULL, '{"a": 3}']::jsonb[]));
SELECT actornot_post('fails', 'four') > 0 AS posted;
CALL actornot_drain('counter');
SELECT actornot_post('counter', 'one') > 0 AS posted;
SELECT actornot_run('counter', 'one');
SET client_min_messages = error;
SELECT actornot_run('fails', 'four');
RESET client_min_messages;
RESET ROLE;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
-- Reads by the new indexes.
SELECT count(*) FROM actornot.message_0 WHERE entity = 'two';
SELECT count(*) FROM actornot.message_0 WHERE payload IS NOT NULL AND payload ->> 'a' > '0';
SELECT count(*) FROM actornot.mailbox WHERE runner = 1 AND updated_at > 'epoch';
SELECT count(*) FROM actornot.mailbox WHERE state::text = '2' AND state IS NOT NULL;
SELECT state FROM actornot.mailbox WHERE entity = 'one' AND runner = 1;
SELECT count(*) FROM actornot.dead_letter WHERE entity = 'four';
SET enable_bitmapscan = on;
SET enable_indexscan = off;
SELECT count(*) FROM actornot.mailbox WHERE created_at > 'epoch' AND last_id >= 0;
RESET enable_seqscan;
RESET enable_bitmapscan;
RESET enable_indexscan;
-- A unique index is enforced.
CREATE UNIQUE INDEX only_once ON actornot.message_0 ((payload ->> 'once'));
SELECT actornot_post('counter', 'x', '{"once": 1}') > 0 AS posted;
SELECT actornot_post('counter', 'x', '{"once": 1}') > 0 AS posted;
DROP INDEX actornot.only_once;
-- An index that does not exist any more, in the same session.
DROP INDEX actornot.message_0_entity_idx;
SELECT actornot_post('counter', 'x') > 0 AS posted;
SELECT actornot_pending('counter', 'x');

--
-- Mailboxes are saved without firing triggers, so row triggers are refused.
--
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON actornot.mailbox
	FOR EACH ROW EXECUTE FUNCTION public.note();
SET ROLE regress_indexes_owner;
SET client_min_messages = error;
SELECT actornot_run('counter', 'x');
RESET client_min_messages;
SELECT actornot_set_state('counter', 'x', '7');
SELECT actornot_post('counter', 'x') > 0 AS posted;
RESET ROLE;
ALTER TABLE actornot.mailbox DISABLE TRIGGER note;
SET ROLE regress_indexes_owner;
SELECT actornot_run('counter', 'x');
RESET ROLE;
DROP TRIGGER note ON actornot.mailbox;
DROP FUNCTION public.note();

--
-- Constraints that are checked later would not be checked, so they are refused.
--
ALTER TABLE actornot.message_0 ADD CONSTRAINT later UNIQUE (id) DEFERRABLE;
SELECT actornot_post('counter', 'later') > 0 AS posted;
ALTER TABLE actornot.message_0 DROP CONSTRAINT later;
SELECT actornot_post('counter', 'later') > 0 AS posted;

--
-- Rows are written without columns that were added, so these are refused.  Other
-- tables may have such columns, and a dropped column does not matter.
--
ALTER TABLE actornot.segment ADD COLUMN note text, ADD COLUMN number2 int;
ALTER TABLE actornot.runner ADD COLUMN note text, ADD COLUMN number int;
ALTER TABLE actornot.mailbox ADD COLUMN note text, ADD COLUMN number int DEFAULT 7;
ALTER TABLE actornot.message_0 ADD COLUMN note text, ADD COLUMN number int DEFAULT 7;
ALTER TABLE actornot.dead_letter ADD COLUMN note text, ADD COLUMN number int DEFAULT 7;
SET ROLE regress_indexes_owner;
SELECT actornot_post('counter', 'x') > 0 AS posted;
SELECT actornot_set_state('counter', 'x', '3');
RESET ROLE;
ALTER TABLE actornot.message_0 DROP COLUMN note, DROP COLUMN number;
ALTER TABLE actornot.mailbox DROP COLUMN note;
SET ROLE regress_indexes_owner;
SELECT actornot_post('counter', 'x') > 0 AS posted;
SELECT cardinality(actornot_post_many('counter', '{x,new}'));
SELECT actornot_post('fails', 'five') > 0 AS posted;
SELECT actornot_set_state('counter', 'x', '3');
RESET ROLE;
ALTER TABLE actornot.mailbox DROP COLUMN number;
SET ROLE regress_indexes_owner;
CALL actornot_drain('counter');
SELECT actornot_skip('fails', 'five') > 0 AS skipped;
RESET ROLE;
ALTER TABLE actornot.dead_letter DROP COLUMN note, DROP COLUMN number;
SET ROLE regress_indexes_owner;
SELECT actornot_skip('fails', 'five') > 0 AS skipped;
RESET ROLE;
SELECT entity, state FROM actornot.mailbox WHERE entity IN ('x', 'new') ORDER BY 1;

--
-- A publication of all tables
--
SET client_min_messages = error;
CREATE PUBLICATION regress_indexes FOR ALL TABLES;
RESET client_min_messages;
SELECT actornot_advance_clock();
SET ROLE regress_indexes_owner;
SELECT actornot_unregister('fails', force => true);
SELECT actornot_post('counter', 'y') > 0 AS posted;
SELECT actornot_run('counter', 'y');
RESET ROLE;
DROP PUBLICATION regress_indexes;

DROP OWNED BY regress_indexes_owner;
SET client_min_messages = error;
DROP EXTENSION actornot CASCADE;
DROP ROLE regress_indexes_owner;
