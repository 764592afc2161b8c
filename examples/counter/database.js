// database.js - which database to use.

import {spawnSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {fileURLToPath} from 'node:url';

// Starts the demo's private server, if it is not running, and returns the URL
// of the database there that is prepared for this example.
function startDemoServer() {
	const script = fileURLToPath(new URL('../../scripts/demo', import.meta.url));

	if (!existsSync(script)) {
		throw new Error('there is no DATABASE_URL, and no scripts/demo to start a server');
	}
	const {error, status, stdout} = spawnSync(script, ['server', 'counter'],
		{stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8'});
	if (error || status !== 0) {
		throw new Error('scripts/demo did not start a server');
	}
	return stdout.trim();
}

// Settings for pg: DATABASE_URL, or the usual PG* variables, or the demo's
// server if there is neither.
export function findDatabase() {
	if (process.env.DATABASE_URL) {
		return {connectionString: process.env.DATABASE_URL};
	}
	if (process.env.PGHOST) {
		return {};
	}
	return {connectionString: startDemoServer()};
}
