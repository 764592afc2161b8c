-- Counters that keep their state.  All three do one job: n is the sum of the
-- deltas that came in (count: their number).

-- The one that the targets are about.
CREATE FUNCTION counter_sum(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('n',
        coalesce((state->>'n')::bigint, 0)
        + (SELECT sum((m.payload->>'delta')::bigint) FROM unnest(messages) m));
END
$$;

-- The same as a loop, as many would write it.
CREATE FUNCTION counter_foreach(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    n bigint := coalesce((state->>'n')::bigint, 0);
    m actornot_message;
BEGIN
    FOREACH m IN ARRAY messages LOOP
        n := n + (m.payload->>'delta')::bigint;
    END LOOP;
    RETURN jsonb_build_object('n', n);
END
$$;

-- Looks at no payload: what is left is the engine and one PL/pgSQL call.
CREATE FUNCTION counter_count(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('n',
        coalesce((state->>'n')::bigint, 0) + cardinality(messages));
END
$$;

-- A thousand messages a transaction.
CREATE PROCEDURE post_piece(start bigint, count bigint, entities bigint)
LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN start .. start + count - 1 BY 1000 LOOP
        PERFORM actornot_post_many('bench', array_agg(m.entity), array_agg(m.payload))
           FROM bench_messages(low, least(1000, start + count - low)::int, entities) m;
        COMMIT;
    END LOOP;
END
$$;

-- Numbers the messages that are posted one a transaction.
CREATE SEQUENCE bench_i;
