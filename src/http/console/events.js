// The events of the chosen channel: the newest of its history, and then each new one.

import { byId, make, oncePerFrame, setText, timeOfDay } from "./dom.js";
import { API, Refused, askJson, token } from "./origin.js";
import { connect } from "./api/headwater.js";

const EARLIER = 20;
const SHOWN_MAX = 200;
const DATA_CHARS_MAX = 2000;
const AGAIN_MS = 2000;
const STATUS_TEXTS = {
  connecting: "Connecting …",
  live: "Live: new events appear at the top.",
  ended: "The channel has ended.",
};

/** Shows the events of one channel after another. */
export class Events {
  /** The facts of the origin: its heartbeat. */
  facts = {};
  #client;
  #run;
  // Events that are not shown yet, the oldest first.
  #fresh = [];
  #onRefused;
  #onEvent;

  /** `onRefused(error)` is called when a token is needed, and `onEvent(ms)` for each event. */
  constructor({ onRefused, onEvent }) {
    this.#onRefused = onRefused;
    this.#onEvent = onEvent;
    byId("pause").onchange = this.#draw;
  }

  /** Follows a channel, and no other one any more. */
  async follow(channel) {
    this.#client?.close();
    const run = (this.#run = {});
    this.#fresh = [];
    byId("events").replaceChildren();
    show("connecting");
    try {
      const path = `${API}/channels/${encodeURIComponent(channel)}/history?last=${EARLIER}`;
      const { events, next } = await askJson(path);
      if (run != this.#run) return;
      for (const event of events) {
        if (event.type == "end") this.#notice("The channel ended here.");
        else this.#take({ ...event, type: event.event ?? "message" });
      }
      this.#connect(run, channel, next);
    } catch (error) {
      if (run != this.#run) return;
      if (error instanceof Refused) return this.#refuse(error);
      say("The origin does not answer. Trying again …");
      setTimeout(() => run == this.#run && this.follow(channel), AGAIN_MS);
    }
  }

  async #connect(run, channel, cursor) {
    const transport = document.querySelector("[name=transport]:checked").value;
    const client = (this.#client = connect(location.origin + API, {
      channels: channel,
      cursor,
      transport,
      token: token() || undefined,
      heartbeat: this.facts.heartbeat_ms,
    }));
    client.onstatus = ({ status, reason }) => run == this.#run && show(status, reason);
    client.ongap = ({ reason }) => this.#notice(`Events are missing here (${reason}).`);
    client.onend = () => this.#notice("The channel ended here.");
    try {
      for await (const event of client) {
        if (run != this.#run) return;
        this.#take(event);
      }
    } catch ({ message }) {
      if (run == this.#run) this.#refuse(Object.assign(new Error(message), { needsToken: true }));
    }
  }

  #refuse(error) {
    show("denied", error.message);
    if (error.needsToken) this.#onRefused(error);
  }

  #take(event) {
    this.#onEvent(timeOf(event.id));
    this.#push(event);
  }

  #notice(notice) {
    this.#push({ notice });
  }

  #push(entry) {
    this.#fresh.push(entry);
    if (this.#fresh.length > SHOWN_MAX) this.#fresh.shift();
    this.#draw();
  }

  #draw = oncePerFrame(() => {
    const isPaused = byId("pause").checked;
    setText(byId("waiting"), isPaused ? `${this.#fresh.length} not shown` : "");
    if (isPaused || !this.#fresh.length) return;
    const list = byId("events");
    // Where the list is scrolled down, new events do not move the events that are shown.
    const [height, top] = [list.scrollHeight, list.scrollTop];
    list.prepend(...this.#fresh.splice(0).map(item).reverse());
    if (top) list.scrollTop = top + list.scrollHeight - height;
    while (list.children.length > SHOWN_MAX) list.lastChild.remove();
  });
}

/** The time of an event, which is the first part of its id. An event of the state has no id. */
const timeOf = (id) => (id ? Number(id.split("-")[0]) : undefined);

function item({ id, type, key, data = "", removed, notice }) {
  if (notice) return make("li", { className: "notice", textContent: notice });
  const part = (className, name, text) =>
    make("span", { className }, make("span", { className: "spoken", textContent: `${name} ` }), text);
  const head = make("p", { className: "event-head" });
  if (id) head.append(make("time", { textContent: timeOfDay(timeOf(id)) }));
  head.append(part("badge", "type", type));
  if (key !== undefined) head.append(part("key", "key", removed ? `${key} removed` : key));
  head.append(part("id", "id", id ?? "state"));
  const rest = data.length - DATA_CHARS_MAX;
  const text = rest > 0 ? `${data.slice(0, DATA_CHARS_MAX)} … (${rest} more characters)` : data;
  return make("li", {}, head, make("pre", { className: "data", textContent: text }));
}

function say(text) {
  setText(byId("stream-status"), text);
}

function show(status, reason) {
  byId("events-part").dataset.status = status;
  if (status == "reconnecting") say(`Reconnecting: ${reason}`);
  else if (status == "denied") say(`Not allowed. ${reason}`);
  else if (status != "closed") say(STATUS_TEXTS[status]);
}
