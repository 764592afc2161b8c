SELECT actornot_post('bench', entity, payload) FROM bench_messages(nextval('bench_i'), 1, :entities);
