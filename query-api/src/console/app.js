// The page: a user's history, its documents, and what happens now. What is looked at is in the address, so that
// it can be opened again: `#<user id>` or `#<user id>@<version>`.

import { developmentToken, refused, setToken, token } from "./api.js";
import { Badge } from "./badge.js";
import { byId, el, notice, sentence, shown } from "./dom.js";
import { Health } from "./health.js";
import { Live } from "./live.js";
import { Moment } from "./moment.js";
import { Search } from "./search.js";
import { chooseLanguage, language, t } from "./texts.js";
import { Events, Timeline } from "./timeline.js";

const THEME = "profile-ledger.theme";

let events = null;
let version = 0;
let opening = null;
let access = "accessNeeded";
let isPasted = false;
let isRenewed = false;

const search = new Search((user) => open(user));
const timeline = new Timeline((chosen) => choose(chosen), () => older());
const moment = new Moment((chosen) => choose(chosen));
const badge = new Badge(() => timeline.mark());
const live = new Live((user) => open(user), arrived);
const health = new Health();

/** Shows a user, at a version or the newest. */
async function open(user, wanted = null) {
  opening?.abort();
  const { signal } = (opening = new AbortController());
  notice("");
  if (!/^[0-9a-f]{24}$/.test(user)) return;
  const found = new Events(user);
  try {
    await found.older(signal);
    // A version further back is reached page by page.
    while (wanted && wanted < found.oldest) await found.older(signal);
  } catch (error) {
    if (!signal.aborted) notice(sentence(error));
    return;
  }
  if (signal.aborted) return;
  events = found;
  byId("somebody").hidden = false;
  byId("nobody").hidden = true;
  timeline.show(events, (one) => badge.markOf(one));
  moment.follow(events);
  choose(wanted && wanted <= events.newest ? wanted : events.newest);
  badge.follow(events);
  if (byId("find").contains(document.activeElement) || byId("live").contains(document.activeElement))
    timeline.choose(version, true);
}

/** Shows nobody. */
function leave() {
  opening?.abort();
  [events, version] = [null, 0];
  byId("somebody").hidden = true;
  byId("nobody").hidden = false;
  moment.leave();
  badge.leave();
}

function choose(chosen) {
  version = chosen;
  timeline.choose(version);
  moment.go(version).then(renderWho);
  const place = `#${events.user}${version === events.newest ? "" : `@${version}`}`;
  if (location.hash !== place) {
    const isOther = !location.hash.startsWith(`#${events.user}`);
    history[isOther ? "pushState" : "replaceState"](null, "", place);
  }
}

async function older() {
  const shownNow = events;
  const before = shownNow.oldest;
  try {
    await shownNow.older();
  } catch (error) {
    return notice(sentence(error));
  }
  if (shownNow !== events) return;
  timeline.show(events, (one) => badge.markOf(one));
  badge.follow(events);
  byId("timeline").querySelector(`[data-version="${before - 1}"]`)?.focus();
}

/** An event of the user that is shown is added to its history. */
async function arrived(event) {
  const shownNow = events;
  if (event.subject !== shownNow?.user || event.streamversion <= shownNow.newest) return;
  const wasNewest = version === shownNow.newest;
  try {
    await shownNow.newer();
  } catch (error) {
    return notice(sentence(error));
  }
  if (shownNow !== events) return;
  timeline.show(events, (one) => badge.markOf(one));
  moment.follow(events);
  if (wasNewest) choose(events.newest);
  badge.follow(events);
}

function renderWho() {
  if (!events) return;
  const user = moment.document();
  const name = user ? [el("strong", {}, shown(`${user.name} ${user.surname}`)), el("span", { class: "quiet" }, "@", shown(user.username))] : [];
  byId("who").replaceChildren(...name, el("code", {}, events.user), el("span", { class: "quiet" }, t("versionOf", { version, newest: events.newest })));
}

/** What the address asks for. */
function followAddress() {
  const [, user, at] = /^#([0-9a-f]{24})(?:@([1-9]\d{0,14}))?$/.exec(location.hash) ?? [];
  if (!token()) return;
  if (!user) leave();
  else if (user !== events?.user || (at && Number(at) !== version)) open(user, at ? Number(at) : null);
}

function showAccess(isOpen, key = access) {
  access = key;
  const button = byId("access-button");
  button.textContent = t(token() ? "accessOpen" : "accessOpenNeeded");
  button.setAttribute("aria-expanded", String(isOpen));
  byId("access").hidden = !isOpen;
  byId("access-text").textContent = t(access);
  byId("forget").hidden = !token();
}

/** Begins with a token. */
function begin(value, key) {
  setToken(value);
  byId("token").value = value;
  notice("");
  showAccess(false, key);
  live.start();
  followAddress();
}

refused.by = async () => {
  if (!token()) return;
  setToken(null);
  showAccess(true, "accessRefused");
  // A token that was not pasted may be of a development service that has another secret by now.
  if (!isPasted && !isRenewed) {
    isRenewed = true;
    const made = await developmentToken();
    if (made) begin(made, "accessDevelopment");
  }
};

byId("access-button").addEventListener("click", () => {
  showAccess(byId("access").hidden);
  if (!byId("access").hidden) byId("token").focus();
});
byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = byId("token").value.trim();
  // A header carries nothing else.
  isPasted = true;
  if (/^[\x21-\x7e]+$/.test(value)) begin(value, "accessUsed");
  else showAccess(true, "accessRefused");
});
byId("forget").addEventListener("click", () => {
  setToken(null);
  byId("token").value = "";
  leave();
  live.forget();
  showAccess(true, "accessNeeded");
});

addEventListener("hashchange", followAddress);
addEventListener("popstate", followAddress);
addEventListener("keydown", (event) => {
  const isTyping = event.target.matches?.("input:not([type=range]), select, textarea");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  byId("search").focus();
  byId("search").select();
});

byId("theme").addEventListener("change", (event) => {
  localStorage.setItem(THEME, event.target.value);
  document.documentElement.dataset.theme = event.target.value;
});
byId("language").addEventListener("change", (event) => {
  chooseLanguage(event.target.value);
  render();
});

/** Says everything in the language that was chosen. */
function render() {
  document.documentElement.lang = language();
  document.title = `Profile Ledger ${t("console")}`;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = t(one.dataset.text);
  for (const one of document.querySelectorAll("[data-placeholder]")) one.placeholder = t(one.dataset.placeholder);
  showAccess(!byId("access").hidden);
  for (const part of [search, timeline, moment, badge, live, health]) part.render();
  renderWho();
}

byId("theme").value = localStorage.getItem(THEME) ?? "auto";
document.documentElement.dataset.theme = byId("theme").value;
byId("language").value = language();
render();
health.watch();
if (token()) {
  begin(token(), "accessUsed");
} else {
  const made = await developmentToken();
  if (made) begin(made, "accessDevelopment");
  else showAccess(true, "accessNeeded");
}
document.documentElement.dataset.ready = "";
