-- Exactly one message for each entity.
CREATE PROCEDURE post_each(entities bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 1 .. entities BY 1000 LOOP
        PERFORM actornot_post_many('bench', array_agg('e' || i), array_agg(m.payload))
           FROM generate_series(low, least(low + 999, entities)) i,
                bench_messages(i, 1, 1) m;
        COMMIT;
    END LOOP;
END
$$;
