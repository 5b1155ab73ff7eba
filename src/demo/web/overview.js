// The overview: four boards over one response, and an experiment that shows how it is shared.

import { byId, make, oncePerFrame, setText } from "./dom.js";
import { FlapRows } from "./flaps.js";
import { checkNumbers, follow } from "./live.js";
import { Prices, earlierPrices } from "./prices.js";
import { STATES } from "./job_states.js";
import { token } from "./publish.js";
import { cacheOf, nameOf } from "./wire.js";

const FLIGHTS_MAX = 8;
const SYMBOLS = ["EURUSD", "BRENT", "GOLD", "COFFEE"];
const JOBS_MAX = 4;
const MESSAGES_MAX = 3;
const EARLIER = 1000;
// A browser has six connections to a host over HTTP/1.1, and the page needs one of them.
const READERS = 4;

const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
const rows = new FlapRows(byId("board"), FLIGHTS_MAX, { time: 5, to: 10, status: 10 });
const prices = new Prices(byId("prices"));
const client = follow(["departures", "ticker", "jobs", "chat.lobby"]);
checkNumbers(client, "ticker");

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

async function showEarlier() {
  const answer = await fetch(`/channels/chat.lobby/history?last=${MESSAGES_MAX}`, { headers });
  if (answer.ok) (await answer.json()).events.filter(({ data }) => data).forEach(showMessage);
  for (const price of await earlierPrices(EARLIER, token())) showPrice(price);
}

function showPrice(price) {
  if (SYMBOLS.includes(price.symbol)) prices.take(price);
}

const show = {
  departures: renderBoard,
  jobs: renderJobs,
  "chat.lobby": showMessage,
  ticker: ({ data }) => showPrice(JSON.parse(data)),
};
client.onmessage = (event) => show[event.channel](event);
client.onstate = () => {
  renderBoard();
  renderJobs();
};
showEarlier().catch(() => setText(byId("asked"), "The history cannot be read now."));

/** Opens one stream, and gives the headers of its response. */
async function askOnce() {
  const stop = new AbortController();
  const url = "/channels/ticker";
  const answer = await fetch(url, { headers, cache: "no-store", signal: stop.signal });
  stop.abort();
  return answer.headers;
}

byId("ask").onclick = async () => {
  try {
    const answers = await Promise.all(Array.from({ length: READERS }, askOnce));
    const names = new Set(answers.map(nameOf));
    const cache = cacheOf(answers[0]);
    byId("figures").hidden = false;
    setText(byId("readers"), READERS);
    setText(byId("requests"), names.size);
    const shared = `The readers shared ${names.size == 1 ? "one response" : `${names.size} responses`}.`;
    const alone = "No cache is in front, so each reader has a request of its own.";
    setText(byId("asked"), cache ? shared : alone);
  } catch (error) {
    setText(byId("asked"), `The server does not answer: ${error.message}`);
  }
};
