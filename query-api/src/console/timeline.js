// What happened to a user, newest first: each event with what it changed.

import { data } from "./api.js";
import { byId, el, shown, thumbnail, time, value } from "./dom.js";
import { eventName, fieldName, t } from "./texts.js";

const LIMIT = 50;

/** The events of a user that were loaded. Versions are without holes, so the newest and the oldest tell all. */
export class Events {
  /** By version. */
  items = new Map();
  oldest = 0;
  newest = 0;

  constructor(user) {
    this.user = user;
  }

  #take(items) {
    for (const item of items) {
      this.items.set(item.version, item);
      this.newest = Math.max(this.newest, item.version);
      this.oldest = this.oldest ? Math.min(this.oldest, item.version) : item.version;
    }
  }

  /** The events before the oldest one that is loaded; at first, the newest. */
  async older(signal) {
    const query = new URLSearchParams({ order: "newest", limit: LIMIT });
    if (this.oldest) query.set("after", this.oldest);
    this.#take((await data(`api/v1/audit/users/${this.user}/events?${query}`, { signal })).items);
  }

  /** The events after the newest one that is loaded. */
  async newer(signal) {
    for (let hasMore = true; hasMore; ) {
      const query = new URLSearchParams({ after: this.newest, limit: 100 });
      const page = await data(`api/v1/audit/users/${this.user}/events?${query}`, { signal });
      this.#take(page.items);
      hasMore = page.hasMore;
    }
  }

  /** The photo of a version, if its event is loaded. */
  photoOf(version) {
    for (let at = version; at >= this.oldest && at > 0; at -= 1) {
      const event = this.items.get(at)?.event;
      if (event?.type === "photo-changed") return photoPath(event);
    }
    return null;
  }
}

function photoPath(event) {
  const { photoId, contentHash, variants } = event.data;
  const variant = Array.isArray(variants) ? variants.find((one) => one.size >= 96) : null;
  return variant ? `media/users/${event.subject}/photos/${contentHash}/${photoId}/${variant.file}` : null;
}

/** Shows events; one is chosen, with the keyboard or the mouse. */
export class Timeline {
  #choose;
  #older;
  #events = null;
  #chosen = 0;
  #marks = () => null;

