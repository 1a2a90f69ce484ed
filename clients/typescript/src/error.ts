// What went wrong, from whatever form it came in.

import type { components } from "./schema.js";

/** The codes that the service has. */
export type KnownCode = components["schemas"]["ErrorCode"];

/**
 * The codes of the client itself: the service was not reached, it did not answer in the time that a call may take, or
 * what came is no answer of the service, such as the page of a gateway.
 */
export type ClientCode = "NETWORK_ERROR" | "TIMEOUT" | "UNEXPECTED_ANSWER";

/** A code to switch on. A newer service may have codes that this client does not know: have a default. */
export type ErrorCode = KnownCode | ClientCode | (string & {});

/** What is wrong with one field. */
export type FieldProblem = components["schemas"]["FieldProblem"];

interface Failure {
  status: number;
  code: ErrorCode;
  errors: readonly string[];
  fields?: readonly FieldProblem[];
  requestId?: string | undefined;
  retryAfterMs?: number | undefined;
}

/** Every failure of a call but an abort, which rejects with the reason of its signal. */
export class ProfileLedgerError extends Error {
  override readonly name = "ProfileLedgerError";
  /** The status of the answer, or 0 when there was none. */
  readonly status: number;
  /** A stable name to switch on. */
  readonly code: ErrorCode;
  /** The sentences of the service as they are, in the language of the client. Empty when none came. */
  readonly errors: readonly string[];
  /** What is wrong with each bad field; empty where no field is. */
  readonly fields: readonly FieldProblem[];
  /** Names the request in the logs of the service. */
  readonly requestId: string | undefined;
  /** How long the service asks to wait, in milliseconds from when the answer came. */
  readonly retryAfterMs: number | undefined;

  constructor(failure: Failure, options?: ErrorOptions) {
    const status = failure.status === 0 ? "no answer" : String(failure.status);
    super(failure.errors.length > 0 ? failure.errors.join(": ") : `${failure.code} (${status})`, options);
    this.status = failure.status;
    this.code = failure.code;
    this.errors = failure.errors;
    this.fields = failure.fields ?? [];
    this.requestId = failure.requestId;
    this.retryAfterMs = failure.retryAfterMs;
  }
}

/** An answer that is none of the service's, whatever its status says. */
export function unexpected(response: Response, cause?: unknown): ProfileLedgerError {
  return new ProfileLedgerError(
    { status: response.status, code: "UNEXPECTED_ANSWER", errors: [], requestId: requestId(response) },
    { cause },
  );
}

/** The failure that an answer tells: the envelope, RFC 9457, or something of a gateway. */
export function failure(response: Response, text: string, retryAfterMs: number | undefined): ProfileLedgerError {
  const body = parsed(text);
  const code = response.headers.get("X-Error-Code") ?? textOf(body["code"]);
  const problems = Array.isArray(body["errors"]) ? (body["errors"] as unknown[]) : [];
  const fields = problems.filter(isFieldProblem);
  return new ProfileLedgerError({
    status: response.status,
    code: code || "UNEXPECTED_ANSWER",
    // The envelope has sentences; a problem has what they are made of.
    errors: [
      ...[textOf(body["title"]), textOf(body["detail"])].filter((sentence) => sentence !== ""),
      ...problems.filter((problem) => typeof problem === "string"),
      ...fields.map(({ field, detail }) => `${field}: ${detail}`),
    ],
    fields,
    requestId: requestId(response),
    retryAfterMs,
  });
}

export function requestId(response: Response): string | undefined {
  return response.headers.get("X-Request-ID") ?? undefined;
}

function parsed(text: string): Record<string, unknown> {
  try {
    const body: unknown = JSON.parse(text);
    return typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  } catch {
    return {}; // the page of a gateway
  }
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isFieldProblem(value: unknown): value is FieldProblem {
  if (typeof value !== "object" || value === null) return false;
  const { field, code, detail } = value as Record<string, unknown>;
  return typeof field === "string" && typeof code === "string" && typeof detail === "string";
}
