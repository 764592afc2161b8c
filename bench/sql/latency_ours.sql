\set id random(1, 1000)
SELECT actornot_post('bench', 'e' || :id, jsonb_build_object('n', nextval('bench_n')));
