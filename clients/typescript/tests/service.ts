// The real binary on a folder of its own, as the variable PROFILE_LEDGER names it.

import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** The user that development mode registers. */
export const DEMO_USER = "507f1f77bcf86cd799439011";

/** The photo that the demo user could have. */
export const PHOTO = readFileSync(new URL("../../../server/src/dev/demo-photo.jpg", import.meta.url));

export class Service {
  private constructor(readonly url: string, readonly process: ChildProcess, readonly folder: string) {}

  static async start(): Promise<Service> {
    const folder = mkdtempSync(join(tmpdir(), "profile-ledger-client-"));
    const process = spawn(binary(), ["--listen", "127.0.0.1:0"], { env: variables(folder), stdio: ["ignore", "pipe", "ignore"] });
    // However the tests end.
    globalThis.process.once("exit", () => process.kill("SIGKILL"));
    for await (const line of createInterface({ input: process.stdout! })) {
      const url = /is running on (\S+?)\.?(\s|$)/.exec(line)?.[1];
      if (url) {
        process.stdout!.resume();
        return new Service(url, process, folder);
      }
    }
    throw new Error("The service ended before it was running");
  }

  /** A token of development mode, made by the binary itself. */
  token(user = DEMO_USER, role = "user"): string {
    const made = execFileSync(binary(), ["token", "--user", user, "--role", role], { env: variables(this.folder) });
    return made.toString().trim();
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await ended;
    rmSync(this.folder, { recursive: true });
  }
}

function binary(): string {
  const path = process.env["PROFILE_LEDGER"] ?? "";
  if (!existsSync(path)) throw new Error("Set PROFILE_LEDGER to the path of the binary");
  return path;
}

/** None of the variables that the test run may have, since the binary reads many. */
function variables(folder: string): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"], DATA_DIR: join(folder, "data") };
}
