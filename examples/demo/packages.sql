-- A state machine for each package of this machine, fed from dpkg.log.
--
-- A line of that log is one of
--
--	DATE TIME status STATUS PACKAGE VERSION
--	DATE TIME install|upgrade|configure|... PACKAGE OLD-VERSION NEW-VERSION
--	DATE TIME startup|conffile ...                names no package
--
-- and becomes a message to the entity that is the package (or, where there is
-- none, the action).

-- The log as it was read, in its order.
CREATE TABLE log_line (
	number	bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	line	text NOT NULL
);

CREATE FUNCTION entity_of(line text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE
			   WHEN word[3] = 'status' THEN word[5]
			   WHEN word[3] IN ('startup', 'conffile') THEN word[3]
			   ELSE coalesce(nullif(word[4], ''), nullif(word[3], ''), 'unknown')
		   END
	FROM string_to_array(line, ' ') AS word
$$;

-- The state: {"status": the current one, "version": that it has now,
-- "versions": those installed or upgraded to so far, "changes": how often the
-- status became another one, "lines": all lines about it}.
CREATE FUNCTION package(entity text, state jsonb, messages actornot_message[])
RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
	status		text := state->>'status';
	version		text := state->>'version';
	versions	jsonb := coalesce(state->'versions', '[]');
	changes		bigint := coalesce((state->>'changes')::bigint, 0);
	lines		bigint := coalesce((state->>'lines')::bigint, 0);
	message		actornot_message;
	word		text[];
BEGIN
	FOREACH message IN ARRAY messages LOOP
		word := string_to_array(message.payload->>'line', ' ');
		lines := lines + 1;
		IF word[3] = 'status' THEN
			IF word[4] IS DISTINCT FROM status THEN
				changes := changes + 1;
			END IF;
			status := word[4];
			version := word[6];
		ELSIF word[3] IN ('install', 'upgrade') AND word[6] IS NOT NULL THEN
			versions := versions || to_jsonb(word[6]);
		END IF;
	END LOOP;
	RETURN jsonb_build_object('status', status, 'version', version,
							  'versions', versions, 'changes', changes,
							  'lines', lines);
END
$$;

SELECT actornot_register('package', 'package');

-- One client of many: it posts its share of the packages, each package's
-- lines in the order of the log, some of them in each transaction.
CREATE PROCEDURE post_share(session int, sessions int)
LANGUAGE plpgsql AS $$
DECLARE
	high	bigint := (SELECT max(number) FROM log_line);
	step	CONSTANT int := 400;
BEGIN
	FOR low IN 1 .. high BY step LOOP
		PERFORM actornot_post('package', entity,
							  jsonb_build_object('line', line))
		FROM (SELECT entity_of(line) AS entity, line
			  FROM log_line
			  WHERE number >= low AND number < low + step
			  ORDER BY number) AS piece
		WHERE abs(hashtext(entity)::bigint) % sessions = session;
		COMMIT;
	END LOOP;
END
$$;

-- The states of the actors, a line for each, to be compared.
CREATE VIEW package_report AS
	SELECT concat_ws('|', entity, coalesce(state->>'status', '-'),
					 coalesce(state->>'version', '-'),
					 (SELECT coalesce(string_agg(version, ',' ORDER BY position), '-')
					  FROM jsonb_array_elements_text(state->'versions')
						   WITH ORDINALITY AS item (version, position)),
					 state->>'changes', state->>'lines') AS line
	FROM (SELECT entity, actornot_state('package', entity) AS state
		  FROM (SELECT DISTINCT entity_of(log_line.line) AS entity
				FROM log_line) AS entities) AS states;
