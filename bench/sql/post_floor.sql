\set id random(1, 100000)
INSERT INTO floor(payload) VALUES (:payload);
