-- One call for many entities.
CREATE FUNCTION counter_whole(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE sql AS $$
    SELECT b.entity, jsonb_build_object('n', coalesce((b.state->>'n')::bigint, 0)
               + (SELECT sum((m.payload->>'delta')::bigint) FROM unnest(b.messages) m))
      FROM unnest(batches) b
$$;

-- The same with the sums in a table of the user's, as a consumer of PgQ has
-- them, and no state.
CREATE TABLE account (entity text PRIMARY KEY, state jsonb NOT NULL);
CREATE FUNCTION counter_table(batches actornot_batch[])
RETURNS SETOF actornot_state_of LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO account AS a
        SELECT b.entity, jsonb_build_object('n', sum((m.payload->>'delta')::bigint))
          FROM unnest(batches) b, unnest(b.messages) m GROUP BY b.entity
        ON CONFLICT (entity) DO UPDATE SET state = jsonb_build_object('n',
            (a.state->>'n')::bigint + (excluded.state->>'n')::bigint);
END
$$;
