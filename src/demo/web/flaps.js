// A split-flap display. Each flap turns through some characters of its drum to the one that it
// shows next. One loop turns all flaps of the page, and it stops when none is turning.
//
// A flap is drawn in three parts (see style.css): the upper half, the lower half, and the leaf that
// falls. A turn has two phases: the leaf is in front of the upper half and has the old character,
// then it is in front of the lower half and has the new one. A screen reader gets plain text.

import { make, setText } from "./dom.js";

const DRUM = " -:0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZÁÉÍÓÚÜ";
/** Most characters that a flap turns through. A real drum turns through all of them. */
const TURNS_MAX = 4;
const PHASE_MS = 38;
/** The flaps of a text begin one after another. */
const DELAY_PHASES = 1;

const isStill = matchMedia("(prefers-reduced-motion: reduce)");
const turning = new Set();
let isRunning = false;

class Flap {
  node = make("span", { className: "flap" }, make("i"));
  #shown = " ";
  #next = [];
  #delay = 0;
  #phase = 0;

  constructor() {
    this.#draw(" ", " ");
  }

  turnTo(character, delay) {
    const target = this.#next.at(-1) ?? this.#shown;
    if (target == character) return;
    this.#next = path(this.#shown, character);
    if (isStill.matches) return this.#finish(character);
    this.#delay = this.#phase ? 0 : delay;
    turning.add(this);
    run();
  }

  /** Goes on by one phase. */
  step() {
    if (this.#delay) return void this.#delay--;
    const next = this.#next[0];
    this.#phase += 1;
    if (this.#phase == 1) this.#draw(next, this.#shown, this.#shown);
    else if (this.#phase == 2) this.#draw(next, this.#shown, next);
    else {
      this.#next.shift();
      this.#shown = next;
      this.#phase = 0;
      this.#draw(next, next);
      if (!this.#next.length) turning.delete(this);
    }
  }

  #finish(character) {
    turning.delete(this);
    [this.#shown, this.#next, this.#phase] = [character, [], 0];
    this.#draw(character, character);
  }

  #draw(top, bottom, leaf) {
    const { dataset, firstChild } = this.node;
    Object.assign(dataset, { top, bottom, phase: this.#phase });
    if (leaf) firstChild.dataset.leaf = leaf;
  }
}

/** The last characters of the drum on the way from one character to another. */
function path(from, to) {
  const [start, end] = [DRUM.indexOf(from), DRUM.indexOf(to)];
  if (end < 0) return [to];
  const distance = (end - start + DRUM.length) % DRUM.length || DRUM.length;
  const count = Math.min(distance, TURNS_MAX);
  return Array.from({ length: count }, (_, index) =>
    DRUM.at((end - count + 1 + index) % DRUM.length),
  );
}

function run() {
  if (isRunning) return;
  isRunning = true;
  let last = 0;
  const frame = (now) => {
    if (now - last >= PHASE_MS) {
      last = now;
      for (const flap of turning) flap.step();
    }
    isRunning = turning.size > 0;
    if (isRunning) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

/** A text of a fixed length on flaps. */
class FlapText {
  #flaps;
  #spoken = make("span", { className: "spoken" });

  constructor(cell, length) {
    this.#flaps = Array.from({ length }, () => new Flap());
    const nodes = this.#flaps.map(({ node }) => node);
    cell.append(this.#spoken, make("span", { className: "flaps", "aria-hidden": "true" }, ...nodes));
  }

  show(text = "") {
    setText(this.#spoken, text);
    const letters = [...text.toLocaleUpperCase("en")];
    this.#flaps.forEach((flap, index) => flap.turnTo(letters[index] ?? " ", index * DELAY_PHASES));
  }
}

/** The rows of a table on flaps. `columns` gives the name and the length of each column. */
export class FlapRows {
  #rows;

  constructor(body, count, columns) {
    this.#rows = Array.from({ length: count }, () => {
      const row = body.appendChild(make("tr", { role: "row", hidden: true }));
      const cells = Object.entries(columns).map(([name, length]) => {
        const cell = row.appendChild(make("td", { role: "cell", className: name }));
        return [name, new FlapText(cell, length)];
      });
      return { row, cells };
    });
  }

  /** Shows these values, one row for each. */
  show(values) {
    this.#rows.forEach(({ row, cells }, index) => {
      const value = values[index];
      row.hidden = !value;
      row.dataset.stage = value?.status ?? "";
      for (const [name, text] of cells) text.show(value?.[name]);
    });
  }
}
