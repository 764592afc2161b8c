-- One message for each entity of that kind, a thousand a transaction.
CREATE PROCEDURE fill(entities int, kind text DEFAULT 'e') LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 1 .. entities BY 1000 LOOP
        PERFORM actornot_post_many('bench', array_agg(kind || i),
                                   array_agg(jsonb_build_object('delta', 1)))
           FROM generate_series(low, least(entities, low + 999)) i;
        COMMIT;
    END LOOP;
END
$$;

-- count messages for one entity.
CREATE PROCEDURE fill_one(count int) LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 1 .. count BY 1000 LOOP
        PERFORM actornot_post_many('bench', array_fill('one'::text, ARRAY[cardinality(p)]), p)
           FROM (SELECT array_agg(payload) AS p
                   FROM bench_messages(low, least(1000, count - low + 1)::int, 1)) m;
        COMMIT;
    END LOOP;
END
$$;

-- Processes all messages of one entity, a hundred a lease and a transaction.
CREATE PROCEDURE work_off_one() LANGUAGE plpgsql AS $$
DECLARE
    held actornot_lease;
BEGIN
    SELECT * INTO held FROM actornot_acquire('bench', max_messages => 100);
    WHILE held.token IS NOT NULL LOOP
        COMMIT;
        SELECT * INTO held
          FROM actornot_update_locked('bench', held.entity, held.token, jsonb_build_object('n',
                 coalesce((held.state->>'n')::bigint, 0) + jsonb_array_length(held.messages)),
                 max_messages => 100);
    END LOOP;
END
$$;

-- Makes a number of entities that are leased, and as many in back-off.
CREATE PROCEDURE crowd(entities int) LANGUAGE plpgsql AS $$
BEGIN
    FOR release IN 0 .. 1 LOOP
        CALL fill(entities, release || '-');
        LOOP
            PERFORM CASE WHEN release = 1 THEN
                        actornot_release('bench', entity, token, interval '1 day') END
               FROM actornot_acquire('bench', lease => '1 day', max_entities => 1000);
            EXIT WHEN NOT FOUND;
            COMMIT;
        END LOOP;
    END LOOP;
END
$$;

-- How long it takes to acquire the only one that is ready, in us.
CREATE TABLE taken (us double precision);
CREATE PROCEDURE acquire_ready(times int) LANGUAGE plpgsql AS $$
DECLARE
    held actornot_lease;
    began timestamptz;
BEGIN
    FOR i IN 1 .. times LOOP
        PERFORM actornot_post('bench', 'ready');
        COMMIT;
        began := clock_timestamp();
        SELECT * INTO STRICT held FROM actornot_acquire('bench');
        INSERT INTO taken VALUES (extract(epoch FROM clock_timestamp() - began) * 1e6);
        COMMIT;
        PERFORM actornot_update_locked('bench', held.entity, held.token, '1', max_messages => 0);
        COMMIT;
    END LOOP;
END
$$;

-- For the latency: n of each message that a client got.
CREATE SEQUENCE bench_n;
CREATE TABLE effect (n bigint);
