// The client in Node.js 20, which has no WebSocket without a flag. The file has a process of its own.

import { test } from "node:test";
import assert from "node:assert/strict";
import { connect } from "../../src/client_js/headwater.js";
import { collect, origin, until } from "./kit.mjs";

delete globalThis.WebSocket;

test("without WebSockets the client reads a stream and publishes with requests", async (t) => {
  const live = await origin(t, ["--segment", "2s"]);
  const client = connect(live.url, { channels: ["a"], transport: "websocket" });
  t.after(() => client.close());
  const seen = collect(client);
  await until(() => client.status == "live", "the stream");
  const id = await client.publish("a", "x");
  await until(() => seen.events.length == 1, "the event");
  assert.equal(seen.events[0].id, id);
});
