// The overview: four boards over one response, and an experiment that shows how it is shared.

import { byId, make, oncePerFrame, setText } from "./dom.js";
import { FlapRows } from "./flaps.js";
import { checkNumbers, follow } from "./live.js";
import { STATES } from "./job_states.js";
import { Prices, followPrices } from "./prices.js";
import { tokenHeaders } from "./publish.js";
import { ask } from "./share.js";

const FLIGHTS_MAX = 8;
const SYMBOLS = ["EURUSD", "BRENT", "GOLD", "COFFEE"];
const JOBS_MAX = 4;
const MESSAGES_MAX = 3;

const headers = tokenHeaders();
const rows = new FlapRows(byId("board"), FLIGHTS_MAX, { time: 5, to: 10, status: 10 });
const prices = new Prices(byId("prices"));
const client = follow(["departures", "ticker", "jobs", "chat.lobby"]);
checkNumbers(client, "ticker");
followPrices(prices, client, headers, (symbol) => SYMBOLS.includes(symbol));

/** The values of the keys of a channel. */
function valuesOf(channel) {
  const entries = [...client.state.entries()].filter(([key]) => key.startsWith(`${channel}/`));
  return entries.map(([, data]) => JSON.parse(data));
}

const renderBoard = oncePerFrame(() => {
  const flights = valuesOf("departures");
  rows.show(flights.sort((one, other) => one.minute - other.minute));
});

const renderJobs = oncePerFrame(() => {
  const jobs = valuesOf("jobs").sort((one, other) => other.at - one.at);
  byId("jobs").replaceChildren(
    ...jobs.slice(0, JOBS_MAX).map(({ title, status, done, steps }) => {
      const bar = make("progress", { "aria-label": title, max: steps, value: done });
      const name = make("p", { className: "label", textContent: title });
      const state = make("p", { className: "job-state", textContent: STATES[status] });
      const item = make("li", {}, make("div", { className: "job-head" }, name, state), bar);
      item.dataset.status = status;
      return item;
    }),
  );
});

function showMessage({ data }) {
  let message;
  try {
    message = JSON.parse(data);
  } catch {
    message = { name: "?", text: data };
  }
  const name = make("span", { className: "name", textContent: String(message.name ?? "?") });
  const text = make("span", { className: "text", textContent: String(message.text ?? data) });
  byId("messages").append(make("li", {}, name, text));
  if (byId("messages").children.length > MESSAGES_MAX) byId("messages").firstChild.remove();
}

/** Shows the newest messages of the history. The result is their ids. */
async function showEarlier() {
  const url = `/channels/chat.lobby/history?last=${MESSAGES_MAX}`;
  const answer = await fetch(url, { headers }).catch(() => undefined);
  const { events } = answer?.ok ? await answer.json() : { events: [] };
  events.filter(({ data }) => data).forEach(showMessage);
  return events.map(({ id }) => id);
}
const earlier = showEarlier();

const show = {
  departures: renderBoard,
  jobs: renderJobs,
  // The history and the stream overlap.
  "chat.lobby": async (event) => (await earlier).includes(event.id) || showMessage(event),
};
client.onmessage = (event) => show[event.channel]?.(event);
client.onstate = () => {
  renderBoard();
  renderJobs();
};

byId("ask").onclick = () => ask(headers);
// With a cache in front, the page shows at once how it shares responses.
const asksAtOnce = () => {
  if (document.body.dataset.cache == "none" || !document.body.dataset.cache) return;
  client.removeEventListener("status", asksAtOnce);
  ask(headers);
};
client.addEventListener("status", asksAtOnce);
const link = document.querySelector("#cache-link a");
if (link?.origin == location.origin) byId("cache-link").hidden = true;
