\set id random(1, 1000)
WITH p AS (INSERT INTO posted VALUES (nextval('bench_n')) RETURNING n) SELECT graphile_worker.add_job('bench', json_build_object('n', n, 'entity', 'e' || :id)) FROM p;
