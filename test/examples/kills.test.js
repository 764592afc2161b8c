// kills.test.js - examples/counter counts every acknowledged webhook once, and
// nothing else, while its instances are killed.
//
// Clients send webhooks to three instances.  One that gets no answer, because
// its instance was killed, sends the same request again, to any instance, until
// it is acknowledged; so in the end every webhook has been, and a message that
// was lost or counted twice shows in the sum or in the number.

import assert from 'node:assert/strict';
import {randomUUID} from 'node:crypto';
import {test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {Instance, waitFor} from './instance.js';

const WEBHOOKS = Number(process.env.WEBHOOKS ?? 10000);
const USERS = 100;
const CLIENTS = 24;
const INSTANCES = 3;
const KILLS = 8;
const WORK_MS = 5;			// of a batch, so that a kill meets leases that are held
const MAX_DELTA = 1000;
const RETRY_MS = 20;

// What the clients know: for each user what was acknowledged.
class Ledger {
	#users = new Map();
	acknowledged = 0;

	constructor(names) {
		for (const name of names) {
			this.#users.set(name, {total: 0, count: 0});
		}
	}

	add(userId, delta) {
		const user = this.#users.get(userId);

		user.total += delta;
		user.count++;
		this.acknowledged++;
	}

	// One line for each user whose counter in the database differs.
	async differences(instance) {
		const found = [];

		for (const [userId, expected] of this.#users) {
			const {total, count} = await instance.status(userId);
			if (total !== expected.total || count !== expected.count) {
				found.push(`${userId}: ${count} webhooks make ${total}, ` +
					`acknowledged were ${expected.count} that make ${expected.total}`);
			}
		}
		return found;
	}

	async waitUntilCounted(instance) {
		for (const userId of this.#users.keys()) {
			await waitFor(`nothing waits for ${userId}`,
				async () => (await instance.status(userId)).pending === 0);
		}
	}
}

class Fleet {
	#mode;
	#instances = [];
	killed = [];

	constructor(mode) {
		this.#mode = mode;
	}

	async #startOne() {
		return Instance.start(this.#mode, '--work-ms', String(WORK_MS));
	}

	async start() {
		this.#instances = await Promise.all(
			Array.from({length: INSTANCES}, () => this.#startOne()));
	}

	any() {
		return this.#instances[Math.floor(Math.random() * this.#instances.length)];
	}

	// Kills one and starts a new one in its place; clients meet the dead one
	// meanwhile.  Returns how many leases died with it.
	async replaceOne() {
		const place = this.killed.length % INSTANCES;
		const victim = this.#instances[place];
		const witness = this.#instances[(place + 1) % INSTANCES];

		await victim.kill();
		this.killed.push(victim.name);
		const {users} = await witness.get('/status');
		this.#instances[place] = await this.#startOne();
		return users.filter((user) => user.lease_owner === victim.name).length;
	}

	// Their exit statuses.
	async stop() {
		return Promise.all(this.#instances.map((instance) => instance.stop()));
	}

	// Their complaints.  On a machine that is too busy a lease can expire, or a
	// request can wait too long for a connection.
	get complaints() {
		return this.#instances.flatMap((instance) => instance.log.split('\n'))
			.filter((line) => line !== '' &&
				!/is no longer held|timeout exceeded when trying to connect/.test(line));
	}

	async kill() {
		await Promise.all(this.#instances.map((instance) => instance.kill()));
	}
}

// Sends one webhook until it is acknowledged.
async function sendStubbornly(fleet, webhook, seen) {
	for (;;) {
		try {
			const response = await fleet.any().post(webhook);
			const answer = await response.json();
			if (response.status === 202) {
				seen.duplicates += answer.duplicate ? 1 : 0;
				return;
			}
			assert.equal(response.status, 503, JSON.stringify(answer));
		} catch (error) {
			if (error instanceof assert.AssertionError) {
				throw error;
			}
			// A refused connection is not counted: the instance was dead before.
			seen.unanswered += error.cause?.code === 'ECONNREFUSED' ? 0 : 1;
		}
		await sleep(RETRY_MS);
	}
}

async function runClient(fleet, names, ledger, seen, work) {
	while (work.left > 0) {
		work.left--;
		const userId = names[Math.floor(Math.random() * names.length)];
		const delta = Math.floor(Math.random() * (2 * MAX_DELTA + 1)) - MAX_DELTA;
		await sendStubbornly(fleet,
			{user_id: userId, delta, request_id: randomUUID()}, seen);
		ledger.add(userId, delta);
	}
}

// Kills an instance each time that a share of the webhooks has been sent.
async function runKiller(fleet, seen, work) {
	for (let kill = 1; kill <= KILLS; kill++) {
		const left = WEBHOOKS * (1 - kill / (KILLS + 1));
		await waitFor(`${left} webhooks left`, () => work.left <= left);
		seen.orphans += await fleet.replaceOne();
	}
}

async function countThroughKills(mode, context) {
	const run = randomUUID().slice(0, 8);
	const names = Array.from({length: USERS}, (_, n) => `user-${run}-${n}`);
	const ledger = new Ledger(names);
	const fleet = new Fleet(mode);
	const seen = {unanswered: 0, duplicates: 0, orphans: 0};
	const work = {left: WEBHOOKS};

	context.after(() => fleet.kill());
	await fleet.start();
	await Promise.all([
		runKiller(fleet, seen, work),
		...Array.from({length: CLIENTS}, () => runClient(fleet, names, ledger, seen, work)),
	]);
	context.diagnostic(`${ledger.acknowledged} acknowledged; ${fleet.killed.length} ` +
		`instances killed; ${seen.unanswered} requests unanswered, of which ` +
		`${seen.duplicates} had been committed; ${seen.orphans} leases orphaned`);
	assert.equal(ledger.acknowledged, WEBHOOKS);

	await ledger.waitUntilCounted(fleet.any());
	assert.deepEqual(await ledger.differences(fleet.any()), []);

	// The kills must have met requests and leases, else the test proves little.
	assert.ok(seen.unanswered > 0, 'no kill met a request');
	assert.ok(mode !== 'lease' || seen.orphans > 0, 'no kill met a lease');
	await assertThatItCanFail(fleet.any(), names[0], ledger);
	assert.deepEqual(await fleet.stop(), Array(INSTANCES).fill(0));
	assert.deepEqual(fleet.complaints, []);
}

// One webhook too many must be noticed.
async function assertThatItCanFail(instance, userId, ledger) {
	assert.equal((await instance.post({user_id: userId, delta: 0})).status, 202);
	await ledger.waitUntilCounted(instance);
	const differences = await ledger.differences(instance);
	assert.equal(differences.length, 1, differences.join('\n'));
	assert.match(differences[0], new RegExp(`^${userId}: `));
}

for (const mode of ['database', 'lease']) {
	test(`mode ${mode}: ${WEBHOOKS} webhooks, ${KILLS} instances killed`,
		(context) => countThroughKills(mode, context));
}
