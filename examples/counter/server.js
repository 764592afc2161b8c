// server.js - a server that counts webhooks for each user; see README.md.
//
// It keeps nothing that matters: any number of instances can run on one
// database, and each of them can be killed at any time.

import http from 'node:http';
import os from 'node:os';
import {readFileSync} from 'node:fs';
import {parseArgs} from 'node:util';
import pg from 'pg';
import {findDatabase} from './database.js';
import {createHandler} from './handler.js';
import {Processor} from './processor.js';
import {Store} from './store.js';

const USAGE = `usage: npm start -- [OPTION...]
  --mode database|lease  what counts: a handler in the database (the default), or
                         this server, through leases
  --host ADDRESS         where to listen (127.0.0.1)
  --port PORT            (8080)
  --work-ms N            mode lease: pretend that each batch takes N milliseconds`;
const RUNNERS = {database: 'counter', lease: 'counter_leased'};
const HOUR_MS = 3600 * 1000;
const STOP_DEADLINE_MS = 10 * 1000;

function fail(message) {
	console.error(message);
	process.exit(1);
}

function parseNumber(options, name, max) {
	const value = options[name];

	if (!/^\d{1,6}$/.test(value) || Number(value) > max) {
		throw new Error(`--${name} must be a number from 0 to ${max}`);
	}
	return Number(value);
}

function parseOptions() {
	const {values} = parseArgs({options: {
		mode: {type: 'string', default: 'database'},
		host: {type: 'string', default: '127.0.0.1'},
		port: {type: 'string', default: '8080'},
		'work-ms': {type: 'string', default: '0'},
	}});

	if (!Object.hasOwn(RUNNERS, values.mode)) {
		throw new Error('--mode must be database or lease');
	}
	return {
		mode: values.mode,
		host: values.host,
		port: parseNumber(values, 'port', 65535),
		workMs: parseNumber(values, 'work-ms', 60000),
	};
}

function openPool(database, instance) {
	const pool = new pg.Pool({
		...database,
		application_name: instance,
		max: 10,
		connectionTimeoutMillis: 5000,
	});

	// A connection that breaks while it is idle is simply replaced.
	pool.on('error', (error) => console.error(`lost a connection: ${error.message}`));
	return pool;
}

function listen(server, port, host) {
	return new Promise((resolve, reject) => {
		server.once('error', reject);
		server.listen(port, host, resolve);
	});
}

// Forgets old requests now and then.  If a call fails, the next one does its work.
function keepTidy(store) {
	const forget = () => store.forgetOldRequests().catch(
		(error) => console.error(`could not forget old requests: ${error.message}`));

	forget();
	return setInterval(forget, HOUR_MS);
}

// Answers the open requests, finishes the batches at hand, keeps no lease.
async function stop({server, processor, pool, timer}) {
	setTimeout(() => fail('it took too long to stop'), STOP_DEADLINE_MS).unref();
	clearInterval(timer);
	const closed = new Promise((resolve) => server.close(resolve));
	server.closeIdleConnections();
	await closed;
	await processor?.whenIdle();
	await pool.end();
}

async function main(options) {
	const instance = `${os.hostname()}/${process.pid}`;
	const pool = openPool(findDatabase(), instance);
	const store = new Store(pool, RUNNERS[options.mode], instance);
	const stopping = new AbortController();

	await store.setUp();
	const processor = options.mode === 'lease' ?
		new Processor(store, stopping.signal, options.workMs) : null;
	const server = http.createServer();
	server.on('request', createHandler({
		store,
		processor,
		identity: {mode: options.mode, instance},
		page: readFileSync(new URL('page.html', import.meta.url)),
		stopping: stopping.signal,
	}));
	await listen(server, options.port, options.host);
	processor?.start();
	const timer = keepTidy(store);
	for (const signal of ['SIGTERM', 'SIGINT']) {
		process.once(signal, () => {
			stopping.abort();
			stop({server, processor, pool, timer}).catch(
				(error) => fail(`could not stop properly: ${error.message}`));
		});
	}
	console.log(`${instance} counts in mode ${options.mode}: ` +
		`listening on http://${options.host}:${server.address().port}/`);
}

let options;
try {
	options = parseOptions();
} catch (error) {
	fail(`${error.message}\n${USAGE}`);
}
main(options).catch((error) => fail(`could not start: ${error.message}`));
