BEGIN;
SELECT q.id, q.entity, coalesce((a.state->>'n')::bigint, 0) + (payload->>'delta')::bigint AS n FROM (SELECT * FROM queue ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) q LEFT JOIN account a USING (entity) \gset
INSERT INTO account VALUES (:entity, jsonb_build_object('n', :n::bigint)) ON CONFLICT (entity) DO UPDATE SET state = excluded.state;
DELETE FROM queue WHERE id = :id;
COMMIT;
