-- Objects of every peer's database, and of ours in the long run.

-- The states that the peers keep: a row for each entity.
CREATE TABLE account (entity text PRIMARY KEY, state jsonb NOT NULL);

-- How many messages each worker has processed so far.  Sequences, because reading
-- one costs the same at any time, also while a snapshot is held.
CREATE SEQUENCE done_0 MINVALUE 0 START 0;
CREATE SEQUENCE done_1 MINVALUE 0 START 0;

-- For the latency: n of each message at its post, and at its effect.
CREATE SEQUENCE bench_n;
CREATE TABLE posted (n bigint);
CREATE TABLE effect (n bigint);
