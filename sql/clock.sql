--
-- The clock: when data is adopted, and what that does.
--
SET client_min_messages = warning;
CREATE EXTENSION actornot;
CREATE ROLE regress_clock_alice;

-- Only the owner of the extension may call it.
SET ROLE regress_clock_alice;
SELECT actornot_start();
SELECT actornot_advance_clock();
RESET ROLE;
GRANT EXECUTE ON FUNCTION actornot_advance_clock TO regress_clock_alice;
SET ROLE regress_clock_alice;
SELECT actornot_advance_clock();
RESET ROLE;

-- A fresh installation has no row; the first call that writes makes it.
SELECT count(*) FROM actornot.clock;
BEGIN READ ONLY;
SELECT actornot_start();
ROLLBACK;
BEGIN;
SELECT actornot_start();
ROLLBACK;
SELECT count(*) FROM actornot.clock;
SELECT actornot_register('r');
-- (its owner cannot log in: no worker may write in place of the calls below)
SELECT actornot_set_owner('r', 'regress_clock_alice');
SELECT tick_offset, database = (SELECT oid FROM pg_database
	WHERE datname = current_database()) AS here
	FROM actornot.clock;
BEGIN READ ONLY;
SELECT actornot_start();
ROLLBACK;
SELECT actornot_post('r', 'e') > 0 AS posted;
SELECT tick::xid = xmin AS on_the_clock_of_xids FROM actornot.message_0;

-- What a restore leaves: rows of another cluster, and table segment as the script
-- made it.  Nothing is adopted before the first call that writes.
UPDATE actornot.clock SET system_identifier = 1, tick_offset = '1000000';
INSERT INTO actornot.message_3
	VALUES (1, '7000000000000', 5000, now(), 77, 'e'),
		(1, '7000000000001', 5001, now(), 77, 'e');
\c -
SELECT actornot_post('r', 'e') > 5001 AS id_is_new;
SELECT count(*), bool_and(system_identifier <> 1) AS own FROM actornot.clock;
SELECT number, current, sealed, upper FROM actornot.segment
	WHERE number IN (0, 3, 4) ORDER BY number;
SELECT count(*) FROM actornot.message
	WHERE tick >= '7000000000002' AND runner = 1;
SELECT actornot_register('next');
SELECT id > 77 AS number_is_new FROM actornot.runner WHERE name = 'next';

-- A row of another cluster beside this cluster's row.
SELECT tick_offset AS before FROM actornot.clock \gset
INSERT INTO actornot.clock VALUES (1, 1, '8000000000000', 1);
\c -
SELECT actornot_start();
SELECT count(*) FROM actornot.clock;
SELECT tick_offset > :'before'::xid8 AS advanced FROM actornot.clock;

-- actornot_advance_clock
SELECT tick_offset AS before FROM actornot.clock \gset
INSERT INTO actornot.message_3
	VALUES (1, '9000000000000', 6000, now(), 1, 'copied');
-- Rows are loaded into a segment that is marked as done, which readers skip.  The
-- same transaction advances the clock, because a done segment may be emptied.
BEGIN;
UPDATE actornot.segment SET sealed = true, upper = '2', done = '1'
	WHERE number = 5;
INSERT INTO actornot.message_5
	SELECT actornot_hash('r', 'brought'), '9000000000000', 6001, now(), id,
		'brought'
	  FROM actornot.runner WHERE name = 'r';
SELECT actornot_pending('r', 'brought');
SELECT actornot_advance_clock();
COMMIT;
SELECT tick_offset > :'before'::xid8 AS advanced FROM actornot.clock;
SELECT upper FROM actornot.segment WHERE number = 3;
SELECT actornot_pending('r', 'brought');
BEGIN;
SELECT actornot_post('r', 'own') > 0 AS posted;
SELECT actornot_advance_clock();
SELECT actornot_post('r', 'own') > 0 AS posted;
COMMIT;
SELECT count(*), count(DISTINCT tick) AS ticks FROM actornot.message
	WHERE entity = 'own';
SELECT actornot_pending('r', 'own');

-- A loaded message whose runner's number is in use here is not for that runner.
SELECT actornot_pending('r') AS before \gset
INSERT INTO actornot.message_3
	SELECT actornot_hash('foreign', 'x'), '9000000000001', 6100, now(), id, 'x'
	  FROM actornot.runner WHERE name = 'r';
SELECT actornot_advance_clock();
SELECT actornot_pending('r') - :before AS more;
SELECT actornot_post('r', 'x') > 0 AS posted;
SELECT entity, jsonb_array_length(messages)
  FROM actornot_acquire('r', max_entities => 10) WHERE entity = 'x';
DELETE FROM actornot.message_3 WHERE id = 6100;

-- Tokens grow even if no row holds the last one: their timeline is kept.
SELECT actornot_post('r', 'lent') > 0 AS posted;
SELECT token >> 48 AS timeline FROM actornot_acquire('r', 'lent');
UPDATE actornot.mailbox SET lease_token = (9::bigint << 48) | 1
	WHERE entity = 'lent';
SELECT actornot_unregister('r', force => true);
SELECT timeline FROM actornot.clock;
SELECT actornot_register('r');
SELECT actornot_post('r', 'lent') > 0 AS posted;
SELECT token >> 48 AS timeline FROM actornot_acquire('r', 'lent');
-- ... also in another cluster.
UPDATE actornot.clock SET system_identifier = 1, timeline = 11;
\c -
SELECT actornot_post('r', 'else') > 0 AS posted;
SELECT token >> 48 AS timeline FROM actornot_acquire('r', 'else');

DROP EXTENSION actornot CASCADE;
DROP ROLE regress_clock_alice;
