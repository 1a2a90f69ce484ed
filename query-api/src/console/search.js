// Finding a user by the beginnings of names, or by id.

import { data } from "./api.js";
import { byId, el, sentence, shown, thumbnail } from "./dom.js";
import { t } from "./texts.js";

const LIMIT = 10;
const TYPING = 250;

export class Search {
  #open;
  #asked = null;
  #timer = null;
  #found = [];
  #page = 0;
  #hasMore = false;
  #status = () => "";

  /** `open` is told the id of the user that was chosen. */
  constructor(open) {
    this.#open = open;
    const input = byId("search");
    input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#search(1), TYPING);
    });
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(this.#timer);
      if (this.#id()) this.#open(this.#id());
      else this.#search(1).then(() => byId("found").querySelector("button")?.focus());
    });
    byId("found-more").addEventListener("click", () => this.#search(this.#page + 1));
    byId("find").addEventListener("keydown", (event) => this.#move(event));
  }

  /** The id that was typed, if it is one. */
  #id() {
    const text = byId("search").value.trim().toLowerCase();
    return /^[0-9a-f]{24}$/.test(text) ? text : null;
  }

  async #search(page) {
    this.#asked?.abort();
    const asked = (this.#asked = new AbortController());
    const text = byId("search").value.trim();
    if (page === 1) [this.#found, this.#hasMore] = [[], false];
    if (text === "" || this.#id()) {
      this.#status = () => "";
      return this.render();
    }
    this.#status = () => t("searching");
    byId("found-status").textContent = this.#status();
    try {
      const query = new URLSearchParams({ q: text, page, limit: LIMIT });
      const found = await data(`api/v1/users/search?${query}`, { signal: asked.signal });
      this.#found.push(...found.items);
      [this.#page, this.#hasMore] = [page, found.hasMore];
      const count = this.#found.length;
      this.#status = () => (count ? t(this.#hasMore ? "foundMore" : "foundSome", { count }) : t("foundNone"));
    } catch (error) {
      if (asked.signal.aborted) return;
      this.#status = () => sentence(error);
    }
    this.render();
  }

  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const places = [byId("search"), ...byId("found").querySelectorAll("button")];
    const at = places.indexOf(document.activeElement);
    if (at < 0) return;
    event.preventDefault();
    places[Math.min(Math.max(at + step, 0), places.length - 1)].focus();
  }

  render() {
    byId("found-status").textContent = this.#status();
    const id = this.#id();
    const byIdAlone = id && el("li", {}, el("button", { type: "button", onclick: () => this.#open(id) },
      el("span", { class: "names" }, t("openId"), el("small", {}, id))));
    const items = this.#found.map((user) =>
      el("li", {}, el("button", { type: "button", onclick: () => this.#open(user._id) },
        thumbnail(user.profilePhoto?.variants?.["40"], "", 36),
        el("span", { class: "names" }, el("span", { class: "name" }, shown(`${user.name} ${user.surname}`)),
          el("small", {}, "@", shown(user.username))))));
    byId("found").replaceChildren(...(byIdAlone ? [byIdAlone] : items));
    byId("found-more").hidden = !this.#hasMore;
  }
}
