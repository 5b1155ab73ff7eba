// The client over a WebSocket, with the real origin. Node.js 20 needs --experimental-websocket.

import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { request } from "node:http";
import { connect } from "../../src/client_js/headwater.js";
import {
  assertSame,
  collect,
  directory,
  origin,
  publishSteadily,
  server,
  sleep,
  until,
} from "./kit.mjs";

function open(test, url, options) {
  const client = connect(url, { transport: "websocket", heartbeat: 500, ...options });
  test.after(() => client.close());
  return { client, seen: collect(client) };
}

describe("WebSocket", { concurrency: true, timeout: 50_000 }, () => {
  test("events, states, removals and publishes are those of a stream", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    await live.publish("a", "1", { key: "old" });
    const { client, seen } = open(t, live.url, { channels: ["a", "b"], state: true });
    await until(() => seen.states == 1, "the state");
    assert.deepEqual(Object.fromEntries(client.state), { "a/old": "1" });
    const id = await client.publish("b", { n: 2 }, { key: "new" });
    await client.publish("a", "bye", { key: "old", remove: true });
    await until(() => seen.events.length == 2, "the events");
    assert.equal(seen.events[0].id, id);
    assert.deepEqual(Object.fromEntries(client.state), { "b/new": '{"n":2}' });
    assert.equal(
      client.lastEventId,
      seen.events
        .map((event) => event.id)
        .reverse()
        .join("_"),
    );
    await assert.rejects(client.publish("bad name!", "x"));
  });

  test("kill -9 loses and doubles nothing, and a cursor is good for a stream", async (t) => {
    const live = await origin(t, ["--segment", "1s"], `disk:${directory(t)}/log`);
    const { client, seen } = open(t, live.url, { channels: ["busy"], cursor: "0-0" });
    await until(() => client.status == "live", "the socket");
    const stop = publishSteadily(live, "busy", 50);
    await sleep(1000);
    await live.kill();
    await until(() => client.status == "reconnecting", "the loss");
    const published = client.publish("busy", "while the origin was away");
    await live.start();
    await until(() => client.status == "live", "the way back");
    await published;
    await sleep(500);
    const count = (await stop()) + 1;
    await until(() => seen.events.length >= count, "the last event");
    const cursor = client.lastEventId;
    client.close();
    await live.publish("busy", "last");
    const stream = open(t, live.url, { channels: ["busy"], cursor, transport: "stream" });
    await until(() => stream.seen.events.length, "the rest");
    assertSame([...seen.events, ...stream.seen.events], await live.history("busy"));
    await assert.rejects(client.publish("busy", "x"), /closed/);
  });

  test("a gap, the end of a channel, and an old end", async (t) => {
    const live = await origin(t, ["--segment", "1s", "--retain-events", "4"]);
    const first = await live.publish("one", "0", { key: "k" });
    for (let n = 1; n < 8; n++) await live.publish("one", `${n}`, { key: `k${n % 2}` });
    await live.publish("two", "1");
    await fetch(`${live.url}/channels/two`, { method: "DELETE" });
    await fetch(`${live.url}/channels/two?reopen=1`, { method: "DELETE" });
    await live.publish("two", "2");
    const { client, seen } = open(t, live.url, {
      channels: ["one", "two"],
      cursor: `${first}_0-0`,
      state: true,
    });
    await until(() => seen.gaps.length && seen.events.length == 2, "the gap and the events");
    assert.deepEqual(
      seen.gaps.map(({ channel, reason }) => [channel, reason]),
      [["one", "trimmed"]],
    );
    assert.deepEqual(
      seen.events.map(({ data }) => data),
      ["1", "2"],
    );
    assert.deepEqual(Object.fromEntries(client.state), {
      "one/k": "0",
      "one/k0": "6",
      "one/k1": "7",
    });
    for (const name of ["one", "two"])
      await fetch(`${live.url}/channels/${name}`, { method: "DELETE" });
    await until(() => client.status == "ended", "the end");
    const { client: late } = open(t, live.url, {
      channels: ["one", "two"],
      cursor: client.lastEventId,
    });
    await until(() => late.status == "ended", "the end of a client that begins there");
  });

  test("where no WebSocket comes through, the client uses plain requests", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const url = await server(t, (asked, answer) => {
      if (asked.url == "/ws") return answer.writeHead(502).end();
      const { method, url: path, headers } = asked;
      const forwarded = request(live.url + path, { method, headers }, (response) => {
        answer.writeHead(response.statusCode, response.headers);
        response.pipe(answer);
      });
      asked.pipe(forwarded);
      answer.on("close", () => forwarded.destroy());
      forwarded.on("error", () => answer.destroy());
    });
    const { client, seen } = open(t, url, { channels: ["plain"], cursor: "0-0" });
    const published = client.publish("plain", { n: 1 }, { event: "note" });
    await until(() => client.status == "live", "the stream", 30_000);
    const id = await published;
    await live.publish("plain", "2");
    await until(() => seen.events.length, "the event");
    assert.deepEqual(
      (await live.history("plain")).map((event) => event.id),
      [id, seen.events[0].id],
    );
  });

  test("a publish over the limit of a message is sent as a plain request", async (t) => {
    const live = await origin(t, ["--segment", "2s"]);
    const { client } = open(t, live.url, { channels: ["big"] });
    await until(() => client.status == "live", "the start");
    const texts = ["y".repeat(70_000), "small"];
    const ids = await Promise.all(texts.map((text) => client.publish("big", text)));
    const history = await live.history("big");
    for (const [index, id] of ids.entries()) {
      assert.equal(history.find((event) => event.id == id).data, texts[index]);
    }
    assert.equal(history.length, 2);
  });

  test("data that is no JSON is refused, and leaves nothing behind", async (t) => {
    const live = await origin(t, ["--segment", "2s"]);
    const { client } = open(t, live.url, { channels: ["odd"] });
    await until(() => client.status == "live", "the start");
    const circle = {};
    circle.circle = circle;
    await assert.rejects(client.publish("odd", circle), TypeError);
    await client.publish("odd", undefined, { key: "k", remove: true });
    await live.kill();
    await live.start();
    await client.publish("odd", "after the restart");
    assert.equal((await live.history("odd")).at(-1).data, "after the restart");
  });

  test("a client that pauses publishes with plain requests", async (t) => {
    const live = await origin(t, ["--segment", "2s"]);
    const { client } = open(t, live.url, { channels: ["paused"] });
    await until(() => client.status == "live", "the start");
    client._halt();
    const id = await client.publish("paused", "x");
    assert.deepEqual(
      (await live.history("paused")).map((event) => event.id),
      [id],
    );
  });

  test("a wrong token is denied", async (t) => {
    const flags = ["--token-secret", "0123456789abcdef0123456789abcdef", "--private", "*"];
    const live = await origin(t, flags);
    const { client, seen } = open(t, live.url, { channels: ["a"], token: "wrong" });
    await until(() => client.status == "denied", "the refusal");
    assert.match(seen.statuses.at(-1).reason, /token/);
    assert.deepEqual(
      seen.statuses.map(({ status }) => status),
      ["connecting", "denied"],
    );
  });
});
