// page.test.js - the page of examples/counter in a browser.  Screenshots go to
// the folder SCREENSHOTS.

import assert from 'node:assert/strict';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {randomUUID} from 'node:crypto';
import {after, before, test} from 'node:test';
import {chromium} from 'playwright-core';
import {Instance} from './instance.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
	'--no-first-run', '--disable-background-networking',
	'--disable-component-update', '--disable-sync'];
const VIEWPORT = {width: 1000, height: 700};
const UPDATE_MS = 15 * 1000;
let browser;
let profile;

before(async () => {
	profile = await mkdtemp(path.join(os.tmpdir(), 'actornot-page-'));
	browser = await chromium.launchPersistentContext(profile,
		{executablePath: CHROMIUM, args: FLAGS, viewport: VIEWPORT});
});

after(async () => {
	await browser?.close();
	await rm(profile, {recursive: true, force: true});
});

async function openPage(instance) {
	const page = await browser.newPage();

	page.troubles = [];
	page.on('pageerror', (error) => page.troubles.push(error.message));
	page.on('console', (message) => {
		if (message.type() === 'error') {
			page.troubles.push(message.text());
		}
	});
	await page.goto(`${instance.url}/`);
	return page;
}

async function start(context, mode, ...options) {
	const instance = await Instance.start(mode, ...options);

	context.after(() => instance.kill());
	return instance;
}

// Waits until the row of a user shows this in this column.
async function waitForCell(page, userId, column, text) {
	await page.waitForFunction(([user, name, expected]) => {
		const row = [...document.querySelectorAll('#rows tr')]
			.find((tr) => tr.dataset.user === user);
		return row?.querySelector(`.${name}`)?.textContent.startsWith(expected);
	}, [userId, column, text], {timeout: UPDATE_MS});
}

// How many pixels of an image are not of its most frequent colour, and how many
// colours there are; looked at in a canvas of the browser.
async function examine(page, png) {
	return page.evaluate(async (source) => {
		const image = new Image();
		image.src = source;
		await image.decode();
		const canvas = document.createElement('canvas');
		canvas.width = image.width;
		canvas.height = image.height;
		const context = canvas.getContext('2d');
		context.drawImage(image, 0, 0);
		const pixels = new Uint32Array(
			context.getImageData(0, 0, image.width, image.height).data.buffer);
		const colours = new Map();
		for (const pixel of pixels) {
			colours.set(pixel, (colours.get(pixel) ?? 0) + 1);
		}
		return {
			width: image.width,
			height: image.height,
			colours: colours.size,
			drawn: pixels.length - Math.max(...colours.values()),
		};
	}, `data:image/png;base64,${png.toString('base64')}`);
}

async function photograph(page, name) {
	const png = await page.screenshot();

	await writeFile(path.join(process.env.SCREENSHOTS, `${name}.png`), png);
	const {width, height, colours, drawn} = await examine(page, png);
	assert.deepEqual({width, height}, VIEWPORT);
	assert.ok(colours > 50, `the page has ${colours} colours`);
	assert.ok(drawn > 10000, `the page has ${drawn} pixels that are not background`);
}

test('a blank page would be noticed', async () => {
	const page = await browser.newPage();
	const {colours, drawn} = await examine(page, await page.screenshot());

	assert.deepEqual({colours, drawn}, {colours: 1, drawn: 0});
	await page.close();
});

test('mode database: the page shows the counters and follows them', async (context) => {
	const instance = await start(context, 'database');
	const run = randomUUID().slice(0, 8);
	const [alice, eve] = [`alice-${run}`, `<img src=x onerror=alert(1)>${run}`];

	await instance.post({user_id: alice, delta: 1200});
	await instance.post({user_id: alice, delta: 34});
	await instance.post({user_id: eve, delta: -3});
	const page = await openPage(instance);
	await waitForCell(page, alice, 'total', '1,234');
	await waitForCell(page, alice, 'count', '2');
	await waitForCell(page, eve, 'total', '-3');
	await waitForCell(page, eve, 'user', eve);
	assert.equal(await page.locator('#rows img').count(), 0);
	assert.equal(await page.locator('#where').textContent(),
		`mode database, instance ${instance.name}`);

	// Live: the page is not reloaded.
	await instance.post({user_id: alice, delta: 1});
	await waitForCell(page, alice, 'total', '1,235');

	// By its own form.
	await page.fill('#user', alice);
	await page.fill('#delta', '10');
	await page.click('button');
	await waitForCell(page, alice, 'total', '1,245');
	await photograph(page, 'database');
	assert.deepEqual(page.troubles, []);

	// Without its server it says so.
	await instance.kill();
	await page.locator('#trouble').waitFor({state: 'visible', timeout: UPDATE_MS});
	await page.close();
});

test('mode lease: the page shows the holders of leases, and what waits', async (context) => {
	const instance = await start(context, 'lease', '--work-ms', '3000');
	const userId = `bob-${randomUUID().slice(0, 8)}`;
	const page = await openPage(instance);

	await instance.post({user_id: userId, delta: 40});
	await instance.post({user_id: userId, delta: 2});
	await waitForCell(page, userId, 'lease', instance.name);
	await waitForCell(page, userId, 'waits', '2');
	await photograph(page, 'lease');
	await waitForCell(page, userId, 'total', '42');
	await page.waitForFunction((user) => [...document.querySelectorAll('#rows tr')]
		.find((tr) => tr.dataset.user === user).querySelector('.lease').textContent === '',
	userId, {timeout: UPDATE_MS});
	assert.deepEqual(page.troubles, []);
	await page.close();
});
