// Subscribes and publishes over a WebSocket (14, docs/websocket.md), and publishes with plain
// requests where the client reads in another way.

import { positionsOf } from "./cursor.js";
import { probe } from "./history.js";

const HEARTBEAT_MS = 5000;
const HEARTBEATS_UNTIL_SILENT = 3;
const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 2;
const RESTART = 1012;
const POLICY = 1008;
const TOO_BIG = 1009;
const PUBLISH_TRIES = 8;
const PUBLISH_WAIT_MS = 500;
const PUBLISH_WAIT_MAX_MS = 30_000;
// Statuses that say that a repeated publish may succeed.
const TRY_AGAIN = [408, 429, 500, 502, 503, 504];
// After this number of handshakes without a socket, and with an answer to a plain request, the
// client reads and publishes without WebSockets.
const HANDSHAKES_MAX = 3;

// For each client its socket, and its publishes that have no answer yet.
const connections = new WeakMap();

const failure = (message, advice) => Object.assign(new Error(message), advice);
const sleep = (wait) => new Promise((wake) => setTimeout(wake, wait));

function connectionOf(client) {
  let connection = connections.get(client);
  if (!connection) {
    connection = { socket: null, pending: new Map(), ref: 0, handshakes: 0 };
    connections.set(client, connection);
    // Nobody would send what is pending. A client that was closed rejects it first.
    client._onHalt = () => queueMicrotask(() => publishPending(client));
    client.addEventListener("status", () => client.readyState == CLOSED && rejectAll(connection));
  }
  return connection;
}

function rejectAll({ pending }) {
  for (const { reject } of pending.values()) reject(failure("The client is closed"));
  pending.clear();
}

/** Follows the channels of a client over one WebSocket, until that is closed. */
export async function follow(client, signal) {
  const connection = connectionOf(client);
  // A handshake that fails just after the answer to a plain request says that a proxy lets no
  // WebSocket through. While the origin is away, the plain request fails first.
  const isLast = ++connection.handshakes > HANDSHAKES_MAX;
  if (isLast) await probe(client);
  try {
    return await new Promise((resolve, reject) => {
      new Session(client, signal, resolve, reject).open();
    });
  } catch (error) {
    if (!isLast || !connection.handshakes || error.name == "AbortError") throw error;
    client._options.transport = "stream";
    publishPending(client);
    throw failure("WebSockets do not work here");
  }
}

class Session {
  #isFresh;
  #hasBegun = false;
  #positions;
  // Channels whose `ack` has not arrived, and the messages that have to wait for all of these.
  #unacknowledged = new Set();
  #held = [];
  #gaps = [];
  #ended = new Set();
  #work = Promise.resolve();
  #isOver = false;

  constructor(client, signal, resolve, reject) {
    Object.assign(this, { client, signal, resolve, reject });
    this.connection = connectionOf(client);
  }

