// The language of the page. The server puts the sentences of `texts.json` in front of this, in every language: `texts`,
// `events` and `fields`. `{name}` in a sentence is a placeholder.

const LANGUAGE = "profile-ledger.language";

let chosen = localStorage.getItem(LANGUAGE) ?? navigator.language;
chosen = /^tr\b/i.test(chosen) ? "tr" : "en";

export const language = () => chosen;

export function chooseLanguage(name) {
  chosen = name === "tr" ? "tr" : "en";
  localStorage.setItem(LANGUAGE, chosen);
}

/** A text with its placeholders filled; numbers are written as the language does. */
export function t(key, values = {}) {
  return texts[chosen][key].replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? value.toLocaleString(chosen) : String(value ?? "");
  });
}

const named = (group, key) => (Object.hasOwn(group[chosen], key) ? group[chosen][key] : null);

/** What a type of event, or a field, is called; `null` where it has only its own name. */
export const eventName = (type) => named(events, type);
export const fieldName = (field) => named(fields, field);
