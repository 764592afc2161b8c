-- The counter of the draining, which also counts the messages that it has seen in a
-- sequence, because reading one costs the same at any time.
CREATE FUNCTION counter_seen(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('n',
        coalesce((state->>'n')::bigint, 0)
        + (SELECT sum((m.payload->>'delta')::bigint) + 0 * count(nextval('done_0'))
             FROM unnest(messages) m));
END
$$;

SELECT nextval('done_0');       -- 0: from now on it is their number

-- For the latency, beside it.
CREATE FUNCTION note_effect(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO effect SELECT (m.payload->>'n')::bigint FROM unnest(messages) m;
END
$$;

-- A thousand messages a transaction; counts how many are posted.
CREATE SEQUENCE posted_n MINVALUE 0 START 0;
CREATE PROCEDURE post_traffic(start bigint, count bigint, entities bigint)
LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN start .. start + count - 1 BY 1000 LOOP
        PERFORM actornot_post_many('bench', array_agg(m.entity), array_agg(m.payload))
           FROM bench_messages(low, least(1000, start + count - low)::int, entities) m;
        PERFORM setval('posted_n', least(low + 999, start + count - 1));
        COMMIT;
    END LOOP;
END
$$;
