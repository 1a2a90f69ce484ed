// Asks the log for every proof of every size, and says which good ones are refused or altered ones taken.
const { ask, data, lines } = await import("/console/api.js");
const { extended, included, leafHash, readCheckpoint, readKey } = await import("/console/proof.js");
const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
const holds = (proof) => proof.then(() => true, () => false);

const leaves = [];
const events = await ask("api/v1/audit/events", { accept: "application/x-ndjson" });
for await (const line of lines(events)) leaves.push(await leafHash(line));

const wrong = [];
const trees = [];
for (let size = 1; size <= leaves.length; size += 1) {
  for (let position = 1; position <= size; position += 1) {
    const { hashes, root } = await data(`api/v1/log/proof/inclusion?position=${position}&size=${size}`);
    const tree = (trees[size] = { size, root: bytes(root) });
    const isIn = (at, leaf, path) => holds(included(at, leaf, path, tree, 1));
    if (!(await isIn(position, leaves[position - 1], hashes))) wrong.push(`refuses ${position} of ${size}`);
    const altered = [
      [position, await leafHash(new Uint8Array(1)), hashes],
      [position, leaves[position - 1], [...hashes, hashes[0] ?? root]],
      [position + 1, leaves[position - 1], hashes],
      [0, leaves[position - 1], hashes],
      [position, leaves[position - 1], null],
      ...hashes.map((_, at) => [position, leaves[position - 1], hashes.with(at, root)]),
      ...hashes.map((_, at) => [position, leaves[position - 1], hashes.toSpliced(at, 1)]),
    ];
    for (const one of altered) if (await isIn(...one)) wrong.push(`takes ${one} of ${size}`);
  }
}
for (let to = 1; to <= leaves.length; to += 1) {
  for (let from = 1; from <= to; from += 1) {
    const { hashes } = await data(`api/v1/log/proof/consistency?from=${from}&to=${to}`);
    const isLater = (early, late, path) => holds(extended(early, late, path));
    if (!(await isLater(trees[from], trees[to], hashes))) wrong.push(`refuses ${from} before ${to}`);
    const other = { size: from, root: leaves[0].map((byte) => byte ^ 1) };
    const altered = [
      [other, trees[to], hashes],
      [trees[from], { ...trees[to], root: other.root }, hashes],
      [trees[from], trees[to], [...hashes, "00".repeat(32)]],
      ...hashes.map((_, at) => [trees[from], trees[to], hashes.with(at, "00".repeat(32))]),
      ...hashes.map((_, at) => [trees[from], trees[to], hashes.toSpliced(at, 1)]),
    ];
    for (const [at, one] of altered.entries()) if (await isLater(...one)) wrong.push(`takes ${at} of ${from} before ${to}`);
  }
}

// A key of our own signs what it may and what it may not.
const utf8 = new TextEncoder();
const base64 = (all) => btoa(String.fromCharCode(...all));
const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
const raw = new Uint8Array([1, ...new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey))]);
const id = new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array([...utf8.encode("log.test\n"), ...raw]))).subarray(0, 4);
const hex = Array.from(id, (byte) => byte.toString(16).padStart(2, "0")).join("");
const key = await readKey(`log.test+${hex}+${base64(raw)}`);
const root = base64(new Uint8Array(32));
const signed = async (text) => {
  const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, utf8.encode(text)));
  return `${text}\n\u2014 log.test ${base64([...id, ...signature])}\n`;
};
const opens = async (text) => holds(readCheckpoint(await signed(text), key));
if (!(await opens(`log.test\n7\n${root}\n`))) wrong.push("refuses a good note");
for (const text of [`other.test\n7\n${root}\n`, `log.test\n07\n${root}\n`, `log.test\n-7\n${root}\n`, `log.test\n7\nAAAA\n`, `log.test\n`])
  if (await opens(text)) wrong.push(`takes ${text}`);
if (await holds(readCheckpoint((await signed(`log.test\n7\n${root}\n`)).replace("\n7\n", "\n8\n"), key))) wrong.push("takes an altered note");

return wrong.length || leaves.length === 18 ? wrong : [`only ${leaves.length} events`];
