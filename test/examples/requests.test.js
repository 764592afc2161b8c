// requests.test.js - the answers of examples/counter, and that it goes on after
// its database was away.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {randomUUID} from 'node:crypto';
import {after, before, test} from 'node:test';
import {Instance, waitFor} from './instance.js';

const MODES = ['database', 'lease'];
const instances = {};

function newUser(name) {
	return `${name}-${randomUUID().slice(0, 8)}`;
}

// Waits also until the user is not leased: the instance of the last webhook may
// find that another has counted it, and holds a lease without messages briefly.
async function waitForCount(instance, userId, count) {
	return waitFor(`${count} webhooks of ${userId}`, async () => {
		const status = await instance.status(userId);
		return status.count === count && status.pending === 0 &&
			status.lease_owner === null && status;
	});
}

async function pgCtl(...args) {
	const child = spawn('pg_ctl',
		['-D', `${process.env.SERVER}/data`, '-w', '-s', ...args], {stdio: 'ignore'});

	assert.deepEqual(await once(child, 'exit'), [0, null], `pg_ctl ${args}`);
}

// As the superuser.
async function psql(command) {
	const child = spawn('psql', ['-XAtq', '-U', 'postgres', '-c', command],
		{stdio: ['ignore', 'pipe', 'inherit']});
	let output = '';

	child.stdout.on('data', (data) => {
		output += data;
	});
	assert.deepEqual(await once(child, 'close'), [0, null], command);
	return output;
}

before(async () => {
	for (const mode of MODES) {
		instances[mode] = await Instance.start(mode);
	}
});

after(() => Promise.all(Object.values(instances).map((instance) => instance.kill())));

for (const mode of MODES) {
	test(`mode ${mode}: webhooks are counted, a repeated request once`, async () => {
		const instance = instances[mode];
		const userId = newUser('alice & "Bob" <ü>');
		const webhook = {user_id: userId, delta: 5, request_id: randomUUID()};

		for (const duplicate of [false, true]) {
			const response = await instance.post(webhook);
			assert.equal(response.status, 202);
			assert.deepEqual(await response.json(), {accepted: true, duplicate});
		}
		assert.equal((await instance.post({user_id: userId, delta: -12})).status, 202);
		assert.deepEqual(await waitForCount(instance, userId, 2), {
			user_id: userId, total: -7, count: 2, pending: 0,
			lease_owner: null, lease_until: null,
		});
		const {users, ...identity} = await instance.get('/status');
		assert.deepEqual(identity, {mode, instance: instance.name});
		assert.equal(users.find((user) => user.user_id === userId).total, -7);
	});
}

test('an unknown user has counted nothing', async () => {
	const {total, count, pending} = await instances.database.status(newUser('nobody'));
	assert.deepEqual({total, count, pending}, {total: 0, count: 0, pending: 0});
});

test('wrong requests are refused', async () => {
	const expected = [
		['/webhook?delta=5', 400],
		['/webhook?user_id=&delta=5', 400],
		['/webhook?user_id=a%00b&delta=5', 400],
		[`/webhook?user_id=${'x'.repeat(1025)}&delta=5`, 400],
		['/webhook?user_id=alice', 400],
		['/webhook?user_id=alice&delta=', 400],
		['/webhook?user_id=alice&delta=1.5', 400],
		['/webhook?user_id=alice&delta=five', 400],
		['/webhook?user_id=alice&delta=99999999999', 400],
		['/webhook?user_id=alice&delta=5&request_id=', 400],
		['/status?user_id=', 400],
		['/nothing', 404],
		['/constructor', 404],
	];

	for (const [path, status] of expected) {
		const response = await instances.database.request(path);
		assert.equal(response.status, status, path);
		assert.ok((await response.json()).error, path);
	}
	const response = await instances.database.request('/status', {method: 'POST'});
	assert.equal(response.status, 405);
	assert.equal(response.headers.get('Allow'), 'GET, HEAD');
});

test('mode lease: a message that cannot be counted is tried again later', async () => {
	const instance = instances.lease;
	const userId = newUser('poison');

	await psql(`SELECT actornot_post('counter_leased', '${userId}', '{"delta": "many"}')`);
	await waitFor('the error', async () => (await psql(
		`SELECT last_error FROM actornot.mailbox WHERE entity = '${userId}'`))
		.includes('has no delta'));
	const {total, pending, lease_owner: owner} = await instance.status(userId);
	assert.deepEqual({total, pending, owner}, {total: 0, pending: 1, owner: null});
	await psql(`SELECT actornot_skip('counter_leased', '${userId}')`);
	await instance.post({user_id: userId, delta: 3});
	await waitForCount(instance, userId, 1);
});

// An instance that works slowly on a message of this user.  The other one is
// stopped meanwhile, so that it cannot process the message first.
async function startSlowOne(context, userId, workMs) {
	assert.equal(await instances.lease.stop(), 0);
	const slow = await Instance.start('lease', '--work-ms', String(workMs));
	context.after(() => slow.kill());
	assert.equal((await slow.post({user_id: userId, delta: 8})).status, 202);
	await waitFor('the lease', async () =>
		(await slow.status(userId)).lease_owner === slow.name);
	return slow;
}

test('mode lease: an instance that is stopped saves its batch first', async (context) => {
	const userId = newUser('stopped');
	const slow = await startSlowOne(context, userId, 4000);

	assert.equal(await slow.stop(), 0);
	instances.lease = await Instance.start('lease');
	const {total, lease_owner: owner} = await instances.lease.status(userId);
	assert.deepEqual({total, owner}, {total: 8, owner: null});
});

test('mode lease: an instance that outlasts its lease counts nothing', async (context) => {
	const userId = newUser('late');
	const slow = await startSlowOne(context, userId, 15000);

	instances.lease = await Instance.start('lease');
	await waitForCount(instances.lease, userId, 1);
	await waitFor('the slow one to notice', () => slow.log.includes('is no longer held'));
	assert.equal((await waitForCount(instances.lease, userId, 1)).total, 8);
});

test('while the database is away webhooks get a 503, and then it goes on', async () => {
	for (const [mode, instance] of Object.entries(instances)) {
		const userId = newUser('patient');
		const webhook = {user_id: userId, delta: 1, request_id: randomUUID()};

		await pgCtl('-m', 'immediate', 'stop');
		try {
			const response = await instance.post(webhook);
			assert.equal(response.status, 503, mode);
			assert.equal(response.headers.get('Retry-After'), '1');
			assert.deepEqual(await response.json(), {error: 'the database is away'});
			assert.equal((await instance.request('/')).status, 200);
		} finally {
			await pgCtl('-l', `${process.env.SERVER}/server.log`, 'start');
		}
		assert.equal((await instance.post(webhook)).status, 202, mode);
		assert.equal((await waitForCount(instance, userId, 1)).total, 1);
	}
});
