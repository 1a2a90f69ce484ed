// The badge: whether the history that is shown is the one that was signed.

import { ask, data, Failed, lines } from "./api.js";
import { byId, el, plainly, sentence, shown } from "./dom.js";
import { Chain, extended, hex, included, readCheckpoint, readKey, remembered, Unproven } from "./proof.js";
import { t } from "./texts.js";

const KEY = "profile-ledger.log-key";
const CHECKPOINT = "profile-ledger.checkpoint";
/** Checkpoints come about once a second. */
const AGAIN = 1000;
/** For how many of them an older one than before may be that of a process that lags. */
const OLDER = 10;

const MARKS = { good: "✓", bad: "✗", waiting: "…", working: "…", idle: "?", unavailable: "?" };
const STEPS = {
  signature: "stepSignature", consistency: "stepConsistency", chain: "stepChain", shown: "stepShown", inclusion: "stepInclusion",
};

const pause = () => new Promise((done) => setTimeout(done, AGAIN));

export class Badge {
  #marked;
  #events = null;
  #chain = null;
  #run = 0;
  #state = "idle";
  #text = () => t("badgeIdle");
  /** What is known of each step: its state and what there is to say. */
  #steps = new Map();
  #key = null;
  #isKeyChanged = false;
  #proven = 0;
  #disproven = 0;

