-- An entity that is ready is found behind any number of others that are not.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION actornot;
SELECT actornot_register('crowd');

-- Paused entities: a post to one is queued nevertheless.
SELECT count(actornot_pause('crowd', 'paused ' || i)) FROM generate_series(1, 3000) i;
SELECT count(actornot_post('crowd', 'paused ' || i)) FROM generate_series(1, 3000) i;
SELECT actornot_post('crowd', 'ready') > 0 AS posted;
SELECT entity, token FROM actornot_acquire('crowd') \gset
SELECT :'entity' AS entity;
SELECT count(*) FROM actornot_update_locked('crowd', :'entity', :token, '1', max_messages => 0);

-- The same for an acquire that waits.
SELECT count(actornot_post('crowd', 'paused ' || i)) FROM generate_series(1, 3000) i;
SELECT actornot_post('crowd', 'ready') > 0 AS posted;
SELECT entity FROM actornot_acquire('crowd', wait => '60 s');

-- Entities that were released with retry_in are skipped.
SELECT actornot_register('later');
SELECT cardinality(actornot_post_many('later', array_agg('later ' || i))) FROM generate_series(1, 300) i;
SELECT count(actornot_release('later', entity, token, '1 day'))
  FROM actornot_acquire('later', max_entities => 300);
SELECT count(*) FROM actornot_acquire('later');
SELECT actornot_post('later', 'ready') > 0 AS posted;
SELECT entity FROM actornot_acquire('later');

DROP EXTENSION actornot;
