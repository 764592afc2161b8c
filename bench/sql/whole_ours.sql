-- One call for many entities.
CREATE FUNCTION counter_whole(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT b.entity, jsonb_build_object('n', coalesce((b.state->>'n')::bigint, 0)
               + (SELECT sum((m.payload->>'delta')::bigint) FROM unnest(b.messages) m))
      FROM unnest(batches) b;
END
$$;

-- The same with the sums in a table of the user's, as a consumer of PgQ has
-- them, and no state.
CREATE TABLE total (entity text PRIMARY KEY, state jsonb NOT NULL);
CREATE FUNCTION counter_table(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO total AS a
        SELECT j.entity, jsonb_build_object('n', sum(((j.m).payload->>'delta')::bigint))
          FROM (SELECT b.entity, unnest(b.messages) AS m FROM unnest(batches) b) j
         GROUP BY j.entity
        ON CONFLICT ON CONSTRAINT total_pkey DO UPDATE SET state = jsonb_build_object('n',
            (a.state->>'n')::bigint + (excluded.state->>'n')::bigint);
END
$$;

-- One entity a call.
CREATE FUNCTION counter_table_single(entity text, state jsonb, messages actornot_message[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO total AS a
        SELECT counter_table_single.entity,
               jsonb_build_object('n', sum((m.payload->>'delta')::bigint))
          FROM unnest(messages) m
        ON CONFLICT ON CONSTRAINT total_pkey DO UPDATE SET state = jsonb_build_object('n',
            (a.state->>'n')::bigint + (excluded.state->>'n')::bigint);
END
$$;
