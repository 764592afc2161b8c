--
-- lease: entities that are leased to programs outside
--
CREATE EXTENSION actornot;
CREATE ROLE regress_lease_owner NOLOGIN;
CREATE ROLE regress_lease_member NOLOGIN IN ROLE regress_lease_owner;
CREATE ROLE regress_lease_other NOLOGIN;
CREATE SCHEMA AUTHORIZATION regress_lease_owner;
GRANT USAGE ON SCHEMA regress_lease_owner TO PUBLIC;
GRANT EXECUTE ON FUNCTION actornot_register TO regress_lease_owner;
-- The mailboxes, without numbers and times that differ from run to run.
CREATE VIEW public.boxes AS
SELECT r.name AS runner, b.entity, b.state, b.lease_until IS NOT NULL AS lent, b.lease_until > clock_timestamp() AS live,
	b.lease_owner, b.attempts, b.last_error, b.wake_at > clock_timestamp() AS backs_off, b.target IS NOT NULL AS pinned
  FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner;
GRANT SELECT ON public.boxes TO regress_lease_owner;
\set SHOW_CONTEXT never
\set code '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'

SET ROLE regress_lease_owner;
-- Notes each lease, so that its token can be used again; a token must be larger
-- than all earlier ones of its entity.
CREATE TABLE known (n serial, runner text, entity text, token bigint);
-- The length of the lease, without the time that has passed since.
CREATE FUNCTION lasts(until timestamptz) RETURNS interval LANGUAGE sql AS $$
	SELECT coalesce((SELECT x FROM unnest('{1 us, 7 s, 30 s, 2 min, 10 min, 30 days}'::interval[]) x
		WHERE until BETWEEN now() + x AND clock_timestamp() + x ORDER BY x LIMIT 1),
		until - clock_timestamp())
$$;
CREATE FUNCTION note(l actornot_lease, OUT entity text, OUT state jsonb, OUT messages jsonb, OUT grown boolean, OUT lasts interval)
LANGUAGE plpgsql AS $$
BEGIN
	entity := l.entity;
	state := l.state;
	messages := jsonb_path_query_array(l.messages, '$[*].payload');
	grown := l.token > coalesce((SELECT max(k.token) FROM known k WHERE k.runner = l.runner AND k.entity = l.entity), 0);
	lasts := lasts(l.expires_at);
	INSERT INTO known (runner, entity, token) VALUES (l.runner, l.entity, l.token);
END
$$;
-- The token of the last lease of an entity, or of one before.
CREATE FUNCTION token(entity text, before int DEFAULT 0) RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT k.token FROM known k WHERE k.entity = $1 ORDER BY n DESC OFFSET before LIMIT 1
$$;
-- Runs a statement and returns the error that it raised, or "none".
CREATE FUNCTION outcome(statement text) RETURNS TABLE (code text, error text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT '00000', 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN QUERY SELECT SQLSTATE, regexp_replace(SQLERRM, 'lease -?\d+', 'lease N');
END
$$;
-- Tries all calls that take a token.
CREATE FUNCTION use(entity text, token bigint, runner text DEFAULT 'r') RETURNS TABLE (call text, code text, error text) LANGUAGE sql AS $$
	SELECT split_part(c.call, '(', 1), o.code, o.error FROM unnest(ARRAY[
		'update_locked(%L, %L, %s, ''"stale"'')', 'update_locked(%L, %L, %s, NULL, max_messages => 0)', 'renew(%L, %L, %s)',
		'release(%L, %L, %s)', 'fail(%L, %L, %s, ''stale'')']) WITH ORDINALITY c(call, ord),
		outcome('SELECT actornot_' || format(c.call, runner, entity, token)) o ORDER BY c.ord
$$;
CREATE FUNCTION post(entity text, VARIADIC payloads int[]) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(actornot_post('r', entity, to_jsonb(p))) FROM unnest(payloads) p
$$;
-- Leases are long: on a slow machine, too, none of them ends during the test.
SELECT actornot_register('r', batch_size => 3, lease => '10 min');

--
-- Acquire any, and acquire one by name
--
SELECT * FROM actornot_acquire('r');
SELECT post('a', 1, 2);
SELECT n.* FROM actornot_acquire('r', owner => 'regress') l, note(l) n;
SELECT * FROM boxes;
-- A leased entity is not given out again, whatever is posted to it.
SELECT post('a', 3);
SELECT * FROM actornot_acquire('r');
SELECT * FROM actornot_acquire('r', 'a');
SELECT * FROM actornot_acquire('r', 'a', wait => '10 ms');
SELECT actornot_pending('r', 'a');
-- All of a lease's fields; a message is as a handler gets it.
SELECT actornot_post('r', 'fields', '{"b": 2, "a": [1]}', '{"h": null}') AS id \gset
SELECT actornot_post('r', 'fields') AS id2 \gset
SELECT l.runner, l.entity, l.token > :id2 AS token, l.state, m.ord, m.value ->> 'id' IN (:'id', :'id2') AS id,
	m.value -> 'payload' AS payload, m.value -> 'headers' AS headers, m.value -> 'attempt' AS attempt,
	(m.value ->> 'posted_at')::timestamptz BETWEEN now() - interval '1 min' AND now() AS posted_at,
	(SELECT string_agg(k, ' ') FROM jsonb_object_keys(m.value) k) AS keys,
	l.expires_at BETWEEN now() + interval '10 min' AND clock_timestamp() + interval '10 min' AS expires_at
  FROM actornot_acquire('r', 'fields') l, jsonb_array_elements(l.messages) WITH ORDINALITY m(value, ord);
-- So that it is not acquired again when its lease is over.
SELECT actornot_purge('r', 'fields', force => true);

--
-- update_locked: state saved, batch done, next batch under a new token
--
SELECT n.* FROM actornot_update_locked('r', 'a', token('a'), '"first"') l, note(l) n;
SELECT * FROM boxes WHERE entity = 'a';
SELECT actornot_state('r', 'a'), actornot_pending('r', 'a');
-- The answer was lost, and it is called again: the token is stale, nothing changes.
SELECT outcome(format('SELECT actornot_update_locked(%L, %L, %s, %L)', 'r', 'a', token('a', 1), '"again"'));
DO $$
DECLARE
	detail	text;
	hint	text;
BEGIN
	PERFORM actornot_update_locked('r', 'a', token('a', 1), '"again"');
EXCEPTION WHEN SQLSTATE '55AN1' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '% / %', detail, hint;
END
$$;
SELECT actornot_state('r', 'a'), actornot_pending('r', 'a');
-- Nothing is pending: the lease ends and no row is returned.
SELECT n.* FROM actornot_update_locked('r', 'a', token('a'), '"second"') l, note(l) n;
SELECT * FROM boxes WHERE entity = 'a';
SELECT actornot_state('r', 'a'), actornot_pending('r', 'a');
-- After that each call with the token is refused as stale.
SELECT * FROM use('a', token('a'));
SELECT actornot_state('r', 'a'), actornot_pending('r', 'a');
SELECT * FROM actornot_acquire('r');

--
-- Save and end the lease, though more is pending; batches of batch_size and of
-- max_messages
--
SELECT post('b', 1, 2, 3, 4, 5, 6, 7, 8);
SELECT n.* FROM actornot_acquire('r', 'b') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'b', token('b'), '3', max_messages => 0) l, note(l) n;
SELECT actornot_state('r', 'b'), actornot_pending('r', 'b');
SELECT n.* FROM actornot_acquire('r', max_messages => 1) l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'b', token('b'), '4', max_messages => 2) l, note(l) n;
SELECT post('b', 9);
SELECT n.* FROM actornot_update_locked('r', 'b', token('b'), '6', max_messages => 10000) l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'b', token('b'), '8') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'b', token('b'), '9') l, note(l) n;
SELECT actornot_state('r', 'b'), actornot_pending('r', 'b');

