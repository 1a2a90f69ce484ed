// The document of a user as of a version or a time.

import { data } from "./api.js";
import { byId, count, el, localTime, plainly, sentence, shown, thumbnail, time, value } from "./dom.js";
import { fieldName, t } from "./texts.js";

const SLIDING = 120;
const TIMES = new Set(["createdAt", "updatedAt", "lastLogin"]);

export class Moment {
  #choose;
  #user = null;
  #newest = 0;
  #events = null;
  #timer = null;
  #asked = null;
  /** What was answered, by version. */
  #known = new Map();
  #shown = null;
  #status = () => "";
  version = 0;

  /** `choose` is told the version that the slider or a time led to. */
  constructor(choose) {
    this.#choose = choose;
    const slider = byId("slider");
    slider.addEventListener("input", () => {
      this.version = slider.valueAsNumber;
      this.#label();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#choose(slider.valueAsNumber), SLIDING);
    });
    byId("time-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#at(byId("time").value);
    });
  }

  /** Follows another user, or the same one further on. */
  follow(events) {
    if (events !== this.#events) {
      this.#known.clear();
      [this.#shown, this.version] = [null, 0];
      byId("document").replaceChildren();
      byId("time").value = "";
    }
    [this.#events, this.#user, this.#newest] = [events, events.user, events.newest];
    byId("slider").max = this.#newest;
    byId("some-moment").hidden = false;
    byId("no-moment").hidden = true;
    this.#label();
  }

  /** Shows nobody. */
  leave() {
    byId("some-moment").hidden = true;
    byId("no-moment").hidden = false;
  }

  /** Shows a version. */
  async go(version) {
    clearTimeout(this.#timer);
    this.version = version;
    byId("slider").value = version;
    this.#label();
    await this.#ask(`atVersion=${version}`, this.#known.get(version));
  }

  /** The document that is shown. */
  document() {
    return this.#shown?.document ?? null;
  }

  async #at(text) {
    const at = new Date(text);
    if (Number.isNaN(at.getTime())) {
      this.#status = () => t("badTime");
      return this.render();
    }
    const was = await this.#ask(new URLSearchParams({ at: at.toISOString() }));
    if (!was) return;
    this.#status = () => t("asOf", { time: localTime(at) });
    this.render();
    this.#choose(was.version);
  }

  async #ask(query, known) {
    this.#asked?.abort();
    const asked = (this.#asked = new AbortController());
    try {
      const was = known ?? (await data(`api/v1/audit/users/${this.#user}?${query}`, { signal: asked.signal }));
      if (asked.signal.aborted) return null;
      this.#known.set(was.version, was);
      this.#shown = was;
      this.version = was.version;
      byId("slider").value = was.version;
      this.#status = () => t("asOf", { time: localTime(new Date(was.recordedAt)) });
      this.render();
      return was;
    } catch (error) {
      if (asked.signal.aborted) return null;
      this.#status = () => sentence(error);
      this.render();
      return null;
    }
  }

  #label() {
    const at = t("versionOf", { version: this.version, newest: this.#newest });
    byId("slider-at").textContent = `${count(this.version)} / ${count(this.#newest)}`;
    byId("slider").setAttribute("aria-valuetext", at);
  }

  render() {
    byId("zone").textContent = t("zone", { zone: Intl.DateTimeFormat().resolvedOptions().timeZone });
    byId("moment-status").textContent = plainly(this.#status());
    if (!this.#events) return;
    this.#label();
    if (!this.#shown) return;
    const { version, document: user } = this.#shown;
    const changes = this.#events.items.get(version)?.changes ?? [];
    const changed = new Set(version > 1 ? changes.map((change) => change.field.split(".")[0]) : []);
    byId("document").replaceChildren(...Object.entries(user).map(([field, content]) => {
      const isChanged = changed.has(field);
      return el("div", { class: isChanged ? "changed" : null },
        el("dt", { title: field }, fieldName(field) ?? shown(field), isChanged ? el("span", { class: "unseen" }, ` (${t("changedHere")})`) : null),
        el("dd", {}, this.#content(field, content)));
    }));
  }

  #content(field, content) {
    if (field === "profilePhoto" && content && typeof content === "object")
      return [thumbnail(content.variants?.["96"], t("profilePhotoOf"), 96), el("small", {}, shown(String(content._id)))];
    if (field === "_id") return el("code", {}, value(content));
    // The published form of a day is midnight in UTC.
    if (field === "birthDate") return value(String(content).replace("T00:00:00.000Z", ""));
    return TIMES.has(field) && typeof content === "string" ? time(content) : value(content);
  }
}
