// The client against the real service, in Node.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ProfileLedgerError, createClient } from "profile-ledger-client";
import type { ClientOptions } from "profile-ledger-client";

import { Between } from "./between.js";
import { DEMO_USER, PHOTO, Service } from "./service.js";

let service: Service;
let between: Between;
let token: string;
before(async () => {
  service = await Service.start();
  between = await Between.start(service.url);
  token = service.token();
});
after(async () => {
  await between.stop();
  await service.stop();
});

const BODY = { name: "John", surname: "Doe" };

function client(options: Partial<ClientOptions> = {}) {
  return createClient({ baseUrl: service.url, token, ...options });
}

test("a command answers with the whole profile, and reads show it at once", async () => {
  const made = client();
  const bio = `Written at ${Date.now()}`;
  const written = await made.updateProfile({ ...BODY, bio });
  assert.equal(written.data.bio, bio);
  assert.equal(written.wasReplayed, false);
  assert.equal(made.position, written.position);
  const own = await made.profile();
  assert.equal(own.data.bio, bio);
  assert.equal(own.etag, written.etag);
  assert.equal((await made.publicProfile(DEMO_USER)).data.bio, bio);
  assert.equal((await made.publicProfileOf(own.data.username)).data._id, DEMO_USER);
  const found = await made.search({ q: "john", limit: 1 });
  assert.deepEqual(found.data.items.map(({ _id }) => _id), [DEMO_USER]);
});

test("an answer that still holds is given back, and one that does not is not", async () => {
  const made = client({ baseUrl: between.url });
  const first = await made.profile();
  assert.equal(await made.profile({ known: first }), first);
  assert.equal(between.asked.at(-1)!.headers["if-none-match"], first.etag);
  await made.updateProfile({ ...BODY, bio: "Another" });
  const second = await made.profile({ known: first });
  assert.equal(second.data.bio, "Another");
});

test("a command that was decided on an old version is refused", async () => {
  const made = client();
  const { etag } = await made.profile();
  await made.updateProfile({ ...BODY, bio: "First" }, { ifMatch: etag });
  const late = made.updateProfile({ ...BODY, bio: "Second" }, { ifMatch: etag });
  await assert.rejects(late, { name: "ProfileLedgerError", status: 412, code: "VERSION_MISMATCH" });
  assert.equal((await made.profile()).data.bio, "First");
});

test("a command whose answer is lost happens once", async () => {
  const made = client({ baseUrl: between.url });
  const { etag } = await made.profile();
  between.replies = [between.loseAnswer, between.loseAnswer];
  const written = await made.updateProfile({ ...BODY, bio: "Once" });
  assert.equal(written.wasReplayed, true);
  assert.equal(Number(written.etag!.slice(1, -1)), Number(etag!.slice(1, -1)) + 1);
});

test("a photo whose answer is lost is changed once", async () => {
  const made = client({ baseUrl: between.url });
  between.replies = [between.loseAnswer];
  const changed = await made.changePhoto(PHOTO);
  assert.equal(changed.wasReplayed, true);
  assert.ok(changed.data.profilePhoto!.url.endsWith(".jpg"));
});

test("a photo is bytes of any kind, and is there for reading", async () => {
  const made = client();
  const bytes = Uint8Array.from(PHOTO);
  for (const photo of [bytes, bytes.buffer, new Blob([bytes]), new File([bytes], "me.jpg", { type: "image/jpeg" })]) {
    const { data } = await made.changePhoto(photo);
    const fetched = await fetch(data.profilePhoto!.url);
    assert.equal(fetched.status, 200);
    assert.equal((await made.profile()).data.profilePhoto!._id, data.profilePhoto!._id);
  }
});

test("a photo that is none is refused with the sentence of the service", async () => {
  const call = client({ language: "tr" }).changePhoto(Buffer.from("no photo"));
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof ProfileLedgerError);
    assert.equal(error.code, "VALIDATION_FAILED");
    assert.equal(error.errors[0], "Doğrulama başarısız");
    assert.deepEqual(error.fields.map(({ field }) => field), ["file"]);
    return true;
  });
});

