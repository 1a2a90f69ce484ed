// Subscribes to Profile Ledger and counts the events of each type, each event exactly once.
//
// JetStream delivers at least once. What makes that exactly once is remembered here, in the same write
// as the effect: the last version of each user. A service keeps both in its own database.

import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { AckPolicy, DeliverPolicy, jetstream, JetStreamApiCodes, JetStreamApiError, jetstreamManager } from "@nats-io/jetstream";
import type { Consumer, ConsumerInfo, JetStreamClient, JetStreamManager, JsMsg } from "@nats-io/jetstream";
import { connect, nanos } from "@nats-io/transport-node";

const STREAM = "PROFILES";
const SHARDS = 64;
const BATCH = 100; // the server has no more messages than these under way
const EXPIRES = 1_000; // ms that one request waits for messages

/** Trying again would not help. */
class Stop extends Error {}
/** Going on would skip an event, or handle one of another ledger. */
class Gap extends Stop {}

/** The attributes of an event, all of them texts. */
type Envelope = Record<string, string>;

/** What was handled, and what was made of it: one file, replaced as a whole. */
interface State {
  start: number;
  position: number;
  users: Record<string, { version: number; id: string }>;
  counts: Record<string, number>;
}

/** The attributes of a CloudEvent in binary mode; `message.json()` is then its data. */
function envelope(message: JsMsg): Envelope {
  if (message.headers?.get("content-type") === "application/cloudevents+json") {
    return message.json(); // a newer ledger's event that does not fit into headers
  }
  const names = (message.headers?.keys() ?? []).filter((name) => name.startsWith("ce-"));
  return Object.fromEntries(names.map((name) => [name.slice(3), decodeURIComponent(message.headers!.get(name))]));
}

/** The whole stream, or one shard of it: one durable consumer, one state file, events in order. */
class Lane {
  readonly name: string;
  readonly subject: string;
  readonly file: string;
  state: State;

  constructor(readonly js: JetStreamClient, readonly jsm: JetStreamManager, readonly options: Options, readonly shard?: number) {
    const part = shard === undefined ? undefined : `p${String(shard).padStart(2, "0")}`;
    this.name = part ? `${options.durable}-${part}` : options.durable;
    this.subject = part ? `profiles.v1.${part}.*` : "profiles.v1.>";
    this.file = join(options.state, `${this.name}.json`);
    lock(`${this.file}.lock`);
    const { start } = options;
    this.state = { start, position: start - 1, users: {}, counts: {} };
    if (existsSync(this.file)) this.state = JSON.parse(readFileSync(this.file, "utf8"));
  }

  async run(): Promise<never> {
    for (let consumer: Consumer | undefined; ; ) {
      try {
        consumer ??= await this.subscribe();
        await this.step(consumer);
      } catch (error) {
        if (error instanceof Stop) throw error;
        consumer = undefined; // made again if somebody deleted it
        console.error(`${this.name}: NATS is away, or refuses (${error}), trying again`);
        await sleep(1_000);
      }
    }
  }

  /** The durable consumer lives on the server; any worker goes on where the last one was. */
  async subscribe(): Promise<Consumer> {
    await this.look();
    const info = await this.consumerInfo();
    if (info && info.ack_floor.consumer_seq > 0 && !existsSync(this.file)) {
      throw new Gap(`${this.name} was read before, but what was made of it is not in this state`);
    }
    if (!info) {
      await this.jsm.consumers.add(STREAM, {
        durable_name: this.name,
        filter_subject: this.subject,
        ack_policy: AckPolicy.Explicit,
        ack_wait: nanos(this.options.ackWait * 1_000),
        max_ack_pending: BATCH,
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: this.state.position + 1,
      });
    }
    this.save();
    return this.js.consumers.get(STREAM, this.name);
  }

  async step(consumer: Consumer): Promise<void> {
    let received = 0;
    for await (const message of await consumer.fetch({ max_messages: BATCH, expires: EXPIRES })) {
      received += 1;
      const event = envelope(message);
      const missing = this.handle(message.seq, event);
      if (missing !== undefined) return this.waitFor(missing);
      message.ack(); // written to disk, so the server may forget it
    }
    if (received === 0) await this.look(await this.consumerInfo());
  }

  /** Writes effect and version of an event at once. If it is early: the position that is missing before it. */
  handle(sequence: number, event: Envelope): number | undefined {
    const [position, version, user] = [Number(event.sequence), Number(event.streamversion), event.subject!];
    if (position !== sequence) throw new Gap(`sequence ${sequence} holds position ${position}`);
    const known = this.state.users[user];
    const line = `${position} ${version} ${event.type} ${user}`;
    if (known && version <= known.version) {
      if (version === known.version && event.id !== known.id) {
        throw new Gap(`position ${position} is another event than the one handled: the ledger was replaced`);
      }
      console.log(`duplicate ${line}`);
      return undefined;
    }
    const missing = this.missingBefore(event);
    if (missing !== undefined || position < this.state.start) return missing;
    this.state.counts[event.type!] = (this.state.counts[event.type!] ?? 0) + 1; // the effect: twice would be wrong
    this.state.users[user] = { version, id: event.id! };
    this.state.position = Math.max(this.state.position, position);
    this.save();
    console.log(line);
    return undefined;
  }

  /**
   * The position that has to be handled before an event and was not, if there is one. In the whole stream it
   * is the position before. In a shard positions jump; there each event names the one of its user before it,
   * so a hole shows at the user's next event.
   */
  missingBefore(event: Envelope): number | undefined {
    const { start, position, users } = this.state;
    const [before, known] = [Number(event.prevposition ?? 0), users[event.subject!]];
    if (this.shard === undefined && Number(event.sequence) > position + 1) return position + 1;
    const isNext = known ? Number(event.streamversion) === known.version + 1 : before < start;
    return isNext ? undefined : before;
  }

