\set id random(1, :entities)
SELECT pgq.insert_event('bench0', 'deposit', :payload, 'e' || :id, NULL, NULL, NULL);
