\set no random(1, 100)
SELECT count(*) FROM graphile_worker.add_jobs((SELECT array_agg(('bench', m.payload || jsonb_build_object('entity', m.entity), NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec) FROM arrays, unnest(entities, payloads) AS m(entity, payload) WHERE no = :no));