--
-- An empty batch: an entity that is named is leased also if nothing is pending
--
SELECT n.* FROM actornot_acquire('r', 'empty') l, note(l) n;
SELECT * FROM boxes WHERE entity = 'empty';
SELECT n.* FROM actornot_update_locked('r', 'empty', token('empty'), '"made"') l, note(l) n;
SELECT n.* FROM actornot_acquire('r', 'empty') l, note(l) n;
SELECT post('empty', 1);
SELECT n.* FROM actornot_update_locked('r', 'empty', token('empty'), '"changed"') l, note(l) n;
-- A message that was posted during the lease of the empty batch is still pending.
SELECT n.* FROM actornot_update_locked('r', 'empty', token('empty'), '"one"') l, note(l) n;
SELECT actornot_state('r', 'empty'), actornot_pending('r', 'empty');
SELECT n.* FROM actornot_acquire('r', 'empty') l, note(l) n;
SELECT post('empty', 2);
SELECT n.* FROM actornot_update_locked('r', 'empty', token('empty'), '"kept"', max_messages => 0) l, note(l) n;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT actornot_release('r', 'empty', token('empty'));
-- actornot_fail with an empty batch counts no attempt.
SELECT actornot_purge('r', 'empty');
SELECT n.* FROM actornot_acquire('r', 'empty') l, note(l) n;
SELECT actornot_fail('r', 'empty', token('empty'), 'nothing to fail with');
SELECT * FROM boxes WHERE entity = 'empty';

--
-- NULL ends an entity; initial_state is what it begins with
--
SELECT actornot_register('init', initial_state => '{"n": 0}');
SELECT actornot_post('init', 'i') > 0 AS posted;
SELECT n.* FROM actornot_acquire('init') l, note(l) n;
SELECT actornot_post('init', 'i') > 0 AS posted;
SELECT n.* FROM actornot_update_locked('init', 'i', token('i'), '{"n": 1}') l, note(l) n;
SELECT actornot_post('init', 'i') > 0 AS posted;
SELECT n.* FROM actornot_update_locked('init', 'i', token('i'), NULL) l, note(l) n;
SELECT n.* FROM actornot_update_locked('init', 'i', token('i'), NULL) l, note(l) n;
SELECT actornot_state('init', 'i');
SELECT n.* FROM actornot_acquire('init', 'i') l, note(l) n;
SELECT n.* FROM actornot_update_locked('init', 'i', token('i'), 'null') l, note(l) n;
SELECT actornot_state('init', 'i'), actornot_state('init', 'i') IS NULL AS is_null;

--
-- Several at a time
--
SELECT post(e, 1) FROM unnest('{m1, m2, m3, m4, m5}'::text[]) e;
SELECT count(n) FROM actornot_acquire('r', max_entities => 2) l, note(l) n;
SELECT count(*) FROM boxes WHERE entity LIKE 'm_' AND live;
SELECT count(n) FROM actornot_acquire('r', max_entities => 1000) l, note(l) n;
SELECT count(*) FROM boxes WHERE entity LIKE 'm_' AND live;
SELECT * FROM actornot_acquire('r', max_entities => 1000);
SELECT count(*), count(DISTINCT token), count(DISTINCT entity) FROM known WHERE entity LIKE 'm_';
SELECT count(l) FROM known k LEFT JOIN LATERAL actornot_update_locked('r', k.entity, k.token, '"done"') l ON true WHERE k.entity LIKE 'm_';
SELECT entity, state, live FROM boxes WHERE entity LIKE 'm_' ORDER BY entity COLLATE "C";
-- A name takes one, whatever max_entities says.
SELECT post(e, 2) FROM unnest('{m1, m2}'::text[]) e;
SELECT n.* FROM actornot_acquire('r', 'm1', max_entities => 5) l, note(l) n;
SELECT actornot_release('r', 'm1', token('m1'));
SELECT count(actornot_purge('r', entity)) FROM boxes WHERE entity LIKE 'm_';