  /** `choose` is told the version that was chosen, `older` that older events are wanted. */
  constructor(choose, older) {
    [this.#choose, this.#older] = [choose, older];
    const list = byId("timeline");
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => {
      const item = event.target.closest("li[data-version]");
      if (item && !event.target.closest("details")) this.#choose(Number(item.dataset.version));
    });
    byId("older").addEventListener("click", () => this.#older());
  }

  /** Shows other events, or more of the same; `marks` tells whether a version is verified. */
  show(events, marks) {
    if (events !== this.#events) byId("timeline").replaceChildren();
    [this.#events, this.#marks] = [events, marks];
    const list = byId("timeline");
    const there = new Map([...list.children].map((item) => [Number(item.dataset.version), item]));
    const versions = [...events.items.keys()].sort((one, other) => other - one);
    let place = list.firstChild;
    for (const version of versions) {
      const item = there.get(version);
      if (item) place = item.nextSibling;
      else list.insertBefore(this.#item(events.items.get(version)), place);
    }
    byId("older").hidden = events.oldest <= 1;
    this.mark();
    this.choose(this.#chosen);
  }

  /** Shows everything anew, in another language. */
  render() {
    if (!this.#events) return;
    byId("timeline").replaceChildren();
    this.show(this.#events, this.#marks);
  }

  /** Shows which versions are verified and which one does not hold. */
  mark() {
    for (const item of byId("timeline").children) {
      const mark = this.#marks(Number(item.dataset.version));
      const place = item.querySelector(".mark");
      place.className = `mark ${mark ?? ""}`;
      place.title = mark ? t(mark) : "";
      place.textContent = { proven: "✓", disproven: "✗" }[mark] ?? "";
    }
  }

  /** Shows which version is chosen; `focus` brings the keyboard there. */
  choose(version, focus = false) {
    this.#chosen = version;
    const items = [...byId("timeline").children];
    const chosen = items.find((item) => Number(item.dataset.version) === version) ?? null;
    for (const item of items) {
      const is = item === chosen;
      item.setAttribute("aria-current", String(is));
      item.tabIndex = is || (!chosen && item === items[0]) ? 0 : -1;
      item.querySelector("summary").tabIndex = is ? 0 : -1;
    }
    if (!focus || !chosen) return;
    chosen.focus({ preventScroll: true });
    const { top, bottom } = chosen.getBoundingClientRect();
    // A tall event is in view when its beginning is.
    if (top < 0 || (bottom > innerHeight && top > innerHeight / 2)) chosen.scrollIntoView({ block: "start" });
  }

  #key(event) {
    const item = event.target.closest("li[data-version]");
    if (!item || event.target !== item || event.ctrlKey || event.altKey || event.metaKey) return;
    const to = {
      ArrowDown: item.nextElementSibling, ArrowUp: item.previousElementSibling,
      Home: item.parentElement.firstElementChild, End: item.parentElement.lastElementChild,
    }[event.key];
    if (to) {
      this.#choose(Number(to.dataset.version));
      this.choose(Number(to.dataset.version), true);
    } else if (event.key === "Enter") {
      const whole = item.querySelector("details");
      whole.open = !whole.open;
    } else if (!["ArrowDown", "ArrowUp"].includes(event.key)) {
      return;
    }
    event.preventDefault();
    if (event.key === "ArrowDown" && !to && !byId("older").hidden) byId("older").focus();
  }

  #item(item) {
    const { event, version } = item;
    const name = eventName(event.type);
    const whole = el("pre", { tabindex: "0" });
    const details = el("details", {}, el("summary", {}, t("wholeEvent")), whole);
    details.addEventListener("toggle", () => {
      if (details.open && !whole.firstChild) whole.append(shown(JSON.stringify(event, null, 2)));
    });
    return el("li", { "data-version": version, "aria-current": "false" },
      el("h3", {}, el("span", { class: "version" }, String(version)), name ?? shown(String(event.type)), el("span", { class: "mark" })),
      el("p", { class: "facts" },
        time(event.recordedtime), el("span", {}, t("position", { position: item.position })),
        event.authid ? el("span", {}, `${t("byActor")} `, shown(`${event.authtype ?? ""} ${event.authid}`.trim())) : null,
        event.clientplatform ? el("span", {}, `${t("from")} `, shown([event.clientplatform, event.clientappver, event.clientdevice].filter(Boolean).join(" "))) : null,
        event.requestid ? el("span", {}, `${t("request")} `, shown(event.requestid)) : null),
      this.#changes(item), details);
  }

  #changes({ event, version, changes }) {
    if (!changes) return el("p", { class: "quiet" }, t("unknownDifferences"));
    if (changes.length === 0) return el("p", { class: "quiet" }, t("noDifferences"));
    const photo = (address, alt) => (address ? thumbnail(address, t(alt, { version }), 72) : null);
    return el("div", { class: "changes", role: "list" }, changes.map((change) => {
      const isPhoto = change.field === "profilePhoto._id" && event.type === "photo-changed";
      const was = isPhoto && change.before ? photo(this.#events.photoOf(version - 1), "photoBefore") : null;
      const is = isPhoto ? photo(photoPath(event), "photoOf") : null;
      const [before, after] = isText(change) ? texts(change) : [value(change.before), value(change.after)];
      return el("div", { class: "change", role: "listitem" },
        el("span", { class: "field", title: change.field }, fieldName(change.field) ?? shown(change.field)),
        change.before === null ? null : el("del", { "aria-label": t("before") }, was, before),
        el("ins", { "aria-label": t("after") }, is, after));
    }));
  }
}

const isText = ({ before, after }) =>
  typeof before === "string" && typeof after === "string" && before !== "" && after !== "";

/** Two texts with what differs marked: what is between the beginnings and the ends that are the same. */
function texts({ before, after }) {
  const [was, is] = [Array.from(before), Array.from(after)];
  let begin = 0;
  while (begin < was.length && begin < is.length && was[begin] === is[begin]) begin += 1;
  let end = 0;
  const most = Math.min(was.length, is.length) - begin;
  while (end < most && was[was.length - 1 - end] === is[is.length - 1 - end]) end += 1;
  // Two texts with little in common are easier to read whole.
  const isAlike = begin + end > Math.max(was.length, is.length) / 3;
  return [was, is].map((characters) => {
    if (!isAlike) return shown(characters.join(""));
    const part = (from, to) => [...shown(characters.slice(from, to).join("")).childNodes];
    const differs = characters.length > begin + end ? el("mark", {}, part(begin, characters.length - end)) : null;
    return el("bdi", {}, part(0, begin), differs, part(characters.length - end, characters.length));
  });
}
