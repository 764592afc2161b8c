\set id random(1, :entities)
INSERT INTO pgboss.job (name, data) VALUES ('bench', jsonb_set(:payload, '{entity}', to_jsonb('e' || :id)));