--
-- batch_bytes
--
SELECT actornot_register('bytes', batch_bytes => 1000);
SELECT actornot_post('bytes', 'y', to_jsonb(repeat(n::text, 400))) > 0 AS posted FROM generate_series(1, 4) n;
SELECT actornot_post('bytes', 'y', to_jsonb(repeat('5', 4000))) > 0 AS posted;
SELECT jsonb_array_length(n.messages), n.grown FROM actornot_acquire('bytes') l, note(l) n;
SELECT jsonb_array_length(n.messages), n.grown FROM actornot_update_locked('bytes', 'y', token('y'), '1') l, note(l) n;
SELECT jsonb_array_length(n.messages), length(n.messages ->> 0), n.grown FROM actornot_update_locked('bytes', 'y', token('y'), '1') l, note(l) n;
SELECT jsonb_array_length(n.messages) FROM actornot_update_locked('bytes', 'y', token('y'), '1') l, note(l) n;

--
-- Length of a lease: the runner's, the call's; renew
--
SELECT actornot_register('short', lease => '7 s');
SELECT n.* FROM actornot_acquire('short', 's') l, note(l) n;
SELECT lasts(actornot_renew('short', 's', token('s')));
SELECT lasts(actornot_renew('short', 's', token('s'), '30 days'));
SELECT lasts(actornot_renew('short', 's', token('s'), '1 us'));
SELECT actornot_post('short', 's') > 0 AS posted;
SELECT n.* FROM actornot_update_locked('short', 's', token('s'), '1') l, note(l) n;
SELECT actornot_post('short', 's') > 0 AS posted;
SELECT n.* FROM actornot_update_locked('short', 's', token('s'), '2', lease => '2 min') l, note(l) n;
SELECT n.* FROM actornot_update_locked('short', 's', token('s'), '3') l, note(l) n;

--
-- Release: the next acquire gets the same batch; no attempt is counted
--
SELECT post('c', 1, 2, 3, 4);
SELECT actornot_set_state('r', 'c', '"kept"');
SELECT n.* FROM actornot_acquire('r', 'c') l, note(l) n;
SELECT actornot_release('r', 'c', token('c'));
SELECT * FROM boxes WHERE entity = 'c';
SELECT * FROM use('c', token('c'));
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
-- A message that was posted meanwhile does not come before that batch.
SELECT post('c', 5);
SELECT actornot_release('r', 'c', token('c'), retry_in => NULL);
SELECT n.* FROM actornot_acquire('r', max_messages => 10) l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'c', token('c'), '4') l, note(l) n;
SELECT actornot_release('r', 'c', token('c'), '1 h');
SELECT * FROM boxes WHERE entity = 'c';
SELECT * FROM actornot_acquire('r');
SELECT * FROM actornot_acquire('r', 'c');
SELECT * FROM actornot_acquire('r', 'c', wait => '10 ms');
SELECT actornot_wake('r', 'c');
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
-- After retry_in it is ready by itself.
SELECT actornot_release('r', 'c', token('c'), '50 ms');
SELECT n.* FROM actornot_acquire('r', wait => '60 s') l, note(l) n;
SELECT actornot_release('r', 'c', token('c'), '50 ms');
SELECT n.* FROM actornot_acquire('r', 'c', wait => '60 s') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'c', token('c'), '5') l, note(l) n;

--
-- Fail: has the effect of an error that a handler raises
--
SELECT actornot_register('f', batch_size => 3, max_attempts => 3, retry_delay => '1 h', retry_delay_max => '2 h');
SELECT count(actornot_post('f', 'x', to_jsonb(n))) FROM generate_series(1, 3) n;
SELECT n.* FROM actornot_acquire('f') l, note(l) n;
SELECT actornot_fail('f', 'x', token('x'), 'first words');
SELECT * FROM boxes WHERE entity = 'x';
SELECT * FROM use('x', token('x'), 'f');
SELECT * FROM actornot_acquire('f');
SELECT * FROM actornot_acquire('f', 'x');
SELECT actornot_wake('f', 'x');
-- The failed message comes alone, with the number of the attempt.
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('f') l, note(l) n;
SELECT actornot_fail('f', 'x', token('x'), 'second words', retry_in => '0');
SELECT * FROM boxes WHERE entity = 'x';
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('f') l, note(l) n;
-- Neither a release nor the end of a lease's time counts an attempt.
SELECT actornot_release('f', 'x', token('x'));
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('f', lease => '1 us') l, note(l) n;
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('f', wait => '60 s') l, note(l) n;
SELECT actornot_fail('f', 'x', token('x'), 'last words');
SELECT runner, entity, payload, attempts, sqlstate, message, detail, context FROM actornot.dead_letters;
SELECT * FROM boxes WHERE entity = 'x';
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('f') l, note(l) n;
SELECT n.* FROM actornot_update_locked('f', 'x', token('x'), '"rest"') l, note(l) n;
-- The holder of the lease, too, gets a failed head alone, and then the others.
SELECT count(actornot_post('f', 'x', to_jsonb(n))) FROM generate_series(4, 6) n;
SELECT n.* FROM actornot_acquire('f') l, note(l) n;
SELECT actornot_fail('f', 'x', token('x'), 'once', '0 s');
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('f') l, note(l) n;
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_update_locked('f', 'x', token('x'), '4') l, note(l) n;
SELECT * FROM boxes WHERE entity = 'x';
SELECT n.* FROM actornot_update_locked('f', 'x', token('x'), '6') l, note(l) n;
-- Only one attempt: after it the next message gets its turn at once.
SELECT actornot_register('f', max_attempts => 1);
SELECT count(actornot_post('f', 'x', to_jsonb(n))) FROM generate_series(7, 8) n;
SELECT n.* FROM actornot_acquire('f') l, note(l) n;
SELECT actornot_fail('f', 'x', token('x'), '');
SELECT n.* FROM actornot_acquire('f') l, note(l) n;
SELECT actornot_fail('f', 'x', token('x'), repeat('long ', 2000), '1 h');
SELECT * FROM boxes WHERE entity = 'x';
SELECT payload, attempts, length(message) FROM actornot.dead_letters ORDER BY id;
SELECT * FROM actornot_acquire('f');
-- A dead letter that was posted again is leased like any message.
SELECT actornot_redrive_all('f');
SELECT n.* FROM actornot_acquire('f', max_messages => 2) l, note(l) n;
SELECT n.* FROM actornot_update_locked('f', 'x', token('x'), '8') l, note(l) n;
SELECT n.* FROM actornot_update_locked('f', 'x', token('x'), '8') l, note(l) n;

