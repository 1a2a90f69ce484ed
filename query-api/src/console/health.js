// How the process does: what it says itself, where that can be read.

import { readiness } from "./api.js";
import { byId, count, el, sentence, shown } from "./dom.js";
import { t } from "./texts.js";

const EVERY = 3000;

export class Health {
  #state = "unknown";
  #text = () => "";
  #facts = null;

  /** Asks again and again while the page is seen. */
  async watch() {
    for (;;) {
      if (!document.hidden) await this.#ask();
      await new Promise((done) => setTimeout(done, EVERY));
    }
  }

  async #ask() {
    try {
      this.#facts = await readiness();
      const isGood = this.#facts?.missing.length === 0;
      this.#state = !this.#facts ? "unknown" : this.#facts.ready ? (isGood ? "good" : "partly") : "bad";
      this.#text = () => t({ good: "healthGood", partly: "healthPartly", bad: "healthBad", unknown: "healthInside" }[this.#state]);
    } catch (error) {
      [this.#state, this.#facts, this.#text] = ["bad", null, () => sentence(error)];
    }
    this.render();
  }

  render() {
    byId("health").dataset.state = this.#state;
    const status = byId("health-status");
    // What is said again is not read out again.
    if (status.textContent !== this.#text()) status.textContent = this.#text();
    const facts = this.#facts;
    const place = (position) => {
      if (position === undefined || position === null) return t("notKnown");
      const lag = typeof facts.head === "number" ? Math.max(facts.head - position, 0) : null;
      return [t("positionAt", { position }), lag === null ? null : el("small", { class: lag ? "behind" : "level" }, lag ? t("lag", { lag }) : t("noLag"))];
    };
    const rows = facts && [
      ["ledgerHead", facts.head === null ? t("notKnown") : t("positionAt", { position: facts.head })],
      ["projectionAt", place(facts.applied)],
      ["relayAt", facts.published === undefined ? t("notPublished") : place(facts.published)],
      ["parkedUsers", facts.parkedUsers === undefined ? t("notKnown") : count(facts.parkedUsers)],
    ];
    byId("health-facts").replaceChildren(...(rows ?? []).map(([key, content]) =>
      el("div", {}, el("dt", {}, t(key)), el("dd", {}, content))));
    byId("health-missing").replaceChildren(...(facts?.missing ?? []).map((one) => el("li", {}, shown(String(one)))));
  }
}
