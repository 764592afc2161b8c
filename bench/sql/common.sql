-- What both sides of a comparison share: the same messages, made the same way.

-- Messages first .. first + count - 1 for a number of entities.  A pure function
-- of the message's number, so that both sides and every round get the same ones,
-- in an order without locality.  The payload is that of a small event, 90 bytes.
CREATE FUNCTION bench_messages(first bigint, count int, entities bigint,
                               OUT entity text, OUT payload jsonb)
RETURNS SETOF record LANGUAGE sql STABLE AS $$
    SELECT 'e' || ((hashint8extended(i, 42) & 9223372036854775807) % entities),
           jsonb_build_object('kind', 'deposit', 'delta', 1 + i % 9,
                              'currency', 'EUR',
                              'reference', 'INV-' || lpad(i::text, 12, '0'))
      FROM generate_series(first, first + count - 1) i
$$;

-- What the states of all entities must add up to after messages 1 .. count.
CREATE FUNCTION bench_expected(count bigint) RETURNS bigint LANGUAGE sql AS $$
    SELECT count + count / 9 * 36 + (count % 9) * (count % 9 + 1) / 2
$$;
