\set id random(1, 100000)
SELECT actornot_post('bench', 'e' || :id, :payload);
