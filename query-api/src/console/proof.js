// Verifying a history in the browser. Nothing the server says is believed but its signature: leaves are hashed
// from the exact bytes of the events, and the root of the tree is the signed one.
//
// Merkle trees as in RFC 6962 and RFC 9162, signed notes and checkpoints as in C2SP.

/** A proof that does not hold, and in which step. */
export class Unproven extends Error {
  constructor(step, key, values = {}) {
    super(key);
    Object.assign(this, { step, key, values });
  }
}

const utf8 = new TextEncoder();

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The bytes of a checkpoint that was remembered. */
export const remembered = ({ size, root }) => ({ size, root: unhex(root) });

function unhex(text) {
  if (!/^(?:[0-9a-f]{2})*$/.test(text)) return null;
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function unbase64(text) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0) return null;
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

async function sha256(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
}

const isSame = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);

export const leafHash = (envelope) => sha256(Uint8Array.of(0), envelope);
const nodeHash = (left, right) => sha256(Uint8Array.of(1), left, right);

/** The key of `name+hash+base64(0x01 ‖ public key)`. */
export async function readKey(text) {
  const bad = new Unproven("signature", "badKey");
  const found = /^([^\s+]+)\+([0-9a-f]{8})\+(\S+)$/.exec(text.trim());
  const bytes = found && unbase64(found[3]);
  if (bytes?.length !== 33 || bytes[0] !== 1) throw bad;
  const id = (await sha256(utf8.encode(`${found[1]}\n`), bytes)).subarray(0, 4);
  if (hex(id) !== found[2]) throw bad;
  const fingerprint = hex(await sha256(bytes.subarray(1)));
  let key;
  try {
    key = await crypto.subtle.importKey("raw", bytes.subarray(1), "Ed25519", false, ["verify"]);
  } catch (error) {
    throw error.name === "NotSupportedError" ? new Unproven("unable", "noEd25519") : bad;
  }
  return { text: text.trim(), name: found[1], id, fingerprint, key };
}

/** The checkpoint of a signed note: origin, size and root. */
export async function readCheckpoint(note, key) {
  const end = note.lastIndexOf("\n\n");
  if (end < 0) throw new Unproven("signature", "badNote");
  const text = note.slice(0, end + 1);
  let isSigned = false;
  for (const line of note.slice(end + 2).split("\n")) {
    const [, name, encoded] = /^\u2014 (\S+) (\S+)$/.exec(line) ?? [];
    const bytes = encoded && unbase64(encoded);
    if (name !== key.name || bytes?.length !== 68 || !isSame(bytes.subarray(0, 4), key.id)) continue;
    const isGood = await crypto.subtle.verify("Ed25519", key.key, bytes.subarray(4), utf8.encode(text));
    if (!isGood) throw new Unproven("signature", "badSignature");
    isSigned = true;
  }
  if (!isSigned) throw new Unproven("signature", "noSignature");
  const [origin, size, root] = text.split("\n");
  const bytes = root && unbase64(root);
  if (!/^(?:0|[1-9]\d*)$/.test(size ?? "") || !Number.isSafeInteger(Number(size)) || bytes?.length !== 32)
    throw new Unproven("signature", "badNote");
  // A key may have signed for another log, too.
  if (origin !== key.name) throw new Unproven("signature", "otherOrigin");
  return { origin, size: Number(size), root: bytes };
}

/** The root to which a path of hashes leads from a leaf (RFC 9162, 2.1.3.2); `null` if it leads nowhere. */
export async function rootOf(index, size, leaf, path) {
  if (index < 0 || index >= size) return null;
  let [place, last, hash] = [index, size - 1, leaf];
  for (const sibling of path) {
    if (last === 0) return null;
    if (place % 2 === 1 || place === last) {
      hash = await nodeHash(sibling, hash);
      while (place % 2 === 0 && place !== 0) [place, last] = [place / 2, Math.floor(last / 2)];
    } else {
      hash = await nodeHash(hash, sibling);
    }
    [place, last] = [Math.floor(place / 2), Math.floor(last / 2)];
  }
  return last === 0 ? hash : null;
}

/** Throws unless the leaf of a position is in the tree of a checkpoint. */
export async function included(position, leaf, hashes, checkpoint, version) {
  const path = hashesOf(hashes);
  const root = path ? await rootOf(position - 1, checkpoint.size, leaf, path) : null;
  if (!root || !isSame(root, checkpoint.root)) throw new Unproven("inclusion", "notIncluded", { version, position });
}

const hashesOf = (texts) => {
  const hashes = Array.isArray(texts) && texts.length <= 128 ? texts.map((one) => unhex(String(one))) : [null];
  return hashes.every((hash) => hash?.length === 32) ? hashes : null;
};

