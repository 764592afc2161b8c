\set id random(1, 1000)
WITH p AS (INSERT INTO posted VALUES (nextval('bench_n')) RETURNING n), j AS (INSERT INTO pgboss.job (name, data) SELECT 'bench', jsonb_build_object('n', n, 'entity', 'e' || :id) FROM p RETURNING 1) SELECT pg_notify('pgboss_' || left(encode(sha224('pgboss'), 'hex'), 24), 'bench') FROM j;
