\set id random(1, 1000)
WITH p AS (INSERT INTO posted VALUES (nextval('bench_n')) RETURNING n) SELECT actornot_post('probe', 'e' || :id, jsonb_build_object('n', n)) FROM p;
