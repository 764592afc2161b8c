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

-- The same with a loop, as many users would write it.
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

-- Reads no payload: the cost is that of the engine and one PL/pgSQL call.
CREATE FUNCTION counter_count(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('n',
        coalesce((state->>'n')::bigint, 0) + cardinality(messages));
END
$$;

-- The same sum for many entities in one call.
CREATE FUNCTION whole_sum(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT b.entity, jsonb_build_object('n',
        coalesce((b.state->>'n')::bigint, 0)
        + (SELECT sum((m.payload->>'delta')::bigint) FROM unnest(b.messages) m))
      FROM unnest(batches) b;
END
$$;

-- Sums in a table of the user's own, one entity a call and many.
CREATE TABLE account (entity text PRIMARY KEY, n bigint NOT NULL);

CREATE FUNCTION single_upsert(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO account AS a
    SELECT single_upsert.entity, sum((m.payload->>'delta')::bigint) FROM unnest(messages) m
        ON CONFLICT ON CONSTRAINT account_pkey DO UPDATE SET n = a.n + excluded.n;
END
$$;

CREATE FUNCTION whole_upsert(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO account AS a
    SELECT j.entity, sum(((j.m).payload->>'delta')::bigint)
      FROM (SELECT b.entity, unnest(b.messages) AS m FROM unnest(batches) b) j
     GROUP BY j.entity
        ON CONFLICT ON CONSTRAINT account_pkey DO UPDATE SET n = a.n + excluded.n;
END
$$;

-- Each entity gets "each" messages.
CREATE PROCEDURE post_evenly(entities bigint, each int) LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 1 .. entities * each BY 1000 LOOP
        PERFORM actornot_post_many('bench', array_agg('e' || (low + m.ord) * 7919 % entities
            ORDER BY m.ord), array_agg(m.payload ORDER BY m.ord))
           FROM bench_messages(low, 1000, entities) WITH ORDINALITY m(entity, payload, ord);
        COMMIT;
    END LOOP;
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
