// The package, as it would be published.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

const ROOT = new URL("..", import.meta.url);

function read(path: string): string {
  return readFileSync(new URL(path, ROOT), "utf8");
}

test("the package has the modules, their types, the licence and nothing else", () => {
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: fileURLToPath(ROOT) });
  const told: unknown = JSON.parse(packed.toString());
  // npm 12 names packages where npm 11 numbers them.
  const [{ files }] = Object.values(told as object) as [{ files: { path: string }[] }];
  const modules = readdirSync(new URL("src/", ROOT)).map((name) => name.replace(/\.ts$/, ""));
  const built = modules.flatMap((name) => [`dist/${name}.js`, `dist/${name}.d.ts`]);
  assert.deepEqual(files.map(({ path }) => path).sort(), [...built, "LICENSE", "README.md", "package.json"].sort());
});

test("the licence is that of the repository", () => {
  assert.equal(read("LICENSE"), read("../../LICENSE"));
});

test("openapi-fetch is the only run-time dependency", () => {
  const { dependencies, peerDependencies, optionalDependencies } = JSON.parse(read("package.json")) as Record<string, object>;
  assert.deepEqual(Object.keys(dependencies!), ["openapi-fetch"]);
  assert.deepEqual([peerDependencies, optionalDependencies], [undefined, undefined]);
  for (const name of readdirSync(new URL("dist/", ROOT)).filter((name) => name.endsWith(".js"))) {
    for (const [, from] of read(`dist/${name}`).matchAll(/^(?:import|export)\b.*\bfrom "([^"]+)"/gm)) {
      assert.ok(from === "openapi-fetch" || from!.startsWith("./"), `${name} imports ${from}`);
    }
  }
});

test("the examples of the README are the files that are compiled", () => {
  const fences = [...read("README.md").matchAll(/^```tsx\n(.*?)^```/gms)].map(([, code]) => code);
  assert.deepEqual(fences, [read("examples/web/profile.tsx"), read("examples/react-native/profile.tsx")]);
});
