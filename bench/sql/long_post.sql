\set id random(1, :entities)
SELECT actornot_post('bench', 'e' || :id, :payload);
