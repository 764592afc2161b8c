// worker.js - books, by leases.  Run any number; kill them when you like.
import {setTimeout as sleep} from 'node:timers/promises';
import pg from 'pg';

const LEASE = `${process.env.LEASE_SECONDS ?? 30} s`;
const pool = new pg.Pool({allowExitOnIdle: true}).on('error', () => {}); // an idle connection broke
const query = async (text, ...values) => (await pool.query(text, values)).rows;
let stopping = false;
process.on('SIGTERM', () => { stopping = true; }); // after this batch

async function book(total, messages) {
	for (const {payload} of messages) {
		if (!Number.isInteger(payload?.delta)) throw new Error('no delta');
		await sleep(payload.ms ?? 0);
		total += payload.delta;
	}
	return JSON.stringify({total});
}
async function processBatch({runner, entity, token, state, messages}) {
	let result, lease = [runner, entity, token]; // the token is a string, and has to be
	const timer = setInterval(() => query('SELECT actornot_renew($1, $2, $3, $4)', ...lease, LEASE).catch(() => {}), parseFloat(LEASE) * 300);
	try {
		result = await book(state?.total ?? 0, messages).finally(() => clearInterval(timer));
		return await query(`WITH b AS (INSERT INTO ledger SELECT id, $2, (payload->'delta')::bigint
				FROM jsonb_to_recordset($6) AS m (id bigint, payload jsonb))
			SELECT * FROM actornot_update_locked($1, $2, $3, $4, $5, $7)`, ...lease, result, LEASE, JSON.stringify(messages), stopping ? 0 : null);
	} catch (error) { // the message's fault: there is no result, or 22 data, 23 constraints
		if (result && !/^2[23]/.test(error.code)) throw error;
		return query('SELECT actornot_fail($1, $2, $3, $4)', ...lease, error.message).then(() => []);
	}
}
for (let leases = []; !stopping || leases.length > 0;) {
	try {
		leases = await (leases.length > 0 ? processBatch(leases[0]) : query(
			"SELECT * FROM actornot_acquire('booking', lease => $1, wait => '5 s')", LEASE));
	} catch (error) { // 55AN1: too slow, another program has it
		console.error(error.message);
		leases = await sleep(error.code === '55AN1' ? 0 : 1000, []);
	}
}
