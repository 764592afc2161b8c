\set no random(1, 100)
INSERT INTO queue (entity, payload) SELECT m.entity, m.payload FROM arrays, unnest(entities, payloads) AS m(entity, payload) WHERE no = :no;
