// Events as they happen. The stream is read with the token, so not by an EventSource; a connection that is lost
// goes on after the last position that was read.

import { ask, data, messages } from "./api.js";
import { byId, el, plainly, sentence, shown, time } from "./dom.js";
import { eventName, t } from "./texts.js";

/** Events that are shown; older ones leave the list. */
const SHOWN = 200;
/** Events that are there when the page opens. */
const BEFORE = 20;
/** The stream says something every 15 seconds; a connection that is silent for longer is dead. */
const SILENCE = 45_000;
const SLOWEST = 15_000;

export class Live {
  #open;
  #arrived;
  #connection = null;
  #last = null;
  #isPaused = false;
  #isOn = false;
  #events = [];
  #status = () => t("liveOff");

  /** `open` is told the user of an event that was chosen, `arrived` every event that comes. */
  constructor(open, arrived) {
    [this.#open, this.#arrived] = [open, arrived];
    byId("pause").addEventListener("click", () => {
      this.#isPaused = !this.#isPaused;
      if (this.#isPaused) this.#stop(() => t("livePaused", { position: this.#last ?? 0 }));
      else this.start();
    });
    this.render();
  }

  /** Goes on after the last position, or begins at the head. */
  start() {
    this.#connection?.abort();
    if (this.#isPaused) return;
    const connection = (this.#connection = new AbortController());
    this.#follow(connection.signal);
  }

  /** Stops, as if nothing was ever seen. */
  forget() {
    [this.#last, this.#events, this.#isPaused] = [null, [], false];
    this.#stop(() => t("liveOff"));
    byId("tail").replaceChildren();
  }

  #stop(status) {
    this.#connection?.abort();
    this.#connection = null;
    this.#say(status);
  }

  #say(status, isOn = false) {
    [this.#status, this.#isOn] = [status, isOn];
    this.#renderStatus();
  }

  async #follow(signal) {
    for (let failures = 0; !signal.aborted; failures += 1) {
      let wait = Math.min(1000 * 2 ** failures, SLOWEST);
      try {
        this.#say(() => t("liveConnecting"));
        await this.#read(signal, () => (failures = 0));
        this.#say(() => t("liveAgain", { position: this.#last ?? 0, why: t("liveCut") }));
        wait = 1000;
      } catch (error) {
        if (signal.aborted) return;
        // Another try would be refused, too.
        if (error.status === 401 || error.status === 403) return this.#say(() => sentence(error));
        if (error.retry) wait = error.retry * 1000;
        this.#say(() => t("liveAgain", { position: this.#last ?? 0, why: sentence(error) }));
      }
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  async #read(signal, connected) {
    const silence = new AbortController();
    const headers = this.#last === null ? {} : { "Last-Event-ID": String(this.#last) };
    let timer = setTimeout(() => silence.abort(), SILENCE);
    try {
      const options = { accept: "text/event-stream", headers, signal: AbortSignal.any([signal, silence.signal]) };
      const answer = await ask("api/v1/events/stream", options);
      for await (const message of messages(answer)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE);
        connected();
        if (message.id === null || signal.aborted) continue;
        const position = Number(message.id);
        if (message.data === "" && this.#last === null) await this.#before(position, signal);
        if (message.data !== "") this.#take(position, message);
        this.#last = position;
        this.#say(() => t("liveOn", { position }), true);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** The newest events up to a position. */
  async #before(position, signal) {
    const query = new URLSearchParams({ after: Math.max(position - BEFORE, 0), limit: BEFORE });
    const { items } = await data(`api/v1/audit/events?${query}`, { signal });
    for (const item of items) if (item.position <= position) this.#add(item.position, item.event, false);
  }

  #take(position, message) {
    let event;
    try {
      event = JSON.parse(message.data);
    } catch {
      event = { type: message.event };
    }
    this.#add(position, event, true);
    this.#arrived(event);
  }

  #add(position, event, isNew) {
    this.#events.push({ position, event });
    const list = byId("tail");
    list.prepend(this.#item(position, event, isNew));
    while (this.#events.length > SHOWN) {
      this.#events.shift();
      list.lastElementChild.remove();
    }
  }

  #item(position, event, isNew) {
    const user = String(event.subject ?? "");
    return el("li", { class: isNew ? "new" : null },
      el("button", { type: "button", onclick: () => this.#open(user), title: plainly(event.authid ?? "") },
        el("span", { class: "row spread" }, el("span", { class: "name" }, eventName(event.type) ?? shown(String(event.type))), el("small", {}, String(position))),
        el("small", {}, shown(user)), el("small", {}, time(event.recordedtime))));
  }

  #renderStatus() {
    byId("live-status").textContent = plainly(this.#status());
    byId("live").dataset.state = this.#isOn ? "on" : "off";
    byId("pause").textContent = t(this.#isPaused ? "resume" : "pause");
    byId("pause").setAttribute("aria-pressed", String(this.#isPaused));
  }

  render() {
    this.#renderStatus();
    byId("tail").replaceChildren(...this.#events.map(({ position, event }) => this.#item(position, event, false)).reverse());
  }
}
