-- The objects of the counter in the database.  The server runs this at each start,
-- so everything here can be run again.

-- The runner of the mode "database": workers call this handler.  It gets a
-- user, the state so far and the messages that wait, oldest first, and returns
-- the new state, which commits together with the fact that these are done.
CREATE OR REPLACE FUNCTION count_deltas(entity text, state jsonb,
	messages actornot_message[])
RETURNS jsonb
LANGUAGE sql
AS $$
	SELECT jsonb_build_object(
		'total', (state->>'total')::bigint + sum((m.payload->>'delta')::bigint),
		'count', (state->>'count')::bigint + count(*))
	  FROM unnest(messages) m
$$;

SELECT actornot_register('counter', 'count_deltas',
	initial_state => '{"total": 0, "count": 0}');

-- The runner of the mode "lease": it has no handler, because the server does
-- the same in JavaScript.  Leases of a server that died end after five seconds.
SELECT actornot_register('counter_leased',
	lease => '5 s',
	initial_state => '{"total": 0, "count": 0}');

-- Requests that have been posted, so that a client that got no answer can
-- send its request again.  The server forgets them after a day.
CREATE TABLE IF NOT EXISTS counter_request (
	runner text,
	request_id text,
	posted_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (runner, request_id)
);
CREATE INDEX IF NOT EXISTS counter_request_posted_at
	ON counter_request (posted_at);

-- Posts a delta to a user, once for each request_id, and returns the message's
-- id; NULL if the request was posted before.  The row and the message commit
-- together or not at all.
CREATE OR REPLACE FUNCTION post_delta(runner text, user_id text, delta bigint,
	request_id text)
RETURNS bigint
LANGUAGE plpgsql
AS $$
BEGIN
	IF request_id IS NOT NULL THEN
		INSERT INTO counter_request (runner, request_id)
			VALUES (runner, request_id)
			ON CONFLICT DO NOTHING;
		IF NOT FOUND THEN
			RETURN NULL;
		END IF;
	END IF;
	RETURN actornot_post(runner, user_id, jsonb_build_object('delta', delta));
END
$$;
