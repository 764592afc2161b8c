\set id random(1, :entities)
SELECT 1 FROM graphile_worker.add_job('bench', jsonb_set(:payload, '{entity}', to_jsonb('e' || :id))::json);
