// The experiment of the overview: some readers ask for the same stream at the same time, and the
// names of their responses show how many requests have reached the origin.

import { byId, setText } from "./dom.js";
import { cacheOf, nameOf } from "./wire.js";

// A browser has six connections to a host over HTTP/1.1, and the page needs one of them.
const READERS = 4;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, RADIUS] = [360, 96, 7];
const [LEFT, MIDDLE, RIGHT] = [20, 180, 340];

/** Opens one stream after a cursor, and gives the headers of its response. */
async function askOnce(headers, cursor) {
  const stop = new AbortController();
  const options = { headers, cache: "no-store", signal: stop.signal };
  const answer = await fetch(`/channels/ticker?lastEventId=${cursor}`, options);
  stop.abort();
  return answer.headers;
}

/** Sends requests of several readers with one cursor, as they do at the end of a shared response. */
export async function ask(headers) {
  const state = await fetch("/channels/ticker/state", { headers });
  const { cursor } = await state.json();
  const readers = Array.from({ length: READERS }, () => askOnce(headers, cursor));
  const answers = await Promise.all(readers);
  const requests = new Set(answers.map(nameOf)).size;
  const cache = cacheOf(answers[0]);
  const counted = `${READERS} readers, ${requests} ${requests == 1 ? "request" : "requests"}`;
  const shared = `${counted} at the origin. The number of readers makes no difference.`;
  const alone = `${counted} at the origin. No cache is in front, so each reader has a request of its own.`;
  setText(byId("asked"), cache ? shared : alone);
  byId("drawing").replaceChildren(draw(requests, cache));
}

/** Draws lines from the readers to the origin, through the cache if there is one. */
function draw(requests, cache) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
  const y = (index, count) => ((index + 0.5) / count) * (HEIGHT - 16);
  const center = (HEIGHT - 16) / 2;
  const line = (x1, y1, x2, y2) => svg.append(element("line", { x1, y1, x2, y2 }));
  for (let reader = 0; reader < READERS; reader++) {
    line(LEFT, y(reader, READERS), cache ? MIDDLE : RIGHT, center);
    svg.append(element("circle", { cx: LEFT, cy: y(reader, READERS), r: RADIUS }));
  }
  if (cache) {
    for (let request = 0; request < requests; request++) {
      line(MIDDLE, y(request, requests), RIGHT, center);
    }
    svg.append(element("circle", { cx: MIDDLE, cy: center, r: 2 * RADIUS }));
    svg.append(label(MIDDLE, cache));
  }
  svg.append(element("circle", { cx: RIGHT, cy: center, r: 2 * RADIUS }));
  svg.append(label(LEFT, "readers"), label(RIGHT, "origin"));
  return svg;
}

function label(x, text) {
  const anchor = { [LEFT]: "start", [RIGHT]: "end" }[x] ?? "middle";
  const start = { start: x - RADIUS, end: x + 2 * RADIUS, middle: x }[anchor];
  const node = element("text", { x: start, y: HEIGHT - 2, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function element(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  return node;
}
