// Two clients that share a connection as two tabs do, with the real origin. Node.js has a
// BroadcastChannel; the Web Locks of this test are a queue for each name, which is all that the
// client uses of them. browser.test.mjs does the same in Chromium.

import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "../../src/client_js/headwater.js";
import { assertSame, collect, origin, publishSteadily, sleep, until } from "./kit.mjs";

const held = new Map();

async function request(name, { ifAvailable, signal }, act) {
  const queue = held.get(name) ?? [];
  held.set(name, queue);
  if (ifAvailable && queue.length) return act(null);
  const turn = {};
  turn.isFirst = new Promise((begin) => (turn.begin = begin));
  queue.push(turn);
  if (queue.length == 1) turn.begin();
  const withdrawn = new Promise((_, reject) => {
    signal?.addEventListener("abort", () => turn.isHeld || reject(signal.reason));
  });
  try {
    await Promise.race([turn.isFirst, withdrawn]);
    turn.isHeld = true;
    return await act({ name });
  } finally {
    queue.splice(queue.indexOf(turn), 1);
    queue[0]?.begin();
  }
}

Object.defineProperty(globalThis, "navigator", {
  value: { locks: { request } },
  configurable: true,
});

/** A client with the number of its requests that are open now, and of all. */
function tab(test, url, options) {
  const counts = { open: 0, all: 0 };
  const counted = async (...asked) => {
    counts.open++;
    counts.all++;
    asked[1].signal.addEventListener("abort", () => counts.open--, { once: true });
    const response = await fetch(...asked);
    return response;
  };
  const client = connect(url, { share: true, fetch: counted, ...options });
  test.after(() => client.close());
  return { client, counts, seen: collect(client) };
}

describe("sharing", { concurrency: true, timeout: 50_000 }, () => {
  test("a second tab stops reading, and takes over without loss when the first closes", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const stop = publishSteadily(live, "shared", 50);
    await until(() => live.history("shared").then((events) => events.length), "the first event");
    const first = tab(t, `${live.url}/channels/shared?after=0-0`);
    await until(() => first.seen.events.length > 10, "the events of the first tab");
    const second = tab(t, `${live.url}/channels/shared?after=0-0`);
    await until(() => second.seen.events.length > 10, "the events of the second tab");
    await sleep(1500);
    // The second tab has given up its connection, and makes no further request.
    const before = second.counts.all;
    await sleep(2500);
    assert.equal(second.counts.all, before);
    assert.equal(second.client.status, "live");
    first.client.close();
    await sleep(1500);
    assert.ok(second.counts.all > before);
    const third = tab(t, `${live.url}/channels/shared?after=0-0`);
    await sleep(2500);
    second.client.close();
    await sleep(1500);
    const count = await stop();
    await until(() => third.seen.events.length >= count, "the last event");
    const all = await live.history("shared");
    assertSame(third.seen.events, all);
    for (const { seen } of [first, second]) {
      assertSame(seen.events, all.slice(0, seen.events.length));
      assert.deepEqual(seen.gaps, []);
    }
    assert.ok(second.seen.events.length > 200);
  });

  test("three tabs have the same state of several channels, also after a new leader", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    await live.publish("left", "0", { key: "old" });
    const tabs = Array.from({ length: 3 }, () =>
      tab(t, live.url, { channels: ["left", "right"], state: true }),
    );
    await until(() => tabs.every(({ seen }) => seen.states), "the states");
    const keys = (n) => ({ key: `k${n % 7}`, ...(n % 5 == 0 && { remove: true }) });
    for (let n = 0; n < 120; n++) {
      await live.publish(n % 2 ? "left" : "right", `${n}`, keys(n));
      if (n == 60) tabs.shift().client.close();
      await sleep(25);
    }
    const state = tab(t, live.url, { channels: ["left", "right"], state: true, share: false });
    await until(() => state.seen.states, "the state of a client that joins later");
    const entries = ({ client }) => Object.fromEntries([...client.state].sort());
    await until(
      () => tabs.every(({ seen }) => seen.events.at(-1)?.data == "119"),
      "the last event",
    );
    for (const member of tabs) {
      assert.deepEqual(entries(member), entries(state));
      assert.deepEqual(
        member.seen.events.map(({ data }) => +data),
        Array.from({ length: 120 }, (_, n) => n),
      );
    }
  });

  test("the end reaches all tabs, and a denied tab leaves the others alone", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    await live.publish("short", "1");
    const tabs = Array.from({ length: 2 }, () => tab(t, `${live.url}/channels/short?after=0-0`));
    await until(() => tabs.every(({ seen }) => seen.events.length == 1), "the event");
    await sleep(1500);
    await fetch(`${live.url}/channels/short`, { method: "DELETE" });
    await until(() => tabs.every(({ client }) => client.status == "ended"), "the end", 10_000);
    for (const { seen } of tabs) assert.deepEqual(seen.ends, ["short"]);
  });

  test("a follower reads by itself while its leader is suspended", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const own = (heartbeat) => tab(t, live.url, { channels: ["frozen"], cursor: "0-0", heartbeat });
    await live.publish("frozen", "0");
    // The origin sends a heartbeat after five seconds only, so the leader gives up its streams.
    const leader = own(5000);
    await until(() => leader.seen.events.length, "the leader");
    const follower = own(300);
    await until(() => follower.seen.events.length, "the follower");
    await sleep(1500);
    // A suspended tab keeps its lock, but sends nothing.
    leader.client._relay = leader.client._relayBeat = undefined;
    const before = follower.counts.all;
    for (let n = 1; n <= 20; n++) {
      await live.publish("frozen", `${n}`);
      await sleep(100);
    }
    await until(() => follower.seen.events.length == 21, "the events");
    assert.ok(follower.counts.all > before);
    assertSame(follower.seen.events, await live.history("frozen"));
  });

  test("a client that is closed at once does not keep the lock", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    tab(t, live.url, { channels: ["brief"] }).client.close();
    const storage = { getItem: () => sleep(100), setItem() {} };
    const second = tab(t, live.url, { channels: ["brief"], storage });
    await sleep(50);
    second.client.close();
    const third = tab(t, live.url, { channels: ["brief"] });
    await until(() => third.client.status == "live", "the third tab");
    await until(
      () => held.get("headwater:" + live.url + "/channels/brief")?.length == 1,
      "its lock",
    );
    third.client.close();
    await until(
      () => held.get("headwater:" + live.url + "/channels/brief").length == 0,
      "the end of its lock",
    );
  });

  test("a hidden leader pauses, and gives up the lock", async (t) => {
    const live = await origin(t, ["--segment", "1s"]);
    const page = (globalThis.document = Object.assign(new EventTarget(), { hidden: false }));
    t.after(() => delete globalThis.document);
    const hide = (hidden) => {
      page.hidden = hidden;
      page.dispatchEvent(new Event("visibilitychange"));
    };
    const pausing = tab(t, live.url, {
      channels: ["hidden"],
      cursor: "0-0",
      pauseWhileHidden: true,
    });
    await until(() => pausing.client.status == "live", "the first tab");
    const staying = tab(t, live.url, { channels: ["hidden"], cursor: "0-0" });
    await until(() => staying.client.status == "live", "the second tab");
    hide(true);
    assert.equal(pausing.client.status, "reconnecting");
    const id = await live.publish("hidden", "1");
    await until(() => staying.seen.events.length, "the event");
    assert.equal(pausing.seen.events.length, 0);
    hide(false);
    await until(() => pausing.seen.events.length, "the missed event");
    assert.equal(pausing.seen.events[0].id, id);
  });
});
