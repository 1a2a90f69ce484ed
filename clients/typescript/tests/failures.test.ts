// What the client makes of a service, a gateway or a network that fails.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { after, beforeEach, test } from "node:test";

import { ProfileLedgerError, createClient } from "profile-ledger-client";
import type { ClientOptions, KnownCode } from "profile-ledger-client";

import { Between, breakOff, drop, envelope, gatewayPage, json, silence, status, success } from "./between.js";
import type { Reply } from "./between.js";

const between = await Between.start();
after(() => between.stop());
beforeEach(() => {
  between.asked.length = 0;
  between.replies = [];
});

const BODY = { name: "John", surname: "Doe" };

function client(options: Partial<ClientOptions> = {}) {
  return createClient({ baseUrl: between.url, token: "a.b.c", ...options });
}

function failing(...replies: Reply[]): void {
  between.replies = replies;
}

async function failure(call: Promise<unknown>): Promise<ProfileLedgerError> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof ProfileLedgerError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: "It succeeded" });
}

/** Milliseconds between the first request and the second. */
function waited(): number {
  return between.asked[1]!.at - between.asked[0]!.at;
}

const busy = (headers = {}) => json(503, envelope(503, ["The service is not available"]), { "X-Error-Code": "UNAVAILABLE", ...headers });

test("every request carries what the client was made with", async () => {
  const made = client({ language: "tr", timezone: "UTC+03:00", platform: "mobile_ios", appVersion: "3.1.4", deviceId: "d-1" });
  await made.profile();
  await made.updateProfile(BODY);
  for (const { headers } of between.asked) {
    assert.equal(headers.authorization, "Bearer a.b.c");
    assert.equal(headers["x-language"], "tr");
    assert.equal(headers["x-timezone"], "UTC+03:00");
    assert.equal(headers["x-platform"], "mobile_ios");
    assert.equal(headers["x-app-version"], "3.1.4");
    assert.equal(headers["x-device-id"], "d-1");
  }
});

test("a command has one key on all its attempts, the next has another, and a read has none", async () => {
  failing(drop, busy({ "Retry-After": "0" }), breakOff, success());
  await client().updateProfile(BODY);
  const keys = between.sent("idempotency-key");
  assert.equal(keys.length, 4);
  assert.equal(new Set(keys).size, 1);
  assert.match(String(keys[0]), /^[0-9a-f-]{36}$/);
  await client().updateProfile(BODY);
  await client().updateProfile(BODY, { idempotencyKey: "mine" });
  await client().isUsernameFree("john").catch(() => undefined);
  const [second, third, read] = between.sent("idempotency-key").slice(4);
  assert.notEqual(second, keys[0]);
  assert.equal(third, "mine");
  assert.equal(read, undefined);
  const bodies = between.asked.slice(0, 4).map(({ body }) => body.toString());
  assert.deepEqual(bodies, Array(4).fill(JSON.stringify(BODY)));
});

for (const code of [429, 503]) {
  test(`${code} is tried again after the seconds that it asks for`, async () => {
    failing(status(code, { "Retry-After": "1" }));
    await client().profile();
    assert.ok(waited() >= 1_000, String(waited()));
  });
}

test("503 is tried again at the date that it asks for, by the clock of the service", async () => {
  for (const year of ["2001", "2101"]) {
    between.asked.length = 0;
    const date = (second: string) => `Sat, 01 Jan ${year} 00:00:${second} GMT`;
    failing(status(503, { Date: date("00"), "Retry-After": date("01") }));
    await client().profile();
    assert.ok(waited() >= 1_000, String(waited()));
  }
});

test("a date that is over is now", async () => {
  failing(status(503, { "Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT" }));
  assert.equal((await failure(client({ retries: { attempts: 1 } }).profile())).retryAfterMs, 0);
});

for (const nonsense of ["soon", "-1", "1.5", "99999999999999999999", "Mon, 99 Foo 2026 99:99:99 GMT", ""]) {
  test(`a Retry-After of "${nonsense}" says nothing`, async () => {
    failing(status(503, { "Retry-After": nonsense }), status(503, { "Retry-After": nonsense }));
    const error = await failure(client({ retries: { attempts: 2 } }).profile());
    assert.equal(error.retryAfterMs, undefined);
    assert.equal(between.asked.length, 2);
  });
}

