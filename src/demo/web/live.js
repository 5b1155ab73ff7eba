// The connection of a page: one client for all of its channels, shared with the other tabs, and the
// parts that every page has: the status line, the facts under "Check the promise", and the report
// of the last outage.

import { connect } from "/headwater.js";
import { byId, prepareCommands, seconds, setText, timeOfDay } from "./dom.js";
import { askForToken, token } from "./publish.js";
import { cacheOf, nameOf, watchedFetch } from "./wire.js";

const IDS_MAX = 10_000;
const REFRESH_MS = 500;
const STATUS_TEXTS = {
  connecting: "Connecting",
  live: "Live",
  ended: "Ended: the channels are closed",
  denied: "Not allowed: the server wants a token",
};

// What has arrived since the page was opened, for the facts, and for a test that looks from outside.
const seen = (window.headwater = {
  status: "connecting",
  missing: 0,
  repeated: 0,
  segments: 0,
  reconnects: 0,
  channels: {},
});
let current;
let transport = "stream";
let response;
let endsAt;
let cache;
// The last outage: when it began and ended, and what was missing before it.
let outage;
let newestNumber;

/**
 * Follows channels. The page has one connection: a second call closes the first one.
 *
 * @param channels their names
 * @param options those of the client module
 */
export function follow(channels, options = {}) {
  current?.close();
  [response, endsAt, cache] = [];
  transport = options.transport ?? "stream";
  const shared = { state: true, share: true, token: token(), fetch: watchedFetch(wire) };
  const client = (current = connect(location.origin, { channels, ...shared, ...options }));
  for (const channel of channels) {
    const counts = (seen.channels[channel] ??= { events: 0, gaps: 0, ids: [] });
    client.addEventListener("message", ({ id, channel: from }) => {
      if (!id || from != channel) return;
      counts.events += 1;
      counts.ids.push(id);
      if (counts.ids.length > IDS_MAX) counts.ids.shift();
    });
  }
  client.addEventListener("gap", ({ channel }) => (seen.channels[channel].gaps += 1));
  client.addEventListener("status", (event) => client == current && showStatus(event));
  return client;
}

/** Checks the numbers of the prices: they are consecutive. */
export function checkNumbers(client, channel) {
  for (const part of document.querySelectorAll(".numbered")) part.hidden = false;
  const prefix = client.url.includes(",") ? `${channel}/` : "";
  client.addEventListener("state", () => {
    const entries = [...client.state.entries()].filter(([key]) => key.startsWith(prefix));
    const numbers = entries.map(([, data]) => JSON.parse(data).n);
    if (numbers.length) newestNumber ??= Math.max(...numbers);
  });
  // A gap is counted as such. After it the numbers may be those of another log.
  client.addEventListener("gap", (event) => {
    if (event.channel == channel) newestNumber = undefined;
  });
  client.addEventListener("message", (event) => {
    if (event.channel != channel || !event.id) return;
    const { n } = JSON.parse(event.data);
    if (n <= newestNumber) seen.repeated += 1;
    else if (newestNumber !== undefined) seen.missing += n - newestNumber - 1;
    newestNumber = Math.max(newestNumber ?? n, n);
  });
}

const wire = {
  head(headers) {
    response = nameOf(headers);
    cache = document.body.dataset.cache = cacheOf(headers) ?? "none";
  },
  block({ type, data }) {
    if (type != "segment") return;
    seen.segments += 1;
    endsAt = JSON.parse(data).ends_at ?? endsAt;
  },
};

function showStatus({ status, since, reason }) {
  // The page itself has closed the connection, and opens another one.
  if (status == "closed") return;
  if (status == "reconnecting") {
    seen.reconnects += 1;
    if (!outage || outage.end) outage = beginOutage(since);
    [response, endsAt] = [];
  }
  if (status == "live" && outage && !outage.end) outage.end = Date.now();
  if (status == "denied") askForToken(`The server did not accept the request: ${reason}`);
  seen.status = document.body.dataset.status = status;
  const text = STATUS_TEXTS[status] ?? `Reconnecting since ${timeOfDay(outage.since)}`;
  // The same text would be announced again.
  setText(byId("status"), text);
  refresh();
}

function beginOutage(since) {
  return { since, missing: seen.missing, repeated: seen.repeated, gaps: gaps() };
}

const gaps = () => Object.values(seen.channels).reduce((sum, counts) => sum + counts.gaps, 0);
const events = () => Object.values(seen.channels).reduce((sum, counts) => sum + counts.events, 0);

function refresh() {
  const isLive = seen.status == "live";
  const isDown = seen.status == "reconnecting";
  const away = isDown ? seconds(Date.now() - outage.since) : "";
  const left = isLive && endsAt ? `Next response in ${seconds(endsAt - Date.now())}` : "";
  setText(byId("clock"), away || left);
  setText(byId("ends-in"), endsIn(isLive));
  setText(byId("response"), response ?? "–");
  setText(byId("events"), events().toLocaleString("en"));
  setText(byId("missing"), seen.missing);
  setText(byId("repeated"), seen.repeated);
  setText(byId("gaps"), gaps());
  setText(byId("cache"), cache ?? "–");
  setText(byId("outage"), outageText(isDown, away));
}

function endsIn(isLive) {
  if (!isLive) return "–";
  if (endsAt) return seconds(endsAt - Date.now());
  return transport == "websocket" ? "no planned end (WebSocket)" : "read by another tab";
}

function outageText(isDown, away) {
  if (!outage) return "No outage so far.";
  if (isDown) return `Stopped ${away} ago (${timeOfDay(outage.since)}). Trying again …`;
  const announced = gaps() - outage.gaps;
  const counts = [];
  if (newestNumber !== undefined) {
    counts.push(`${seen.missing - outage.missing} missing`, `${seen.repeated - outage.repeated} twice`);
  }
  // With a store in memory, the server comes back with another log.
  if (announced || !counts.length) counts.push(`${announced} gaps announced`);
  return `Back after ${seconds(outage.end - outage.since)}: ${counts.join(", ")}.`;
}

prepareCommands();
setInterval(refresh, REFRESH_MS);