--
-- Expired: the token is good until another caller takes the entity
--
SELECT post('e', 1, 2, 3, 4);
SELECT n.* FROM actornot_acquire('r', 'e', lease => '1 us') l, note(l) n;
SELECT * FROM boxes WHERE entity = 'e';
SELECT n.* FROM actornot_update_locked('r', 'e', token('e'), '3', lease => '1 us') l, note(l) n;
SELECT actornot_renew('r', 'e', token('e'), '1 us') < clock_timestamp() AS renewed;
SELECT n.* FROM actornot_update_locked('r', 'e', token('e'), '4') l, note(l) n;
SELECT actornot_state('r', 'e'), actornot_pending('r', 'e');
SELECT post('e', 5);
SELECT n.* FROM actornot_acquire('r', 'e', lease => '1 us') l, note(l) n;
SELECT actornot_release('r', 'e', token('e'));
SELECT n.* FROM actornot_acquire('r', 'e', lease => '1 us') l, note(l) n;
SELECT actornot_fail('r', 'e', token('e'), 'late', '0');
SELECT attempts, last_error FROM boxes WHERE entity = 'e';
-- Taken over by another acquire: the same batch, another token.
SELECT n.* FROM actornot_acquire('r', 'e', lease => '1 us') l, note(l) n;
SELECT n.* FROM actornot_acquire('r', 'e') l, note(l) n;
SELECT * FROM use('e', token('e', 1));
SELECT * FROM boxes WHERE entity = 'e';
SELECT n.* FROM actornot_update_locked('r', 'e', token('e'), '5') l, note(l) n;
SELECT * FROM use('e', token('e', 1));
-- Without a name: when the end of the lease is noticed.
SELECT post('e', 6);
SELECT n.* FROM actornot_acquire('r', 'e', lease => '1 us') l, note(l) n;
SELECT n.* FROM actornot_acquire('r', wait => '60 s') l, note(l) n;
SELECT * FROM use('e', token('e', 1));
SELECT n.* FROM actornot_update_locked('r', 'e', token('e'), '6') l, note(l) n;

