// One call, as many requests as it takes.

import { ProfileLedgerError, failure, unexpected } from "./error.js";
import { canWatch, watched } from "./photo.js";
import type { Progress } from "./photo.js";
import { Ending, passes, pause, retryAfter } from "./retry.js";
import type { Retries } from "./retry.js";
import type { components, paths } from "./schema.js";

type Parameters = components["parameters"];

/**
 * A JWT without the `Bearer` prefix, or what gives one: it is asked before each request, and once more, with the token
 * that was refused, after an answer of 401. If it then gives another, the request is sent again.
 */
export type Token = string | ((refused?: string) => string | Promise<string>);

export interface ClientOptions {
  /** Where the service is, such as `https://api.example.com`; empty for the origin of the page. */
  baseUrl: string;
  /** Who asks. Without it only public profiles can be read. */
  token?: Token;
  /** `X-Language`: the language of every sentence. */
  language?: Parameters["X-Language"];
  /** `X-Timezone`: `UTC`, or an offset such as `UTC+03:00`. */
  timezone?: Parameters["X-Timezone"];
  /** `X-Platform`: what the app is. */
  platform?: Parameters["X-Platform"];
  /** `X-App-Version`, at most 32 characters. */
  appVersion?: Parameters["X-App-Version"];
  /** `X-Device-ID`, at most 128 characters that say nothing to anybody else. */
  deviceId?: Parameters["X-Device-ID"];
  /** In place of the global `fetch`. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  retries?: Retries;
  /** Whether reads wait until they show the client's own commands. Default: true. */
  readYourWrites?: boolean;
}

/** What one call has of its own. */
export interface Call {
  totalMs?: number | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** What openapi-fetch makes in place of a `Request`, which cannot be sent twice everywhere. */
export class Outgoing {
  readonly method: string;
  /** Whether the caller reads the answer as it comes, such as a stream of events. */
  isOpen = false;

  constructor(readonly url: string, readonly init: Omit<RequestInit, "headers"> & { headers: Headers }) {
    this.method = init.method ?? "GET";
  }
}

type WritingMethod = "post" | "put" | "patch" | "delete";
/** The operations that are no GET and yet no command. */
type ReadsOtherwise = {
  [Path in keyof paths]: {
    [Method in WritingMethod]: paths[Path][Method] extends { parameters: { header?: infer Headers } }
      ? "Idempotency-Key" extends keyof NonNullable<Headers> ? never : Path
      : never;
  }[WritingMethod];
}[keyof paths];
/** The compiler knows from the description when one is missing here. */
const READS_OTHERWISE: Record<ReadsOtherwise, true> = { "/api/v1/users/check-username": true };

/** What of the body of a failure is read: far more than the service says, and far less than a stranger could send. */
const LONGEST_FAILURE = 256 * 1024;
/** What may have no body, not even an empty one. */
const WITHOUT_BODY = [204, 205, 304];
/** A timer that has longer to wait does not wait at all. */
const LONGEST_TIMER = 2 ** 31 - 1;

export class Transport {
  #position = 0;
  readonly #base: string;
  readonly #headers: Headers;

  constructor(readonly options: ClientOptions) {
    this.#base = options.baseUrl.replace(/\/$/, "");
    // A problem of RFC 9457 has the code in it, which a browser may keep from the page when it is a header only.
    this.#headers = new Headers({ Accept: "application/json, application/problem+json" });
    for (const [name, value] of [
      ["X-Language", options.language],
      ["X-Timezone", options.timezone],
      ["X-Platform", options.platform],
      ["X-App-Version", options.appVersion],
      ["X-Device-ID", options.deviceId],
    ] as const) {
      if (value !== undefined) this.#headers.set(name, value);
    }
  }

  /** The highest position of the commands that succeeded; 0 before the first. */
  get position(): number {
    return this.#position;
  }

  /** Sends until there is an answer to hand on: a success, or 304. Everything else is thrown. */
  async send(outgoing: Outgoing, call: Call = {}): Promise<Response> {
    const totalMs = call.totalMs ?? this.options.retries?.totalMs ?? 30_000;
    const ending = new Ending();
    const timeout = () => ending.come(new ProfileLedgerError({ status: 0, code: "TIMEOUT", errors: [] }));
    const timer = setTimeout(timeout, Math.min(totalMs, LONGEST_TIMER));
    const { signal } = outgoing.init;
    const abort = () => ending.come(signal?.reason ?? aborted());
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    let isOpen = false;
    try {
      const response = await this.#try(outgoing, call, ending, Date.now() + totalMs);
      isOpen = outgoing.isOpen && response.ok;
      return response;
    } finally {
      clearTimeout(timer);
      // What is still being read, such as a stream of events, is the caller's to end.
      if (!isOpen) signal?.removeEventListener("abort", abort);
    }
  }

