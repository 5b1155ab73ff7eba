// Chromium for a script: WebDriver commands to a chromedriver of its own.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PATIENCE_MS = 20_000;
// No sandbox and no /dev/shm, as in a container, and no requests but those of the pages.
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
FLAGS.push("--no-first-run", "--disable-background-networking", "--disable-component-update");

/** Starts a browser. `close` ends it. */
export async function openBrowser(flags = []) {
  const profile = mkdtempSync(join(tmpdir(), "headwater-browser-"));
  const driver = spawn("chromedriver", ["--port=0"], { stdio: ["ignore", "pipe", "ignore"] });
  const address = await driverAddress(driver);
  const send = async (method, path, body) => {
    const options = method == "POST" ? { method, body: JSON.stringify(body) } : { method };
    const { value } = await (await fetch(address + path, options)).json();
    if (value?.error) throw new Error(`${path}: ${value.message}`);
    return value;
  };
  const args = [...FLAGS, ...flags, `--user-data-dir=${profile}`];
  const wanted = { "goog:chromeOptions": { args }, "goog:loggingPrefs": { browser: "ALL" } };
  const { sessionId } = await send("POST", "/session", { capabilities: { alwaysMatch: wanted } });
  const post = (command, body) => send("POST", `/session/${sessionId}/${command}`, body);
  const run = (script) => post("execute/sync", { script, args: [] });
  return {
    run,
    open: (url) => post("url", { url }),
    devtools: (cmd, params) => post("goog/cdp/execute", { cmd, params }),
    waitFor: (condition) => waitFor(run, condition),
    /** The errors in the console since the last call. */
    async errors() {
      const lines = await post("se/log", { type: "browser" });
      return lines.filter(({ level }) => level == "SEVERE").map(({ message }) => message);
    },
    async close() {
      await send("DELETE", `/session/${sessionId}`);
      driver.kill();
      await once(driver, "exit");
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

async function driverAddress(driver) {
  for await (const line of createInterface(driver.stdout)) {
    const port = /started successfully on port (\d+)/.exec(line)?.[1];
    if (port) {
      driver.stdout.resume();
      return `http://127.0.0.1:${port}`;
    }
  }
  throw new Error("chromedriver does not say where it listens");
}

/** Waits until an expression is true in the page. */
async function waitFor(run, condition) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await run(`return Boolean(${condition})`))) {
    if (Date.now() > end) {
      const shown = await run("return document.body.innerText");
      throw new Error(`the page does not come to ${condition}; it shows ${shown}`);
    }
    await new Promise((wake) => setTimeout(wake, 50));
  }
}