  /**
   * An early event: the one before it is with a worker that died, or lost on its way, or is gone. Nothing
   * after it is handled, or two events of a user could change places. When ack_wait is over the server sends
   * all that was not acknowledged again, in order, before anything else.
   */
  async waitFor(missing: number): Promise<void> {
    const info = (await this.consumerInfo())!;
    await this.judge(missing, info);
    await sleep((info.config.ack_wait ?? 0) / 1e6 + EXPIRES);
  }

  /** Throws if an event that is missing here will never come. */
  async judge(missing: number, info: ConsumerInfo): Promise<void> {
    if ((await this.jsm.streams.getMessage(STREAM, { seq: missing })) === null) {
      const { first_seq } = (await this.jsm.streams.info(STREAM)).state;
      throw new Gap(`position ${missing} is not in the stream, which begins at ${first_seq}`);
    }
    if (missing <= info.ack_floor.stream_seq) {
      throw new Gap(`position ${missing} was acknowledged, but is not in this state: an older copy of it?`);
    }
  }

  /** Compares what was handled with what the stream has: at the start, and whenever nothing comes. */
  async look(consumer?: ConsumerInfo): Promise<void> {
    const { first_seq: first, last_seq: last } = (await this.jsm.streams.info(STREAM)).state;
    const info = consumer && (await this.consumerInfo()); // as it is after the stream's end was read
    const { position } = this.state;
    if (last < position) {
      throw new Gap(`the stream ends at ${last}, before position ${position}: it was made anew, or is not filled yet`);
    }
    if (first > position + 1) throw new Gap(`positions ${position + 1} to ${first - 1} have left the stream`);
    if (info && info.num_pending === 0 && info.num_ack_pending === 0 && position < last) {
      if (this.shard === undefined) return this.judge(position + 1, info);
      this.state.position = last; // the rest is of other shards
      this.save();
    }
  }

  async consumerInfo(): Promise<ConsumerInfo | undefined> {
    try {
      return await this.jsm.consumers.info(STREAM, this.name);
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound) return undefined;
      throw error;
    }
  }

  /** All or nothing: a new file takes the place of the old one when it is on disk. */
  save(): void {
    try {
      writeFileSync(`${this.file}.new`, JSON.stringify(this.state));
      sync(`${this.file}.new`);
      renameSync(`${this.file}.new`, this.file);
      sync(this.options.state);
    } catch (error) {
      throw new Stop(`the state cannot be written: ${error}`);
    }
  }
}

function sync(path: string): void {
  const file = openSync(path, "r");
  fsyncSync(file);
  closeSync(file);
}

/** A file that is replaced has one owner at a time. A shard's file goes with the shard to another worker. */
function lock(path: string): void {
  try {
    writeFileSync(path, String(process.pid), { flag: "wx" });
    process.on("exit", () => rmSync(path));
  } catch {
    const owner = Number(readFileSync(path, "utf8"));
    if (owner !== process.pid && isRunning(owner)) throw new Error(`${path}: process ${owner} has it; stop that one first`);
    rmSync(path); // it died
    lock(path);
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

interface Options {
  natsUrl: string;
  durable: string;
  start: number;
  shards: (number | undefined)[];
  state: string;
  ackWait: number;
}

function options(): Options {
  const text = (value: string) => ({ type: "string", default: value }) as const;
  const { values } = parseArgs({
    options: {
      "nats-url": text("nats://127.0.0.1:4222"), // nats://[user:password@]host[:port],…
      durable: text("sample"), // name of the durable consumer
      from: text("1"), // the first position, for a new durable
      shards: text(""), // i/n: the part of worker i of n; else all in one
      state: text("state"), // folder of what was handled
      "ack-wait": text("30"), // seconds until a message comes again
    },
  });
  const [, worker, workers] = (/^(\d+)\/(\d+)$/.exec(values.shards) ?? []).map(Number);
  if (!/^0*[1-9]\d*$/.test(values.from)) throw new Error("--from: a position is 1 or more");
  if (values.shards && !(worker! < workers! && workers! <= SHARDS)) throw new Error("--shards i/n: worker i, from 0, of n, at most 64");
  // Worker i of n takes every n-th shard. One consumer a shard works on every version of the server.
  const all = Array.from({ length: SHARDS }, (_, shard) => shard);
  return {
    natsUrl: values["nats-url"],
    durable: values.durable,
    start: Number(values.from),
    shards: values.shards ? all.filter((shard) => shard % workers! === worker) : [undefined],
    state: values.state,
    ackWait: Number(values["ack-wait"]),
  };
}

process.setMaxListeners(0);
process.on("SIGINT", () => process.exit(0));
try {
  const given = options();
  mkdirSync(given.state, { recursive: true });
  const urls = given.natsUrl.split(",").map((server) => new URL(server));
  const { username, password } = urls[0]!;
  const client = await connect({
    servers: urls.map((url) => url.host),
    name: given.durable,
    maxReconnectAttempts: -1,
    waitOnFirstConnect: true,
    ...(username && { user: decodeURIComponent(username), pass: decodeURIComponent(password) }),
  });
  const [js, jsm] = [jetstream(client), await jetstreamManager(client, { checkAPI: false })];
  await Promise.all(given.shards.map((shard) => new Lane(js, jsm, given, shard).run()));
} catch (error) {
  console.error(error instanceof Gap ? `gap: ${error.message}` : `subscribe: ${error instanceof Error ? error.message : error}`);
  process.exit(error instanceof Gap ? 1 : 2);
}
