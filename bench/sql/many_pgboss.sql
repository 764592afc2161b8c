\set no random(1, 100)
INSERT INTO pgboss.job (name, data) SELECT 'bench', m.payload || jsonb_build_object('entity', m.entity) FROM arrays, unnest(entities, payloads) AS m(entity, payload) WHERE no = :no;
