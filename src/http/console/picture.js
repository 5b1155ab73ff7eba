// The picture of collapsing, from /metrics: the requests for streams that have reached this origin
// in each segment, and how many of them were distinct.

import { byId, make, setText, timeOfDay } from "./dom.js";
import { count } from "./channels.js";
import { ask } from "./origin.js";

const SVG = "http://www.w3.org/2000/svg";
const TOTAL = "headwater_shareable_requests_total";
const OPENED = "headwater_streams_opened_total";
const ENDED = "headwater_streams_ended_total";
const ENDINGS = {
  boundary: "at the boundary, as planned",
  full: "early, after many bytes",
  channel_end: "with the end of a channel",
  client_gone: "the client disconnected",
  fell_behind: "cut: fell behind",
  store_lost: "cut: the store failed",
  cut: "cut by the process",
};
const SEGMENTS_KEPT = 60;
const EVENTS_KEPT = 5000;
// Sizes in units of a sixteenth of the font size of the page.
const [HEIGHT, EVENTS_HEIGHT, BARS_TOP, BARS_BOTTOM, BAR_WIDTH] = [230, 22, 52, 178, 26];
const [SEGMENT_WIDTH_MIN, COLUMNS_MAX] = [96, 16];
// A ratio below this counts as 1, because a cache may miss once.
const SHARED_MAX = 1.05;

/** The values of a text of metrics, by their names with labels. */
export function parseMetrics(text) {
  const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(" ");
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}

export class Picture {
  #facts;
  /** The time of the origin minus that of the browser. */
  #lead = 0;
  #totals;
  // For each segment, by its number, the requests that reached the origin in it.
  #segments = new Map();
  #events = [];
  #channel;

