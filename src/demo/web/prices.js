// Prices with sparklines. However many prices arrive, a tile is drawn at most once for each frame
// of the screen, and only if its price has changed.

import { make, setText } from "./dom.js";

const CHANNEL = "ticker";
const POINTS_MAX = 80;
const EARLIER = 1000;

export class Prices {
  /** How many prices were taken, and how many frames were drawn. */
  counts = { prices: 0, frames: 0 };
  #list;
  #tiles = new Map();
  #changed = new Set();
  #isWaiting = false;
  #resized = new ResizeObserver((entries) => entries.forEach(({ target }) => this.#resize(target)));

  constructor(list) {
    this.#list = list;
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => this.#redraw(this.#tiles.values()));
    }
  }

  /** Takes a price of a symbol. */
  take({ symbol, price }) {
    const tile = this.#tiles.get(symbol) ?? this.#add(symbol);
    tile.points.push(price);
    if (tile.points.length > POINTS_MAX) tile.points.shift();
    this.counts.prices += 1;
    this.#redraw([tile]);
  }

  #add(symbol) {
    const value = make("b", { className: "price" });
    const change = make("span", { className: "change" });
    const canvas = make("canvas", { "aria-hidden": "true" });
    const head = make("div", { className: "quote" }, value, change);
    const item = make("li", {}, make("p", { className: "label", textContent: symbol }), head, canvas);
    const tile = { item, value, change, canvas, points: [] };
    this.#tiles.set(symbol, tile);
    canvas.tile = tile;
    this.#resized.observe(canvas);
    const place = [...this.#tiles.keys()].sort().indexOf(symbol);
    this.#list.insertBefore(item, this.#list.children[place] ?? null);
    return tile;
  }

  #resize(canvas) {
    const { clientWidth, clientHeight } = canvas;
    canvas.width = Math.round(clientWidth * devicePixelRatio);
    canvas.height = Math.round(clientHeight * devicePixelRatio);
    this.#redraw([canvas.tile]);
  }

  #redraw(tiles) {
    for (const tile of tiles) this.#changed.add(tile);
    if (this.#isWaiting || !this.#changed.size) return;
    this.#isWaiting = true;
    requestAnimationFrame(() => {
      this.#isWaiting = false;
      this.counts.frames += 1;
      for (const tile of this.#changed) draw(tile);
      this.#changed.clear();
    });
  }
}

function draw({ item, value, change, canvas, points }) {
  if (!points.length) return;
  const [first, last] = [points[0], points.at(-1)];
  const percent = ((last - first) / first) * 100;
  const direction = last > first ? "up" : last < first ? "down" : "same";
  setText(value, digits(last));
  setText(change, `${{ up: "▲", down: "▼", same: "=" }[direction]} ${Math.abs(percent).toFixed(2)} %`);
  if (item.dataset.direction != direction) item.dataset.direction = direction;
  drawLine(canvas, points);
}

/** A price with five digits. */
const digits = (price) =>
  price.toFixed(Math.max(0, 4 - Math.floor(Math.log10(Math.abs(price) || 1))));

function drawLine(canvas, points) {
  const { width, height } = canvas;
  if (!width || points.length < 2) return;
  const pen = canvas.getContext("2d");
  const [low, high] = [Math.min(...points), Math.max(...points)];
  const line = 1.6 * devicePixelRatio;
  const x = (index) => (index / (POINTS_MAX - 1)) * width;
  const offset = POINTS_MAX - points.length;
  const y = (price) => line + (1 - (price - low) / (high - low || 1)) * (height - 2 * line);
  const color = getComputedStyle(canvas).color;
  pen.clearRect(0, 0, width, height);
  pen.beginPath();
  points.forEach((price, index) => pen.lineTo(x(offset + index), y(price)));
  [pen.strokeStyle, pen.lineWidth, pen.lineJoin] = [color, line, "round"];
  pen.stroke();
  pen.lineTo(width, height);
  pen.lineTo(x(offset), height);
  [pen.globalAlpha, pen.fillStyle] = [0.14, color];
  pen.fill();
  pen.globalAlpha = 1;
}

/**
 * Shows the earlier prices, so that the lines do not begin empty, and then those that the client
 * receives. `wanted` says which symbols are shown.
 */
export async function followPrices(prices, client, headers, wanted = () => true) {
  let newest = 0;
  const take = (price) => {
    // The history and the stream overlap.
    if (price.n <= newest) return;
    newest = price.n;
    if (wanted(price.symbol)) prices.take(price);
  };
  const earlier = earlierPrices(headers);
  // After a gap the log may be another one, whose numbers begin again.
  client.addEventListener("gap", ({ channel }) => channel == CHANNEL && (newest = 0));
  client.addEventListener("message", async ({ channel, data }) => {
    if (channel != CHANNEL) return;
    await earlier;
    take(JSON.parse(data));
  });
  for (const price of await earlier) take(price);
}

/** The newest prices of the history, oldest first; none where the history cannot be read. */
async function earlierPrices(headers) {
  const url = `/channels/${CHANNEL}/history?last=${EARLIER}`;
  const answer = await fetch(url, { headers }).catch(() => undefined);
  const { events } = answer?.ok ? await answer.json() : { events: [] };
  return events.filter(({ data }) => data).map(({ data }) => JSON.parse(data));
}
