-- PgQ: one queue for each worker, because a queue's order is kept for one
-- consumer only; an entity's messages are all in one of them.
CREATE EXTENSION pgq;
SELECT pgq.create_queue('bench0'), pgq.register_consumer('bench0', 'worker');
SELECT pgq.create_queue('bench1'), pgq.register_consumer('bench1', 'worker');

CREATE FUNCTION queue_of(entity text, queues int) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN queues = 1 OR hashtext(entity) & 1 = 0 THEN 'bench0' ELSE 'bench1' END
$$;

CREATE PROCEDURE post_piece(start bigint, count bigint, entities bigint, queues int DEFAULT 1)
LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN start .. start + count - 1 BY 1000 LOOP
        PERFORM pgq.insert_event(queue_of(m.entity, queues), 'deposit', m.payload::text,
                                 m.entity, NULL, NULL, NULL)
           FROM bench_messages(low, least(1000, start + count - low)::int, entities) m;
        COMMIT;
    END LOOP;
END
$$;

-- The last events of a backlog wait for a tick.
CREATE PROCEDURE tick() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgq.force_tick('bench0'), pgq.force_tick('bench1');
    COMMIT;
    PERFORM pgq.ticker();
END
$$;

-- The consumer of its documentation: a batch, what it is grouped by, one
-- transaction.  Works until there is no batch; "patient": for ever.
CREATE PROCEDURE work(worker int, patient boolean, effects boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    queue text := 'bench' || worker;
    batch bigint;
    taken bigint;
    total bigint := 0;
BEGIN
    LOOP
        batch := pgq.next_batch(queue, 'worker');
        EXIT WHEN batch IS NULL AND NOT patient;
        IF batch IS NULL THEN
            COMMIT;
            PERFORM pg_sleep(0.001);
            CONTINUE;
        END IF;
        IF effects THEN
            INSERT INTO effect SELECT (ev_data::jsonb->>'n')::bigint
              FROM pgq.get_batch_events(batch);
        ELSE
            WITH sums AS (
                SELECT ev_extra1 AS entity, count(*) AS events,
                       sum((ev_data::jsonb->>'delta')::bigint) AS delta
                  FROM pgq.get_batch_events(batch) GROUP BY 1
            ), saved AS (
                INSERT INTO account AS a
                    SELECT entity, jsonb_build_object('n', delta) FROM sums
                    ON CONFLICT (entity) DO UPDATE
                    SET state = jsonb_build_object('n',
                        (a.state->>'n')::bigint + (excluded.state->>'n')::bigint)
            )
            SELECT sum(events) INTO taken FROM sums;
            total := total + coalesce(taken, 0);
            PERFORM setval(format('done_%s', worker)::regclass, total);
        END IF;
        PERFORM pgq.finish_batch(batch);
        COMMIT;
    END LOOP;
END
$$;
