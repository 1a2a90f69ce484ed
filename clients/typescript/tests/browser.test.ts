// The client in headless Chromium: as modules, of the origin of the page, against the real service.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";

import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";

import { Between, breakOff, drop, envelope, gatewayPage, json, status } from "./between.js";
import { PHOTO, Service } from "./service.js";

declare global {
  var profileLedger: typeof import("profile-ledger-client");
  var ending: AbortController;
}

let service: Service;
let between: Between;
let browser: Browser;
let page: Page;
let token: string;

const ROOT = new URL("..", import.meta.url);

before(async () => {
  service = await Service.start();
  token = service.token();
  between = await Between.start(service.url);
  const module = (path: string) => status(200, { "Content-Type": "text/javascript" }, readFileSync(new URL(path, ROOT), "utf8"));
  for (const name of readdirSync(new URL("dist/", ROOT)).filter((name) => name.endsWith(".js"))) {
    between.files.set(`/client/${name}`, module(`dist/${name}`));
  }
  between.files.set("/openapi-fetch.js", module("node_modules/openapi-fetch/dist/index.mjs"));
  const imports = { "openapi-fetch": "/openapi-fetch.js", "profile-ledger-client": "/client/index.js" };
  const html = `<!doctype html><link rel="icon" href="data:,">
    <script type="importmap">${JSON.stringify({ imports })}</script>
    <script type="module">globalThis.profileLedger = await import("profile-ledger-client");</script>`;
  between.files.set("/", status(200, { "Content-Type": "text/html" }, html));
  const executablePath = execFileSync("sh", ["-c", "command -v chromium"]).toString().trim();
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
});
after(async () => {
  await browser?.close();
  await between?.stop();
  await service?.stop();
});
beforeEach(async () => {
  between.asked.length = 0;
  between.replies = [];
  await page?.close();
  page = await browser.newPage();
  await page.goto(between.url);
  await page.waitForFunction(() => "profileLedger" in globalThis);
});

test("a command is retried until it is done, under one key, and read at once", async () => {
  between.replies = [drop, status(503, { "Retry-After": "0" }), between.loseAnswer];
  const told = await page.evaluate(async (token) => {
    const client = profileLedger.createClient({ baseUrl: "", token, platform: "web" });
    const written = await client.updateProfile({ name: "John", surname: "Doe", bio: "From a browser" });
    const own = await client.profile();
    const again = await client.profile({ known: own });
    return { wasReplayed: written.wasReplayed, bio: own.data.bio, isSame: again === own };
  }, token);
  assert.deepEqual(told, { wasReplayed: true, bio: "From a browser", isSame: true });
  const commands = between.asked.filter(({ method }) => method === "PUT");
  assert.equal(commands.length, 4);
  assert.equal(new Set(commands.map(({ headers }) => headers["idempotency-key"])).size, 1);
  assert.ok(Number(between.asked.at(-1)!.headers["ledger-min-position"]) > 0);
});

for (const code of [429, 503]) {
  test(`${code} is tried again after the seconds that it asks for, in a browser too`, async () => {
    between.replies = [status(code, { "Retry-After": "1" })];
    await page.evaluate((token) => profileLedger.createClient({ baseUrl: "", token }).profile().then(() => undefined), token);
    const [first, second] = between.asked;
    assert.ok(second!.at - first!.at >= 1_000);
  });
}

test("failures of every kind are errors with a code", async () => {
  const errors = [envelope(409, ["<img src=x onerror=alert(1)>"])];
  between.replies = [json(409, errors[0], { "X-Error-Code": "NEW_CODE" }), gatewayPage, breakOff];
  const told = await page.evaluate(async (token) => {
    const client = profileLedger.createClient({ baseUrl: "", token, retries: { attempts: 1 } });
    const told = [];
    for (let call = 0; call < 4; call += 1) {
      // The last one is the service's own answer.
      const made = call < 3 ? client : profileLedger.createClient({ baseUrl: "", token: "x", language: "tr" });
      const error = await made.profile().catch((error: unknown) => error);
      if (!(error instanceof profileLedger.ProfileLedgerError)) throw error;
      told.push([error.status, error.code, ...error.errors]);
    }
    return told;
  }, token);
  assert.deepEqual(told, [
    [409, "NEW_CODE", "<img src=x onerror=alert(1)>"],
    [502, "UNEXPECTED_ANSWER"],
    [0, "NETWORK_ERROR"],
    [401, "AUTHENTICATION_REQUIRED", "Kimlik doğrulaması gerekli"],
  ]);
});

test("a photo is uploaded with progress, also when it takes two attempts", async () => {
  between.files.set("/photo.jpg", (response) => response.writeHead(200, { "Content-Type": "image/jpeg" }).end(PHOTO));
  between.replies = [status(503, { "Retry-After": "0" })];
  const slow = await page.context().newCDPSession(page);
  await slow.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 32_768 });
  const told = await page.evaluate(async (token) => {
    const photo = await (await fetch("/photo.jpg")).blob();
    const client = profileLedger.createClient({ baseUrl: "", token });
    const progress: { sent: number; total: number | undefined }[] = [];
    const { data } = await client.changePhoto(photo, { onProgress: (now) => progress.push(now) });
    const image = new Image();
    image.src = data.profilePhoto!.url;
    await image.decode();
    return { progress, width: image.naturalWidth, position: client.position };
  }, token);
  assert.ok(told.width > 0);
  assert.ok(told.position > 0);
  const { sent, total } = told.progress.at(-1)!;
  assert.equal(sent, total);
  assert.ok(total! > PHOTO.length);
  const finished = told.progress.filter(({ sent }) => sent === total);
  assert.ok(finished.length >= 2, JSON.stringify(told.progress));
  assert.equal(new Set(between.sent("idempotency-key")).size, 1);
});

