/** A typed client of Profile Ledger. See README.md for examples. */

export { createClient } from "./client.js";
export type {
  Answer,
  Api,
  CommandOptions,
  Found,
  OwnProfile,
  PhotoOptions,
  ProfileBody,
  ProfileLedgerClient,
  PublicProfile,
  ReadOptions,
  RegistrationBody,
  Search,
} from "./client.js";
export { ProfileLedgerError } from "./error.js";
export type { ClientCode, ErrorCode, FieldProblem, KnownCode } from "./error.js";
export type { Photo, Progress } from "./photo.js";
export type { Retries } from "./retry.js";
export type { ClientOptions, Token } from "./transport.js";
export type { components, operations, paths } from "./schema.js";
