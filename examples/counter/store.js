// store.js - all SQL of the server.
//
// Every call is one statement and so one transaction.  If its connection
// breaks, it is unknown whether it was committed: the caller gets DatabaseAway.

import {readFileSync} from 'node:fs';
import pg from 'pg';

// How many users the page shows: those that changed last.
const MAX_USERS = 200;
const SQLSTATE_STALE_LEASE = '55AN1';

export class DatabaseAway extends Error {}
export class StaleLease extends Error {}

// An error that is not the server's answer is a broken connection; with classes
// 08, 53 and 57 the server cannot be used at the moment.
function isAway(error) {
	return !(error instanceof pg.DatabaseError) || /^(08|53|57)/.test(error.code);
}

function translate(error) {
	if (isAway(error)) {
		return new DatabaseAway(error.message, {cause: error});
	}
	if (error.code === SQLSTATE_STALE_LEASE) {
		return new StaleLease(error.message, {cause: error});
	}
	return error;
}

export class Store {
	#pool;
	#runner;
	#instance;

	constructor(pool, runner, instance) {
		this.#pool = pool;
		this.#runner = runner;
		this.#instance = instance;
	}

	async #query(text, values) {
		try {
			return (await this.#pool.query(text, values)).rows;
		} catch (error) {
			throw translate(error);
		}
	}

	// Creates what is missing.  Instances that start at the same time take turns.
	async setUp() {
		const [{view}] = await this.#query("SELECT to_regclass('counter_mailbox') AS view");

		if (view === null) {
			throw new Error('the database is not prepared: let a superuser run admin.sql there');
		}
		await this.#query("SELECT pg_advisory_xact_lock(hashtext('counter.sql'));" +
			readFileSync(new URL('counter.sql', import.meta.url), 'utf8'));
	}

	// Posts a delta to a user.  False: the request had been posted before.
	async post(userId, delta, requestId) {
		const [{id}] = await this.#query('SELECT post_delta($1, $2, $3, $4) AS id',
			[this.#runner, userId, delta, requestId]);

		return id !== null;
	}

	async forgetOldRequests() {
		await this.#query(
			"DELETE FROM counter_request WHERE posted_at < now() - interval '1 day'");
	}

	// One user, known or not.
	async status(userId) {
		const [user] = await this.#query(`
			SELECT $2::text AS user_id,
				coalesce(m.state->'total', '0') AS total,
				coalesce(m.state->'count', '0') AS count,
				actornot_pending($1, $2)::int AS pending,
				m.lease_owner, m.lease_until
			  FROM (VALUES (actornot_hash($1, $2))) AS k (hash)
				LEFT JOIN counter_mailbox m
					ON m.hash = k.hash AND m.runner = $1 AND m.entity = $2`,
			[this.#runner, userId]);

		return user;
	}

	// The users that changed last, by name.  A user whose first message still
	// waits is not among them.
	async statusOfAll() {
		return this.#query(`
			SELECT m.entity AS user_id,
				coalesce(m.state->'total', '0') AS total,
				coalesce(m.state->'count', '0') AS count,
				actornot_pending(m.runner, m.entity)::int AS pending,
				m.lease_owner, m.lease_until
			  FROM (SELECT * FROM counter_mailbox WHERE runner = $1
					ORDER BY updated_at DESC LIMIT ${MAX_USERS}) AS m
			 ORDER BY m.entity`, [this.#runner]);
	}

	// A lease of the user's next batch, which is empty if nothing waits;
	// undefined if another instance has it.
	async acquire(userId) {
		const [lease] = await this.#query(
			'SELECT * FROM actornot_acquire($1, $2, owner => $3)',
			[this.#runner, userId, this.#instance]);

		return lease;
	}

	// A lease of any user's next batch; undefined if there is none for a while.
	async acquireAny(wait) {
		const [lease] = await this.#query(
			'SELECT * FROM actornot_acquire($1, wait => $2, owner => $3)',
			[this.#runner, wait, this.#instance]);

		return lease;
	}

	// Saves the new state, marks the batch done and returns the lease of the
	// next one.  If nothing waits, or isLast is true, it returns undefined and
	// the user is free.
	async update(lease, state, isLast) {
		const [next] = await this.#query(
			'SELECT * FROM actornot_update_locked($1, $2, $3, $4, max_messages => $5)',
			[lease.runner, lease.entity, lease.token, state, isLast ? 0 : null]);

		return next;
	}

	// Gives the batch back as one that cannot be processed; it is tried again
	// after longer and longer delays.
	async fail(lease, message) {
		await this.#query('SELECT actornot_fail($1, $2, $3, $4)',
			[lease.runner, lease.entity, lease.token, message]);
	}
}
