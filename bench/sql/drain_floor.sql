-- What people write by hand: a queue table, a table of states, and a loop that
-- takes the oldest row that is not locked.  It does less than actornot:
-- with two workers an entity's messages can overtake each other.
CREATE TABLE queue (id bigserial PRIMARY KEY, entity text NOT NULL, payload jsonb NOT NULL);
CREATE TABLE account (entity text PRIMARY KEY, state jsonb NOT NULL);

CREATE PROCEDURE post_backlog(count bigint, entities bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 1 .. count BY 1000 LOOP
        INSERT INTO queue (entity, payload)
            SELECT m.entity, m.payload
              FROM bench_messages(low, least(1000, count - low + 1)::int, entities) m;
        COMMIT;
    END LOOP;
END
$$;

-- One message a transaction: the floor of the targets.
CREATE PROCEDURE drain_single() LANGUAGE plpgsql AS $$
DECLARE
    job record;
BEGIN
    LOOP
        SELECT id, entity, payload INTO job
          FROM queue ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        INSERT INTO account AS a
            VALUES (job.entity, jsonb_build_object('n', (job.payload->>'delta')::bigint))
            ON CONFLICT (entity) DO UPDATE
            SET state = jsonb_build_object('n',
                (a.state->>'n')::bigint + (job.payload->>'delta')::bigint);
        DELETE FROM queue WHERE id = job.id;
        COMMIT;
    END LOOP;
END
$$;

-- A hundred a transaction, set by set: the best loop that one can write by hand,
-- for comparison.  There is no handler to call here and nothing to retry.
CREATE PROCEDURE drain_hundred() LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
BEGIN
    LOOP
        WITH job AS (
            DELETE FROM queue WHERE id = ANY (ARRAY(
                SELECT id FROM queue ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED))
            RETURNING entity, payload
        ), sums AS (
            SELECT entity, count(*) AS jobs, sum((payload->>'delta')::bigint) AS delta
              FROM job GROUP BY entity ORDER BY entity
        ), saved AS (
            INSERT INTO account AS a
                SELECT entity, jsonb_build_object('n', delta) FROM sums
                ON CONFLICT (entity) DO UPDATE
                SET state = jsonb_build_object('n',
                    (a.state->>'n')::bigint + (excluded.state->>'n')::bigint)
        )
        SELECT sum(jobs) INTO taken FROM sums;
        EXIT WHEN taken IS NULL;
        COMMIT;
    END LOOP;
END
$$;
