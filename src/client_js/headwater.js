// The Headwater client: follows channels of a Headwater origin, also through caches and proxies,
// and delivers each event once and in order. docs/protocol.md is the contract; the sections in the
// comments are its sections. share.js, history.js and socket.js are loaded when they are needed.
//
// _follow repeats #attempt. The wait before the next attempt comes from #read after a planned end, and
// from #fault after a failure. _watch ends an attempt without bytes.

const [CONNECTING, OPEN, CLOSED] = [0, 1, 2];

// The origin's default for --heartbeat. The interval is not announced on the wire.
const HEARTBEAT_MS = 5000;
// The head and the opening block are sent at once (6.1).
const HEARTBEATS_UNTIL_BUFFERED = 2;
const HEARTBEATS_UNTIL_SILENT = 3;
// A long poll may wait for 20 s without a byte (--long-poll-timeout).
const HEARTBEATS_OF_A_LONG_POLL = 6;

// The ways to read, from the best to the one that works behind any proxy.
const STREAM = 0;
const HISTORY = 2;
const WAYS = 3;
// After this time a client that fell back to another way tries a stream again.
const STREAM_AGAIN_MS = 300_000;

const JITTER_MS = 1000;
const JITTER_MAX_MS = 30_000;
// The closing block says 100 ms where the next response is ready at once (6.7).
const READY_AT_ONCE_MS = 100;
// Browsers call a timer with a longer time at once.
const TIMER_MAX_MS = 2 ** 31 - 1;
// A consumer that is this many events behind pauses the reading.
const QUEUE_MAX = 1000;

// An error that says how to go on: see `#fault`.
const failure = (message, advice) => Object.assign(new Error(message), advice);

// A text for an event id. The texts of two ids of one channel compare as the ids do. cursor.js has
// the same function, so that this module needs no other one.
const ordered = (id) => id.replace(/\d+/g, (digits) => digits.padStart(20, "0"));

/**
 * Makes a parser of server-sent events (HTML standard, "Interpreting an event stream"). It takes
 * the text of a response in chunks, and returns the blocks that each chunk completes.
 */
export function createParser(setRetry) {
  let rest = "";
  let isAfterReturn;
  let block = {};
  return (text) => {
    const blocks = [];
    // A line feed at the beginning of a chunk may be the second half of CRLF.
    const lines = (isAfterReturn ? text.replace(/^\n/, "") : text).split(/\r\n|\r|\n/);
    if (text) isAfterReturn = text.endsWith("\r");
    lines[0] = rest + lines[0];
    rest = lines.pop();
    for (const line of lines) {
      const [, field, value] = /^([^:]*):? ?([^]*)/.exec(line);
      if (!line) {
        blocks.push(block);
        block = {};
      } else if (field == "data") {
        block.data = block.data === undefined ? value : block.data + "\n" + value;
      } else if (field == "event") {
        block.type = value;
      } else if (field == "id") {
        if (!value.includes("\0")) block.id = value;
      } else if (field == "retry" && /^\d+$/.test(value)) {
        setRetry(+value);
      }
    }
    return blocks;
  };
}

/** A connection to one or more channels. Members that begin with `_` are for the other modules. */
export class Headwater extends EventTarget {
  status = "connecting";
  readyState = CONNECTING;
  lastEventId = "";

  _token;
  _run;
  // The shortest wait after a fault.
  #retry = JITTER_MS;
  #abort = new AbortController();
  #timer;
  #wake;
  #failures = 0;
  #since;
  #way = STREAM;
  // Whether the URL or a cache requests long polls (16.2).
  #isPolled;
  #isWaySuspect;
  #streamAgainAt;
  #isPlanned;
  #reason;
  // For each channel its newest event, and the event at which its state was read.
  #newest = new Map();
  #stateAt = new Map();
  // Events of a state that has not arrived completely, and the channels that it replaces.
  #staged = [];
  #replaced;
  // Channels whose state has to be read from /state.
  #stale = new Set();
  #queues = new Set();
  #drained;
  #origin;

