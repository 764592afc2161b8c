\set id random(1, :known)
SELECT actornot_post('bench', 'k' || :id, :payload);
