\set id random(1, 1000)
WITH p AS (INSERT INTO posted VALUES (nextval('bench_n')) RETURNING n) INSERT INTO queue (entity, payload) SELECT 'e' || :id, jsonb_build_object('n', n) FROM p;
