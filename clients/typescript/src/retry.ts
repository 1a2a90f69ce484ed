// When to try again, and how long to wait before.

/** How often and how long a call is tried. */
export interface Retries {
  /** The most requests of one call, the first one counted; at least 1. Default: 4. */
  attempts?: number;
  /** Milliseconds that a call may take, with all its requests and the pauses between. Default: 30,000; of a photo, 300,000. */
  totalMs?: number;
}

const FIRST_MS = 250;
const LONGEST_MS = 8_000;

/** What passes by itself, and where the service promises that nothing is half done. */
export function passes(status: number): boolean {
  return status === 429 || status === 503;
}

/**
 * Milliseconds before the next attempt: what the service asks for and a little at random, so that clients which were
 * sent away together do not come back together. Without its word, longer each time.
 */
export function pause(attempt: number, retryAfterMs: number | undefined): number {
  if (retryAfterMs !== undefined) return retryAfterMs + Math.random() * FIRST_MS;
  const longest = Math.min(LONGEST_MS, FIRST_MS * 2 ** (attempt - 1));
  return longest * (0.5 + Math.random() / 2);
}

/** `Retry-After` (RFC 9110, 10.2.3) in milliseconds from now: seconds, or a date. Nonsense says nothing. */
export function retryAfter(headers: Headers, now: number): number | undefined {
  const value = headers.get("Retry-After")?.trim();
  if (!value) return undefined;
  if (/^\d{1,10}$/.test(value)) return Number(value) * 1_000;
  // Only the one form of a date that servers may make: `Date.parse` would take "-1" for a year.
  const date = /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/;
  const until = date.test(value) ? Date.parse(value) : NaN;
  if (Number.isNaN(until)) return undefined;
  // By the clock of the service where it tells it; that of a phone may be wrong.
  const sent = Date.parse(headers.get("Date") ?? "");
  return Math.max(0, until - (Number.isNaN(sent) ? now : sent));
}

/** How a call ends before it is done: its time is over, or the caller's signal says so. */
export class Ending {
  readonly #controller = new AbortController();
  /** Ends the request under way. */
  readonly signal = this.#controller.signal;
  /** What the call is rejected with. Kept here, since not every place keeps the reason of a signal. */
  reason: unknown;

  get hasCome(): boolean {
    return this.signal.aborted;
  }

  come(reason: unknown): void {
    if (this.hasCome) return;
    this.reason = reason;
    this.#controller.abort(reason);
  }

  /** What a promise becomes, unless the end comes first. */
  or<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const stop = () => reject(this.reason);
      if (this.hasCome) stop();
      this.signal.addEventListener("abort", stop);
      promise.then(resolve, reject).finally(() => this.signal.removeEventListener("abort", stop));
    });
  }

  /** Waits, unless the end comes first. */
  async sleep(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await this.or(new Promise<void>((resolve) => (timer = setTimeout(resolve, ms))));
    } finally {
      clearTimeout(timer);
    }
  }
}