  constructor(url, options = {}) {
    super();
    const { channels, pauseWhileHidden, share, state } = options;
    url = new URL(url, globalThis.location?.href);
    if (channels) url.pathname = url.pathname.replace(/\/*$/, "/channels/") + channels;
    this.url = url.href;
    this.#origin = url.origin;
    this.#isPolled = url.searchParams.get("mode") == "hold";
    this.state = state && new Map();
    this._options = { ...options };
    this._channels = decodeURIComponent(url.pathname).split("/").pop().split(",");
    // The query may contain a token, so it is not part of the key.
    this._key = "headwater:" + url.origin + url.pathname;
    for (const type of ["open", "message", "error", "status", "state", "gap", "end"]) {
      this.addEventListener(type, (event) => this["on" + type]?.(event));
    }
    this._isShared = share && globalThis.navigator?.locks && globalThis.BroadcastChannel;
    if (pauseWhileHidden && !this._isShared) {
      globalThis.document?.addEventListener("visibilitychange", this.#pauseOrResume);
    }
    this.#begin();
  }

  close() {
    this._finish("closed");
  }

  async publish(...event) {
    return (await import("./socket.js")).publish(this, ...event);
  }

  /** The events from now on, until the connection has ended. */
  async *[Symbol.asyncIterator]() {
    const queue = [];
    this.#queues.add(queue);
    try {
      for (;;) {
        while (queue.length) {
          yield queue.shift();
          this.#drained?.();
        }
        if (this.readyState == CLOSED) break;
        await new Promise((wake) => (queue.wake = wake));
      }
    } finally {
      this.#queues.delete(queue);
      this.#drained?.();
    }
    if (this.status == "denied") throw failure(this.#reason);
  }

  async #begin() {
    const { cursor, storage } = this._options;
    try {
      this.lastEventId = (await (cursor ?? storage?.getItem(this._key))) ?? "";
    } catch {
      // A browser may forbid storage. The client then begins as without it.
    }
    // A stream that goes on from a cursor does not begin with the state.
    if (this.lastEventId) this.#markStale(this._channels);
    if (this.readyState == CLOSED) return;
    this._setStatus(this.status);
    if (!this._isShared) return this.#pauseOrResume();
    import("./share.js").then(
      ({ share }) => share(this),
      () => this.#pauseOrResume(),
    );
  }

  #pauseOrResume = () => {
    if (this._options.pauseWhileHidden && globalThis.document?.hidden) {
      this._halt();
      this._setStatus("reconnecting", { since: Date.now(), reason: "The page is hidden", wait: 0 });
    } else {
      this._follow();
    }
  };

  /** Reads until the connection has ended, or `_halt` is called. */
  async _follow() {
    if (this._run || this.readyState == CLOSED) return;
    const run = (this._run = {});
    while (this._run == run) {
      const wait = await this.#attempt(run);
      if (wait && this._run == run) {
        await new Promise((wake) => this.#after(wait, (this.#wake = wake)));
      }
    }
  }

  /** Ends `_follow` without a change of the status. */
  _halt() {
    this._run = undefined;
    this._onHalt?.();
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#wake?.();
    this.#drained?.();
  }

  #after(wait, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, Math.min(wait, TIMER_MAX_MS));
  }

  /** Ends the current attempt when no byte arrives for some time. */
  _watch(heartbeats, isSuspect = false) {
    const { heartbeat = HEARTBEAT_MS } = this._options;
    const abort = this.#abort;
    // With one timer for each heartbeat, a page that was suspended reads what has arrived.
    const tick = () => {
      if (heartbeats--) this.#after(heartbeat, tick);
      else abort.abort(failure("No bytes arrived in time", { isSuspect }));
    };
    tick();
    this._relayBeat?.();
  }

  /** Reads one response. The result is the wait before the next one, in milliseconds. */
  async #attempt(run) {
    const abort = (this.#abort = new AbortController());
    try {
      await this._authorize();
      abort.signal.throwIfAborted();
      await this.#chooseWay();
      await this.#readStale();
      const read = await this.#reader();
      abort.signal.throwIfAborted();
      return await read(this, abort.signal);
    } catch (error) {
      abort.abort();
      if (this._run == run) return this.#fault(error);
    }
  }

  /** Tries another way of reading after a fault, or a stream again after some time. */
  async #chooseWay() {
    if (this.#way && Date.now() > this.#streamAgainAt) this.#way = STREAM;
    if (!this.#isWaySuspect) return;
    this.#isWaySuspect = false;
    // While the origin is away, no other way is better, and after that long polls would be a load.
    await (await import("./history.js")).probe(this);
    this.#way = (this.#way + 1) % WAYS;
    this.#streamAgainAt = Date.now() + STREAM_AGAIN_MS;
  }

  /** The function that reads one response, over the transport of the options or the current way. */
  async #reader() {
    const isSocket = this._options.transport == "websocket" && globalThis.WebSocket;
    if (isSocket) return (await import("./socket.js")).follow;
    if (this.#way == HISTORY) return (await import("./history.js")).poll;
    return (_, signal) => this.#read(signal);
  }

  /** Reads a stream or a long poll. */
  async #read(signal) {
    const [cursor, url] = [this.lastEventId, new URL(this.url)];
    const headers = { Accept: "text/event-stream" };
    url.searchParams.set("format", "json");
    if (this.#way) url.searchParams.set("mode", "hold");
    // To another web origin a header needs a preflight, and the query does not. A token needs one in
    // any case; the URL then stays the same, so that the browser remembers the answer.
    if (cursor && this._token) headers["Last-Event-ID"] = cursor;
    else if (cursor) url.searchParams.set("lastEventId", cursor);
    const isPoll = this.#way || this.#isPolled;
    this._watch(isPoll ? HEARTBEATS_OF_A_LONG_POLL : HEARTBEATS_UNTIL_BUFFERED, true);
    const response = await this._request(url, { headers });
    if (response.status == 204) return this._finish("ended");
    const type = response.headers.get("content-type");
    if (!type?.startsWith("text/event-stream")) throw failure("The answer has the type " + type);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = createParser((retry) => (this.#retry = retry));
    this.#isPlanned = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      for (const block of parse(value)) {
        signal.throwIfAborted();
        await this._take(block);
      }
      while (!signal.aborted && [...this.#queues].some((queue) => queue.length > QUEUE_MAX)) {
        clearTimeout(this.#timer);
        await new Promise((wake) => (this.#drained = wake));
      }
      signal.throwIfAborted();
      this._watch(HEARTBEATS_UNTIL_SILENT);
    }
    // Each planned end changes the cursor (3.5). A response that does not is a recording, which a
    // cache would answer again and again without a pause.
    if (!this.#isPlanned || this.lastEventId == cursor) throw failure("The response ended early");
    return this.#retry > READY_AT_ONCE_MS ? this.#retry : 0;
  }

  /** Gets a token where there is none, or the last one was refused. */
  async _authorize() {
    const { token } = this._options;
    this._token ??= await (token?.call ? token() : token);
  }

  async _request(url, { headers, ...init } = {}) {
    const { fetch = globalThis.fetch, withCredentials } = this._options;
    const response = await fetch(url, {
      // Two tabs would wait for each other in the browser's own cache.
      cache: "no-store",
      credentials: withCredentials ? "include" : "same-origin",
      signal: this.#abort.signal,
      headers: this._token ? { ...headers, Authorization: "Bearer " + this._token } : headers,
      ...init,
    });
    this.#isPolled ||= /mode=hold/.test(response.headers.get("headwater-response"));
    const { ok, status } = response;
    if (ok) return response;
    const problem = await response.json().catch(() => ({}));
    const after = response.headers.get("retry-after");
    throw failure([status, problem.detail].join(" ").trim(), {
      status,
      isRefused: status == 401 || status == 403,
      after: after * 1000 || Date.parse(after) - Date.now() || 0,
    });
  }

  /**
   * Says that the connection failed. The result is the wait before the next attempt. Of the advice
   * of an error, `isRefused` means that the token does not count, and `after` is the wait that the
   * server requests. `isSuspect` is true where another way of reading may help, and false where it
   * does not. Where it is missing, only a client that has fallen back already tries another way,
   * after the second fault.
   */
  #fault({ message, isRefused, isSuspect, after = 0 }) {
    let floor = Math.max(this.#retry, after);
    if (isRefused) {
      if (!this._options.token?.call) return this._finish("denied", message);
      this._token = undefined;
      // A new token is another request, for which the server has requested no wait.
      if (!this.#failures) floor = 0;
    }
    this.#isWaySuspect = !isRefused && (isSuspect ?? (this.#way && this.#failures));
    const wait = floor + Math.random() * Math.min(JITTER_MAX_MS, JITTER_MS * 2 ** this.#failures++);
    this.#since ??= Date.now();
    this._setStatus("reconnecting", { since: this.#since, reason: message, wait });
    return wait;
  }

  /** Takes one block of a stream (6), also one that another tab or a WebSocket has received. */
  async _take(block) {
    if (this.readyState == CLOSED) return;
    const { id, type, data } = block;
    const before = this.lastEventId;
    // A block that cannot be read moves no cursor, so that it comes again.
    const body = data === undefined ? undefined : JSON.parse(data);
    if (id !== undefined) this.lastEventId = id;
    if (body) {
      if (type == "shed") {
        const isRefused = body.reason == "token-expired" && this._options.token;
        throw failure("shed: " + body.reason, { isRefused, isSuspect: false });
      }
      this.#isPlanned = type == "end" || (type == "segment" && !body.ends_at);
      this.#failures = 0;
      this.#since = undefined;
      if (this.status != "live") this._setStatus("live");
      if (!type) this.#takeEvent(body);
      if (type == "segment") this.#takeSegment(id, before, body);
      if (type == "gap") this.#takeGap(id, body);
      if (type == "end") this.#emit(type, body);
    }
    if (id !== undefined) this.#store();
    this._relay?.(block, before);
    await this.#readStale();
  }

  #takeEvent({ event: type = "message", channel, id, key, data, removed }) {
    const event = { id, type, data, channel, key, removed };
    // An event without an id belongs to the state (6.4).
    if (!id) return this.#staged.push(event);
    const order = ordered(id);
    if (order <= this.#newest.get(channel)) return;
    this.#newest.set(channel, order);
    if (!(order <= this.#stateAt.get(channel))) this.#apply(event);
    this.#deliver(event);
  }

  #takeSegment(id, before, { ends_at, state }) {
    if (state) {
      this.#replaced?.forEach((channel) => this.#setState(channel, this.#staged));
      if (this.state) this.#emit("state", {});
      else this.#staged.forEach((event) => this.#deliver(event));
      this.#staged = [];
      this.#replaced = undefined;
    } else if (ends_at) {
      this.#staged = [];
      // A stream without an id at its beginning begins with the state (6.2): of all channels, or
      // of those that a gap names.
      this.#replaced = id === undefined ? new Set(before ? [] : this._channels) : undefined;
      // The URL may say where the stream begins, and then the state is not sent with it.
      if (id && !before) this.#markStale(this._channels);
    }
  }

  #takeGap(id, gap) {
    const { channel } = gap;
    if (gap.reason == "ahead") {
      // The log may be another one, whose ids begin again.
      this.#newest.delete(channel);
      this.#stateAt.delete(channel);
    }
    if (id === undefined && this.#replaced) this.#replaced.add(channel);
    else {
      // A gap with a cursor says that no state follows (6.3).
      this.#markStale([channel, ...(this.#replaced ?? [])]);
      this.#replaced = undefined;
    }
    this.#emit("gap", gap);
  }

  #markStale(channels) {
    if (this.state) channels.forEach((channel) => this.#stale.add(channel));
  }

  /** Reads the state of channels that is not known any more. */
  async #readStale() {
    if (!this.#stale.size) return;
    const { readState } = await import("./history.js");
    for (const channel of this.#stale) {
      const { events, cursor } = await readState(this, channel);
      this.#stateAt.set(channel, ordered(cursor));
      this.#setState(channel, events);
    }
    this.#emit("state", {});
  }

  /** Replaces the state of a channel by that of its events among `events`. */
  #setState(channel, events) {
    if (!this.state) return;
    this.#stale.delete(channel);
    const prefix = this.#keyOf({ channel, key: "" });
    for (const key of this.state.keys()) if (key.startsWith(prefix)) this.state.delete(key);
    for (const event of events) if (event.channel == channel) this.#apply(event);
  }

  /** The key in `state`. The name of a channel contains no slash. */
  #keyOf({ channel, key }) {
    return this._channels[1] ? channel + "/" + key : key;
  }

  #apply(event) {
    if (!this.state || event.key === undefined) return;
    if (event.removed) this.state.delete(this.#keyOf(event));
    else this.state.set(this.#keyOf(event), event.data);
  }

  #deliver(event) {
    for (const queue of this.#queues) {
      queue.push(event);
      queue.wake?.();
    }
    const { type, data, ...members } = event;
    const lastEventId = this.lastEventId;
    const message = new MessageEvent(type, { data, lastEventId, origin: this.#origin });
    this.dispatchEvent(Object.assign(message, members));
  }

  #emit(name, { type, ...members }) {
    this.dispatchEvent(Object.assign(new Event(name), members));
  }

  async #store() {
    try {
      await this._options.storage?.setItem(this._key, this.lastEventId);
    } catch {
      // A full storage does not end the stream.
    }
  }

  /** Sets the last status. */
  _finish(status, reason) {
    if (this.readyState == CLOSED) return;
    this.#reason = reason;
    this._halt();
    globalThis.document?.removeEventListener("visibilitychange", this.#pauseOrResume);
    this._setStatus(status, { reason });
    for (const queue of this.#queues) queue.wake?.();
  }

  _setStatus(status, members) {
    if (this.readyState == CLOSED) return;
    this.status = status;
    const isOver = /ended|denied|closed/.test(status);
    this.readyState = status == "live" ? OPEN : isOver ? CLOSED : CONNECTING;
    this._relayStatus?.(status, members);
    this.#emit("status", { status, ...members });
    if (status == "live") this.#emit("open", {});
    if (/reconnecting|denied/.test(status)) this.#emit("error", { status, ...members });
  }
}

/** Opens a connection: `connect("https://live.example.com", { channels: ["prices"] })`. */
export const connect = (url, options) => new Headwater(url, options);