/** Throws unless a tree is the beginning of a later one (RFC 9162, 2.1.4.2). */
export async function extended(early, late, texts) {
  const wrong = new Unproven("consistency", "notExtended", { old: early.size, size: late.size });
  const path = hashesOf(texts);
  if (!path) throw wrong;
  if (early.size === late.size || early.size === 0) {
    const isEnd = path.length === 0 && (early.size === 0 || isSame(early.root, late.root));
    if (isEnd) return;
    throw wrong;
  }
  let [place, last] = [early.size - 1, late.size - 1];
  while (place % 2 === 1) [place, last] = [Math.floor(place / 2), Math.floor(last / 2)];
  // The root of a whole early tree is where both begin, and is not sent.
  const rest = place === 0 ? [early.root, ...path] : path;
  if (rest.length === 0) throw wrong;
  let [first, second] = [rest[0], rest[0]];
  for (const sibling of rest.slice(1)) {
    if (last === 0) throw wrong;
    if (place % 2 === 1 || place === last) {
      [first, second] = [await nodeHash(sibling, first), await nodeHash(sibling, second)];
      while (place % 2 === 0 && place !== 0) [place, last] = [place / 2, Math.floor(last / 2)];
    } else {
      second = await nodeHash(second, sibling);
    }
    [place, last] = [Math.floor(place / 2), Math.floor(last / 2)];
  }
  if (last !== 0 || !isSame(first, early.root) || !isSame(second, late.root)) throw wrong;
}

/** A user's events from the first on: each names the one before by place and hash. */
export class Chain {
  version = 0;
  position = 0;
  leaf = null;
  /** What each version is: the JSON text of its envelope, by version. */
  events = new Map();

  constructor(user) {
    this.user = user;
  }

  /** Another chain that has come as far. */
  copy() {
    const { version, position, leaf } = this;
    return Object.assign(new Chain(this.user), { version, position, leaf, events: new Map(this.events) });
  }

  /** Takes the exact bytes of the next event, or throws what is wrong with it. */
  async add(bytes) {
    const version = this.version + 1;
    const wrong = (key, values = {}) => new Unproven("chain", key, { version, ...values });
    let event;
    try {
      event = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch {
      throw wrong("chainUnreadable");
    }
    if (event?.subject !== this.user) throw wrong("chainOther");
    // The page cannot tell whether such an event is shown as it is, so it does not call its history verified.
    if (!reader(event)) throw new Unproven("unable", "unknownEvent", { version, type: String(event.type) });
    if (event.streamversion !== version) throw wrong("chainMissing", { found: String(event.streamversion) });
    const position = /^\d{20}$/.test(event.sequence) ? Number(event.sequence) : 0;
    if (position <= this.position || !Number.isSafeInteger(position)) throw wrong("chainOrder");
    const isFirst = this.leaf === null;
    if (isFirst ? (event.prevhash ?? null) !== null : event.prevhash !== hex(this.leaf))
      throw wrong("chainHash", { before: version - 1 });
    if ((event.prevposition ?? 0) !== this.position) throw wrong("chainHash", { before: version - 1 });
    this.leaf = await leafHash(bytes);
    [this.version, this.position] = [version, position];
    this.events.set(version, JSON.stringify(event));
  }

  /** Throws unless an event that is shown is the one whose bytes were hashed. */
  holds(item) {
    const version = item.version;
    if (this.events.get(version) !== JSON.stringify(item.event))
      throw new Unproven("shown", "shownOther", { version });
    const changes = reader(item.event)(item.event.data);
    if (!areSame(changes, item.changes ?? [])) throw new Unproven("shown", "shownChanges", { version });
  }
}

/** Whether two lists of changes say the same; what is absent, false or empty is no value in either. */
function areSame(some, others) {
  const plain = (value) => (value === false || value?.length === 0 ? null : (value ?? null));
  const told = (changes) =>
    changes
      .map((change) => JSON.stringify([change.field, plain(change.before), plain(change.after)]))
      .filter((change) => !change.endsWith(",null,null]"))
      .sort();
  return JSON.stringify(told(some)) === JSON.stringify(told(others));
}

const all = (members) => members.map(([field, before, after]) => ({ field, before, after }));

/** What an event of each type and schema version changed, read from its data. */
const CHANGES = {
  "user-registered/1": (data) => all(Object.entries(data).map(([field, after]) => [field, null, after])),
  "profile-updated/1": (data) => all(Object.entries(data).map(([field, change]) => [field, change.before, change.after])),
  "photo-changed/1": (data) => all([["profilePhoto._id", data.previousPhotoId, data.photoId]]),
  "username-changed/1": (data) => all([["username", data.before, data.after]]),
};

/** How the changes of an event are read; `null` where its type or schema version is not known here. */
const reader = ({ type, schemaversion }) => {
  const name = `${type}/${schemaversion}`;
  return Object.hasOwn(CHANGES, name) ? CHANGES[name] : null;
};