--
-- A runner with a handler: run here or leased, one at a time
--
CREATE FUNCTION collect(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce($2, '[]') || jsonb_agg(m.payload ORDER BY m.ord)
	  FROM unnest($3) WITH ORDINALITY AS m(id, payload, headers, posted_at, attempt, ord)
$$;
SELECT actornot_register('h', 'collect', batch_size => 2);
SELECT count(actornot_post('h', 'h', to_jsonb(n))) FROM generate_series(1, 7) n;
SELECT actornot_run('h', 'h');
SELECT n.* FROM actornot_acquire('h') l, note(l) n;
SELECT actornot_run('h', 'h') AS busy;
CALL actornot_drain('h');
CALL actornot_drain();
SELECT n.* FROM actornot_update_locked('h', 'h', token('h'), '[1, 2, "out"]', max_messages => 1) l, note(l) n;
SELECT n.* FROM actornot_update_locked('h', 'h', token('h'), '[1, 2, "out", "out"]', max_messages => 0) l, note(l) n;
SELECT actornot_run('h', 'h');
SELECT actornot_state('h', 'h');
-- Expired, and taken over by actornot_run
SELECT actornot_post('h', 'h', '7.5') > 0 AS posted;
SELECT n.* FROM actornot_acquire('h', 'h', lease => '1 us') l, note(l) n;
SELECT actornot_run('h', 'h');
SELECT * FROM boxes WHERE entity = 'h';
SELECT * FROM use('h', token('h'), 'h');
SELECT actornot_state('h', 'h'), actornot_pending('h', 'h');
-- ... by actornot_drain
SELECT actornot_post('h', 'h', '8') > 0 AS posted;
SELECT n.* FROM actornot_acquire('h', 'h', lease => '1 us') l, note(l) n;
CALL actornot_drain('h');
SELECT * FROM use('h', token('h'), 'h');
SELECT actornot_state('h', 'h'), actornot_pending('h', 'h');
-- ... by a handler that fails: an attempt is counted, and the token is stale.
CREATE FUNCTION fail(entity text, state jsonb, messages jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE division_by_zero USING MESSAGE = 'bad luck';
END
$$;
SELECT actornot_register('h', 'fail', batch_size => 2, max_attempts => 2, retry_delay => '1 h');
SELECT count(actornot_post('h', 'h', to_jsonb(n))) FROM generate_series(9, 10) n;
SELECT n.* FROM actornot_acquire('h', 'h', lease => '1 us') l, note(l) n;
\set VERBOSITY terse
SET client_min_messages = error;
SELECT actornot_run('h', 'h');
RESET client_min_messages;
\set VERBOSITY default
SELECT * FROM use('h', token('h'), 'h');
SELECT * FROM boxes WHERE entity = 'h';
-- The second failure is reported by a holder outside.
SELECT actornot_wake('h', 'h');
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('h') l, note(l) n;
SELECT actornot_fail('h', 'h', token('h'), 'outside, too');
SELECT payload, attempts, sqlstate, message FROM actornot.dead_letters WHERE runner = 'h';
SELECT actornot_register('h', 'collect');
SELECT actornot_run('h', 'h');
SELECT actornot_state('h', 'h'), actornot_pending('h', 'h');
-- A runner without a handler is run by programs outside only.
SELECT post('none', 1);
SELECT actornot_run('r', 'none');
CALL actornot_drain();
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'none', token('none'), '1') l, note(l) n;

--
-- Paused
--
SELECT post('p', 1, 2, 3, 4);
SELECT actornot_pause('r');
SELECT * FROM actornot_acquire('r');
SELECT * FROM actornot_acquire('r', 'p');
SELECT * FROM actornot_acquire('r', 'idle');
SELECT actornot_resume('r');
SELECT n.* FROM actornot_acquire('r', wait => '60 s') l, note(l) n;
-- The holder of a lease may save, and gets no further batch.
SELECT actornot_pause('r');
SELECT n.* FROM actornot_update_locked('r', 'p', token('p'), '3') l, note(l) n;
SELECT actornot_state('r', 'p'), actornot_pending('r', 'p');
SELECT actornot_resume('r');
SELECT actornot_pause('r', 'p');
SELECT * FROM actornot_acquire('r');
SELECT * FROM actornot_acquire('r', 'p');
SELECT actornot_resume('r', 'p');
SELECT n.* FROM actornot_acquire('r') l, note(l) n;

--
-- Changing an entity that is leased: 55006, and force ends the lease
--
SELECT call, code, error FROM unnest(ARRAY[
	$$set_state('r', 'p', '"mended"')$$, $$pause('r', 'p')$$, $$purge('r', 'p')$$, $$skip('r', 'p')$$]) call,
	outcome('SELECT actornot_' || call);
SELECT actornot_skip('r', 'p');
SELECT actornot_set_state('r', 'p', '"mended"');
SELECT actornot_state('r', 'p'), actornot_pending('r', 'p');
SELECT actornot_set_state('r', 'p', '"mended"', force => true);
SELECT * FROM use('p', token('p'));
SELECT actornot_state('r', 'p'), actornot_pending('r', 'p');
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT actornot_pause('r', 'p', force => true);
SELECT * FROM use('p', token('p'));
SELECT actornot_resume('r', 'p');
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT actornot_purge('r', 'p', force => true);
SELECT * FROM use('p', token('p'));
SELECT actornot_state('r', 'p'), actornot_pending('r', 'p');
-- resume and wake do not touch the lease.
SELECT post('p', 5);
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT actornot_resume('r', 'p'), actornot_wake('r', 'p');
SELECT * FROM actornot_acquire('r');
SELECT n.* FROM actornot_update_locked('r', 'p', token('p'), '5') l, note(l) n;
-- A lease whose time is over is ended by a change of the entity: the holder must
-- not write over that change.
SELECT post('p', 6, 7, 8);
SELECT n.* FROM actornot_acquire('r', 'p', lease => '1 us') l, note(l) n;
SELECT actornot_set_state('r', 'p', '"mended"');
SELECT * FROM use('p', token('p'));
SELECT n.* FROM actornot_acquire('r', 'p', lease => '1 us') l, note(l) n;
SELECT actornot_skip('r', 'p') > 0 AS skipped;
SELECT * FROM use('p', token('p'));
SELECT n.* FROM actornot_acquire('r', 'p', lease => '1 us') l, note(l) n;
SELECT actornot_pause('r', 'p');
SELECT * FROM use('p', token('p'));
SELECT actornot_resume('r', 'p');
SELECT n.* FROM actornot_acquire('r', 'p', lease => '1 us') l, note(l) n;
SELECT actornot_purge('r', 'p');
SELECT * FROM use('p', token('p'));
SELECT post('p', 9);
SELECT n.* FROM actornot_acquire('r', 'p') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'p', token('p'), '9') l, note(l) n;

