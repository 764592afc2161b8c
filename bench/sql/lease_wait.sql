WITH got AS (SELECT entity, token, (messages->0->'payload'->>'n')::bigint AS n FROM actornot_acquire('bench', max_messages => 1, wait => '60 s')), noted AS (INSERT INTO effect SELECT n FROM got) SELECT entity, token FROM got \gset
SELECT count(*) FROM actornot_update_locked('bench', :entity, :token, '1', max_messages => 0);
