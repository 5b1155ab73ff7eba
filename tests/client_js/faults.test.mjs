// What the client does with answers that a healthy origin does not give, from a server of the test.

import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "../../src/client_js/headwater.js";
import { collect, server, sleep, until } from "./kit.mjs";

const TYPE = { "Content-Type": "text/event-stream; charset=utf-8" };
const opening = (id) =>
  `retry: 100\nevent: segment\n${id ? `id: ${id}\n` : ""}data: {"segment":1,"ends_at":9}\n\n`;
const closing = (id, retry = 100) =>
  `retry: ${retry}\nevent: segment\nid: ${id}\ndata: {"segment":2}\n\n`;
const event = (id, more) =>
  `id: ${id}\ndata: ${JSON.stringify({ type: "event", channel: "a", id, data: "", ...more })}\n\n`;

/** A server that gives the answers one after another, and then a stream that stays open. */
async function script(test, ...answers) {
  const asked = [];
  const url = await server(test, async (request, answer) => {
    const { searchParams, pathname: path } = new URL(request.url, "http://x");
    const fields = request.headers;
    const [cursor, mode] = ["lastEventId", "mode"].map((name) => searchParams.get(name));
    asked.push({ at: performance.now(), path, cursor, mode, fields });
    const next = answers.shift();
    if (!next) return answer.writeHead(200, TYPE).write(opening("9-0"));
    if (typeof next == "function") return next(answer);
    const { status = 200, headers = TYPE, body = "" } = next;
    answer.writeHead(status, headers).end(body);
  });
  return { url, asked };
}

/** A client that is closed after the test. */
function open(test, url, options) {
  const client = connect(url, { channels: ["a"], ...options });
  test.after(() => client.close());
  return { client, seen: collect(client) };
}

