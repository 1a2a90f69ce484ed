// Asking the service. The token lives as long as the tab.

import { language, t } from "./texts.js";

const ROOT = new URL("../", import.meta.url);
const TOKEN = "profile-ledger.token";

export const token = () => sessionStorage.getItem(TOKEN);
export const setToken = (value) =>
  value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN);

/** A failure that can be told in the language that is read now. */
export class Failed extends Error {
  constructor(key, values = {}, status = 0) {
    super(key);
    this.status = status;
    this.sentence = () => t(key, values);
  }
}

/** Who is told that a token is good no more. */
export const refused = { by: () => {} };

/** Asks with the token; an answer that is no success is thrown. `answer.retry` are seconds to wait. */
export async function ask(path, { accept = "application/json", headers = {}, signal } = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), {
      headers: { Accept: accept, "X-Language": language(), Authorization: `Bearer ${token() ?? ""}`, ...headers },
      signal, credentials: "omit", cache: "no-store", redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failed("unreachable");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  const told = Array.isArray(body?.errors) ? body.errors.join("; ") : "";
  if (answer.status === 401) refused.by();
  const failed = new Failed("answered", { status: answer.status, told }, answer.status);
  failed.retry = Number(answer.headers.get("Retry-After")) || 0;
  throw failed;
}

/** The data of an answer in the envelope. */
export async function data(path, options) {
  return (await (await ask(path, options)).json()).data;
}

/** Each line of an answer as its exact bytes, as they come. */
export async function* lines(answer) {
  let rest = new Uint8Array(0);
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const { done, value: chunk } = await reader.read();
      if (done) break;
      let from = 0;
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
        const part = chunk.subarray(from, end);
        yield rest.length ? joined(rest, part) : part;
        rest = new Uint8Array(0);
        from = end + 1;
      }
      rest = joined(rest, chunk.subarray(from));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  if (rest.length) yield rest;
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** The messages of a stream of server-sent events. */
export async function* messages(answer) {
  const decoder = new TextDecoder();
  let message = { id: null, event: "message", data: [] };
  for await (const bytes of lines(answer)) {
    const line = decoder.decode(bytes).replace(/\r$/, "");
    if (line === "") {
      yield { ...message, data: message.data.join("\n") };
      message = { id: null, event: "message", data: [] };
      continue;
    }
    const [, field, content] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "id") message.id = content;
    else if (field === "event") message.event = content;
    else if (field === "data") message.data.push(content);
  }
}

/** The development token, where there is one. */
export async function developmentToken() {
  const answer = await fetch(new URL("console/token", ROOT), { cache: "no-store" }).catch(() => null);
  return answer?.ok ? ((await answer.json().catch(() => null))?.data?.token ?? null) : null;
}

/** What the process says about itself, or `null` where nobody outside is told. */
export async function readiness() {
  const answer = await fetch(new URL("readyz", ROOT), { cache: "no-store" }).catch(() => null);
  if (!answer) throw new Failed("unreachable");
  if (answer.status !== 200 && answer.status !== 503) return null;
  const body = await answer.json().catch(() => null);
  return typeof body?.ready === "boolean" ? body : null;
}