--
-- runnable
--
CREATE FUNCTION may_run(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF state = '"raise"' THEN
		RAISE 'cannot say';
	END IF;
	RETURN state IS DISTINCT FROM '"no"';
END
$$;
SELECT actornot_register('q', runnable => 'may_run', initial_state => '"no"', max_attempts => 2, retry_delay => '1 h');
SELECT count(actornot_post('q', 'q', to_jsonb(n))) FROM generate_series(1, 3) n;
SELECT * FROM actornot_acquire('q');
SELECT * FROM actornot_acquire('q', 'q');
SELECT * FROM actornot_acquire('q', 'q', wait => '10 ms');
SELECT * FROM boxes WHERE entity = 'q';
SELECT actornot_set_state('q', 'q', '"yes"');
SELECT n.* FROM actornot_acquire('q', max_messages => 1) l, note(l) n;
-- The holder saves a state that is not runnable: the rest waits.
SELECT n.* FROM actornot_update_locked('q', 'q', token('q'), '"no"') l, note(l) n;
SELECT * FROM boxes WHERE entity = 'q';
SELECT actornot_pending('q', 'q');
SELECT * FROM actornot_acquire('q');
-- runnable raises an error: an attempt of the head.
SELECT actornot_set_state('q', 'q', '"raise"');
SELECT * FROM actornot_acquire('q');
SELECT * FROM boxes WHERE entity = 'q';
SELECT actornot_wake('q', 'q');
SELECT * FROM actornot_acquire('q', 'q');
SELECT payload, attempts, sqlstate, message FROM actornot.dead_letters WHERE runner = 'q';
SELECT actornot_set_state('q', 'q', '"yes"');
SELECT n.* FROM actornot_acquire('q') l, note(l) n;
SELECT count(actornot_post('q', 'q', to_jsonb(n))) FROM generate_series(4, 4) n;
SELECT n.* FROM actornot_update_locked('q', 'q', token('q'), '"raise"') l, note(l) n;
SELECT * FROM boxes WHERE entity = 'q';
SELECT actornot_set_state('q', 'q', '"yes"'), actornot_wake('q', 'q');
SELECT n.*, l.messages #> '{0,attempt}' AS attempt FROM actornot_acquire('q') l, note(l) n;
-- When the head went to the dead letters, the next message gets its turn.
CREATE SEQUENCE mood;
CREATE FUNCTION moody(entity text, state jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('mood') % 2 = 1 THEN
		RAISE 'not in the mood';
	END IF;
	RETURN true;
END
$$;
SELECT actornot_register('moody', runnable => 'moody', max_attempts => 1);
SELECT count(actornot_post('moody', 'moody', to_jsonb(n))) FROM generate_series(1, 4) n;
SELECT n.* FROM actornot_acquire('moody', max_messages => 1, wait => '60 s') l, note(l) n;
SELECT actornot_release('moody', 'moody', token('moody'));
SELECT n.* FROM actornot_acquire('moody', 'moody', wait => '60 s') l, note(l) n;
SELECT n.* FROM actornot_update_locked('moody', 'moody', token('moody'), '2') l, note(l) n;
SELECT payload, attempts FROM actornot.dead_letters WHERE runner = 'moody' ORDER BY id;
-- runnable is the owner's code: it runs in no session of another role.
RESET ROLE;
SET search_path = regress_lease_owner, public;
SELECT outcome($$SELECT * FROM actornot_acquire('q')$$);
SELECT outcome(format('SELECT actornot_update_locked(%L, %L, %s, %L)', 'q', 'q', token('q'), '"x"'));
SET ROLE regress_lease_member;
SELECT * FROM actornot_acquire('q');
:code
-- Calls that do not ask runnable are open to all roles with the owner's rights.
RESET ROLE;
SELECT n.* FROM actornot_update_locked('q', 'q', token('q'), '"super"', max_messages => 0) l, note(l) n;
SELECT actornot_post('r', 'super') > 0 AS posted;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT actornot_renew('r', 'super', token('super')) > now() AS renewed;
SELECT n.* FROM actornot_update_locked('r', 'super', token('super'), '1') l, note(l) n;
RESET search_path;
SET ROLE regress_lease_owner;

--
-- Inside of handlers
--
CREATE TABLE said (n serial, what text);
CREATE FUNCTION meddle(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	m	actornot_message;
BEGIN
	FOREACH m IN ARRAY messages LOOP
		INSERT INTO said (what) SELECT format('%s: %s', o.code, o.error) FROM outcome(m.payload ->> 'do') o;
		INSERT INTO said (what) SELECT 'got ' || n.entity || ' ' || n.messages FROM actornot_acquire(m.payload ->> 'any') l, note(l) n
			WHERE m.payload ? 'any';
	END LOOP;
END
$$;
SELECT actornot_register('m', 'meddle');
SELECT actornot_post('m', 'self', jsonb_build_object('do', d)) > 0 AS posted FROM unnest(ARRAY[
	$$SELECT * FROM actornot_acquire('m', 'self')$$, $$SELECT * FROM actornot_acquire('m', 'self', wait => '1 s')$$,
	$$SELECT * FROM actornot_update_locked('m', 'self', 1, '1')$$, $$SELECT actornot_renew('m', 'self', 1)$$,
	$$SELECT actornot_release('m', 'self', 1)$$, $$SELECT actornot_fail('m', 'self', 1, 'x')$$]) d;
SELECT actornot_run('m', 'self');
SELECT what FROM said ORDER BY n;
-- Without a name: others are leased; the handler's own entity is not, though it is
-- ready.
TRUNCATE said;
SELECT actornot_post('m', 'self', '{"do": "SELECT 1", "any": "m"}') > 0 AS posted;
SELECT actornot_run('m', 'self');
SELECT post('of r', 1);
SELECT actornot_post('m', 'self', '{"do": "SELECT 1", "any": "r"}') > 0 AS posted;
SELECT actornot_run('m', 'self');
SELECT what FROM said ORDER BY n;
SELECT n.* FROM actornot_update_locked('r', 'of r', token('of r'), '1') l, note(l) n;

--
-- Savepoints and transactions
--
SELECT post('t', 1, 2, 3, 4);
BEGIN;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT token('t') AS lost \gset
ROLLBACK;
SELECT * FROM boxes WHERE entity = 't';
SELECT * FROM use('t', :lost);
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT token('t') > :lost AS not_again;
BEGIN;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '"lost"') l, note(l) n;
SELECT token('t') AS lost \gset
ROLLBACK;
SELECT * FROM use('t', :lost);
SELECT actornot_state('r', 't'), actornot_pending('r', 't');
BEGIN;
SELECT actornot_release('r', 't', token('t'));
SELECT n.* FROM actornot_acquire('r', 't') l, note(l) n;
SELECT actornot_fail('r', 't', token('t'), 'lost');
ROLLBACK;
SELECT * FROM boxes WHERE entity = 't';
-- The old token is still good.
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '3') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '4', max_messages => 0) l, note(l) n;
-- Subtransactions that are rolled back
SELECT post('t', 5, 6, 7, 8);
BEGIN;
SAVEPOINT s;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT token('t') AS lost \gset
ROLLBACK TO s;
SELECT * FROM use('t', :lost);
SELECT n.* FROM actornot_acquire('r', 't') l, note(l) n;
SAVEPOINT s;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '"lost"') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '"lost"') l, note(l) n;
ROLLBACK TO s;
SELECT actornot_state('r', 't'), actornot_pending('r', 't');
SAVEPOINT s;
SELECT actornot_release('r', 't', token('t'));
ROLLBACK TO s;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '7') l, note(l) n;
RELEASE s;
COMMIT;
SELECT * FROM boxes WHERE entity = 't';
SELECT * FROM actornot_acquire('r');
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '8') l, note(l) n;
SELECT actornot_state('r', 't'), actornot_pending('r', 't');
-- Release and acquire again in one transaction, any number of times; the last
-- lease holds.
SELECT post('t', 9);
BEGIN;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT actornot_release('r', 't', token('t'));
SELECT n.* FROM actornot_acquire('r', 't') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '9') l, note(l) n;
SELECT n.* FROM actornot_acquire('r', 't') l, note(l) n;
COMMIT;
SELECT post('t', 10);
SELECT * FROM actornot_acquire('r');
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '9') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '10') l, note(l) n;
SELECT actornot_state('r', 't'), actornot_pending('r', 't');
-- A message of the own transaction comes only after the commit.
BEGIN;
SELECT post('t', 11);
SELECT n.* FROM actornot_acquire('r', 't') l, note(l) n;
COMMIT;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '10') l, note(l) n;
BEGIN;
SELECT post('t', 12);
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '11') l, note(l) n;
COMMIT;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '12') l, note(l) n;
-- Rows that the holder wrote commit with the state.
BEGIN;
SELECT post('t', 13);
COMMIT;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
BEGIN;
SELECT post('next', 13);
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '13') l, note(l) n;
ROLLBACK;
SELECT actornot_pending('r', 'next'), actornot_state('r', 't');
BEGIN;
SELECT post('next', 13);
SELECT n.* FROM actornot_update_locked('r', 't', token('t'), '13') l, note(l) n;
COMMIT;
SELECT actornot_pending('r', 'next'), actornot_state('r', 't');
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'next', token('next'), '13') l, note(l) n;

