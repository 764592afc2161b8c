\set id random(1, 1000)
WITH p AS (INSERT INTO posted VALUES (nextval('bench_n')) RETURNING n) SELECT pgq.insert_event('bench0', 'deposit', jsonb_build_object('n', n)::text, 'e' || :id, NULL, NULL, NULL) FROM p;
