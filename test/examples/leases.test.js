// leases.test.js - the programs of doc/leases.md: the files equal the page, and
// they book every message once, while they are killed and stopped.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {existsSync, readFileSync} from 'node:fs';
import {once} from 'node:events';
import {after, before, test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {waitFor} from './instance.js';

// scripts/test-examples puts examples/leases, its packages installed, beside
// this folder, and the sources into "tree".
const PROGRAMS = fileURLToPath(new URL('../leases/', import.meta.url));
const PAGE = new URL('../tree/doc/leases.md', import.meta.url);
const QUOTED = ['setup.sql', 'worker.js', 'worker.py', 'worker.go'];
const MAX_LINES = 40;
const LEASE_SECONDS = 4;
const MESSAGES = 1000;
const KILLS = 8;

// psycopg2 is Debian's, and so its Python has to be.
const DEBIAN_PYTHON = '/usr/bin/python3';
const COMMANDS = {
	'worker.js': [process.execPath, 'worker.js'],
	'worker.py': [existsSync(DEBIAN_PYTHON) ? DEBIAN_PYTHON : 'python3', 'worker.py'],
};

const workers = new Set();

class Worker {
	#child;
	#ended;
	log = '';

	constructor(program) {
		const [command, ...args] = COMMANDS[program];

		this.#child = spawn(command, args, {cwd: PROGRAMS, stdio: ['ignore', 'ignore', 'pipe'],
			env: {...process.env, LEASE_SECONDS}});
		this.#child.stderr.on('data', (data) => {
			this.log += data;
		});
		this.#ended = once(this.#child, 'close');
		workers.add(this);
	}

	signal(name) {
		this.#child.kill(name);
	}

	// Its exit status; null if it died of a signal.
	async end(signal) {
		this.signal(signal);
		workers.delete(this);
		return (await this.#ended)[0];
	}
}

async function psql(command, ...args) {
	const child = spawn('psql', ['-XAtq', '-v', 'ON_ERROR_STOP=1', ...args, '-c', command],
		{stdio: ['ignore', 'pipe', 'inherit']});
	let output = '';

	child.stdout.on('data', (data) => {
		output += data;
	});
	assert.deepEqual(await once(child, 'close'), [0, null], command);
	return output.trim();
}

async function post(account, payload) {
	await psql(`SELECT actornot_post('booking', '${account}', '${JSON.stringify(payload)}')`);
}

async function waitUntilLeased(pattern) {
	await waitFor(`a lease of ${pattern}`, async () => await psql(
		`SELECT count(*) > 0 FROM counter_mailbox WHERE runner = 'booking'
			AND entity LIKE '${pattern}' AND lease_until IS NOT NULL`) === 't');
}

async function waitUntilBooked(pattern, count) {
	await waitFor(`${count} bookings of ${pattern}`, async () => Number(await psql(
		`SELECT count(*) FROM ledger WHERE account LIKE '${pattern}'`)) >= count);
}

// The states and the ledger, which were written in one transaction.
async function totals(pattern) {
	return (await psql(`
		SELECT (SELECT sum((state->'total')::int) FROM counter_mailbox
				 WHERE runner = 'booking' AND entity LIKE '${pattern}'),
			sum(delta), count(*), count(DISTINCT message)
		  FROM ledger WHERE account LIKE '${pattern}'`)).split('|').map(Number);
}

before(() => psql('', '-f', `${PROGRAMS}setup.sql`));

after(() => Promise.all([...workers].map((worker) => worker.end('SIGKILL'))));

for (const file of QUOTED) {
	test(`doc/leases.md quotes ${file}`, () => {
		const text = readFileSync(PROGRAMS + file, 'utf8');

		assert.ok(readFileSync(PAGE, 'utf8').includes(`\n${text}\`\`\`\n`), 'it differs');
		assert.ok(text.split('\n').length - 1 <= MAX_LINES, 'it is too long');
	});
}

for (const program of Object.keys(COMMANDS)) {
	test(`${program}: books, fails, renews and stops`, async () => {
		const account = `alice-${program}`;
		const worker = new Worker(program);

		await post(account, {delta: 5});
		await waitUntilBooked(account, 1);
		await post(account, {delta: 'much'});	// no worker can book that
		await post(account, {delta: 7});
		await waitUntilBooked(account, 2);
		assert.deepEqual(await totals(account), [12, 12, 2, 2]);
		assert.equal(await psql(`SELECT string_agg(payload->>'delta', ',')
			FROM actornot.dead_letters WHERE entity = '${account}'`), 'much');

		// Together they take longer than the lease.
		const slow = JSON.stringify({delta: 1, ms: LEASE_SECONDS * 200});
		await psql(`SELECT actornot_post_many('booking',
			array_fill('${account}'::text, ARRAY[8]), array_fill('${slow}'::jsonb, ARRAY[8]))`);
		await waitUntilLeased(account);
		assert.equal(await psql(`SELECT count(*) FROM actornot_acquire('booking',
			'${account}', wait => '${LEASE_SECONDS * 1.2} s') WHERE messages <> '[]'`), '0');
		await waitUntilBooked(account, 10);
		assert.deepEqual(await totals(account), [20, 20, 10, 10]);
		assert.equal(await worker.end('SIGTERM'), 0, worker.log);
		assert.equal(worker.log, '');
	});

	test(`${program}: a worker that outlasts its lease changes nothing`, async () => {
		const account = `bob-${program}`;
		const sleeper = new Worker(program);

		await post(account, {delta: 1, ms: LEASE_SECONDS * 800});
		await waitUntilLeased(account);
		sleeper.signal('SIGSTOP');
		const other = new Worker(program);
		await waitUntilBooked(account, 1);
		assert.equal(await other.end('SIGTERM'), 0, other.log);
		sleeper.signal('SIGCONT');
		await waitFor('it has noticed', () => sleeper.log !== '');
		assert.match(sleeper.log, /is no longer held/);
		assert.deepEqual(await totals(account), [1, 1, 1, 1]);

		// And goes on.
		await post(account, {delta: 1});
		await waitUntilBooked(account, 2);
		assert.deepEqual(await totals(account), [2, 2, 2, 2]);
		assert.equal(await sleeper.end('SIGTERM'), 0, sleeper.log);
	});
}

test(`${MESSAGES} messages are booked once, ${KILLS} workers killed`, async () => {
	const programs = Object.keys(COMMANDS);
	const running = programs.map((program) => new Worker(program));

	await psql(`SELECT count(actornot_post('booking', 'carol-' || i % 20,
		jsonb_build_object('delta', i, 'ms', 5))) FROM generate_series(1, ${MESSAGES}) AS i`);
	for (let kill = 0; kill < KILLS; kill++) {
		await waitUntilLeased('carol-%');
		running.push(new Worker(programs[kill % programs.length]));
		await running.shift().end('SIGKILL');
	}
	await waitUntilBooked('carol-%', MESSAGES);
	const sum = MESSAGES * (MESSAGES + 1) / 2;
	assert.deepEqual(await totals('carol-%'), [sum, sum, MESSAGES, MESSAGES]);
	for (const worker of running) {
		assert.equal(await worker.end('SIGTERM'), 0, worker.log);
	}
});