test("an upload is aborted", async () => {
  const ending = new AbortController();
  const made = client({ baseUrl: between.url });
  const before = await made.profile();
  between.replies = [() => ending.abort()];
  await assert.rejects(made.changePhoto(PHOTO, { signal: ending.signal }), { name: "AbortError" });
  assert.equal((await made.profile()).etag, before.etag);
});

test("every bad field is named, in words and as a code", async () => {
  const call = client().updateProfile({ name: "", surname: "Doe", birthDate: "yesterday" });
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof ProfileLedgerError);
    assert.equal(error.status, 400);
    assert.deepEqual(error.fields.map(({ field }) => field).sort(), ["birthDate", "name"]);
    assert.equal(error.errors.length, 3);
    assert.ok(error.requestId);
    return true;
  });
});

test("the words of a problem are those of the envelope", async () => {
  const body = { newUsername: "ş" };
  const problem = await client().changeUsername(body.newUsername).catch((error: unknown) => error);
  const init = { body, headers: { Accept: "application/json" } };
  const envelope = await client().api.PATCH("/api/v1/users/username", init).catch((error: unknown) => error);
  assert.ok(problem instanceof ProfileLedgerError && envelope instanceof ProfileLedgerError);
  assert.deepEqual(problem.errors, envelope.errors);
  assert.equal(problem.code, envelope.code);
  assert.equal(problem.fields.length, 1);
  assert.equal(envelope.fields.length, 0);
});

test("a user is registered, takes a name, and the name is taken", async () => {
  const signUp = client({ token: service.token("sign-up", "service") });
  const { data } = await signUp.register({ username: "newcomer", name: "New", surname: "Comer" });
  const newcomer = client({ token: service.token(data._id) });
  assert.equal(await newcomer.isUsernameFree("another.name"), true);
  const renamed = await newcomer.changeUsername("another.name");
  assert.equal(renamed.data.username, "another.name");
  // To its holder a name is free.
  assert.equal(await client().isUsernameFree("another.name"), false);
  await assert.rejects(newcomer.changeUsername("third.name"), { status: 409, code: "USERNAME_CHANGE_TOO_SOON" });
});

test("without a token public profiles can be read, and nothing else", async () => {
  const stranger = createClient({ baseUrl: service.url });
  assert.equal((await stranger.publicProfile(DEMO_USER)).data._id, DEMO_USER);
  await assert.rejects(stranger.profile(), { status: 401, code: "AUTHENTICATION_REQUIRED" });
});

test("every operation is there by its path, with its types", async () => {
  const auditor = client({ token: service.token("auditor", "auditor") });
  const path = { userId: DEMO_USER };
  const { data } = await auditor.api.GET("/api/v1/audit/users/{userId}/events", { params: { path, query: { limit: 1 } } });
  assert.equal(data.data.items[0]?.version, 1);
  const key = await auditor.api.GET("/api/v1/log/key", { parseAs: "text" });
  assert.ok(key.data.length > 0);
  // @ts-expect-error there is no such path
  await assert.rejects(auditor.api.GET("/api/v1/nowhere"), { status: 404, code: "RESOURCE_NOT_FOUND" });
  // @ts-expect-error the body has to have a surname
  await assert.rejects(client().updateProfile({ name: "John" }), { code: "VALIDATION_FAILED" });
});

test("the stream of events is read as it comes, until it is aborted", async () => {
  const ending = new AbortController();
  const auditor = client({ token: service.token("auditor", "auditor") });
  const init = { parseAs: "stream" as const, params: { query: { after: 0 } }, signal: ending.signal };
  const { data } = await auditor.api.GET("/api/v1/events/stream", init);
  const reader = data!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("id: 1\n") && !text.includes("id:1\n")) text += (await reader.read()).value;
  ending.abort();
  await assert.rejects(async () => {
    while (!(await reader.read()).done);
  }, { name: "AbortError" });
});
