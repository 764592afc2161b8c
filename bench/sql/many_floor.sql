\set no random(1, 100)
INSERT INTO floor(hash, tick, posted_at, runner, entity, payload) SELECT hashtextextended(m.entity, 0), pg_current_xact_id(), now(), 1, m.entity, m.payload FROM arrays, unnest(entities, payloads) AS m(entity, payload) WHERE no = :no;
