// The page that tries the API out: reads the description of the API and gives it to Scalar, which shows it and sends requests.
import { component, texts } from "./texts.js";

const language = new URLSearchParams(location.search).get("lang") === "tr" ? "tr" : "en";
const other = language === "tr" ? "en" : "tr";
const text = (key, values = {}) =>
  Object.entries(values).reduce((all, [name, value]) => all.replace(`{${name}}`, () => value), texts[language][key]);

/** What each language is called in itself. */
const languages = { en: "English", tr: "Türkçe" };
/** Where this service is, also behind a path. */
const own = new URL(".", location.href).href.replace(/\/$/, "");
/** Operations that change nothing, although they are no GET. */
const reading = ["checkUsersUsernameV1"];
const root = document.documentElement;
const element = (id) => document.getElementById(id);

async function json(address) {
  const answer = await fetch(address, { headers: { "x-language": language } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.errors?.join(" ") ?? answer.statusText);
  return body;
}

function operations(description) {
  const items = Object.entries(description.paths);
  return items.flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation })));
}

const changes = ({ method, operation }) => method !== "get" && !reading.includes(operation.operationId);

/** Optional parameters that are sent unless they are unticked: the language of errors, and what a search needs. */
const ticked = ["X-Language", "q"];

/** What a parameter is filled in with. Nothing else that is optional is sent before it is ticked. */
function fill(parameter, description) {
  const named = parameter.schema?.$ref?.replace("#/components/schemas/", "");
  const schema = named ? description.components.schemas[named] : (parameter.schema ?? {});
  const least = schema.minimum === undefined ? undefined : Math.max(1, schema.minimum);
  const values = [parameter.example, schema.examples?.[0], schema.default, schema.enum?.[0], least];
  const isTicked = parameter.required || ticked.includes(parameter.name);
  const value = parameter.name === "X-Language" ? language : values.find((one) => one !== undefined);
  delete parameter.example;
  delete parameter.examples;
  if (value !== undefined) parameter.examples = { default: { value, "x-disabled": !isTicked } };
}

/** The servers to choose from, this one first. It is for trying things out, unless its operator gave it a name as well. */
function withOwn(named) {
  const other = named.filter(({ url }) => url !== own);
  const [isNamed] = named.filter(({ url }) => url === own);
  return [isNamed ?? { name: "Development", url: own, isForTrying: true }, ...other];
}

/** The server that is asked at an address: the longest one, as one may be below another. */
function serverAt(servers, address) {
  const above = servers.filter(({ url }) => address === url || address.startsWith(`${url}/`));
  return above.sort((one, another) => another.url.length - one.url.length)[0] ?? { name: address };
}

/** The description as the page shows it. */
function prepare(description, servers) {
  description.servers = servers.map(({ name, url }) => ({ url, description: name }));
  for (const tag of description.tags) tag["x-displayName"] = texts[language].tags[tag.name] ?? tag.name;
  const all = operations(description);
  const parameters = all.flatMap(({ operation }) => operation.parameters ?? []);
  for (const parameter of [...Object.values(description.components.parameters ?? {}), ...parameters]) {
    if (!parameter.$ref) fill(parameter, description);
  }
  // The style shows it while another server is chosen.
  for (const { operation } of all.filter(changes)) {
    operation.description = `> [!WARNING]\n> ${text("changes")}\n\n${operation.description ?? ""}`;
  }
  return description;
}

/** Sends a request; where it would change real data, only after its sender was asked. */
function sender(isReading, servers, token) {
  return async (input, init) => {
    const request = input instanceof Request ? input : new Request(input, init);
    const { name, url, isForTrying } = serverAt(servers, request.url);
    const { pathname } = new URL(request.url);
    const isSafe = isForTrying || ["GET", "HEAD"].includes(request.method) || isReading(pathname);
    const values = { method: request.method, path: pathname, server: name, url: request.url };
    if (!isSafe && !confirm(text("ask", values))) throw new Error(text("notSent"));
    if (url === own) return fetch(input, init);
    // The token of development mode is nobody else's.
    if (token && request.headers.get("authorization") === `Bearer ${token}`) request.headers.delete("authorization");
    return fetch(request);
  };
}

function warn(servers) {
  return (address) => {
    const { name, isForTrying } = serverAt(servers, address);
    root.dataset.server = isForTrying ? "for-trying" : "real";
    element("warning").textContent = isForTrying ? "" : text("chosen", { server: name, url: address });
  };
}

async function open() {
  root.lang = language;
  element("description").textContent = "openapi.json";
  element("description").href = `openapi.json?lang=${language}`;
  element("other-language").textContent = languages[other];
  element("other-language").href = `?lang=${other}`;
  element("other-language").lang = other;

  const [settings, description] = await Promise.all([json("docs/settings.json"), json(`openapi.json?lang=${language}`)]);
  // It is given to a page of this machine only, and the others are of use without one.
  const token = settings.hasToken ? await json("docs/token").then(({ data }) => data.token, () => "") : "";
  const servers = withOwn(settings.servers);
  const warnOf = warn(servers);
  warnOf(own);
  const harmless = operations(description).filter((one) => reading.includes(one.operation.operationId));
  const isReading = (pathname) => harmless.some(({ path }) => pathname.endsWith(path));
  Scalar.createApiReference("#reference", {
    content: prepare(description, servers),
    authentication: { preferredSecurityScheme: "bearer", securitySchemes: { bearer: { token } } },
    customFetch: sender(isReading, servers, token),
    defaultHttpClient: { targetKey: "shell", clientKey: "curl" },
    localization: { locale: language, translations: component[language] },
    onServerChange: warnOf,
    onLoaded: () => { root.dataset.ready = ""; },
    // Everything of the component that leads to other places is off.
    agent: { disabled: true },
    mcp: { disabled: true },
    documentDownloadType: "none",
    hideClientButton: true,
    showDeveloperTools: "never",
    telemetry: false,
    withDefaultFonts: false,
  });
}

open().catch((error) => {
  element("notice").textContent = text("failed", { error: error.message });
  element("notice").hidden = false;
});
