\set id random(1, :entities)
INSERT INTO queue (entity, payload) VALUES ('e' || :id, :payload);
