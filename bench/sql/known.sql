-- Entities that are known: each had a message once, and has a state.
CREATE PROCEDURE make_known(first bigint, count bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN first .. first + count - 1 BY 1000 LOOP
        PERFORM actornot_post_many('bench', array_agg('k' || i),
                    array_agg('{"delta": 1}'::jsonb))
           FROM generate_series(low, least(low + 999, first + count - 1)) i;
        COMMIT;
    END LOOP;
END
$$;

-- count messages for "entities" of the known entities, spread evenly.
CREATE PROCEDURE post_known(count bigint, entities bigint, known bigint)
LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 1 .. count BY 1000 LOOP
        PERFORM actornot_post_many('bench',
                    array_agg('k' || 1 + substr(m.entity, 2)::bigint * (known / entities)),
                    array_agg(m.payload))
           FROM bench_messages(low, least(1000, count - low + 1)::int, entities) m;
        COMMIT;
    END LOOP;
END
$$;
