// counter.js - the counting, in JavaScript; the handler in counter.sql is the
// same in SQL.

// The state of a user after these messages.
export function count(state, messages) {
	return messages.reduce((sum, {id, payload}) => {
		if (!Number.isSafeInteger(payload?.delta)) {
			throw new Error(`message ${id} has no delta`);
		}
		return {total: sum.total + payload.delta, count: sum.count + 1};
	}, state);
}
