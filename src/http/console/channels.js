// The list of channels.

import { byId, make, setText } from "./dom.js";
import { askJson } from "./origin.js";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const LIMIT = 100;

export const count = (number) => number.toLocaleString("en");

/** A number of bytes for a reader: 1.5 KiB. */
export function size(bytes) {
  const unit = bytes ? Math.min(UNITS.length - 1, Math.floor(Math.log2(bytes) / 10)) : 0;
  const number = bytes / 1024 ** unit;
  return `${unit && number < 10 ? number.toFixed(1) : Math.round(number)} ${UNITS[unit]}`;
}

/** The list, which calls `choose(name)` when the visitor chooses a channel. */
export class Channels {
  #choose;
  #rows = new Map();
  #chosen;

  constructor(choose) {
    this.#choose = choose;
  }

  /** Reads the list again. */
  async refresh() {
    const prefix = byId("prefix").value;
    const query = new URLSearchParams({ limit: LIMIT });
    if (prefix) query.set("prefix", prefix);
    if (byId("subscribed").checked) query.set("subscribed", "true");
    const { channels, next } = await askJson(`/channels?${query}`);
    // While the answer was on its way, the visitor may have typed another prefix.
    if (prefix != byId("prefix").value) return;
    this.#show(channels);
    setText(byId("channels-note"), noteOf(channels.length, next, prefix));
  }

  /** Marks the channel that the page shows. */
  mark(name) {
    this.#chosen = name;
    for (const [other, row] of this.#rows) markRow(row, other == name);
  }

  #show(channels) {
    const before = this.#rows;
    this.#rows = new Map();
    for (const channel of channels) {
      const row = before.get(channel.name) ?? this.#makeRow(channel.name);
      fill(row, channel);
      markRow(row, channel.name == this.#chosen);
      this.#rows.set(channel.name, row);
      before.delete(channel.name);
    }
    for (const row of before.values()) row.remove();
    // A row that stands where it should keeps the focus.
    [...this.#rows.values()].forEach((row, index) => {
      const place = byId("channels").children[index];
      if (place != row) byId("channels").insertBefore(row, place ?? null);
    });
  }

  #makeRow(name) {
    const button = make("button", { type: "button", className: "name", textContent: name });
    button.onclick = () => this.#choose(name);
    const facts = make("span", { className: "small facts-line" });
    const head = make("th", { scope: "row" }, button, facts);
    const size = make("span", { className: "small facts-line" });
    const events = make("td", {}, make("span"), size);
    return make("tr", {}, head, events, make("td"));
  }
}

function fill(row, channel) {
  const { events, bytes, subscribers, last, ended } = channel;
  const facts = [channel.private && "private", ended && "ended", last ? `last ${last}` : "no event"];
  setText(row.querySelector(".facts-line"), facts.filter(Boolean).join(" · "));
  setText(row.cells[1].firstChild, count(events));
  setText(row.cells[1].lastChild, size(bytes));
  setText(row.cells[2], count(subscribers));
}

function markRow(row, isChosen) {
  row.querySelector("button").setAttribute("aria-pressed", isChosen);
}

function noteOf(shown, next, prefix) {
  if (next) return `The first ${shown} channels. Type how the name begins to see others.`;
  if (shown) return shown == 1 ? "1 channel" : `${shown} channels`;
  if (prefix) return `No channel begins with “${prefix}”.`;
  return "No channel yet. A channel exists from its first event on: publish one.";
}
