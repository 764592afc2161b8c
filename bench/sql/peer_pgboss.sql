-- pg-boss, after its own migrations.  Its documentation recommends plain SQL
-- for loading many jobs.
CREATE PROCEDURE post_piece(start bigint, count bigint, entities bigint, in_order boolean)
LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN start .. start + count - 1 BY 1000 LOOP
        INSERT INTO pgboss.job (name, data, policy, singleton_key)
            SELECT 'bench', m.payload || jsonb_build_object('entity', m.entity),
                   CASE WHEN in_order THEN 'key_strict_fifo' ELSE 'standard' END,
                   CASE WHEN in_order THEN m.entity END
              FROM bench_messages(low, least(1000, start + count - low)::int, entities) m;
        COMMIT;
    END LOOP;
END
$$;