  open() {
    const { client, signal } = this;
    const url = new URL(client.url);
    url.protocol = url.protocol.replace("http", "ws");
    url.pathname = url.pathname.replace(/channels\/[^/]*$/, "ws");
    const token = url.searchParams.get("access_token");
    url.search = token ? new URLSearchParams({ access_token: token }) : "";
    const protocols = ["headwater"];
    // A header would be trimmed by `fetch`.
    if (client._token) protocols.push("bearer." + client._token.trim());

    const socket = (this.socket = new WebSocket(url, protocols));
    const beat = client._options.heartbeat ?? HEARTBEAT_MS;
    this.pings = setInterval(() => this.#send({ type: "ping" }), beat);
    client._watch(HEARTBEATS_UNTIL_SILENT);
    socket.onopen = () => this.#subscribe();
    socket.onmessage = ({ data }) => {
      client._watch(HEARTBEATS_UNTIL_SILENT);
      this.#work = this.#work
        .then(() => this.#take(JSON.parse(data)))
        .catch((error) => this.#fail(error));
    };
    socket.onclose = ({ code, reason }) => {
      this.#work = this.#work.then(() => this.#close(code, reason));
    };
    // Node.js 20 fires no `close` where the handshake fails.
    socket.onerror = () => {
      const isFailed = socket.readyState == CONNECTING && !this.#isOver;
      if (isFailed) this.#fail(failure("The WebSocket handshake failed"));
    };
    signal.addEventListener("abort", () => this.#fail(signal.reason));
  }

  #send(message) {
    if (this.socket.readyState == OPEN) this.socket.send(JSON.stringify(message));
  }

  #stop() {
    this.#isOver = true;
    clearInterval(this.pings);
    // The next session may have its socket already.
    if (this.connection.socket == this.socket) this.connection.socket = null;
  }

  #fail(error) {
    this.#stop();
    this.reject(error);
    this.socket.close();
  }

  #subscribe() {
    const { client } = this;
    const channels = client._channels;
    const cursor = client.lastEventId;
    const positions = positionsOf(cursor, channels.length);
    this.#isFresh = !cursor;
    this.#positions = positions ?? Array(channels.length);
    this.#unacknowledged = new Set(channels);
    const entries = positions?.map((position, index) => [channels[index], position]);
    const after = entries ? Object.fromEntries(entries) : cursor || undefined;
    this.#send({ type: "subscribe", channels, after, ref: 0 });
    this.connection.handshakes = 0;
    this.connection.socket = this.socket;
    for (const { text } of this.connection.pending.values()) this.socket.send(text);
  }

  async #take(message) {
    const { type, channel, id, ref } = message;
    if (type == "pong" || this.#isOver) return;
    if (type == "ack" && ref) return this.#settle(ref, "resolve", message);
    if (type == "error" && ref) return this.#settle(ref, "reject", problemOf(message));
    if (type == "error") throw problemOf(message);
    await this.#begin();
    if (type == "ack" && !message.unsubscribed) return this.#acknowledge(message);
    if (!this.#unacknowledged.size) return this.#deliver(message);
    // Until all channels are subscribed, only gaps and states are taken.
    if (id || type == "end") this.#held.push(message);
    else if (type == "gap") await this.#deliver(message, this.#gaps.push(channel));
    else await this.client._take({ data: JSON.stringify(message) });
  }

  /** Gives the client an opening block, which makes it live, with the first answer only. */
  async #begin() {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    await this.client._take(segment({ ends_at: Date.now() }));
  }

  async #acknowledge({ channel, cursor }) {
    this.#move(channel, cursor);
    if (!this.#unacknowledged.delete(channel) || this.#unacknowledged.size) return;
    const hasState = this.#isFresh || this.#gaps.length;
    const data = hasState ? { ends_at: Date.now(), state: 1 } : { ends_at: Date.now() };
    await this.client._take(segment(data, this.#cursor()));
    for (const message of this.#held.splice(0)) await this.#deliver(message);
  }

  /** Gives a message to the client as the block that a stream would have. */
  async #deliver(message) {
    const { type, channel, id } = message;
    if (type == "end") this.#follow(channel, id);
    if (type == "end" && !id) return;
    if (id) this.#move(channel, id);
    const cursor = id && this.#cursor();
    const data = JSON.stringify(message);
    await this.client._take({ type: type == "event" ? undefined : type, id: cursor, data });
  }

  /** Subscribes after the end of a channel, because the channel may have been opened again. */
  #follow(channel, id) {
    if (id) {
      this.#send({ type: "subscribe", channels: [channel], after: { [channel]: id }, ref: 0 });
      return;
    }
    this.#ended.add(channel);
    if (this.#ended.size == this.client._channels.length) this.client._finish("ended");
  }

  #move(channel, position) {
    if (position) this.#positions[this.client._channels.indexOf(channel)] = position;
  }

  #cursor() {
    const isWhole = !this.#positions.includes(undefined);
    return isWhole ? this.#positions.join("_") : undefined;
  }