  async #try(outgoing: Outgoing, call: Call, ending: Ending, deadline: number): Promise<Response> {
    const isCommand = this.#isCommand(outgoing);
    const headers = this.#headersOf(outgoing, isCommand);
    const isRepeatable = canRepeat(outgoing.init.body);
    const attempts = isRepeatable ? (this.options.retries?.attempts ?? 4) : 1;
    const hasOwnToken = headers.has("Authorization");
    let renewed = !isRepeatable || hasOwnToken || typeof this.options.token !== "function";
    let token = hasOwnToken ? "" : await this.#token(ending);
    for (let attempt = 1; ; ) {
      if (token) headers.set("Authorization", `Bearer ${token}`);
      // Who signed out in between is nobody any more.
      else if (!hasOwnToken) headers.delete("Authorization");
      const answer = await this.#once(outgoing, headers, call, ending);
      if (!(answer instanceof ProfileLedgerError)) {
        if (isCommand) this.#position = Math.max(this.#position, positionOf(answer) ?? 0);
        return answer;
      }
      if (answer.status === 401 && !renewed) {
        renewed = true;
        const next = await this.#token(ending, token);
        if (!next || next === token) throw answer;
        token = next;
        continue;
      }
      const ms = pause(attempt, answer.retryAfterMs);
      const passesBy = answer.code === "NETWORK_ERROR" || passes(answer.status);
      const isTooLong = ms > LONGEST_TIMER || Date.now() + ms >= deadline;
      if (!passesBy || attempt >= attempts || isTooLong) throw answer;
      await ending.sleep(ms);
      attempt += 1;
      if (!hasOwnToken) token = await this.#token(ending);
    }
  }

  /** One request. What comes back is an answer to hand on, or why there is none. */
  async #once(outgoing: Outgoing, headers: Headers, call: Call, ending: Ending): Promise<Response | ProfileLedgerError> {
    try {
      const response = await ending.or(this.#carry(outgoing, headers, call, ending));
      if (!response.ok && response.status !== 304) {
        const text = await ending.or(beginning(response));
        return failure(response, text, retryAfter(response.headers, Date.now()));
      }
      if (WITHOUT_BODY.includes(response.status)) return response;
      if (outgoing.isOpen ? this.#isForeign(outgoing, response) : !isJson(response)) {
        response.body?.cancel().catch(() => undefined); // it may have broken off
        return unexpected(response);
      }
      if (outgoing.isOpen) return response;
      // Read here, so that an answer which breaks off is asked for again.
      const text = await ending.or(response.text());
      return isWhole(text) ? new Response(text, response) : unexpected(response);
    } catch (cause) {
      if (ending.hasCome) throw ending.reason;
      return new ProfileLedgerError({ status: 0, code: "NETWORK_ERROR", errors: [] }, { cause });
    }
  }

  #carry(outgoing: Outgoing, headers: Headers, call: Call, { signal }: Ending): Promise<Response> {
    const { url, init } = outgoing;
    const wire = { ...init, method: outgoing.method, headers, signal };
    if (call.onProgress && canWatch()) return watched(url, wire, call.onProgress);
    return (this.options.fetch ?? globalThis.fetch)(url, wire);
  }

  #headersOf(outgoing: Outgoing, isCommand: boolean): Headers {
    const headers = new Headers(this.#headers);
    outgoing.init.headers.forEach((value, name) => headers.set(name, value));
    if (isCommand && !headers.has("Idempotency-Key")) headers.set("Idempotency-Key", newKey());
    const { readYourWrites = true } = this.options;
    if (!isCommand && readYourWrites && this.#position > Number(headers.get("Ledger-Min-Position") ?? 0)) {
      headers.set("Ledger-Min-Position", String(this.#position));
    }
    return headers;
  }

  #isCommand(outgoing: Outgoing): boolean {
    return outgoing.method !== "GET" && !(this.#path(outgoing) in READS_OTHERWISE);
  }

  #path(outgoing: Outgoing): string {
    return outgoing.url.slice(this.#base.length).replace(/\?.*$/, "");
  }

  /** A page where there should be data: somebody between, such as a hotel that wants a room number, has answered. */
  #isForeign(outgoing: Outgoing, response: Response): boolean {
    return this.#path(outgoing).startsWith("/api/") && /^text\/html/i.test(typeOf(response));
  }

  async #token(ending: Ending, refused?: string): Promise<string> {
    const { token = "" } = this.options;
    const given = typeof token === "string" ? token : await ending.or(Promise.resolve(token(refused)));
    // What `Headers` would say of it shows it.
    if (!/^[!-~]*$/.test(given)) throw new TypeError("The token is no JWT");
    return given;
  }
}

export function positionOf(response: Response): number | undefined {
  const position = Number(response.headers.get("Ledger-Position") ?? NaN);
  return Number.isSafeInteger(position) && position >= 0 ? position : undefined;
}

/** Names a command. Random bytes are there in more places than `randomUUID`, which needs HTTPS. */
function newKey(): string {
  if (typeof globalThis.crypto?.randomUUID === "function") return crypto.randomUUID();
  if (typeof globalThis.crypto?.getRandomValues !== "function") {
    throw new TypeError("No crypto.getRandomValues here. In React Native, import react-native-get-random-values first");
  }
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether a body can be sent twice. A stream is gone when it was sent. */
function canRepeat(body: unknown): boolean {
  return (
    body === undefined ||
    body === null ||
    typeof body === "string" ||
    body instanceof FormData ||
    body instanceof Blob ||
    body instanceof URLSearchParams ||
    body instanceof ArrayBuffer ||
    ArrayBuffer.isView(body)
  );
}

function typeOf(response: Response): string {
  return response.headers.get("Content-Type") ?? "";
}

function isJson(response: Response): boolean {
  return /^application\/(?:[\w.-]+\+)?json\b/i.test(typeOf(response));
}

function isWhole(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The first part of a text, however long it is. */
async function beginning(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  if (!reader) return (await response.text()).slice(0, LONGEST_FAILURE);
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    text += decoder.decode(value, { stream: true });
    if (text.length > LONGEST_FAILURE) {
      await reader.cancel();
      return text.slice(0, LONGEST_FAILURE);
    }
  }
}

function aborted(): Error {
  return Object.assign(new Error("The call was aborted"), { name: "AbortError" });
}