--
-- Two entities with equal hashes share a lock, and nothing else
--
RESET ROLE;
SET actornot.debug_hash_bits = 0;
SET ROLE regress_lease_owner;
SELECT post('twin', 1, 2, 3, 4), post('other', 11, 12);
SELECT n.* FROM actornot_acquire('r', 'twin') l, note(l) n;
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT * FROM use('twin', token('other')) WHERE code <> '55AN1';
SELECT n.* FROM actornot_update_locked('r', 'twin', token('twin'), '3') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'other', token('other'), '12') l, note(l) n;
SELECT entity, state, live FROM boxes WHERE entity IN ('twin', 'other') ORDER BY entity COLLATE "C";
SELECT post('other', 13);
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'twin', token('twin'), '4') l, note(l) n;
SELECT actornot_fail('r', 'other', token('other'), 'its own', '0');
SELECT entity, state, live, attempts FROM boxes WHERE entity IN ('twin', 'other') ORDER BY entity COLLATE "C";
-- Both in one call
SELECT post('twin', 5);
SELECT n.* FROM actornot_acquire('r', max_entities => 2) l, note(l) n ORDER BY n.entity COLLATE "C";
SELECT n.* FROM actornot_update_locked('r', 'other', token('other'), '13') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'twin', token('twin'), '5') l, note(l) n;
-- A handler of one of them cannot acquire the other.
TRUNCATE said;
SELECT actornot_post('m', 'twin self', jsonb_build_object('do', $$SELECT * FROM actornot_acquire('r', 'twin')$$)) > 0 AS posted;
SELECT actornot_run('m', 'twin self');
SELECT what FROM said ORDER BY n;
RESET ROLE;
RESET actornot.debug_hash_bits;
SET ROLE regress_lease_owner;

