-- A queue as pgmq's, written by hand: "pop" is one statement that takes the
-- oldest visible messages, skips locked ones and deletes them.  The states are
-- saved in the same transaction, so each message counts once.
CREATE TABLE queue (
    id bigserial PRIMARY KEY,
    read_ct int NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL DEFAULT now(),
    entity text NOT NULL,
    payload jsonb NOT NULL
) WITH (autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ON queue (vt);

CREATE PROCEDURE post_piece(start bigint, count bigint, entities bigint)
LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN start .. start + count - 1 BY 1000 LOOP
        INSERT INTO queue (entity, payload)
            SELECT m.entity, m.payload
              FROM bench_messages(low, least(1000, start + count - low)::int, entities) m;
        COMMIT;
    END LOOP;
END
$$;

-- Works until the queue is empty; "patient": for ever.
CREATE PROCEDURE work(worker int, patient boolean, effects boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
    total bigint := 0;
BEGIN
    LOOP
        WITH job AS (
            DELETE FROM queue WHERE id = ANY (ARRAY(
                SELECT id FROM queue WHERE vt <= now()
                 ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))
            RETURNING entity, payload
        ), sums AS (
            SELECT entity, count(*) AS jobs, sum((payload->>'delta')::bigint) AS delta
              FROM job GROUP BY entity ORDER BY entity
        ), saved AS (
            INSERT INTO account AS a
                SELECT entity, jsonb_build_object('n', delta) FROM sums
                 WHERE NOT effects ORDER BY entity
                ON CONFLICT (entity) DO UPDATE
                SET state = jsonb_build_object('n',
                    (a.state->>'n')::bigint + (excluded.state->>'n')::bigint)
        ), noted AS (
            INSERT INTO effect SELECT (payload->>'n')::bigint FROM job WHERE effects
        )
        SELECT sum(jobs) INTO taken FROM sums;
        EXIT WHEN taken IS NULL AND NOT patient;
        total := total + coalesce(taken, 0);
        PERFORM setval(format('done_%s', worker)::regclass, total);
        COMMIT;
        IF taken IS NULL THEN
            PERFORM pg_sleep(0.001);
        END IF;
    END LOOP;
END
$$;