describe("faults", { concurrency: true, timeout: 40_000 }, () => {
  test("refusals, HTML, a wrong type and a cut answer are waited out", async (t) => {
    const html = { "Content-Type": "text/html" };
    const { url, asked } = await script(
      t,
      { status: 429, headers: { "Retry-After": "2" } },
      {
        status: 503,
        headers: { ...html, "Retry-After": new Date(Date.now() + 5000).toUTCString() },
        body: "<html>",
      },
      { status: 200, headers: html, body: "<html>" },
      { body: "retry: 200\n\n" },
      { body: opening("5-0") + event("6-0") },
      (answer) => answer.destroy(),
    );
    const { client, seen } = open(t, url);
    await until(() => asked.length == 7 && client.status == "live", "the last answer", 35_000);
    const waits = asked.slice(1).map(({ at }, index) => at - asked[index].at);
    assert.ok(waits[0] >= 1990, `Retry-After in seconds: ${waits}`);
    const expected = [
      "429",
      "503",
      "The answer has the type text/html",
      "The response ended early",
    ];
    const lost = seen.statuses.filter(({ status }) => status == "reconnecting");
    assert.deepEqual(
      lost.slice(0, 4).map(({ reason }) => reason),
      expected,
    );
    assert.equal(lost.length, 6);
    assert.equal(client.readyState, 1);
  });

  // protocol §11.1
  test("a shed response says its reason, and is waited for", async (t) => {
    const body = 'retry: 1500\nevent: shed\ndata: {"reason":"memory","retry_ms":1500}\n\n';
    const { url, asked } = await script(t, { body });
    const { client, seen } = open(t, url);
    await until(() => client.status == "live", "the stream");
    assert.ok(asked[1].at - asked[0].at >= 1490);
    assert.equal(seen.statuses[1].reason, "shed: memory");
    assert.ok(seen.statuses[1].wait >= 1500);
  });

  // protocol §6.7, §7.2
  test("a planned end is gone on from at once, or after its longer `retry`", async (t) => {
    const ends = [1, 2, 3, 4, 5].map((n) => ({
      body: opening(`${n}-0`) + closing(`${n + 1}-0.${n}`),
    }));
    const { url, asked } = await script(t, ...ends, {
      body: opening("6-0.5") + closing("6-0.6", 700),
    });
    const { client } = open(t, url);
    await until(() => asked.length == 7, "the last request");
    const cursors = [null, "2-0.1", "3-0.2", "4-0.3", "5-0.4", "6-0.5", "6-0.6"];
    assert.deepEqual(
      asked.map(({ cursor }) => cursor),
      cursors,
    );
    const waits = asked.slice(1).map(({ at }, index) => at - asked[index].at);
    // The other tests that run beside this one delay some of the requests.
    assert.ok(waits[5] >= 690 && Math.min(...waits) < waits[5] / 2, `${waits}`);
    assert.equal(client.status, "live");
  });

  test("a recording that a cache repeats does not become a loop", async (t) => {
    const body = opening("5-0") + event("6-0") + closing("6-0.1000");
    const { url, asked } = await script(t, { body }, { body }, { body });
    const { seen } = open(t, url);
    await until(() => asked.length == 3, "the third request");
    assert.ok(asked[2].at - asked[1].at >= 100);
    assert.equal(seen.events.length, 1);
    assert.equal(seen.statuses.at(-1).status, "reconnecting");
  });

  test("a BOM, bytes one by one, and CRLF", async (t) => {
    const text =
      opening("5-0") + event("6-0", { data: "😀 ä" }) + event("7-0") + closing("7-0.1000");
    const bytes = Buffer.from("\ufeff" + text.replaceAll("\n", "\r\n"));
    const { url, asked } = await script(t, async (answer) => {
      answer.writeHead(200, TYPE);
      for (const byte of bytes) {
        answer.write(Buffer.of(byte));
        await sleep(1);
      }
      answer.end();
    });
    const { seen } = open(t, url);
    await until(() => asked.length == 2, "the second request");
    assert.deepEqual(
      seen.events.map(({ data }) => data),
      ["😀 ä", ""],
    );
    assert.equal(asked[1].cursor, "7-0.1000");
  });

  test("duplicates are dropped for each channel, and unknown blocks are ignored", async (t) => {
    const two = (id, channel, cursor) => event(id, { channel }).replace(/^id: .*/, `id: ${cursor}`);
    const body = [
      opening("5-0_5-0"),
      two("9-1", "a", "9-1_5-0"),
      two("9-1", "b", "9-1_9-1"),
      "event: novel\ndata: {}\n\n",
      two("9-1", "a", "9-1_9-1"),
      two("10-0", "a", "10-0_9-1"),
      two("9-2", "a", "10-0_9-1"),
      two("9-10", "b", "10-0_9-10"),
      closing("10-0_9-10.1"),
    ].join("");
    const { url, asked } = await script(t, { body });
    const { seen } = open(t, url, { channels: ["a", "b"] });
    await until(() => asked.length == 2, "the second request");
    assert.deepEqual(
      seen.events.map(({ channel, id }) => channel + id),
      ["a9-1", "b9-1", "a10-0", "b9-10"],
    );
  });

  // protocol §16.2: some caches request long polls for their clients.
  test("a long poll that a cache has made of the request is waited for", async (t) => {
    const headers = { ...TYPE, "Headwater-Response": "r1;http=1.1;mode=hold" };
    const { url, asked } = await script(
      t,
      { headers, body: opening("5-0") + closing("5-0.1000") },
      async (answer) => {
        await sleep(3000);
        answer
          .writeHead(200, headers)
          .end(opening("5-0.1000") + event("6-0") + closing("6-0.2000"));
      },
    );
    const { seen } = open(t, url, { heartbeat: 1000 });
    await until(() => seen.events.length, "the event");
    assert.deepEqual(
      asked.slice(0, 2).map(({ cursor }) => cursor),
      [null, "5-0.1000"],
    );
    assert.ok(seen.statuses.every(({ status }) => status != "reconnecting"));
  });

  test("a block that cannot be read is requested again", async (t) => {
    const bad = 'id: 6-0\ndata: {"type":"eve\n\n';
    const { url, asked } = await script(t, { body: opening("5-0") + bad });
    const { client, seen } = open(t, url);
    await until(() => asked.length == 2 && client.status == "live", "the second request");
    assert.equal(asked[1].cursor, "5-0");
    assert.match(seen.statuses.at(-2).reason, /JSON/);
  });

  test("a silent connection is given up, and heartbeats keep it", async (t) => {
    const { url, asked } = await script(t, async (answer) => {
      answer.writeHead(200, TYPE).write(opening("5-0"));
      for (let beat = 0; beat < 8; beat++) {
        await sleep(500);
        answer.write(":\n");
      }
    });
    const { client, seen } = open(t, url, { heartbeat: 1000 });
    await until(() => client.status == "live", "the stream");
    const begin = performance.now();
    await until(() => client.status == "reconnecting", "the silence");
    const silence = performance.now() - begin;
    assert.ok(silence > 6500, `${silence}`);
    assert.equal(seen.statuses.at(-1).reason, "No bytes arrived in time");
    await until(() => asked.length == 2 && client.status == "live", "the second connection");
    assert.equal(asked[1].cursor, "5-0");
  });

  test("an outage without an answer changes nothing in the way of reading", async (t) => {
    const { url, asked } = await script(
      t,
      () => {},
      () => {},
    );
    const { client } = open(t, url, { heartbeat: 600 });
    await until(() => client.status == "live", "the connection");
    assert.deepEqual(
      asked.map(({ path, mode }) => [path, mode]),
      [
        ["/channels/a", null],
        ["/channels/a/history", null],
        ["/channels/a", null],
      ],
    );
  });

  // protocol §10: a web page of another origin needs no preflight without a token.
  test("the cursor is in the query, or beside a token in the header", async (t) => {
    const end = { body: opening("5-0") + closing("6-0.1000") };
    const { url, asked } = await script(t, end, end);
    open(t, url, { token: "secret" });
    await until(() => asked.length == 2, "the second request");
    assert.equal(asked[1].cursor, null);
    assert.equal(asked[1].fields["last-event-id"], "6-0.1000");
    assert.equal(asked[1].fields.authorization, "Bearer secret");
    assert.equal(asked[1].fields.accept, "text/event-stream");
  });

  test("a failing token callback is tried again, and `close` ends the waiting", async (t) => {
    const { url, asked } = await script(t);
    let calls = 0;
    const token = async () => {
      if (calls++ == 0) throw new Error("no login");
      return "secret";
    };
    const { client, seen } = open(t, url, { token });
    await until(() => client.status == "live", "the stream");
    assert.equal(seen.statuses[1].reason, "no login");
    assert.equal(asked.length, 1);
    client.close();
    assert.deepEqual([client.status, client.readyState], ["closed", 2]);
  });

  // protocol §8.3
  test("a gap among the events leads to a new state", async (t) => {
    const gap =
      'event: gap\nid: 7-0\ndata: {"type":"gap","channel":"a","reason":"lost","requested":"6-0","oldest":null}\n\n';
    const state = {
      cursor: "8-0",
      events: [{ type: "event", channel: "a", id: "8-0", key: "x", data: "read" }],
    };
    const asked = [];
    const url = await server(t, async (request, answer) => {
      asked.push(request.url);
      if (request.url.includes("/state")) {
        const isFirst = asked.length == 2;
        const old = { cursor: "6-0", events: [] };
        return answer.writeHead(200).end(JSON.stringify(isFirst ? old : state));
      }
      answer.writeHead(200, TYPE);
      answer.write(opening("5-0") + event("6-0", { key: "x", data: "old" }) + gap);
      answer.write(
        event("8-0", { key: "x", data: "passed" }) + event("9-0", { key: "y", data: "live" }),
      );
    });
    const { client, seen } = open(t, url, { cursor: "", state: true });
    await until(() => seen.events.length == 3, "the events");
    assert.deepEqual(Object.fromEntries(client.state), { x: "read", y: "live" });
    assert.deepEqual(
      seen.gaps.map(({ reason }) => reason),
      ["lost"],
    );
    // The first state was older than the client, as that of a cache may be.
    assert.equal(asked.filter((path) => path.includes("/state")).length, 2);
  });

  test("a hidden page is disconnected, and catches up", async (t) => {
    const { url, asked } = await script(t, (answer) => {
      answer.writeHead(200, TYPE).write(opening("5-0") + event("6-0"));
    });
    const page = Object.assign(new EventTarget(), { hidden: false });
    globalThis.document = page;
    const { client, seen } = open(t, url, { pauseWhileHidden: true });
    await until(() => seen.events.length, "the event");
    page.hidden = true;
    page.dispatchEvent(new Event("visibilitychange"));
    await sleep(300);
    assert.equal(client.status, "reconnecting");
    assert.equal(asked.length, 1);
    page.hidden = false;
    page.dispatchEvent(new Event("visibilitychange"));
    await until(() => client.status == "live", "the way back");
    assert.equal(asked[1].cursor, "6-0");
    delete globalThis.document;
  });

  test("the handlers `on…` are called as those of an `EventSource`", async (t) => {
    const { url } = await script(t, {
      body: opening("5-0") + event("6-0") + closing("6-0.1"),
    });
    const { client } = open(t, url);
    const called = [];
    client.onopen = () => called.push("open");
    client.onerror = () => called.push("error");
    client.onmessage = ({ lastEventId, origin }) => called.push(lastEventId, origin);
    await until(() => client.lastEventId == "9-0", "the second stream");
    assert.deepEqual(called, ["open", "6-0", url]);
  });
});
