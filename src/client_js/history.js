// Reads the state and the history (13) with plain requests. `readState` is used when a state is not
// known any more, `poll` where a proxy lets neither streams nor long polls through.

import { ordered, positionsOf } from "./cursor.js";

const HEARTBEATS_UNTIL_SILENT = 3;
const POLL_MS = 3000;
const PAGE_EVENTS = 1000;
// A cache may keep a state for a second (13.4).
const STATE_TRIES = 3;
const STATE_AGAIN_MS = 1000;

// For each client the channels whose newest event is their end.
const ended = new WeakMap();

const sleep = (wait) => new Promise((wake) => setTimeout(wake, wait));

/** Reads one of the JSON documents of a channel. */
async function read(client, channel, name, parameters, isSuspect) {
  const url = new URL(client.url);
  const token = url.searchParams.get("access_token");
  url.pathname = url.pathname.replace(/[^/]*$/, `${channel}/${name}`);
  // An unknown parameter would be refused.
  url.search = new URLSearchParams(token ? { ...parameters, access_token: token } : parameters);
  client._watch(HEARTBEATS_UNTIL_SILENT, isSuspect);
  return (await client._request(url)).json();
}

/** Fails where the origin cannot be reached. A cache answers this without waiting for an event. */
export const probe = (client) => read(client, client._channels[0], "history", { last: 1 });

/** The state of a channel, which is not older than what the client has received. */
export async function readState(client, channel) {
  const positions = positionsOf(client.lastEventId, client._channels.length);
  const position = positions?.[client._channels.indexOf(channel)] ?? "0-0";
  for (let attempt = 1; ; attempt++) {
    const state = await read(client, channel, "state", {});
    // A position after the whole log leads to a gap, so that the client does not wait for it.
    if (ordered(state.cursor) >= ordered(position) || attempt == STATE_TRIES) return state;
    await sleep(STATE_AGAIN_MS);
  }
}

/** Reads what is new in all channels. The result is the wait before the next time. */
export async function poll(client) {
  const channels = client._channels;
  const positions = positionsOf(client.lastEventId, channels.length);
  if (!positions) return begin(client);
  await client._take(segment({ ends_at: Date.now() }, client.lastEventId));
  let hasMore = false;
  let hasEvents = false;
  for (const [index, channel] of channels.entries()) {
    const parameters = { after: positions[index], limit: PAGE_EVENTS };
    const page = await read(client, channel, "history", parameters, true);
    hasMore ||= page.events.length == PAGE_EVENTS;
    hasEvents ||= page.events.length > 0;
    if (page.trimmed_to) await client._take(gap("trimmed", channel, positions[index], page));
    for (const event of page.events) {
      positions[index] = event.id;
      note(client, event);
      const type = event.type == "end" ? "end" : undefined;
      await client._take({ type, id: positions.join("_"), data: JSON.stringify(event) });
    }
  }
  if (!hasEvents && ended.get(client)?.size == channels.length) client._finish("ended");
  return hasMore ? 0 : POLL_MS;
}

/** Begins as a fresh join of channels with state does (5.3). */
async function begin(client) {
  const channels = client._channels;
  const states = [];
  for (const channel of channels) states.push(await read(client, channel, "state", {}, true));
  await client._take(segment({ ends_at: Date.now() }));
  if (client.lastEventId) {
    for (const channel of channels) await client._take(gap("unknown", channel, client.lastEventId));
  }
  for (const { id, ...event } of states.flatMap((state) => state.events)) {
    await client._take({ data: JSON.stringify(event) });
  }
  const cursor = states.map((state) => state.cursor).join("_");
  await client._take(segment({ ends_at: Date.now(), state: 1 }, cursor));
  return 0;
}

/** Remembers whether a channel is at its end: one that was opened again has events after it. */
function note(client, { type, channel }) {
  if (!ended.has(client)) ended.set(client, new Set());
  if (type == "end") ended.get(client).add(channel);
  else ended.get(client).delete(channel);
}

function segment(data, id) {
  return { type: "segment", id, data: JSON.stringify(data) };
}

function gap(reason, channel, requested, page) {
  const oldest = page?.events[0]?.id ?? null;
  return { type: "gap", data: JSON.stringify({ type: "gap", channel, reason, requested, oldest }) };
}