  #settle(ref, how, value) {
    this.connection.pending.get(ref)?.[how](value);
    this.connection.pending.delete(ref);
  }

  #close(code, reason) {
    this.#stop();
    if (code == RESTART) return this.resolve(0);
    // A message over --max-ws-message would be refused again after each reconnect.
    if (code == TOO_BIG) publishPending(this.client);
    const [seconds = 0] = /\d+(?= s\b)/.exec(reason) ?? [];
    const isRefused = code == POLICY && /token/i.test(reason);
    this.reject(
      failure(`The WebSocket was closed: ${code} ${reason}`, { isRefused, after: seconds * 1000 }),
    );
  }
}

function segment(data, id) {
  return { type: "segment", id, data: JSON.stringify(data) };
}

function problemOf({ problem }) {
  const isRefused = /:(token|scope)$/.test(problem.type);
  return failure(problem.detail, { isRefused, after: (problem.retry_after ?? 0) * 1000, problem });
}

/**
 * Publishes an event to a channel. The result is the id of the event. A publish whose answer was
 * lost is repeated with the same idempotency key, so that the event is stored once.
 */
export function publish(client, channel, data = "", options = {}) {
  const { event, key, remove, idempotencyKey = randomText() } = options;
  const message = { event, key, remove, channel, data, idempotency_key: idempotencyKey };
  // A tab that takes the events of another tab, or that pauses, has no socket.
  const isIdle = client.readyState != CLOSED && !client._run;
  const hasSocket = client._options.transport == "websocket" && globalThis.WebSocket;
  const isOverSocket = hasSocket && !isIdle;
  return isOverSocket ? publishFrame(client, message) : publishRequest(client, message);
}

/** Publishes with plain requests what waits for the answer of a socket. */
function publishPending(client) {
  const { pending } = connectionOf(client);
  for (const { frame, resolve, reject } of pending.values()) {
    publishRequest(client, frame).then((id) => resolve({ id }), reject);
  }
  pending.clear();
}

/** Sends a publish over the socket, now or when it is open again. */
async function publishFrame(client, members) {
  const connection = connectionOf(client);
  const ref = ++connection.ref;
  const frame = { type: "publish", ref, ...members };
  const text = JSON.stringify(frame);
  const answer = await new Promise((resolve, reject) => {
    connection.pending.set(ref, { frame, text, resolve, reject });
    if (client.readyState == CLOSED) rejectAll(connection);
    if (connection.socket?.readyState == OPEN) connection.socket.send(text);
  });
  return answer.id;
}

async function publishRequest(client, frame) {
  const { channel, data, idempotency_key: idempotencyKey, event, key, remove } = frame;
  const body = typeof data == "string" ? data : JSON.stringify(data);
  const url = new URL(client.url);
  url.pathname = url.pathname.replace(/[^/]*$/, channel);
  const given = Object.entries({ event, key, remove }).filter(
    ([, value]) => value !== undefined && value !== false,
  );
  url.search = new URLSearchParams(given);
  const headers = { "Idempotency-Key": idempotencyKey };
  for (let attempt = 1; ; attempt++) {
    try {
      await client._authorize();
      const response = await client._request(url, { method: "POST", headers, body, signal: null });
      return (await response.json()).id;
    } catch (error) {
      const { status, after = 0 } = error;
      // A token that has expired is renewed once.
      const isRenewable = status == 401 && attempt == 1 && client._options.token?.call;
      if (isRenewable) client._token = undefined;
      const isFinal = status && !isRenewable && !TRY_AGAIN.includes(status);
      if (attempt == PUBLISH_TRIES || isFinal) throw error;
      await sleep(
        after + Math.random() * Math.min(PUBLISH_WAIT_MAX_MS, PUBLISH_WAIT_MS * 2 ** attempt),
      );
    }
  }
}

/** 128 random bits. `crypto.randomUUID` is missing on pages without TLS. */
function randomText() {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((word) => word.toString(36)).join("-");
}