test("an upload is aborted, with progress and without", async () => {
  for (const isWatched of [true, false]) {
    between.replies = [() => void page.evaluate(() => ending.abort())];
    const name = await page.evaluate(
      async ({ token, isWatched }) => {
        const client = profileLedger.createClient({ baseUrl: "", token });
        globalThis.ending = new AbortController();
        const options = { signal: ending.signal, ...(isWatched && { onProgress: () => undefined }) };
        return client.changePhoto(new Uint8Array(1_000_000), options).catch((error: Error) => error.name);
      },
      { token, isWatched },
    );
    assert.equal(name, "AbortError");
  }
  assert.equal(between.asked.length, 2);
});

test("a photo that is too large is refused with the sentence of the service, with progress and without", async () => {
  const told = await page.evaluate(async (token) => {
    const client = profileLedger.createClient({ baseUrl: "", token });
    const told = [];
    for (const options of [{}, { onProgress: () => undefined }]) {
      const error = await client.changePhoto(new Blob([new Uint8Array(11 * 1024 * 1024)]), options).catch((error: unknown) => error);
      if (!(error instanceof profileLedger.ProfileLedgerError)) throw error;
      told.push([error.status, error.code, error.errors.length > 0]);
    }
    return told;
  }, token);
  assert.deepEqual(told, Array(2).fill([413, "BODY_TOO_LARGE", true]));
});

test("a page of another origin does not reach the service by itself", async () => {
  const code = await page.evaluate(
    async ({ url, token }) => {
      const client = profileLedger.createClient({ baseUrl: url, token, retries: { attempts: 1 } });
      return client.profile().catch((error: { code?: string }) => error.code);
    },
    { url: service.url, token },
  );
  assert.equal(code, "NETWORK_ERROR");
});

test("it works with the fetch of React Native, without streams, randomUUID and reasons of signals", async () => {
  await page.close();
  page = await browser.newPage();
  const absent = `for (const name of ["fetch", "Headers", "Request", "Response"]) delete globalThis[name];
    delete Crypto.prototype.randomUUID;
    delete AbortSignal.prototype.reason;`;
  // What React Native takes its fetch from.
  const fetch = readFileSync(new URL("node_modules/whatwg-fetch/dist/fetch.umd.js", ROOT), "utf8");
  await page.addInitScript({ content: absent + fetch });
  await page.goto(between.url);
  await page.waitForFunction(() => "profileLedger" in globalThis);
  const refusal = json(409, envelope(409, ["Taken"]), { "X-Error-Code": "USERNAME_TAKEN" });
  between.replies = [status(503, { "Retry-After": "0" }), between.loseAnswer, between.handOn, refusal, gatewayPage];
  const told = await page.evaluate(
    async ({ token, photo }) => {
      const client = profileLedger.createClient({ baseUrl: "", token });
      const written = await client.updateProfile({ name: "John", surname: "Doe", bio: "From a phone" });
      const failures = [];
      for (let call = 0; call < 2; call += 1) {
        const error = await client.changeUsername("john").catch((error: unknown) => error);
        if (!(error instanceof profileLedger.ProfileLedgerError)) throw error;
        failures.push([error.status, error.code, ...error.errors]);
      }
      const own = await client.profile();
      const isSame = (await client.profile({ known: own })) === own;
      let sent = 0;
      const file = new Blob([Uint8Array.from(photo)]);
      const changed = await client.changePhoto(file, { onProgress: (now) => (sent = now.sent) });
      const ending = new AbortController();
      const call = client.profile({ signal: ending.signal });
      ending.abort();
      const aborted = await call.catch((error: Error) => error.name);
      const late = profileLedger.createClient({ baseUrl: "", token, retries: { totalMs: 0 } });
      const timeout = await late.profile().catch((error: { code?: string }) => error.code);
      return { wasReplayed: written.wasReplayed, bio: own.data.bio, failures, isSame, hasSent: sent > file.size, isNative: String(fetch).includes("native"), etag: changed.etag, aborted, timeout };
    },
    { token, photo: [...PHOTO] },
  );
  const { etag, ...rest } = told;
  assert.match(String(etag), /^"\d+"$/);
  assert.deepEqual(rest, {
    wasReplayed: true,
    bio: "From a phone",
    failures: [
      [409, "USERNAME_TAKEN", "Taken"],
      [502, "UNEXPECTED_ANSWER"],
    ],
    isSame: true,
    hasSent: true,
    isNative: false,
    aborted: "AbortError",
    timeout: "TIMEOUT",
  });
  const commands = between.asked.filter(({ method }) => method === "PUT");
  assert.match(String(commands[0]!.headers["idempotency-key"]), /^[0-9a-f]{32}$/);
});
