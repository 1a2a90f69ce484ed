// The operations by name, and all others by path.

import createFetchClient from "openapi-fetch";
import type { FetchResponse, MaybeOptionalInit } from "openapi-fetch";

import { requestId, unexpected } from "./error.js";
import { form } from "./photo.js";
import type { Photo, Progress } from "./photo.js";
import type { components, operations, paths } from "./schema.js";
import { Outgoing, Transport, positionOf } from "./transport.js";
import type { Call, ClientOptions } from "./transport.js";

type Schemas = components["schemas"];
/** What only the user sees. */
export type OwnProfile = Schemas["OwnProfile"];
/** What everybody sees. */
export type PublicProfile = Schemas["PublicProfile"];
/** The whole new profile: an optional member that is absent or `null` is cleared. */
export type ProfileBody = Schemas["ProfileBody"];
export type RegistrationBody = Schemas["RegistrationBody"];
/** One page of users. */
export type Found = Schemas["Found"];
export type Search = Omit<NonNullable<operations["searchUsersV1"]["parameters"]["query"]>, "minPosition">;

/** A success. */
export interface Answer<T> {
  data: T;
  /** The version of the user: for `ifMatch` of a command. Reads of one user and commands have it. */
  etag: string | undefined;
  /** What the answer shows at least: for `minPosition` of a read elsewhere. */
  position: number | undefined;
  /** Names the request in the logs of the service. */
  requestId: string | undefined;
  /** Whether the command had happened already, under the same key, and this is its answer. */
  wasReplayed: boolean;
}

export interface ReadOptions {
  signal?: AbortSignal;
  /** Waits until the answer shows this position, beside those of the client's own commands. */
  minPosition?: number;
}

/** Of a read whose answer may be at hand already. */
export interface ReadAgainOptions<T> extends ReadOptions {
  /** An earlier answer of the same read by the same user: it is given back where it still holds, at no cost. */
  known?: Answer<T> | undefined;
}

export interface CommandOptions {
  signal?: AbortSignal;
  /** The `etag` that the command was decided on: another version now is `VERSION_MISMATCH`. */
  ifMatch?: string | undefined;
  /** One of your own, to go on with a command after the app was ended. Default: a new one for each call. */
  idempotencyKey?: string;
}

export interface PhotoOptions extends CommandOptions {
  /** How far the upload is, in browsers and React Native. With it, `XMLHttpRequest` sends, not `fetch`. */
  onProgress?: (progress: Progress) => void;
  /** Milliseconds that the upload may take. Default: what `retries` of the client says, else 300,000. */
  totalMs?: number;
}

type PathsOf<Method extends string> = {
  [Path in keyof paths]: paths[Path] extends Record<Method, object> ? Path : never;
}[keyof paths];

type Ask<Method extends "get" | "put" | "post" | "patch" | "delete"> = <
  Path extends PathsOf<Method>,
  Init extends MaybeOptionalInit<paths[Path], Method>,
>(
  path: Path,
  ...init: undefined extends Init ? [init?: Init] : [init: Init]
) => Promise<Extract<FetchResponse<Operation<Path, Method>, Init, `${string}/${string}`>, { error?: never }>>;

type Operation<Path extends keyof paths, Method extends keyof paths[Path]> = paths[Path][Method] & Record<string, unknown>;

/** Every operation of the service by its path, as openapi-fetch has it; but failures are thrown. */
export interface Api {
  GET: Ask<"get">;
  PUT: Ask<"put">;
  POST: Ask<"post">;
  PATCH: Ask<"patch">;
  DELETE: Ask<"delete">;
}

export type ProfileLedgerClient = ReturnType<typeof createClient>;

