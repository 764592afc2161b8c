-- graphile-worker, after its own migrations.
CREATE PROCEDURE post_piece(start bigint, count bigint, entities bigint, in_order boolean)
LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN start .. start + count - 1 BY 1000 LOOP
        PERFORM graphile_worker.add_jobs(array_agg(
                   ('bench', m.payload || jsonb_build_object('entity', m.entity),
                    CASE WHEN in_order THEN m.entity END, NULL, NULL, NULL, NULL, NULL
                   )::graphile_worker.job_spec))
           FROM bench_messages(low, least(1000, start + count - low)::int, entities) m;
        COMMIT;
    END LOOP;
END
$$;
