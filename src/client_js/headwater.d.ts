/** An event of a channel. */
export interface ChannelEvent {
  /** The id of the event. An event of the state has none. */
  id?: string;
  /** The type that the publisher gave the event, or `message`. */
  type: string;
  /** The text of the publisher. A page that shows it as HTML has to escape it first. */
  data: string;
  channel: string;
  key?: string;
  /** `true` where the event has removed its key from the state. */
  removed?: boolean;
}

/** An event as listeners receive it. `lastEventId` is the cursor of all channels. */
export interface ChannelMessage extends MessageEvent<string> {
  readonly id?: string;
  readonly channel: string;
  readonly key?: string;
  readonly removed?: boolean;
}

/**
 * - `connecting`: there was no connection yet.
 * - `live`: events arrive. The planned end of a segment changes nothing.
 * - `reconnecting`: the connection failed, and is made again.
 * - `ended`: all channels have ended. Final.
 * - `denied`: the token does not count, and there is no function that gets another. Final.
 * - `closed`: `close()` was called. Final.
 */
export type Status = "connecting" | "live" | "reconnecting" | "ended" | "denied" | "closed";

/** The event `status`. */
export interface StatusEvent extends Event {
  readonly status: Status;
  /** While `reconnecting`: when the connection was lost, in milliseconds since the epoch. */
  readonly since?: number;
  /** While `reconnecting` or `denied`: the reason, for a person. */
  readonly reason?: string;
  /** While `reconnecting`: the wait until the next attempt, in milliseconds. */
  readonly wait?: number;
}

/**
 * The event `gap`: events are missing. What a page derived from events of the channel has to be
 * read anew.
 */
export interface GapEvent extends Event {
  readonly channel: string;
  /** `trimmed`, `ahead`, `unknown`, `lost` or `damaged`; later versions may add others. */
  readonly reason: string;
  /** The cursor that the client had sent, or the position before the gap. */
  readonly requested: string;
  /** The id of the oldest event that is kept. */
  readonly oldest: string | null;
}

/** The event `end`: a channel has ended. The status `ended` follows when all of them have. */
export interface EndEvent extends Event {
  readonly channel: string;
  readonly id?: string;
}

/** A place for the cursor, such as `sessionStorage`. */
export interface CursorStorage {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): unknown;
}

export interface Options {
  /** The channels, where the URL is that of the origin. A stream has at most eight. */
  channels?: string | string[];
  /** Keeps the state of the channels in `client.state`. */
  state?: boolean;
  /** Goes on after this cursor. */
  cursor?: string;
  /** Goes on after the cursor in this storage, and writes each new cursor there. */
  storage?: CursorStorage;
  /** A token, or a function that gets one. The function is called again after each refusal. */
  token?: string | (() => string | Promise<string>);
  /** Sends the cookies of other web origins too. */
  withCredentials?: boolean;
  /**
   * `stream` is the default. Behind proxies that buffer it falls back to long polls, and from these
   * to the history.
   */
  transport?: "stream" | "websocket";
  /** Disconnects while the page is hidden. */
  pauseWhileHidden?: boolean;
  /** Has one connection for all tabs of the web origin, where the browser has Web Locks. */
  share?: boolean;
  /**
   * The `--heartbeat` of the origin in milliseconds, 5,000 by default. After three of them without
   * a byte the client gives up the connection.
   */
  heartbeat?: number;
  /** Is called instead of `fetch`. */
  fetch?: typeof fetch;
}

export interface PublishOptions {
  /** The type of the event. */
  event?: string;
  /** The key of the event. */
  key?: string;
  /** Removes the key from the state. */
  remove?: boolean;
  /** Two publishes with the same key store one event. */
  idempotencyKey?: string;
}

/** The connection to one or more channels. */
export interface Headwater extends EventTarget, AsyncIterable<ChannelEvent> {
  /** The URL of the stream. */
  readonly url: string;
  readonly status: Status;
  /** As of an `EventSource`: 0 connecting, 1 open, 2 closed. */
  readonly readyState: 0 | 1 | 2;
  /** The cursor: everything up to it was delivered. */
  readonly lastEventId: string;
  /**
   * With the option `state`: the newest data of each key. With several channels a key of this map
   * is `channel/key`.
   */
  readonly state?: Map<string, string>;

  onopen: ((event: Event) => void) | null;
  onmessage: ((event: ChannelMessage) => void) | null;
  onerror: ((event: StatusEvent) => void) | null;
  onstatus: ((event: StatusEvent) => void) | null;
  onstate: ((event: Event) => void) | null;
  ongap: ((event: GapEvent) => void) | null;
  onend: ((event: EndEvent) => void) | null;

  addEventListener(
    type: "status",
    listener: (event: StatusEvent) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: "gap",
    listener: (event: GapEvent) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: "end",
    listener: (event: EndEvent) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: "open" | "error" | "state",
    listener: (event: Event) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  /** Listens to the events of a type that the publisher gave them, or to `message`. */
  addEventListener(
    type: string,
    listener: (event: ChannelMessage) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;

  /**
   * Publishes an event, and returns its id. A publish whose answer was lost is repeated, and the
   * event is stored once.
   */
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<string>;
  /** Ends the connection. */
  close(): void;
}

/**
 * Opens a connection to the channels of a stream's URL, or to `options.channels` of an origin.
 *
 * ```js
 * const client = connect("https://live.example.com", { channels: ["prices"] });
 * ```
 */
export function connect(url: string | URL, options?: Options): Headwater;
