// processor.js - processes messages in this server, through leases.
//
// After each post it tries to take that user and works until nothing waits.
// If another instance has the user, it does nothing: the other one will find the
// message when it saves.  Messages that no instance processes, because one died
// or the database was away, are found by a loop that takes each user that is
// ready.

import {setTimeout as sleep} from 'node:timers/promises';
import {count} from './counter.js';
import {StaleLease} from './store.js';

// How long one statement waits for work: stopping can take as long.
const LOOP_WAIT = '1 s';
const RETRY_MS = 1000;

export class Processor {
	#store;
	#stopping;
	#workMs;
	#running = new Set();

	// stopping: an AbortSignal; once it is set, no batch is begun.
	constructor(store, stopping, workMs = 0) {
		this.#store = store;
		this.#stopping = stopping;
		this.#workMs = workMs;
	}

	start() {
		this.#track(this.#takeAnything());
	}

	// Processes what waits for a user, if no other instance does.  Never throws.
	async process(userId) {
		await this.#track(this.#takeUser(userId));
	}

	// Resolves when nothing is being processed: no lease is held.
	async whenIdle() {
		while (this.#running.size > 0) {
			await Promise.all(this.#running);
		}
	}

	async #track(promise) {
		this.#running.add(promise);
		await promise;
		this.#running.delete(promise);
	}

	async #takeUser(userId) {
		try {
			await this.#workOff(await this.#store.acquire(userId));
		} catch (error) {
			console.error(`left to others: ${userId}: ${error.message}`);
		}
	}

	async #takeAnything() {
		while (!this.#stopping.aborted) {
			try {
				await this.#workOff(await this.#store.acquireAny(LOOP_WAIT));
			} catch (error) {
				console.error(`could not process: ${error.message}`);
				await sleep(RETRY_MS);
			}
		}
	}

	// Batch after batch, until nothing waits.
	async #workOff(lease) {
		try {
			while (lease) {
				lease = await this.#processBatch(lease);
			}
		} catch (error) {
			if (!(error instanceof StaleLease)) {
				throw error;
			}
			// Too slow: another instance has the user; nothing was saved here.
			console.error(error.message);
		}
	}

	// Returns the lease of the next batch, if there is one.
	async #processBatch(lease) {
		let state;

		if (lease.messages.length > 0) {
			await sleep(this.#workMs);
		}
		try {
			state = count(lease.state, lease.messages);
		} catch (error) {
			await this.#store.fail(lease, error.message);
			return undefined;
		}
		return this.#store.update(lease, state, this.#stopping.aborted);
	}
}
