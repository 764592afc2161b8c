-- The part of the counter that needs a superuser, once in each database:
--
--	psql -d DATABASE -v role=ROLE -f admin.sql
--
-- ROLE is the role that the server connects as; it will own the runners.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;

CREATE EXTENSION IF NOT EXISTS actornot;
GRANT EXECUTE ON FUNCTION actornot_register TO :"role";

-- The leases and their holders, for roles that have the rights of the runner's
-- owner: the table itself is for superusers.
CREATE OR REPLACE VIEW counter_mailbox WITH (security_barrier) AS
SELECT m.hash, r.name AS runner, m.entity, m.state, m.updated_at,
	CASE WHEN m.lease_until > clock_timestamp()
		 THEN m.lease_owner END AS lease_owner,
	CASE WHEN m.lease_until > clock_timestamp()
		 THEN m.lease_until END AS lease_until
  FROM actornot.mailbox m
	JOIN actornot.runner r ON r.id = m.runner
 WHERE r.unregistered_at IS NULL
   AND pg_has_role(r.owner::oid, 'USAGE');
REVOKE ALL ON counter_mailbox FROM PUBLIC;
GRANT SELECT ON counter_mailbox TO :"role";
