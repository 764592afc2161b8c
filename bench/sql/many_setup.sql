-- A hundred arrays of a thousand messages, made beforehand for both sides.
CREATE TABLE arrays (no int PRIMARY KEY, entities text[], payloads jsonb[]);
INSERT INTO arrays
    SELECT no, array_agg(entity), array_agg(payload)
      FROM generate_series(1, 100) no,
           bench_messages(no * 1000, 1000, 100000) m
     GROUP BY no;
VACUUM ANALYZE arrays;
