--
-- Dead letters: which roles see them, and that other indexes are kept up to date.
--
-- The owners cannot log in, so that no worker runs anything here.
--
SET client_min_messages = warning;
CREATE EXTENSION actornot;
CREATE ROLE regress_dead_alice;
CREATE ROLE regress_dead_bob;
CREATE ROLE regress_dead_monitor;
GRANT pg_monitor TO regress_dead_monitor;
CREATE FUNCTION fails(text, jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'P0042', MESSAGE = 'no good',
		DETAIL = 'at all';
END
$$;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_dead_alice;
CREATE INDEX dead_letter_expression ON actornot.dead_letter (upper(entity))
	WHERE attempts = 1;

SET ROLE regress_dead_alice;
SELECT actornot_register('a', 'fails', max_attempts => 1);
SELECT actornot_post('a', 'first', '{"n": 1}', '{"h": 2}') > 0 AS posted;
SELECT actornot_post('a', 'second') > 0 AS posted;
SET client_min_messages = error;
SELECT actornot_run('a', 'first');
SELECT actornot_skip('a', 'second') > 0 AS skipped;
SET client_min_messages = warning;
SELECT runner, entity, payload, headers, posted_at < died_at AS in_order,
	attempts, sqlstate, message, detail, context IS NOT NULL AS has_context
	FROM actornot.dead_letters ORDER BY entity \gx
SELECT count(*) FROM actornot.dead_letter;

SET ROLE regress_dead_bob;
SELECT count(*) FROM actornot.dead_letters;
DELETE FROM actornot.dead_letters;
SET ROLE regress_dead_monitor;
SELECT count(*) FROM actornot.dead_letters;
RESET ROLE;
SELECT count(*) FROM actornot.dead_letters;

SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT entity FROM actornot.dead_letter
	WHERE attempts = 1 AND upper(entity) = 'FIRST';
SELECT entity FROM actornot.dead_letter
	WHERE attempts = 1 AND upper(entity) = 'FIRST';
RESET enable_seqscan;

-- They stay when their runner is unregistered, and its owner still sees them.
SET ROLE regress_dead_alice;
SELECT actornot_unregister('a', true);
SELECT entity FROM actornot.dead_letters ORDER BY entity;
-- If the owner registers the name again, they belong to it again.  If another
-- role does, it is another runner.
RESET ROLE;
SELECT actornot_register('a');
SELECT actornot_redrive_all('a');
SELECT actornot_unregister('a');
SET ROLE regress_dead_alice;
SELECT actornot_register('a');
SELECT id AS second FROM actornot.dead_letters WHERE entity = 'second' \gset
SELECT actornot_redrive('a', :second) > :second AS redriven;
SELECT actornot_redrive_all('a');
SELECT e, actornot_pending('a', e) FROM unnest('{first,second}'::text[]) e;
SELECT count(*) FROM actornot.dead_letters;

-- The texts of a failure are cut at a limit, between two characters.
RESET ROLE;
CREATE FUNCTION wails(text, jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql
AS $$
BEGIN
	RAISE EXCEPTION USING MESSAGE = repeat('e', 70000), DETAIL = 'x' || repeat('ä', 70000);
END
$$;
SET ROLE regress_dead_alice;
SELECT actornot_register('wails', 'wails', max_attempts => 1);
SELECT actornot_post('wails', 'e') > 0 AS posted;
SET client_min_messages = error;
SELECT actornot_run('wails', 'e');
SET client_min_messages = warning;
SELECT octet_length(message), right(message, 5), octet_length(detail), right(detail, 5)
  FROM actornot.dead_letters;
SELECT actornot_redrive_all('wails');
RESET ROLE;
DROP FUNCTION wails;

DROP EXTENSION actornot CASCADE;
DROP FUNCTION fails;
DROP ROLE regress_dead_alice, regress_dead_bob, regress_dead_monitor;
