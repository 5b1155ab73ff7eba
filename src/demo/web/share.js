// The experiment of the overview: many clients ask for the same stream, and the names of their
// responses show how many requests have reached the origin.

import { byId, setText } from "./dom.js";
import { cacheOf, nameOf } from "./wire.js";

const CLIENTS = 100;
// A browser has six connections to a host over HTTP/1.1, and the page needs one of them.
const AT_ONCE = 4;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, CENTER] = [360, 112, 44];
const [CACHE_X, ORIGIN_X] = [220, 340];
// The clients are dots in rows and columns.
const ROWS = 10;
const STEP = 9;

/** Opens one stream after a cursor, and gives the headers of its response. */
async function askOnce(headers, cursor) {
  const stop = new AbortController();
  const options = { headers, cache: "no-store", signal: stop.signal };
  const answer = await fetch(`/channels/ticker?lastEventId=${cursor}`, options);
  stop.abort();
  return answer.headers;
}

/** Sends the requests of all clients with one cursor, as they do at the end of a shared response. */
async function askAll(headers) {
  const state = await fetch("/channels/ticker/state", { headers });
  const { cursor } = await state.json();
  const answers = [];
  let left = CLIENTS;
  const askSome = async () => {
    while (left-- > 0) answers.push(await askOnce(headers, cursor));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, askSome));
  return { requests: new Set(answers.map(nameOf)).size, cache: cacheOf(answers[0]) };
}

/** Counts and draws the requests that reach the origin. */
export async function ask(headers) {
  byId("ask").disabled = true;
  setText(byId("asked"), `${CLIENTS} clients ask for the same stream …`);
  try {
    let counted = await askAll(headers);
    // A segment has ended between two requests, so its clients have shared two responses.
    if (counted.cache && counted.requests > 1) counted = await askAll(headers);
    const { requests, cache } = counted;
    const text = `${CLIENTS} clients, ${requests} origin ${requests == 1 ? "request" : "requests"}.`;
    const alone = "No cache is in front, so each client has a request of its own.";
    const shared = "The number of clients makes no difference.";
    setText(byId("asked"), `${text} ${cache ? shared : alone}`);
    byId("drawing").replaceChildren(draw(requests, cache));
  } catch ({ message }) {
    setText(byId("asked"), `The server does not answer: ${message}`);
  }
  byId("ask").disabled = false;
}

/** Draws lines from the clients to the origin, through the cache if there is one. */
function draw(requests, cache) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
  const line = (x1, y1, x2, y2, name) =>
    svg.append(element("line", { x1, y1, x2, y2, class: name }));
  const dot = (cx, cy, r, name) => svg.append(element("circle", { cx, cy, r, class: name }));
  const places = Array.from({ length: CLIENTS }, (_, client) => {
    return [4 + STEP * Math.floor(client / ROWS), 4 + STEP * (client % ROWS)];
  });
  for (const [x, y] of places) line(x, y, cache ? CACHE_X : ORIGIN_X, CENTER, "client");
  for (const [x, y] of places) dot(x, y, 2.6, "client");
  if (cache) {
    const offset = (request) => ((request + 0.5) / requests - 0.5) * 2 * CENTER;
    for (let request = 0; request < requests; request++) {
      line(CACHE_X, CENTER + offset(request), ORIGIN_X, CENTER, "request");
    }
    dot(CACHE_X, CENTER, 13, "server");
    label(svg, CACHE_X, "middle", cache);
  }
  dot(ORIGIN_X, CENTER, 13, "server");
  label(svg, 0, "start", `${CLIENTS} clients`);
  label(svg, WIDTH, "end", `origin: ${requests}`);
  return svg;
}

function label(svg, x, anchor, text) {
  const node = element("text", { x, y: HEIGHT - 3, "text-anchor": anchor });
  node.textContent = text;
  svg.append(node);
}

function element(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  return node;
}
