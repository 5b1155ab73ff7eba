// What the tests of the client share: origins, proxies, publishers and checks.

import { spawn } from "node:child_process";
import { createServer, request } from "node:http";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";

export const sleep = (wait) => new Promise((wake) => setTimeout(wake, wait));

/** The release binary. Nothing is skipped where it is missing. */
export function binary() {
  const path = process.env.TEST_HEADWATER;
  assert.ok(path, "TEST_HEADWATER must be the path of the headwater binary");
  return path;
}

/** Waits until `check` gives something, and fails after `limit` milliseconds. */
export async function until(check, what, limit = 15_000) {
  const end = Date.now() + limit;
  for (;;) {
    const value = await check();
    if (value) return value;
    assert.ok(Date.now() < end, `${what} did not happen within ${limit} ms`);
    await sleep(10);
  }
}

// Below the ports that the system gives to connections. The files run side by side, so each begins
// at another place.
const PORTS = { first: 24_000, count: 6_000 };
let place = (process.pid * 97) % PORTS.count;

/** Two ports that follow each other, and that nothing uses. */
async function freePorts() {
  const isFree = (port) =>
    new Promise((answer) => {
      const probe = createServer().once("error", () => answer(false));
      probe.listen(port, "127.0.0.1", () => probe.close(() => answer(true)));
    });
  for (;;) {
    const port = PORTS.first + (place = (place + 2) % PORTS.count);
    if ((await isFree(port)) && (await isFree(port + 1))) return port;
  }
}

/** An origin on `port`, with its listener for operators on the next port. */
export class Origin {
  constructor(port, flags = [], store = "memory") {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.flags = [
      "serve",
      "--listen",
      `127.0.0.1:${port}`,
      "--admin-listen",
      `127.0.0.1:${port + 1}`,
    ];
    this.flags.push("--store", store, "--log", "warn", ...flags);
  }

  async start() {
    const process = (this.process = spawn(binary(), this.flags, {
      stdio: ["ignore", "ignore", "pipe"],
    }));
    this.log = "";
    this.process.stderr.on("data", (text) => (this.log += text));
    await until(async () => {
      assert.equal(process.exitCode, null, this.log);
      return (await fetch(`http://127.0.0.1:${this.port + 1}/readyz`).catch(() => ({}))).ok;
    }, "the start of the origin");
    return this;
  }

  /** Ends the process at once. */
  async kill() {
    if (this.process.exitCode !== null || this.process.signalCode) return;
    const hasEnded = new Promise((ended) => this.process.once("exit", ended));
    this.process.kill("SIGKILL");
    await hasEnded;
  }

  async publish(channel, body, { token, ...parameters } = {}) {
    const url = `${this.url}/channels/${channel}?${new URLSearchParams(parameters)}`;
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(url, { method: "POST", body, headers });
    assert.ok(response.ok, await response.clone().text());
    return (await response.json()).id;
  }

  /** The ids and the data of all events of a channel. */
  async history(channel) {
    const events = [];
    for (let after = "0-0"; ;) {
      const response = await fetch(
        `${this.url}/channels/${channel}/history?after=${after}&limit=1000`,
      );
      const page = await response.json();
      events.push(...page.events.filter((event) => event.type == "event"));
      if (!page.events.length) return events;
      after = page.next;
    }
  }
}

/** A directory that is removed after the test. */
export function directory(test) {
  const path = mkdtempSync(join(tmpdir(), "headwater-client-"));
  test.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** An origin that is ended after the test. */
export async function origin(test, flags, store) {
  const started = await new Origin(await freePorts(), flags, store).start();
  test.after(() => started.kill());
  return started;
}

/** An HTTP server that is closed after the test. */
export async function server(test, answer) {
  const started = createServer(answer);
  await new Promise((listens) => started.listen(0, "127.0.0.1", listens));
  test.after(() => {
    started.closeAllConnections();
    started.close();
  });
  return `http://127.0.0.1:${started.address().port}`;
}

/** A proxy to `target` that gives the body of each answer to `send(body, answer, response)`. */
export function proxy(test, target, send) {
  return server(test, (asked, answer) => {
    const { method, url, headers } = asked;
    const forwarded = request(target + url, { method, headers }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", () => answer.destroy());
      response.on("end", () => send(Buffer.concat(chunks), answer, response, asked));
    });
    forwarded.on("error", () => answer.destroy());
    answer.on("close", () => forwarded.destroy());
    asked.pipe(forwarded);
  });
}

/** Publishes `rate` events a second. The result ends that, and gives the number of the events. */
export function publishSteadily(origin, channel, rate) {
  let isStopped = false;
  let count = 0;
  const begin = Date.now();
  const done = (async () => {
    while (!isStopped) {
      const body = JSON.stringify({ n: count++, at: Date.now() });
      for (;;) {
        const key = `n-${count}`;
        const url = `${origin.url}/channels/${channel}`;
        const headers = { "Idempotency-Key": key };
        const response = await fetch(url, { method: "POST", body, headers }).catch(() => undefined);
        if (response?.ok) break;
        if (isStopped) return;
        await sleep(50);
      }
      await sleep(Math.max(0, begin + (count * 1000) / rate - Date.now()));
    }
  })();
  return async () => {
    isStopped = true;
    await done;
    return count;
  };
}

/** Collects what a client delivers. */
export function collect(client) {
  const seen = { events: [], statuses: [], gaps: [], states: 0, ends: [] };
  client.addEventListener("message", (event) => {
    seen.events.push({
      id: event.id,
      data: event.data,
      channel: event.channel,
      at: performance.now(),
    });
  });
  client.addEventListener("status", ({ status, reason, wait }) => {
    seen.statuses.push({ status, reason, wait });
  });
  client.addEventListener("gap", ({ reason, channel, requested, oldest }) => {
    seen.gaps.push({ reason, channel, requested, oldest });
  });
  client.addEventListener("state", () => seen.states++);
  client.addEventListener("end", ({ channel }) => seen.ends.push(channel));
  return seen;
}

export const ids = (events) => events.map(({ id }) => id);

/** Fails where events are missing, come twice or in another order. */
export function assertSame(events, expected) {
  const got = ids(events);
  assert.equal(new Set(got).size, got.length, "an event came twice");
  assert.deepEqual(got, ids(expected));
}