test("a wait beyond the time of the call is not begun, and is told", async () => {
  failing(busy({ "Retry-After": "3600" }));
  const error = await failure(client().profile());
  assert.equal(error.code, "UNAVAILABLE");
  assert.equal(error.retryAfterMs, 3_600_000);
  assert.equal(between.asked.length, 1);
});

test("a call without an end in time is no call without time", async () => {
  failing(status(503, { "Retry-After": "0" }));
  await client({ retries: { totalMs: Infinity } }).profile();
  assert.equal(between.asked.length, 2);
});

test("a wait that no timer can have is not begun, even in a call without an end", async () => {
  failing(busy({ "Retry-After": "9999999999" }));
  const error = await failure(client({ retries: { totalMs: Infinity } }).profile());
  assert.equal(error.code, "UNAVAILABLE");
  assert.equal(between.asked.length, 1);
});

test("attempts are bounded", async () => {
  failing(drop, drop, drop, drop, drop);
  const error = await failure(client({ retries: { attempts: 3 } }).updateProfile(BODY));
  assert.equal(error.code, "NETWORK_ERROR");
  assert.equal(error.status, 0);
  assert.ok(error.cause instanceof Error);
  assert.equal(between.asked.length, 3);
});

test("the time of a call is bounded when nothing comes", async () => {
  failing(silence, silence);
  const began = Date.now();
  const error = await failure(client({ retries: { totalMs: 300 } }).profile());
  assert.equal(error.code, "TIMEOUT");
  assert.ok(Date.now() - began < 20_000, "not the time of a client without the option");
  assert.equal(between.asked.length, 1);
});

test("the time of a call is bounded when an answer never ends", async () => {
  failing((response) => response.writeHead(200, { "Content-Type": "application/json" }).write("{"));
  assert.equal((await failure(client({ retries: { totalMs: 300 } }).profile())).code, "TIMEOUT");
  failing((response) => response.writeHead(404).write("{"));
  assert.equal((await failure(client({ retries: { totalMs: 300 } }).profile())).code, "TIMEOUT");
});

for (const code of [400, 401, 403, 404, 408, 409, 412, 413, 422, 500, 502, 504]) {
  test(`${code} is not tried again`, async () => {
    failing(status(code, { "Retry-After": "0" }));
    const error = await failure(client().updateProfile(BODY));
    assert.equal(error.status, code);
    assert.equal(between.asked.length, 1);
  });
}

test("a stream is sent once", async () => {
  failing(status(503, { "Retry-After": "0" }));
  const body = new Blob(["{}"]).stream();
  const init = { body: BODY, bodySerializer: () => body, duplex: "half" };
  const error = await failure(client().api.PUT("/api/v1/users/profile", init));
  assert.equal(error.status, 503);
  assert.equal(between.asked.length, 1);
  assert.equal(between.asked[0]!.body.toString(), "{}");
});

