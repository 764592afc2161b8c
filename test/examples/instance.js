// instance.js - instances of examples/counter, for the tests.  EXAMPLE is the
// folder of the example, its packages installed; PG* say where the database is.

import {spawn} from 'node:child_process';
import {once} from 'node:events';
import readline from 'node:readline';
import {setTimeout as sleep} from 'node:timers/promises';

const START_MS = 30 * 1000;
const WAIT_MS = 60 * 1000;
const LOOK_AGAIN_MS = 50;

export class Instance {
	#child;
	#exited;
	#log = [];

	// name is shown by /status, and is the owner of the instance's leases.
	name;
	url;

	// Starts one and waits until it listens.
	static async start(mode, ...options) {
		const instance = new Instance();

		await instance.#launch(['server.js', '--mode', mode, '--port', '0', ...options]);
		return instance;
	}

	async #launch(args) {
		this.#child = spawn(process.execPath, args,
			{cwd: process.env.EXAMPLE, stdio: ['ignore', 'pipe', 'pipe']});
		this.#exited = once(this.#child, 'exit');
		const errors = readline.createInterface({input: this.#child.stderr});
		errors.on('line', (line) => this.#log.push(line));
		const timer = setTimeout(() => this.#child.kill('SIGKILL'), START_MS);
		const lines = readline.createInterface({input: this.#child.stdout});
		for await (const line of lines) {
			const found = /^(\S+) counts .* listening on (\S+)\/$/.exec(line);
			if (found) {
				[, this.name, this.url] = found;
				break;
			}
		}
		clearTimeout(timer);
		if (!this.url) {
			throw new Error(`an instance did not start: ${this.log}`);
		}
	}

	// What it wrote to stderr.
	get log() {
		return this.#log.join('\n');
	}

	// Returns when it is gone.
	async kill() {
		this.#child.kill('SIGKILL');
		await this.#exited;
	}

	// Asks it to stop; returns its exit status, null if it died of a signal.
	async stop() {
		this.#child.kill('SIGTERM');
		return (await this.#exited)[0];
	}

	async request(path, options = {}) {
		return fetch(`${this.url}${path}`, {signal: AbortSignal.timeout(10000), ...options});
	}

	async get(path) {
		const response = await this.request(path);

		if (!response.ok) {
			throw new Error(`${path}: status ${response.status}`);
		}
		return response.json();
	}

	async post(params) {
		return this.request(`/webhook?${new URLSearchParams(params)}`, {method: 'POST'});
	}

	async status(userId) {
		return this.get(`/status?${new URLSearchParams({user_id: userId})}`);
	}
}

// Waits until condition() returns something true, and returns that.
export async function waitFor(what, condition, waitMs = WAIT_MS) {
	const end = Date.now() + waitMs;

	for (;;) {
		const result = await condition();
		if (result) {
			return result;
		}
		if (Date.now() > end) {
			throw new Error(`timed out waiting for: ${what}`);
		}
		await sleep(LOOK_AGAIN_MS);
	}
}