  /** `marked` is told when other versions are verified. */
  constructor(marked) {
    this.#marked = marked;
    byId("badge-again").addEventListener("click", () => this.verify(true));
    byId("badge-accept").addEventListener("click", () => {
      localStorage.setItem(KEY, this.#key.text);
      localStorage.removeItem(CHECKPOINT);
      this.verify(true);
    });
  }

  /** Verifies what is shown of a user; again when there is more of it. */
  follow(events) {
    const isFresh = events !== this.#events;
    this.#events = events;
    return this.verify(isFresh);
  }

  /** Nobody is shown. */
  leave() {
    this.#run += 1;
    this.#events = null;
  }

  /** `proven`, `disproven`, or `null` where nothing is known. */
  markOf(version) {
    if (version === this.#disproven) return "disproven";
    return version <= this.#proven ? "proven" : null;
  }

  /** Verifies from the first event on, or only what came since. */
  async verify(isFresh) {
    const run = (this.#run += 1);
    const isLeft = () => run !== this.#run;
    if (isFresh || !this.#chain || this.#disproven) [this.#chain, this.#proven] = [new Chain(this.#events.user), 0];
    this.#disproven = 0;
    this.#steps.clear();
    this.#isKeyChanged = false;
    this.#set("working", () => t("badgeWorking"));
    // One that is left behind may still be adding to its chain, so each works on its own.
    const chain = (this.#chain = this.#chain.copy());
    try {
      await this.#check(chain, this.#events, isLeft);
    } catch (error) {
      if (isLeft()) return;
      this.#chain = null;
      if (error instanceof Unproven && error.step !== "unable") this.#fail(error);
      else this.#set("unavailable", () => t("badgeUnavailable", { why: error instanceof Unproven ? plainly(t(error.key, error.values)) : plainly(sentence(error)) }));
      // A service that is busy says when to come back.
      if (error.retry) setTimeout(() => isLeft() || this.verify(true), error.retry * 1000);
    }
  }

  async #check(chain, events, isLeft) {
    if (!globalThis.crypto?.subtle) throw new Unproven("unable", "noCrypto");
    this.#key = await readKey(await this.#textOf("api/v1/log/key", isLeft));
    if (isLeft()) return;
    const remembered = localStorage.getItem(KEY);
    if (remembered === null) localStorage.setItem(KEY, this.#key.text);
    this.#isKeyChanged = remembered !== null && remembered !== this.#key.text;
    if (this.#isKeyChanged) throw new Unproven("signature", "keyOther");

    const query = new URLSearchParams({ user: events.user, after: chain.position });
    const answer = await ask(`api/v1/audit/events?${query}`, { accept: "application/x-ndjson" });
    for await (const line of lines(answer)) {
      await chain.add(line);
      if (isLeft()) return;
    }
    this.#step("chain", "good", () => t("detailChain", { version: chain.version }));
    for (const item of events.items.values()) {
      if (item.version > chain.version) throw new Unproven("chain", "chainEnds", { version: item.version });
      chain.holds(item);
    }
    this.#step("shown", "good", () => t("detailShown", { count: events.items.size }));

    const checkpoint = await this.#checkpoint(chain, isLeft);
    if (isLeft()) return;
    const proof = await data(`api/v1/log/proof/inclusion?position=${chain.position}&size=${checkpoint.size}`);
    await included(chain.position, chain.leaf, proof.hashes, checkpoint, chain.version);
    if (isLeft()) return;
    this.#step("inclusion", "good", () => t("detailInclusion", { position: chain.position, size: checkpoint.size }));
    this.#proven = chain.version;
    this.#set("good", () => t("badgeGood", { version: chain.version }));
  }

  /** A signed checkpoint that covers the newest event; it is waited for. */
  async #checkpoint(chain, isLeft) {
    for (let older = 0; ; ) {
      const checkpoint = await readCheckpoint(await this.#textOf("api/v1/log/checkpoint", isLeft), this.#key);
      if (isLeft()) return null;
      const { size } = checkpoint;
      this.#step("signature", "good", () => t("detailSignature", { origin: plainly(checkpoint.origin), size }));
      const text = localStorage.getItem(CHECKPOINT);
      const before = text === null ? { size: 0 } : remembered(JSON.parse(text));
      if (size < before.size) {
        older += 1;
        if (older > OLDER) throw new Unproven("consistency", "wentBack", { old: before.size, size });
      } else {
        const query = new URLSearchParams({ from: before.size, to: size });
        const isLater = before.size > 0 && size > before.size;
        const { hashes } = isLater ? await data(`api/v1/log/proof/consistency?${query}`) : { hashes: [] };
        await extended(before, checkpoint, hashes);
        if (isLeft()) return null;
        localStorage.setItem(CHECKPOINT, JSON.stringify({ size, root: hex(checkpoint.root) }));
        this.#step("consistency", "good", () => t(before.size ? "detailConsistency" : "detailFirst", { size: before.size }));
        if (size >= chain.position) return checkpoint;
      }
      this.#step("inclusion", "waiting", () => t("detailInclusion", { position: chain.position, size }));
      this.#set("waiting", () => t("badgeWaiting", { version: chain.version }));
      await pause();
      if (isLeft()) return null;
    }
  }

  /** A text of the log. One that was not signed yet is waited for. */
  async #textOf(path, isLeft) {
    for (;;) {
      try {
        return await (await ask(path, { accept: "text/plain" })).text();
      } catch (error) {
        if (!(error instanceof Failed)) throw error;
        if (error.status === 404) throw new Unproven("unable", "noLog");
        if (error.status !== 503 || isLeft()) throw error;
        this.#set("waiting", () => t("badgeFirst"));
        await pause();
      }
    }
  }

  #fail(error) {
    const why = () => t(error.key, error.values);
    this.#disproven = error.values.version ?? 0;
    this.#proven = 0;
    this.#step(error.step, "bad", why);
    this.#set("bad", () => t("badgeBad", { why: why() }));
  }

  #step(step, state, text) {
    this.#steps.set(step, { state, text });
  }

  #set(state, text) {
    [this.#state, this.#text] = [state, text];
    this.render();
    this.#marked();
  }

  render() {
    const badge = byId("badge");
    badge.dataset.state = this.#state;
    byId("badge-mark").textContent = MARKS[this.#state];
    byId("badge-text").textContent = this.#text();
    byId("badge-steps").replaceChildren(...Object.entries(STEPS).map(([step, name]) => {
      const { state = "idle", text = () => "" } = this.#steps.get(step) ?? {};
      return el("li", { class: state }, el("span", { "aria-hidden": "true" }, { good: "✓", bad: "✗", waiting: "…" }[state] ?? "·"),
        el("span", {}, t(name)), el("span", { class: "quiet" }, shown(text())));
    }));
    byId("badge-key").replaceChildren(...(this.#key
      ? [el("dt", {}, t("keyName")), el("dd", {}, shown(`${this.#key.name}+${hex(this.#key.id)}`)),
         el("dt", {}, t("keyFingerprint")), el("dd", { class: "code" }, this.#key.fingerprint.match(/.{8}/g).join(" "))]
      : []));
    const old = (localStorage.getItem(KEY) ?? "").split("+").slice(0, 2).join("+");
    byId("badge-changed").hidden = !this.#isKeyChanged;
    byId("badge-changed").firstElementChild.textContent = plainly(t("keyChanged", { old }));
  }
}
