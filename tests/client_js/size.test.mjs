// The limit of the size of headwater.js, with a minifier that is installed for this test only.

import test from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { gzipSync } from "node:zlib";
import { directory } from "./kit.mjs";

const BYTES_MAX = 4096;
const source = (name) => new URL(`../../src/client_js/${name}`, import.meta.url).pathname;

test("headwater.js has at most 4,096 bytes, minified and compressed", (t) => {
  const minify = (name) => {
    const path = process.env.TEST_ESBUILD;
    assert.ok(path, "TEST_ESBUILD must be the path of esbuild, which tests/run installs");
    return execFileSync(path, ["--minify", "--format=esm", source(name)], { cwd: directory(t) });
  };
  const text = minify("headwater.js");
  const bytes = gzipSync(text, { level: 9 }).length;
  t.diagnostic(`headwater.js: ${text.length} bytes, compressed ${bytes}`);
  assert.ok(bytes <= BYTES_MAX, `${bytes} bytes`);
});
