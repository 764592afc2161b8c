\set no random(1, 100)
SELECT count(pgq.insert_event('bench0', 'deposit', m.payload::text, m.entity, NULL, NULL, NULL)) FROM arrays, unnest(entities, payloads) AS m(entity, payload) WHERE no = :no;
