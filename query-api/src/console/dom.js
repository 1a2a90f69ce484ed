// Making elements. Text only ever becomes text: nothing here or elsewhere parses HTML.

import { language, t } from "./texts.js";

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text, `null` nothing. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// The server puts `HIDDEN` in front of this: the characters that nobody sees or that turn the text around them.

/** A text of a stranger: hidden characters are named, and its direction ends with it. */
export function shown(text) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > from) parts.push(text.slice(from, found.index));
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(el("span", { class: "hidden-character", title: t("hiddenCharacter") }, `U+${code}`));
    from = found.index + found[0].length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return el("bdi", {}, parts);
}

/** A text of a stranger where only plain text can be: in a title, say. */
export const plainly = (text) =>
  String(text).replace(HIDDEN, (one) => `U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);

/** A time in the viewer's zone; UTC is told on hover. */
export function time(iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return shown(String(iso));
  return el("time", { datetime: at.toISOString(), title: `${at.toISOString()} (UTC)` }, localTime(at));
}

/** A time in words, in the viewer's zone. */
export const localTime = (at) =>
  at.toLocaleString(language(), {
    year: "numeric", month: "short", day: "numeric",
    hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
  });

/** A number in words of the language. */
export const count = (number) => number.toLocaleString(language());

const MEDIA = /media\/users\/[0-9a-f]{24}\/photos\/[0-9a-f]{64}\/[0-9a-f]{24}\/\d{1,4}\.(?:webp|jpg)$/;

/** Where this service itself has a photo of whose public address is told; `null` if that is none. */
export function ownMedia(address) {
  const found = MEDIA.exec(String(address));
  return found && new URL(`../${found[0]}`, import.meta.url).href;
}

/** The picture of a photo, or a blank in its place. */
export function thumbnail(address, alt, side) {
  const source = address && ownMedia(address);
  if (!source) return el("span", { class: "no-photo", "aria-hidden": "true" });
  const image = el("img", { src: source, alt, width: side, height: side, loading: "lazy" });
  // Its bytes may have been removed since.
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "no-photo", title: t("photoGone") })));
  return image;
}

/** A value of a document or of a change. */
export function value(of) {
  if (of === null || of === undefined) return el("span", { class: "quiet" }, t("noValue"));
  if (typeof of === "string") return of === "" ? el("span", { class: "quiet" }, t("emptyText")) : shown(of);
  if (typeof of === "boolean") return t(of ? "yes" : "no");
  if (Array.isArray(of) && of.every((one) => typeof one === "string")) {
    if (of.length === 0) return el("span", { class: "quiet" }, t("emptyList"));
    return el("span", { class: "list" }, of.map((one) => el("span", { class: "item" }, shown(one))));
  }
  return shown(typeof of === "object" ? JSON.stringify(of) : String(of));
}

/** What a failure says. */
export const sentence = (error) => (error?.sentence ? error.sentence() : String(error?.message ?? error));

/** Says something to everybody, or nothing more. */
export function notice(text) {
  const place = byId("notice");
  place.hidden = !text;
  place.replaceChildren(text ? shown(text) : "");
}
