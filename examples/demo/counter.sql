-- The smallest actor: an entity that counts.
--
-- A handler gets the entity, its state so far and the messages that wait for
-- it, oldest first, and returns the new state.  What it returns and what it
-- writes elsewhere commits together with the fact that these messages are
-- done.  No other session works on the same entity meanwhile, so there is
-- nothing to lock.
CREATE FUNCTION counter(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
	total	bigint := coalesce((state->>'total')::bigint, 0);
	message	actornot_message;
BEGIN
	FOREACH message IN ARRAY messages LOOP
		total := total + (message.payload->>'delta')::bigint;
	END LOOP;
	RETURN jsonb_build_object('total', total);
END
$$;

-- From now on, workers of the database call it for each entity with a message.
SELECT actornot_register('counter', 'counter');

-- One client of many: posts to alice and to bob, one transaction a time.
CREATE PROCEDURE count_for_a_while(times int)
LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. times LOOP
		PERFORM actornot_post('counter', 'alice', '{"delta": 5}');
		PERFORM actornot_post('counter', 'bob', '{"delta": -2}');
		COMMIT;
	END LOOP;
END
$$;
