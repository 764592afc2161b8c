CREATE SEQUENCE bench_n;
CREATE TABLE effect (n bigint);
CREATE FUNCTION note_effect(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO effect SELECT (m.payload->>'n')::bigint FROM unnest(messages) m;
    RETURN jsonb_build_object('n',
        coalesce((state->>'n')::bigint, 0) + cardinality(messages));
END
$$;
