-- What the workers of this folder work on: accounts.  A message is a booking,
-- {"delta": 5}; "ms" in it is how many milliseconds it pretends to take.
CREATE TABLE ledger (message bigint, account text, delta bigint);

-- No handler: only programs outside run it.
SELECT actornot_register('booking', retry_delay => '100 ms', max_attempts => 3);