/** A client of one service for one user. Every call rejects with a `ProfileLedgerError`, or the reason of its signal. */
export function createClient(options: ClientOptions) {
  const transport = new Transport(options);
  const { retries } = options;
  const send = (call?: Call) => (request: Request) => transport.send(request as unknown as Outgoing, call);
  const asking = createFetchClient<paths>({
    baseUrl: options.baseUrl,
    fetch: send(),
    Request: Outgoing as unknown as typeof Request,
  });
  asking.use({
    onRequest({ request, options: { parseAs } }) {
      (request as unknown as Outgoing).isOpen = parseAs !== "json";
    },
  });
  const api = asking as unknown as Api;

  return {
    /** All operations, those without a name here too. */
    api,

    /** The highest position of this client's commands, for a read by another one; 0 before the first. */
    get position(): number {
      return transport.position;
    },

    /** Reads the own profile. */
    async profile(options: ReadAgainOptions<OwnProfile> = {}): Promise<Answer<OwnProfile>> {
      return read(await api.GET("/api/v1/users/profile", reading(options)), options.known);
    },

    /** Reads what everybody sees of a user. */
    async publicProfile(userId: string, options: ReadAgainOptions<PublicProfile> = {}): Promise<Answer<PublicProfile>> {
      const { signal, params } = reading(options);
      const init = { signal, params: { ...params, path: { userId } } };
      return read(await api.GET("/api/v1/users/profile/{userId}", init), options.known);
    },

    /** The same by username. */
    async publicProfileOf(username: string, options: ReadAgainOptions<PublicProfile> = {}): Promise<Answer<PublicProfile>> {
      const { signal, params } = reading(options);
      const init = { signal, params: { ...params, path: { username } } };
      return read(await api.GET("/api/v1/users/profile/username/{username}", init), options.known);
    },

    /** Whether a username is free. */
    async isUsernameFree(username: string, options: ReadOptions = {}): Promise<boolean> {
      const init = { ...reading(options), body: { username } };
      return answer(await api.POST("/api/v1/users/check-username", init)).data.available;
    },

    /** Finds users by name, username and expertise. */
    async search(search: Search, options: ReadOptions = {}): Promise<Answer<Found>> {
      const { signal, params } = reading(options);
      return answer(await api.GET("/api/v1/users/search", { signal, params: { ...params, query: search } }));
    },

    /** Replaces the own profile. */
    async updateProfile(body: ProfileBody, options: CommandOptions = {}): Promise<Answer<OwnProfile>> {
      return answer(await api.PUT("/api/v1/users/profile", { ...commanding(options), body }));
    },

    /** Changes the own username, once in 30 days. */
    async changeUsername(newUsername: string, options: CommandOptions = {}): Promise<Answer<OwnProfile>> {
      return answer(await api.PATCH("/api/v1/users/username", { ...commanding(options), body: { newUsername } }));
    },

    /** Changes the own photo. */
    async changePhoto(photo: Photo, options: PhotoOptions = {}): Promise<Answer<OwnProfile>> {
      const { onProgress, totalMs = retries?.totalMs ?? 300_000 } = options;
      const init = {
        ...commanding(options),
        body: { file: "" },
        bodySerializer: () => form(photo),
        fetch: send({ onProgress, totalMs }),
      };
      return answer(await api.PATCH("/api/v1/users/profile/photo", init));
    },

    /** Registers a user, as the sign-up service does. */
    async register(body: RegistrationBody, options: CommandOptions = {}): Promise<Answer<OwnProfile>> {
      return answer(await api.POST("/api/v1/users", { ...commanding(options), body }));
    },
  };
}

function reading(options: ReadAgainOptions<unknown>) {
  const header = {
    ...(options.known?.etag !== undefined && { "If-None-Match": options.known.etag }),
    ...(options.minPosition !== undefined && { "Ledger-Min-Position": options.minPosition }),
  };
  return { signal: options.signal ?? null, params: { header } };
}

function commanding({ signal, ifMatch, idempotencyKey }: CommandOptions) {
  const header = {
    ...(ifMatch !== undefined && { "If-Match": ifMatch }),
    ...(idempotencyKey !== undefined && { "Idempotency-Key": idempotencyKey }),
  };
  return { signal: signal ?? null, params: { header } };
}

interface Received<T> {
  data?: { data: T };
  response: Response;
}

function read<T>(received: Received<T>, known: Answer<T> | undefined): Answer<T> {
  return received.response.status === 304 && known ? known : answer(received);
}

function answer<T>({ data, response }: Received<T>): Answer<T> {
  // All of it is typed, so what is none of ours ends here.
  if (typeof data?.data !== "object" || data.data === null) throw unexpected(response);
  return {
    data: data.data,
    etag: response.headers.get("ETag") ?? undefined,
    position: positionOf(response),
    requestId: requestId(response),
    wasReplayed: response.headers.get("Idempotent-Replayed") === "true",
  };
}
