// The client against the real origin. Each test has an origin of its own, and all run side by side,
// because they mostly wait.

import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { request } from "node:http";
import { connect } from "../../src/client_js/headwater.js";
import * as kit from "./kit.mjs";

const { assertSame, collect, origin, sleep, until } = kit;

/** A client that is closed after the test. */
function open(test, url, options) {
  const client = connect(url, options);
  test.after(() => client.close());
  return client;
}

/** The pauses between the last event before a boundary and the first one after it. */
function pauses(events, boundaries) {
  return boundaries.flatMap((boundary) => {
    const after = events.findIndex(({ at }) => at > boundary);
    return after > 0 ? [events[after].at - events[after - 1].at] : [];
  });
}

describe("the client and the origin", { concurrency: true, timeout: 50_000 }, () => {
  // protocol §4.2, §6.7
  test("nothing is lost or doubled over 20 boundaries", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const requests = [];
    const fetchNoted = (url, init) => {
      requests.push({
        at: performance.now(),
        cursor: new URL(url).searchParams.get("lastEventId"),
      });
      return fetch(url, init);
    };
    const stop = kit.publishSteadily(live, "busy", 50);
    await until(() => live.history("busy").then((events) => events.length), "the first event");
    const client = open(t, `${live.url}/channels/busy?after=0-0`, { fetch: fetchNoted });
    const seen = collect(client);
    await until(() => requests.length > 20, "the 20th boundary", 30_000);
    const count = await stop();
    await until(() => seen.events.length >= count, "the last event");
    assertSame(seen.events, await live.history("busy"));
    assert.equal(seen.events.length, count);
    assert.deepEqual(seen.gaps, []);
    // Every request but the first has the mark of a planned end, and the status never changed.
    for (const { cursor } of requests.slice(1)) assert.match(cursor, /^\d+-\d+\.\d+000$/);
    assert.deepEqual(
      seen.statuses.map(({ status }) => status),
      ["connecting", "live"],
    );

    const measured = pauses(
      seen.events,
      requests.slice(1).map(({ at }) => at),
    ).sort((a, b) => a - b);
    const at = (part) => measured[Math.ceil(measured.length * part) - 1].toFixed(1);
    t.diagnostic(
      `pause at ${measured.length} boundaries: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms`,
    );
  });

  test("several channels are one stream with one cursor", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const client = open(t, live.url, { channels: ["a", "b", "c"] });
    const seen = collect(client);
    await until(() => client.status == "live", "the stream");
    for (let n = 0; n < 90; n++) {
      await live.publish("abc"[n % 3], `${n}`);
      await sleep(20);
    }
    await until(() => seen.events.length >= 90, "the last event");
    assert.deepEqual(
      seen.events.map(({ data }) => data),
      Array.from({ length: 90 }, (_, n) => `${n}`),
    );
    for (const channel of "abc") {
      assertSame(
        seen.events.filter((event) => event.channel == channel),
        await live.history(channel),
      );
    }
    assert.equal(client.lastEventId.split("_").length, 3);
  });

  test("kill -9 and a restart on the same port, and an outage of 5 s", async (t) => {
    const live = await origin(t, ["--segment", "2s"], `disk:${kit.directory(t)}/log`);
    const client = open(t, live.url, { channels: ["busy"], heartbeat: 1000 });
    const seen = collect(client);
    await until(() => client.status == "live", "the stream");
    const stop = kit.publishSteadily(live, "busy", 50);
    await sleep(1500);
    await live.kill();
    const killed = Date.now();
    await until(() => client.status == "reconnecting", "the loss");
    await sleep(5000 - (Date.now() - killed));
    await live.start();
    await until(() => client.status == "live", "the way back", 20_000);
    const delay = Date.now() - killed;
    await sleep(500);
    const count = await stop();
    await until(() => seen.events.length >= count, "the last event");
    assertSame(seen.events, await live.history("busy"));
    assert.deepEqual(seen.gaps, []);
    t.diagnostic(`live again ${delay} ms after the kill, with an outage of 5,000 ms`);
    const waits = seen.statuses
      .filter(({ status }) => status == "reconnecting")
      .map(({ wait }) => wait);
    // protocol §6.2: the stream said `retry: 3000`, or its planned end 100.
    assert.ok(waits.length >= 1 && waits.every((wait) => wait >= 100), waits.join());
  });

  // protocol §8.1
  test("a gap is announced, and the state is read anew", async (t) => {
    const live = await origin(t, ["--segment", "2s", "--retain-events", "5"]);
    const first = await live.publish("keyed", "zero", { key: "gone" });
    await live.publish("keyed", "", { key: "gone" });
    for (let n = 0; n < 10; n++) await live.publish("keyed", `${n}`, { key: `k${n % 2}` });
    const client = open(t, live.url, { channels: ["keyed"], cursor: first, state: true });
    const seen = collect(client);
    await until(() => seen.gaps.length && seen.states, "the gap and the state");
    assert.equal(seen.gaps[0].reason, "trimmed");
    assert.equal(seen.gaps[0].requested, first);
    await until(() => client.state.get("k1") == "9", "the state");
    assert.deepEqual(Object.fromEntries(client.state), { k0: "8", k1: "9" });
    assert.deepEqual(seen.events, []);
    const next = await live.publish("keyed", "new", { key: "k0" });
    await until(() => seen.events.length, "the next event");
    assert.deepEqual([seen.events[0].id, client.state.get("k0")], [next, "new"]);
  });

  test("without `state`, the events of the state are delivered without an id", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    await live.publish("keyed", "1", { key: "a" });
    await live.publish("keyed", "2", { key: "b", event: "price" });
    const client = open(t, live.url, { channels: ["keyed"] });
    const prices = [];
    client.addEventListener("price", ({ key, data, id, lastEventId }) =>
      prices.push({ key, data, id, lastEventId }),
    );
    const seen = collect(client);
    await until(() => seen.events.length && prices.length, "the state");
    await sleep(1500);
    assert.equal(seen.events.length, 1);
    assert.equal(seen.events[0].id, undefined);
    assert.equal(prices.length, 1);
    assert.match(prices[0].lastEventId, /^\d+-\d+$/);
  });

  test("the state is also read where the URL says how the stream begins", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    for (let n = 0; n < 5; n++) await live.publish("keyed", `${n}`, { key: `k${n}` });
    const client = open(t, `${live.url}/channels/keyed?last=2`, { state: true });
    const seen = collect(client);
    await until(() => seen.states && seen.events.length == 2, "the state");
    assert.equal(client.state.size, 5);
    const empty = open(t, live.url, { channels: ["none"], state: true });
    await until(() => collect(empty) && empty.status == "live", "the stream");
    assert.equal(empty.state.size, 0);
  });

  // protocol §9.2
  test("the state with removals is the state of a client that joins later", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    for (let n = 0; n < 8; n++) await live.publish("board", `${n}`, { key: `k${n}` });
    await live.publish("other", "x", { key: "k0" });
    const client = open(t, live.url, { channels: ["board", "other"], state: true });
    const seen = collect(client);
    await until(() => seen.states, "the state");
    assert.equal(client.state.size, 9);
    assert.equal(seen.events.length, 0);
    for (let n = 0; n < 100; n++) {
      const key = `k${n % 10}`;
      if (n % 3 == 0) await live.publish("board", "bye", { key, remove: true });
      else if (n % 7 == 0) await live.publish("board", "", { key });
      else await live.publish("board", `${n}`, { key });
      await sleep(15);
    }
    const later = open(t, live.url, { channels: ["board", "other"], state: true });
    await until(() => later.status == "live" && seen.events.length == 100, "the last event");
    await until(() => later.state.size, "the later state");
    const entries = (map) => Object.fromEntries([...map].sort());
    assert.deepEqual(entries(client.state), entries(later.state));
    assert.equal(client.state.get("other/k0"), "x");
    assert.ok(client.state.size < 10 && client.state.size > 3);
  });

  test("a stored cursor is gone on from, and the state is read beside it", async (t) => {
    const live = await origin(t, ["--segment", "2s"]);
    const items = new Map();
    const storage = {
      getItem: (key) => items.get(key) ?? null,
      setItem: (key, value) => items.set(key, value),
    };
    const first = open(t, live.url, { channels: ["kept"], storage });
    const seen = collect(first);
    await until(() => first.status == "live", "the stream");
    for (let n = 0; n < 5; n++) await live.publish("kept", `${n}`, { key: `k${n}` });
    await until(() => seen.events.length == 5, "the events");
    first.close();
    for (let n = 5; n < 10; n++) await live.publish("kept", `${n}`, { key: `k${n}` });
    assert.deepEqual([...items.keys()], [`headwater:${live.url}/channels/kept`]);
    const second = open(t, live.url, { channels: ["kept"], storage, state: true });
    const rest = collect(second);
    await until(() => rest.events.length == 5 && rest.states, "the rest");
    assertSame([...seen.events, ...rest.events], await live.history("kept"));
    assert.equal(second.state.size, 10);
  });

  // protocol §6.8, §5.9
  test("the end of a channel is final, and not before the last channel has ended", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    await live.publish("one", "1");
    await live.publish("two", "2");
    const client = open(t, live.url + "/channels/one,two?after=0-0");
    const seen = collect(client);
    await until(() => seen.events.length == 2, "the events");
    await fetch(`${live.url}/channels/one`, { method: "DELETE" });
    await until(() => seen.ends.length, "the end of one channel");
    await sleep(1500);
    assert.equal(client.status, "live");
    await live.publish("two", "3");
    await until(() => seen.events.length == 3, "the event after that");
    await fetch(`${live.url}/channels/two`, { method: "DELETE" });
    await until(() => client.status == "ended", "the end", 10_000);
    assert.deepEqual(seen.ends, ["one", "two"]);
    assert.equal(client.readyState, 2);
    const ended = [];
    for await (const event of client) ended.push(event);
    assert.deepEqual(ended, []);
  });

  test("a channel that was opened again is followed beyond its old end", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    await live.publish("again", "1");
    await fetch(`${live.url}/channels/again`, { method: "DELETE" });
    await fetch(`${live.url}/channels/again?reopen=1`, { method: "DELETE" });
    await live.publish("again", "2");
    const client = open(t, live.url, { channels: "again", cursor: "0-0" });
    const seen = collect(client);
    await until(() => seen.events.length == 2, "the event after the end", 10_000);
    assert.equal(client.status, "live");
  });

  test("the client is an async iterable, which ends with the connection", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const client = open(t, live.url, { channels: ["list"] });
    const got = [];
    const done = (async () => {
      for await (const event of client) {
        got.push(event);
        if (got.length == 3) client.close();
      }
    })();
    await until(() => client.status == "live", "the stream");
    await live.publish("list", "a", { event: "price", key: "k" });
    await live.publish("list", "b\r\nc\n");
    await live.publish("list", "😀", { key: "k", remove: true });
    await done;
    assert.deepEqual(
      got.map(({ id, ...event }) => event),
      [
        { type: "price", data: "a", channel: "list", key: "k", removed: undefined },
        { type: "message", data: "b\r\nc\n", channel: "list", key: undefined, removed: undefined },
        { type: "message", data: "😀", channel: "list", key: "k", removed: true },
      ],
    );
    assert.equal(client.status, "closed");
  });

  test("an event of 900 kB and a slow consumer", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const data = "ä".repeat(450_000);
    await live.publish("large", data);
    for (let n = 0; n < 30; n++) {
      const lines = Array.from({ length: 100 }, (_, m) =>
        JSON.stringify({ data: `${n * 100 + m}` }),
      );
      await fetch(`${live.url}/channels/large`, {
        method: "POST",
        body: lines.join("\n"),
        headers: { "Content-Type": "application/x-ndjson" },
      });
    }
    const client = open(t, live.url, { channels: ["large"], cursor: "0-0" });
    let count = 0;
    for await (const event of client) {
      if (count == 0) assert.equal(event.data, data);
      else assert.equal(event.data, `${count - 1}`);
      if (count % 500 == 0) await sleep(200);
      if (++count == 3001) break;
    }
  });

  test("a lost memory store is a gap, and later events are delivered", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const client = open(t, live.url, { channels: ["lost"], state: true });
    const seen = collect(client);
    await until(() => client.status == "live", "the stream");
    await live.publish("lost", "1", { key: "a" });
    await until(() => seen.events.length == 1, "the event");
    await live.kill();
    await live.start();
    await until(() => seen.gaps.length, "the gap", 20_000);
    await until(() => client.state.size == 0, "the state");
    await live.publish("lost", "2", { key: "b" });
    await until(() => seen.events.length == 2, "the event after that");
    assert.deepEqual(Object.fromEntries(client.state), { b: "2" });
  });

  test("a token that expires is renewed, and a wrong one without a callback is denied", async (t) => {
    const secret = "0123456789abcdef0123456789abcdef";
    const flags = ["--segment", "1s", "--token-secret", secret, "--private", "*"];
    const live = await origin(t, flags);
    const publisher = await token(secret, "--publish", "*");
    const tokens = [
      "wrong",
      await token(secret, "--subscribe", "other"),
      await token(secret, "--subscribe", "own"),
    ];
    let calls = 0;
    const client = open(t, live.url, {
      channels: ["own"],
      token: async () => tokens[Math.min(calls++, 2)],
    });
    const seen = collect(client);
    await until(() => client.status == "live", "the third token", 20_000);
    assert.equal(calls, 3);
    await live.publish("own", "1", { token: publisher });
    await until(() => seen.events.length, "the event");
    const reasons = seen.statuses
      .filter(({ status }) => status == "reconnecting")
      .map(({ reason }) => reason);
    assert.match(reasons[0], /^401 /);
    assert.match(reasons[1], /^403 /);

    const denied = open(t, live.url, { channels: ["own"], token: "wrong" });
    const why = collect(denied);
    await until(() => denied.status == "denied", "the refusal");
    assert.match(why.statuses.at(-1).reason, /^401 \S/);
    await assert.rejects(async () => {
      for await (const event of denied) assert.fail(event);
    }, /^Error: 401/);
  });

  // protocol §5.8: a token counts for 30 s after its `exp`, so that this token is expired already.
  test("a token that has expired is renewed without the wait of the shed response", async (t) => {
    const secret = "0123456789abcdef0123456789abcdef";
    const live = await origin(t, [
      "--segment",
      "1s",
      "--token-secret",
      secret,
      "--private",
      "*",
    ]);
    const fresh = await token(secret, "--subscribe", "*");
    const tokens = [expired(secret), fresh];
    const client = open(t, live.url, { channels: ["own"], token: () => tokens.shift() });
    const seen = collect(client);
    await until(() => client.status == "live", "the second token");
    // The shed response requests a wait of 5 to 15 s.
    assert.ok(seen.statuses[1].wait <= 1000);
    assert.equal(seen.statuses[1].reason, "shed: token-expired");
    const denied = open(t, live.url, { channels: ["own"], token: expired(secret) });
    await until(() => denied.status == "denied", "the refusal");
  });

  test("a proxy that buffers leads to long polls", async (t) => {
    const live = await origin(t, ["--segment", "30s", "--long-poll-timeout", "1s"]);
    const modes = [];
    const url = await kit.proxy(
      t,
      live.url,
      (body, answer, { statusCode, headers }, { url }) => {
        modes.push(new URL(url, live.url).searchParams.get("mode"));
        answer.writeHead(statusCode, headers).end(body);
      },
    );
    const client = open(t, url, { channels: ["buffered"], cursor: "0-0", heartbeat: 400 });
    const seen = collect(client);
    const stop = kit.publishSteadily(live, "buffered", 20);
    await until(() => client.status == "live", "a long poll", 25_000);
    await sleep(2000);
    const count = await stop();
    await until(() => seen.events.length >= count, "the last event");
    assertSame(seen.events, await live.history("buffered"));
    // The first answer is that of the history, which shows that the origin is there.
    assert.ok(modes.length > 5 && modes.slice(1).every((mode) => mode == "hold"), modes.join());
  });

  test("where long polls fail too, the history is polled", async (t) => {
    const live = await origin(t, ["--segment", "30s"]);
    await live.publish("paged", "before", { key: "old" });
    const paths = [];
    const url = await kit.proxy(
      t,
      live.url,
      (body, answer, { statusCode, headers }, { url }) => {
        paths.push(url);
        if (/mode=hold/.test(url))
          answer.writeHead(504, { "Content-Type": "text/html" }).end("<html>");
        else answer.writeHead(statusCode, headers).end(body);
      },
    );
    const client = open(t, url, { channels: ["paged", "second"], heartbeat: 300, state: true });
    const seen = collect(client);
    await until(() => client.status == "live" && seen.states, "the state", 25_000);
    assert.equal(client.state.get("paged/old"), "before");
    for (let n = 0; n < 5; n++) await live.publish(n % 2 ? "second" : "paged", `${n}`);
    await until(() => seen.events.length >= 5, "the events", 10_000);
    assertSame(
      seen.events.filter(({ channel }) => channel == "second"),
      await live.history("second"),
    );
    assertSame(
      seen.events.filter(({ channel }) => channel == "paged"),
      (await live.history("paged")).slice(1),
    );
    assert.ok(paths.some((path) => /\/history\?/.test(path)));
  });

  test("connections that are cut at any byte lose and double nothing", async (t) => {
    const live = await origin(t, ["--segment", "2s"]);
    const url = await kit.server(t, (asked, answer) => {
      // A client that falls back reads from the same proxy, so each way is cut.
      let left = Math.floor(Math.random() * 40_000);
      const forwarded = request(live.url + asked.url, { headers: asked.headers }, (response) => {
        answer.writeHead(response.statusCode, response.headers);
        response.on("data", (chunk) => {
          if (left > 0) answer.write(chunk.subarray(0, left));
          left -= chunk.length;
          if (left < 0) setImmediate(() => answer.destroy());
        });
        response.on("end", () => answer.end());
        response.on("error", () => answer.destroy());
      });
      forwarded.on("error", () => answer.destroy());
      answer.on("close", () => forwarded.destroy());
      forwarded.end();
    });
    const channels = ["cut", "whole"];
    for (let n = 0; n < 10; n++) await live.publish("cut", `${n}`, { key: `k${n}` });
    const clients = Array.from({ length: 8 }, () => {
      const client = open(t, url, { channels, cursor: "0-0", state: true });
      return { client, seen: collect(client) };
    });
    const stop = kit.publishSteadily(live, "whole", 30);
    for (let n = 0; n < 200; n++) {
      await live.publish("cut", `${n} ä😀`, {
        key: `k${n % 13}`,
        ...(n % 4 == 0 && { remove: true }),
      });
      await sleep(40);
    }
    const count = await stop();
    await until(
      () => clients.every(({ seen }) => seen.events.length >= count + 210),
      "the last event",
      30_000,
    );
    const state = await (await fetch(`${live.url}/channels/cut/state`)).json();
    const expected = Object.fromEntries(
      state.events.map(({ key, data }) => [`cut/${key}`, data]).sort(),
    );
    let cuts = 0;
    for (const { client, seen } of clients) {
      for (const channel of channels) {
        assertSame(
          seen.events.filter((event) => event.channel == channel),
          await live.history(channel),
        );
      }
      assert.deepEqual(Object.fromEntries([...client.state].sort()), expected);
      cuts += seen.statuses.filter(({ status }) => status == "reconnecting").length;
    }
    assert.ok(cuts > 8);
    t.diagnostic(`${cuts} cuts of 8 clients`);
  });

  test("publishing over HTTP stores once, also when the answer is lost", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    let lost = 0;
    const url = await kit.proxy(t, live.url, (body, answer, { statusCode, headers }) => {
      if (lost++ < 2) answer.destroy();
      else answer.writeHead(statusCode, headers).end(body);
    });
    const client = open(t, url, { channels: ["read"] });
    const id = await client.publish("written", { bid: 1 }, { event: "price", key: "EURUSD" });
    const events = await live.history("written");
    assert.deepEqual(
      events.map(({ id, event, key, data }) => ({ id, event, key, data })),
      [{ id, event: "price", key: "EURUSD", data: '{"bid":1}' }],
    );
    await assert.rejects(client.publish("bad name!", "x"), /^Error: 40/);
  });
});

/** A token of the origin's own command. */
async function token(secret, ...rights) {
  const { execFileSync } = await import("node:child_process");
  return execFileSync(kit.binary(), ["token", "--token-secret", secret, ...rights], {
    encoding: "utf8",
  }).trim();
}

/** A token that was valid until an hour ago, which `headwater token` does not make. */
function expired(secret) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) - 3600;
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ exp, scope: "subscribe:*" })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