  constructor() {
    new ResizeObserver(() => this.#draw()).observe(byId("picture"));
  }

  setFacts(facts) {
    if (facts.segment_ms != this.#facts?.segment_ms) this.#segments.clear();
    this.#facts = facts;
    this.#lead = facts.now - Date.now();
  }

  setChannel(name) {
    this.#channel = name;
    this.#events = [];
    this.#draw();
  }

  addEvent(ms) {
    if (ms === undefined) return;
    this.#events.push(ms);
    if (this.#events.length > EVENTS_KEPT) this.#events.shift();
  }

  /** Reads the metrics, and draws. */
  async refresh(subscribers) {
    const metrics = parseMetrics(await (await ask("/metrics")).text());
    const first = metrics.get(`${TOTAL}{kind="first"}`) ?? 0;
    const all = first + (metrics.get(`${TOTAL}{kind="repeat"}`) ?? 0);
    this.#note({ first, all });
    this.#showFigures(metrics, { first, all }, subscribers);
    this.#draw();
  }

  get #now() {
    return Date.now() + this.#lead;
  }

  /** Adds what has changed since the last time to the running segment. */
  #note(totals) {
    const before = this.#totals;
    this.#totals = totals;
    const number = Math.floor(this.#now / this.#facts.segment_ms);
    const segment = this.#segments.get(number) ?? { first: 0, all: 0 };
    // Another process counts from 0 on.
    const from = before && totals.all >= before.all ? before : { first: 0, all: 0 };
    if (before) {
      segment.first += totals.first - from.first;
      segment.all += totals.all - from.all;
    }
    this.#segments.set(number, segment);
    for (const old of this.#segments.keys()) {
      if (old <= number - SEGMENTS_KEPT) this.#segments.delete(old);
    }
  }

  #showFigures(metrics, { first, all }, subscribers) {
    const value = (name, label) => metrics.get(label ? `${name}{${label}}` : name) ?? 0;
    const open = value("headwater_streams_open") + value("headwater_websockets_open");
    const figures = {
      all: count(all),
      first: count(first),
      ratio: first ? (all / first).toFixed(2) : "–",
      open: count(open),
      subscribers: subscribers === undefined ? "–" : count(subscribers),
      fresh: count(value(OPENED, 'kind="fresh"')),
      reconnects: count(value(OPENED, 'kind="cursor"')),
      polls: count(value(OPENED, 'kind="long_poll"')),
    };
    for (const [name, text] of Object.entries(figures)) setText(byId(`figure-${name}`), text);
    const rows = Object.entries(ENDINGS).map(([reason, text]) => {
      const number = make("dd", { textContent: count(value(ENDED, `reason="${reason}"`)) });
      number.dataset.reason = reason;
      return make("div", {}, make("dt", { textContent: text }), number);
    });
    byId("endings").replaceChildren(...rows);
    setText(byId("meaning"), meaningOf(all, first));
  }

  #draw() {
    const frame = byId("picture");
    if (!this.#facts || !frame.clientWidth) return;
    const unit = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
    const width = Math.round(frame.clientWidth / unit);
    const length = this.#facts.segment_ms;
    const columns = Math.min(COLUMNS_MAX, Math.max(3, Math.floor(width / SEGMENT_WIDTH_MIN)));
    const newest = Math.floor(this.#now / length);
    const numbers = Array.from({ length: columns }, (_, index) => newest - columns + 1 + index);
    // The running segment begins without a request.
    if (this.#totals && !this.#segments.has(newest)) this.#segments.set(newest, { first: 0, all: 0 });
    const shown = numbers.map((number) => ({ number, ...this.#segments.get(number) }));
    const start = numbers[0] * length;
    const x = (ms) => ((ms - start) / (columns * length)) * width;
    const svg = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
    svg.setAttribute("aria-label", `${summary(shown)} The table below has the numbers.`);
    const most = Math.max(4, ...shown.map(({ all = 0 }) => all));
    const eventTimes = this.#events.filter((ms) => ms >= start);
    svg.append(
      ...this.#boundaries(numbers, x, width),
      ...eventTimes.map((ms) => line("event", x(ms), 4, x(ms), EVENTS_HEIGHT)),
      ...shown.flatMap((segment) => column(segment, x, length, most)),
      line("now", x(this.#now), 0, x(this.#now), BARS_BOTTOM),
    );
    frame.replaceChildren(svg);
    this.#showTable(shown, eventTimes);
  }

  /** The boundaries of the first lane, and thinner ones of the others. */
  #boundaries(numbers, x, width) {
    const { segment_ms: length, lanes } = this.#facts;
    const running = numbers.at(-1) * length;
    const back = element("rect", { class: "running", x: x(running), y: 0 });
    back.setAttribute("width", Math.max(0, width - x(running)));
    back.setAttribute("height", BARS_BOTTOM);
    const base = line("base", 0, BARS_BOTTOM, width, BARS_BOTTOM);
    const offsets = Array.from({ length: lanes }, (_, lane) => (lane * length) / lanes);
    const lines = numbers.flatMap((number) =>
      offsets.map((offset) => {
        const at = x(number * length + offset);
        return line(offset ? "lane" : "boundary", at, 0, at, BARS_BOTTOM);
      }),
    );
    return [back, ...lines, base];
  }

  #showTable(shown, eventTimes) {
    const length = this.#facts.segment_ms;
    setText(byId("events-head"), this.#channel ? `Events of ${this.#channel}` : "Events");
    const rows = shown.map(({ number, all, first }) => {
      const inside = eventTimes.filter((ms) => Math.floor(ms / length) == number);
      const texts = [inside.length, all ?? "not seen", first ?? "not seen", ratioOf(all, first)];
      const head = make("th", { scope: "row", textContent: timeOfDay(number * length) });
      return make("tr", {}, head, ...texts.map((text) => make("td", { textContent: String(text) })));
    });
    byId("segments").replaceChildren(...rows);
  }
}

const ratioOf = (all, first) => (first ? (all / first).toFixed(1) : "–");

function summary(shown) {
  const seen = shown.filter(({ all }) => all !== undefined);
  const sum = (name) => seen.reduce((total, segment) => total + segment[name], 0);
  return `In the last ${seen.length} segments ${sum("all")} requests for streams reached the origin, and ${sum("first")} of them were distinct.`;
}

function meaningOf(all, first) {
  if (!all) {
    return "No client has requested a stream that a cache may share since this origin was started. Long polls and streams that need a token are not counted.";
  }
  const ratio = all / first;
  if (ratio <= SHARED_MAX) {
    return "Almost no request was repeated in its segment. With many clients this means that one cache shares the responses with them. With one client for each channel it means nothing.";
  }
  return `Each distinct request reached this origin ${ratio.toFixed(2)} times on average. With one cache in front, the ideal is 1; with several caches that do not share with each other, it is their number. A higher ratio means that clients connect to the origin directly, or that a cache does not share the responses.`;
}

/** The bars of one segment, with their numbers, and the time at which it began. */
function column({ number, all, first }, x, length, most) {
  const [left, right] = [x(number * length), x((number + 1) * length)];
  const middle = (left + right) / 2;
  const time = text("time", middle, HEIGHT - 30, timeOfDay(number * length));
  if (all === undefined) return [time, text("none", middle, BARS_BOTTOM - 8, "not seen")];
  const bars = [
    ["all", all, middle - BAR_WIDTH - 2],
    ["first", first, middle + 2],
  ].flatMap(([name, value, from]) => {
    const height = (value / most) * (BARS_BOTTOM - BARS_TOP);
    const bar = element("rect", { class: name, x: from, y: BARS_BOTTOM - height, rx: 2 });
    bar.setAttribute("width", BAR_WIDTH);
    bar.setAttribute("height", height);
    return [bar, text("value", from + BAR_WIDTH / 2, BARS_BOTTOM - height - 5, count(value))];
  });
  const ratio = text("ratio", middle, HEIGHT - 10, first ? `ratio ${ratioOf(all, first)}` : "");
  return [...bars, time, ratio];
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

function line(className, x1, y1, x2, y2) {
  return element("line", { class: className, x1, y1, x2, y2 });
}

function text(className, x, y, content) {
  const made = element("text", { class: className, x, y, "text-anchor": "middle" });
  made.textContent = content;
  return made;
}
