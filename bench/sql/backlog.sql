-- Backlogs that are posted in bulk: count messages, to the entities in turn, all in
-- one transaction.
CREATE FUNCTION counter_sum(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('n',
        coalesce((state->>'n')::bigint, 0)
        + (SELECT sum((m.payload->>'delta')::bigint) FROM unnest(messages) m));
END
$$;

CREATE PROCEDURE post_bulk(count bigint, entities bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 0 .. count - 1 BY 10000 LOOP
        PERFORM actornot_post_many('bench', array_agg('e' || i % entities),
                                   array_agg('{"kind": "deposit", "delta": 1}'::jsonb))
           FROM generate_series(low, least(low + 10000, count) - 1) i;
    END LOOP;
END
$$;
