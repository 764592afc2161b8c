\set id random(1, 1000)
WITH p AS (INSERT INTO posted VALUES (nextval('bench_n')) RETURNING n) SELECT pg_notify('bench', n::text) FROM p;