--
-- A state of 100 MB
--
SELECT n.entity FROM actornot_acquire('r', 'big') l, note(l) n;
SELECT n.entity FROM actornot_update_locked('r', 'big', token('big'), to_jsonb(repeat('0123456789', 10000000)), max_messages => 0) l, note(l) n;
SELECT length(s #>> '{}'), md5(s #>> '{}') = md5(repeat('0123456789', 10000000)) AS same FROM actornot_state('r', 'big') s;
SELECT post('big', 1);
SELECT length(l.state #>> '{}'), n.messages FROM actornot_acquire('r') l, note(l) n;
SELECT n.entity FROM actornot_update_locked('r', 'big', token('big'), '"small"') l, note(l) n;
SELECT actornot_state('r', 'big');

--
-- Bad input
--
SELECT n.entity FROM actornot_acquire('r', 'bad') l, note(l) n;
SELECT call, code, error FROM unnest(ARRAY[
	$$acquire('no such')$$, $$acquire('no such', 'bad')$$, $$update_locked('no such', 'bad', 1, '1')$$, $$renew('no such', 'bad', 1)$$,
	$$release('no such', 'bad', 1)$$, $$fail('no such', 'bad', 1, 'x')$$,
	$$acquire(NULL)$$, $$acquire('r', max_entities => NULL)$$, $$acquire('r', wait => NULL)$$,
	$$update_locked(NULL, 'bad', 1, '1')$$, $$update_locked('r', NULL, 1, '1')$$, $$update_locked('r', 'bad', NULL, '1')$$,
	$$renew(NULL, 'bad', 1)$$, $$renew('r', NULL, 1)$$, $$renew('r', 'bad', NULL)$$,
	$$release(NULL, 'bad', 1)$$, $$release('r', NULL, 1)$$, $$release('r', 'bad', NULL)$$,
	$$fail(NULL, 'bad', 1, 'x')$$, $$fail('r', NULL, 1, 'x')$$, $$fail('r', 'bad', NULL, 'x')$$, $$fail('r', 'bad', TOKEN, NULL)$$,
	$$acquire('r', '')$$, $$acquire('r', repeat('x', 1025))$$, $$renew('r', '', 1)$$,
	$$acquire('r', lease => '0')$$, $$acquire('r', lease => '-1 s')$$, $$acquire('r', lease => '100 years')$$,
	$$acquire('r', lease => '30 days 1 us')$$, $$acquire('r', lease => '1 mon -31 days')$$, $$acquire('r', lease => '178000000 years')$$,
	$$update_locked('r', 'bad', TOKEN, '1', '0')$$, $$update_locked('r', 'bad', TOKEN, '1', '-1 day')$$,
	$$update_locked('r', 'bad', TOKEN, '1', '100 years')$$, $$renew('r', 'bad', TOKEN, '0')$$, $$renew('r', 'bad', TOKEN, '-1 h')$$,
	$$renew('r', 'bad', TOKEN, '100 years')$$,
	$$release('r', 'bad', TOKEN, '-1 us')$$, $$release('r', 'bad', TOKEN, '367 days')$$, $$release('r', 'bad', TOKEN, '178000000 years')$$,
	$$fail('r', 'bad', TOKEN, 'x', '-1 s')$$, $$fail('r', 'bad', TOKEN, 'x', '100 years')$$,
	$$acquire('r', max_messages => 0)$$, $$acquire('r', max_messages => -1)$$, $$acquire('r', max_messages => 10001)$$,
	$$acquire('r', max_entities => 0)$$, $$acquire('r', max_entities => -1)$$, $$acquire('r', max_entities => 1001)$$,
	$$acquire('r', max_messages => 2147483647, max_entities => -2147483648)$$,
	$$update_locked('r', 'bad', TOKEN, '1', max_messages => -1)$$, $$update_locked('r', 'bad', TOKEN, '1', max_messages => 10001)$$,
	$$acquire('r', wait => '-1 s')$$, $$acquire('r', wait => '61 s')$$, $$acquire('r', wait => '100 years')$$,
	$$renew('r', 'bad', 0)$$, $$renew('r', 'bad', -1)$$, $$renew('r', 'bad', 9223372036854775807)$$, $$renew('r', 'bad', -9223372036854775808)$$,
	$$renew('r', 'never lent', 1)$$, $$renew('r', 'never lent', 0)$$]) WITH ORDINALITY c(call, ord),
	outcome('SELECT actornot_' || replace(call, 'TOKEN', token('bad')::text)) ORDER BY ord;
-- None of these has changed anything.
SELECT * FROM boxes WHERE entity = 'bad';
-- The token of another entity, and of an entity of that name of another runner
SELECT post('bad 2', 1);
SELECT n.entity FROM actornot_acquire('r', 'bad 2') l, note(l) n;
SELECT * FROM use('bad', token('bad 2'));
SELECT * FROM use('bad', token('bad'), 'f');
SELECT n.* FROM actornot_update_locked('r', 'bad', token('bad'), '1') l, note(l) n;
SELECT n.* FROM actornot_update_locked('r', 'bad 2', token('bad 2'), '1') l, note(l) n;
-- A runner of another owner
SELECT n.entity FROM actornot_acquire('r', 'bad') l, note(l) n;
SELECT token('bad') AS good \gset
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA regress_lease_owner TO regress_lease_other;
SET ROLE regress_lease_other;
SET search_path = regress_lease_owner, public;
SELECT * FROM use('bad', :good);
SELECT * FROM outcome($$SELECT actornot_acquire('r', 'bad')$$);
SELECT * FROM actornot_acquire('r');
:code
RESET search_path;
RESET ROLE;
SET ROLE regress_lease_owner;
-- Transactions in which the calls are refused
BEGIN READ ONLY;
SELECT * FROM actornot_acquire('r');
:code
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM actornot_acquire('r');
:code
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM use('bad', :good);
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM use('bad', :good);
ROLLBACK;
BEGIN READ ONLY;
SELECT * FROM use('bad', :good);
ROLLBACK;
SELECT * FROM boxes WHERE entity = 'bad';
-- READ UNCOMMITTED is the same as READ COMMITTED.
BEGIN ISOLATION LEVEL READ UNCOMMITTED;
SELECT n.* FROM actornot_update_locked('r', 'bad', :good, '2') l, note(l) n;
COMMIT;
SELECT actornot_state('r', 'bad');
-- A cursor reads only half of the answer; all entities are leased nevertheless.
SELECT post(e, 1) FROM unnest('{half 1, half 2}'::text[]) e;
SELECT count(*) FROM (SELECT entity FROM actornot_acquire('r', max_entities => 2) LIMIT 1) x;
SELECT count(*) FROM boxes WHERE entity LIKE 'half%' AND live;
SELECT actornot_purge('r', e, true) FROM unnest('{half 1, half 2}'::text[]) e;

--
-- The runner is unregistered, or given to another owner, during the lease
--
SELECT post('u', 1);
SELECT n.* FROM actornot_acquire('r') l, note(l) n;
SELECT token('u') AS good \gset
RESET ROLE;
SELECT actornot_set_owner('r', 'regress_lease_other');
SET ROLE regress_lease_owner;
SELECT * FROM use('u', :good);
RESET ROLE;
SET ROLE regress_lease_other;
SELECT actornot_renew('r', 'u', :good) > now() AS renewed;
SELECT actornot_unregister('r', force => true);
SELECT actornot_renew('r', 'u', :good);
:code
RESET ROLE;
SELECT runner, entity, count(*) FROM actornot.mailbox b JOIN actornot.runner r ON r.id = b.runner WHERE r.name = 'r' GROUP BY 1, 2;

DROP VIEW public.boxes;
DROP OWNED BY regress_lease_owner, regress_lease_other;
DROP EXTENSION actornot;
DROP ROLE regress_lease_member, regress_lease_owner, regress_lease_other;