test("a call is aborted while it is under way, and while it waits", async () => {
  for (const reply of [silence, status(503, { "Retry-After": "20" }), breakOff]) {
    between.asked.length = 0;
    failing(reply, silence);
    const ending = new AbortController();
    const call = client().updateProfile(BODY, { signal: ending.signal });
    while (between.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    const reason = new Error("The user left");
    ending.abort(reason);
    await assert.rejects(call, reason);
  }
  between.asked.length = 0;
  await assert.rejects(client().profile({ signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(between.asked.length, 0);
});

test("the envelope becomes an error with its sentences as they are", async () => {
  const sentences = ["Doğrulama başarısız", "name: <b>zorunludur</b>"];
  failing(json(400, envelope(400, sentences), { "X-Error-Code": "VALIDATION_FAILED", "X-Request-ID": "r-1" }));
  const error = await failure(client().updateProfile(BODY));
  assert.equal(error.status, 400);
  assert.equal(error.code, "VALIDATION_FAILED" satisfies KnownCode);
  assert.deepEqual(error.errors, sentences);
  assert.equal(error.requestId, "r-1");
  assert.equal(error.message, sentences.join(": "));
});

test("a problem becomes the same error and names the fields, without any header", async () => {
  const fields = [{ field: "name", code: "REQUIRED", detail: "is required" }];
  const problem = { type: "about:blank", title: "Validation failed", status: 400, code: "VALIDATION_FAILED", errors: fields };
  failing(status(400, { "Content-Type": "application/problem+json" }, JSON.stringify(problem)));
  const error = await failure(client().updateProfile(BODY));
  assert.equal(error.code, "VALIDATION_FAILED");
  assert.deepEqual(error.errors, ["Validation failed", "name: is required"]);
  assert.deepEqual(error.fields, fields);
});

test("the page of a gateway is an error without sentences", async () => {
  failing(gatewayPage);
  const error = await failure(client().updateProfile(BODY));
  assert.equal(error.status, 502);
  assert.equal(error.code, "UNEXPECTED_ANSWER");
  assert.deepEqual(error.errors, []);
  assert.equal(error.message, "UNEXPECTED_ANSWER (502)");
});

test("an unknown code is handed on", async () => {
  failing(json(418, envelope(418, ["I am a teapot"]), { "X-Error-Code": "TEAPOT" }));
  const error = await failure(client().profile());
  assert.equal(error.code, "TEAPOT");
  assert.deepEqual(error.errors, ["I am a teapot"]);
});

for (const body of ["", "null", "[]", "{", "7", '"x"', '{"errors": 1}', '{"errors": [null, {}, {"field": 1}], "title": 3, "code": []}']) {
  test(`a failure that says ${body || "nothing"} is an error without sentences`, async () => {
    failing(status(409, { "Content-Type": "application/json" }, body));
    const error = await failure(client().profile());
    assert.equal(error.code, "UNEXPECTED_ANSWER");
    assert.deepEqual([error.errors, error.fields], [[], []]);
  });
}

test("a failure without an end is not read to its end", async () => {
  let written = 0;
  failing((response) => {
    response.writeHead(500, { "Content-Type": "text/html" });
    const more = () => {
      if (response.destroyed) return;
      written += 65_536;
      response.write("x".repeat(65_536), more);
    };
    more();
  });
  assert.equal((await failure(client().profile())).status, 500);
  assert.ok(written < 64 * 1024 * 1024, String(written));
});

for (const [what, reply] of Object.entries<Reply>({
  "a page": status(200, { "Content-Type": "text/html" }, "<html>Log in to the hotel</html>"),
  "half a document": status(200, { "Content-Type": "application/json" }, '{"isSuccess": tr'),
  "another document": json(200, []),
  "no data": json(200, envelope(200, [])),
  "a text": status(200, { "Content-Type": "text/plain" }, "OK"),
  "of no type": status(200, {}, "OK"),
  "a text without an end": (response) => response.writeHead(200, { "Content-Type": "text/plain" }).write("O"),
  "nothing": status(204),
  "an empty text": status(200, { "Content-Type": "application/json" }),
})) {
  test(`a success that is ${what} is an error`, async () => {
    failing(reply);
    const error = await failure(client().profile());
    assert.equal(error.code, "UNEXPECTED_ANSWER");
    assert.equal(between.asked.length, 1);
  });
}

test("a page that has broken off already is an error like any other", async () => {
  const broken = new ReadableStream({ start: (page) => page.error(new Error("Broken off")) });
  const fetch = async () => new Response(broken, { headers: { "Content-Type": "text/html" } });
  assert.equal((await failure(client({ fetch }).profile())).code, "UNEXPECTED_ANSWER");
  // What nobody catches would fail this test.
  await new Promise((resolve) => setImmediate(resolve));
});

test("nothing of a call stays on a signal that outlives it", async () => {
  const { signal } = new AbortController();
  for (const reply of [success(), status(204), gatewayPage, status(200, {}, "OK"), busy({ "Retry-After": "0" })]) {
    failing(reply);
    await client().profile({ signal }).catch(() => undefined);
    assert.equal(getEventListeners(signal, "abort").length, 0);
  }
});

test("a photo has the time that the client has, or that of its call", async () => {
  failing(silence);
  const made = client({ retries: { totalMs: 300 } });
  assert.equal((await failure(made.changePhoto(Buffer.from("x")))).code, "TIMEOUT");
  failing(silence);
  assert.equal((await failure(client().changePhoto(Buffer.from("x"), { totalMs: 300 }))).code, "TIMEOUT");
});

test("who signed out between two attempts is nobody in the second", async () => {
  failing(status(503, { "Retry-After": "0" }), success());
  const tokens = ["a.b.c", ""];
  await client({ token: () => tokens.shift()! }).profile();
  assert.deepEqual(between.sent("authorization"), ["Bearer a.b.c", undefined]);
});

test("a token is asked for before each request, and once more after a refusal", async () => {
  const refusals: (string | undefined)[] = [];
  const token = async (refused?: string) => {
    refusals.push(refused);
    return `token-${refusals.length}`;
  };
  failing(status(503, { "Retry-After": "0" }), status(401), success());
  await client({ token }).updateProfile(BODY);
  assert.deepEqual(refusals, [undefined, undefined, "token-2"]);
  assert.deepEqual(between.sent("authorization"), ["Bearer token-1", "Bearer token-2", "Bearer token-3"]);
  assert.equal(new Set(between.sent("idempotency-key")).size, 1);
});

test("a second refusal, or the same token again, is the end", async () => {
  failing(status(401), status(401), status(401));
  let asked = 0;
  assert.equal((await failure(client({ token: () => `token-${(asked += 1)}` }).profile())).status, 401);
  assert.equal(between.asked.length, 2);
  failing(status(401), status(401));
  assert.equal((await failure(client({ token: () => "same" }).profile())).status, 401);
  assert.equal(between.asked.length, 3);
});

test("what the token provider throws is what the call is rejected with", async () => {
  const reason = new Error("Signed out");
  const call = client({ token: () => Promise.reject(reason) }).profile();
  await assert.rejects(call, reason);
  assert.equal(between.asked.length, 0);
});

test("a token that no header takes is refused without being shown", async () => {
  for (const token of ["secret\r\nX-Injected: 1", "secret ş"]) {
    await assert.rejects(client({ token }).profile(), { message: "The token is no JWT" });
  }
  assert.equal(between.asked.length, 0);
});

test("reads ask for the highest position of the client's own commands", async () => {
  const at = (position: string) => json(200, { isSuccess: true, data: {} }, { "Ledger-Position": position });
  const made = client();
  failing(success(), at("7"), at("5"), at("nonsense"), at("99"));
  await made.profile();
  for (let command = 0; command < 3; command += 1) await made.updateProfile(BODY);
  await made.profile();
  await made.search({ q: "john" });
  await made.profile({ minPosition: 3 });
  await made.profile({ minPosition: 12 });
  assert.equal(made.position, 7);
  assert.deepEqual(between.sent("ledger-min-position"), [undefined, undefined, undefined, undefined, "7", "7", "7", "12"]);

  between.asked.length = 0;
  const other = client({ readYourWrites: false });
  failing(at("7"));
  await other.updateProfile(BODY);
  await other.profile();
  assert.deepEqual(between.sent("ledger-min-position"), [undefined, undefined]);
});

test("a service may be below a path", async () => {
  const made = client({ baseUrl: `${between.url}/profiles/` });
  failing(success({ available: true }));
  assert.equal(await made.isUsernameFree("john"), true);
  assert.equal(between.asked[0]!.path, "/profiles/api/v1/users/check-username");
  assert.equal(between.asked[0]!.headers["idempotency-key"], undefined);
});

test("a fetch of one's own is used", async () => {
  const urls: string[] = [];
  const made = client({
    fetch: (url, init) => {
      urls.push(url);
      return fetch(url, init);
    },
  });
  await made.publicProfileOf("a/../b?c#d");
  assert.deepEqual(urls, [`${between.url}/api/v1/users/profile/username/a%2F..%2Fb%3Fc%23d`]);
});
