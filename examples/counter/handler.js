// handler.js - the answers of the server.
//
//	GET  /                                               the page
//	GET  /status                                         all users
//	GET  /status?user_id=USER                            one user
//	POST /webhook?user_id=USER&delta=N[&request_id=ID]   counts
//
// /webhook takes GET as well, so that the address line of a browser will do.

import {DatabaseAway} from './store.js';

const MAX_USER_BYTES = 1024;		// of an entity
const MAX_REQUEST_ID_BYTES = 200;
const MAX_DELTA = 1e9;

class HttpError extends Error {
	constructor(status, message, headers = {}) {
		super(message);
		this.status = status;
		this.headers = headers;
	}
}

function send(response, status, type, body, headers = {}) {
	response.writeHead(status, {
		'Content-Type': `${type}; charset=utf-8`,
		'Content-Length': Buffer.byteLength(body),
		'Cache-Control': 'no-store',
		'X-Content-Type-Options': 'nosniff',
		...headers,
	});
	response.end(body);
}

function sendJson(response, status, value, headers) {
	send(response, status, 'application/json', `${JSON.stringify(value)}\n`, headers);
}

// ---------------------------------------------------------------- arguments

function readText(params, name, maxBytes) {
	const text = params.get(name);

	if (text !== null && (text === '' || text.includes('\0') ||
		Buffer.byteLength(text) > maxBytes)) {
		throw new HttpError(400, `${name} must have from 1 to ${maxBytes} bytes, none of them zero`);
	}
	return text;
}

function readUser(params) {
	const userId = readText(params, 'user_id', MAX_USER_BYTES);

	if (userId === null) {
		throw new HttpError(400, 'user_id is missing');
	}
	return userId;
}

function readDelta(params) {
	const text = params.get('delta');
	const delta = Number(text);

	if (text === null) {
		throw new HttpError(400, 'delta is missing');
	}
	if (!/^-?\d+$/.test(text) || Math.abs(delta) > MAX_DELTA) {
		throw new HttpError(400, `delta must be a whole number from -${MAX_DELTA} to ${MAX_DELTA}`);
	}
	return delta;
}

// ------------------------------------------------------------------- routes

function showPage({page}, params, response) {
	send(response, 200, 'text/html', page);
}

async function showStatus({store, identity}, params, response) {
	if (params.has('user_id')) {
		sendJson(response, 200, await store.status(readUser(params)));
	} else {
		sendJson(response, 200, {...identity, users: await store.statusOfAll()});
	}
}

// The answer says that the message is committed, so that it cannot get lost.
// It is not yet counted: a processor does that in this server, but the answer
// does not wait for it.
async function takeWebhook({store, processor}, params, response) {
	const userId = readUser(params);
	const isNew = await store.post(userId, readDelta(params),
		readText(params, 'request_id', MAX_REQUEST_ID_BYTES));

	sendJson(response, 202, {accepted: true, duplicate: !isNew});
	await processor?.process(userId);
}

const ROUTES = {
	'/': {methods: ['GET', 'HEAD'], answer: showPage},
	'/status': {methods: ['GET', 'HEAD'], answer: showStatus},
	'/webhook': {methods: ['POST', 'GET'], answer: takeWebhook},
};

// -------------------------------------------------------------------- errors

function toHttpError(error) {
	if (error instanceof HttpError) {
		return error;
	}
	console.error(error instanceof DatabaseAway ?
		`the database is away: ${error.message}` : error);
	if (error instanceof DatabaseAway) {
		return new HttpError(503, 'the database is away', {'Retry-After': '1'});
	}
	return new HttpError(500, 'internal error');
}

function sendError(response, error) {
	const {status, message, headers} = toHttpError(error);

	if (response.headersSent) {
		response.destroy();
	} else {
		sendJson(response, status, {error: message}, headers);
	}
}

function parseUrl(request) {
	try {
		return new URL(`http://localhost${request.url}`);
	} catch {
		throw new HttpError(400, 'this is no URL');
	}
}

async function route(context, request, response) {
	const {pathname, searchParams} = parseUrl(request);
	const found = Object.hasOwn(ROUTES, pathname) ? ROUTES[pathname] : null;

	if (!found) {
		throw new HttpError(404, `there is no ${pathname}`);
	}
	if (!found.methods.includes(request.method)) {
		throw new HttpError(405, `${request.method} is not for ${pathname}`,
			{Allow: found.methods.join(', ')});
	}
	await found.answer(context, searchParams, response);
}

// context: store; processor or null; identity, an object that /status shows;
// page, a Buffer; stopping, an AbortSignal.
export function createHandler(context) {
	return async (request, response) => {
		if (context.stopping.aborted) {
			response.setHeader('Connection', 'close');
		}
		try {
			await route(context, request, response);
		} catch (error) {
			sendError(response, error);
		}
	};
}
