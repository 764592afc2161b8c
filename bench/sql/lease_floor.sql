-- What people write by hand, for clients: a queue table, a table of states, and
-- statements that take the oldest rows that are not locked.
CREATE TABLE queue (id bigserial PRIMARY KEY, entity text NOT NULL, payload jsonb NOT NULL);
CREATE TABLE account (entity text PRIMARY KEY, state jsonb NOT NULL);

-- One message for each entity.
CREATE PROCEDURE fill(entities int) LANGUAGE sql AS $$
    INSERT INTO queue (entity, payload)
        SELECT 'e' || i, jsonb_build_object('delta', 1) FROM generate_series(1, entities) i
$$;
