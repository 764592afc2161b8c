-- The columns and the index of a segment of the log, filled by plain SQL.
CREATE TABLE floor (
    hash bigint NOT NULL,
    tick xid8 NOT NULL,
    id bigserial NOT NULL,
    posted_at timestamptz NOT NULL,
    runner int NOT NULL,
    entity text NOT NULL,
    payload jsonb,
    headers jsonb
);
CREATE INDEX ON floor (hash, tick, id);
