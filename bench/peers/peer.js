// node peer.js PEER TASK - the peers that are libraries of Node.js.
//
// TASK is "setup" (their tables), or work: "drain" with the settings for
// throughput, "drain-in-order" the same with an entity's messages one after the
// other, "latency" with those for latency and an effect for each message.  A
// worker says "ready" when it is connected, begins at the first line of its
// stdin, and ends with it.  The server is named by PGHOST and its like.
import pg from 'pg';
import { makeWorkerUtils, run, Logger } from 'graphile-worker';
import { PgBoss } from 'pg-boss';

const SAVE = `
	INSERT INTO account AS a
	SELECT entity, jsonb_build_object('n', sum(delta))
	  FROM unnest($1::text[], $2::bigint[]) AS m (entity, delta)
	 GROUP BY entity ORDER BY entity
	ON CONFLICT (entity) DO UPDATE SET state = jsonb_build_object('n',
		(a.state->>'n')::bigint + (excluded.state->>'n')::bigint)`;
const SAVE_ONE = `
	INSERT INTO account AS a VALUES ($1, jsonb_build_object('n', $2::bigint))
	ON CONFLICT (entity) DO UPDATE SET state = jsonb_build_object('n',
		(a.state->>'n')::bigint + (excluded.state->>'n')::bigint)`;
const EFFECT = 'INSERT INTO effect SELECT unnest($1::bigint[])';

let done = 0;

// A pool of connections, with what graphile-worker wants of one.
function connections(max) {
	const pool = new pg.Pool({ max });
	const fail = (error) => console.error(error);
	pool.on('error', fail);
	pool.on('connect', (client) => client.on('error', fail));
	return pool;
}

// Tells everybody, once a second, how many messages are done.
function count(pool) {
	setInterval(() => pool.query("SELECT setval('done_0', $1)", [done]), 1000)
		.unref();
}

// Their workers' logs and events: only what went wrong.
const quiet = new Logger(() => (level, message) => {
	if (level === 'error') {
		console.error(message);
	}
});

const graphile = {
	async setup() {
		const pool = connections(2);
		const utils = await makeWorkerUtils({ pgPool: pool,
			preset: { worker: { logger: quiet } } });
		await utils.migrate();
		await utils.release();
	},

	// The settings of worker.graphile.org/docs/performance, which reports
	// throughput and latency with them.  Without the local queue the latency
	// is worse: the jobs do not keep up with 500 posts a second.
	async work(task) {
		const pool = connections(25);
		const settings = { concurrentJobs: 24, maxPoolSize: 25, logger: quiet,
			localQueue: { size: 500 }, completeJobBatchDelay: 0,
			failJobBatchDelay: 0 };
		await pool.query('SELECT 1');
		count(pool);
		return () => run({ pgPool: pool, noHandleSignals: true,
			preset: { worker: settings },
			taskList: {
				bench: async (job) => {
					await (task === 'latency'
						? pool.query({ name: 'effect', text: EFFECT,
							values: [[job.n]] })
						: pool.query({ name: 'save', text: SAVE_ONE,
							values: [job.entity, job.delta] }));
					done++;
				},
			} });
	},
};

const pgboss = {
	async boss(options) {
		const boss = new PgBoss({ host: process.env.PGHOST,
			user: process.env.PGUSER, database: process.env.PGDATABASE,
			...options });
		boss.on('error', (error) => console.error(error));
		await boss.start();
		return boss;
	},

	async setup(in_order) {
		const boss = await this.boss();
		await boss.createQueue('bench', { partition: true, notify: !in_order,
			policy: in_order ? 'key_strict_fifo' : 'standard' });
		await boss.stop({ graceful: false });
	},

	// Batches, each with its states in one transaction; two workers, because
	// one leaves the server idle while it computes.  Latency: LISTEN/NOTIFY,
	// and whatever has come meanwhile at once.
	async work(task) {
		const pool = connections(2);
		const boss = await this.boss({ max: 10,
			useListenNotify: task === 'latency' });
		const options = { batchSize: 500, localConcurrency: 2,
			burstWhenBatchFull: true, pollingIntervalSeconds: 0.5,
			transactional: true };
		if (task === 'latency') {
			Object.assign(options, { batchSize: 50, localConcurrency: 4 });
		}
		count(pool);
		return () => boss.work('bench', options, async (jobs, tx) => {
			await (task === 'latency'
				? tx.executeSql(EFFECT, [jobs.map((job) => job.data.n)])
				: tx.executeSql(SAVE, [jobs.map((job) => job.data.entity),
					jobs.map((job) => job.data.delta)]));
			done += jobs.length;
		});
	},
};

const peer = { graphile, pgboss }[process.argv[2]];
const task = process.argv[3];

if (task.startsWith('setup')) {
	await peer.setup(task === 'setup-in-order');
	process.exit(0);
}
const begin = await peer.work(task);
process.stdin.once('data', begin);
process.stdin.on('end', () => process.exit(0));
console.log('ready');
