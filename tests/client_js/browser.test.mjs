// The client in Chromium: the boundaries of segments, CORS, and the sharing between tabs.

import test from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { directory, ids, origin, publishSteadily, server } from "./kit.mjs";

const ALONE_MS = 12_000;
const ROOTS = ["../../src/client_js/", "./"];
const TYPES = { js: "text/javascript", html: "text/html; charset=utf-8" };

/** Serves the page and the modules, and gives what the page posts to `take`. */
function serve(test, take) {
  return server(test, async (request, answer) => {
    if (request.method == "POST") {
      const chunks = await request.toArray();
      await take(request.url, Buffer.concat(chunks).toString());
      return answer.writeHead(204).end();
    }
    const name = new URL(request.url, "http://x").pathname.slice(1);
    for (const root of ROOTS) {
      const body = await readFile(new URL(root + name, import.meta.url)).catch(() => undefined);
      if (body)
        return answer.writeHead(200, { "Content-Type": TYPES[name.split(".").pop()] }).end(body);
    }
    answer.writeHead(404).end();
  });
}

function browse(test, url) {
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  flags.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  const chromium = process.env.TEST_CHROMIUM ?? "chromium";
  const browser = spawn(chromium, [...flags, `--user-data-dir=${directory(test)}`, url], {
    stdio: "ignore",
  });
  const hasEnded = once(browser, "exit").catch(() => {});
  test.after(async () => {
    browser.kill("SIGKILL");
    await hasEnded;
  });
}

test(
  "tabs share a connection, and lose nothing when their leader closes",
  { timeout: 50_000 },
  async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const stop = publishSteadily(live, "shared", 50);
    const result = await new Promise(async (resolve, reject) => {
      const url = await serve(t, async (path, body) => {
        if (path == "/stop") await stop();
        else resolve(JSON.parse(body));
      });
      // The stream has another web origin than the page: its port.
      const stream = encodeURIComponent(`${live.url}/channels/shared`);
      browse(t, `${url}/page.html?alone=${ALONE_MS}&url=${stream}`);
      setTimeout(() => reject(new Error("the page has posted no result")), 45_000).unref();
    });
    assert.equal(result.error, undefined);
    const all = ids(await live.history("shared"));
    for (const { ids, statuses } of [result.alone, ...result.tabs]) {
      const first = all.indexOf(ids[0]);
      assert.ok(first >= 0 && ids.length > 50, `${ids.length} events, ${statuses}`);
      assert.deepEqual(ids, all.slice(first, first + ids.length));
      assert.deepEqual(
        statuses.filter((status) => status != "closed"),
        ["connecting", "live"],
      );
    }
    assert.equal(result.tabs.at(-1).ids.at(-1), all.at(-1));
    assert.equal(result.whileFollowing, 0);

    const { at } = result.alone;
    const isAcross = (index) => Math.floor(at[index] / 1000) > Math.floor(at[index - 1] / 1000);
    const pauses = at
      .flatMap((time, index) => (index && isAcross(index) ? [time - at[index - 1]] : []))
      .sort((a, b) => a - b);
    const part = (share) => pauses[Math.ceil(pauses.length * share) - 1];
    t.diagnostic(
      `pause at ${pauses.length} boundaries in Chromium: p50 ${part(0.5)} ms, max ${part(1)} ms`,
    );
  },
);
