// Shares one connection between the tabs of a web origin. The tab that holds a Web Lock, the
// leader, reads from the origin and sends each block to the other tabs over a BroadcastChannel.
//
// A tab that comes later begins with a connection of its own, so that it receives exactly what it
// would receive alone. It changes to the blocks of the leader as soon as it has everything that the
// leader had received before the first of them. When the leader's tab closes, the next tab gets the
// lock and goes on from its own cursor.

import { covers } from "./cursor.js";

const CLOSED = 2;
const BLOCKS_MAX = 1000;
const HEARTBEAT_MS = 5000;
// A browser may suspend the tab of the leader, which keeps the lock nevertheless. The leader
// therefore shows that it runs, and a follower that receives nothing for this number of heartbeats
// reads by itself.
const HEARTBEATS_UNTIL_SUSPENDED = 4;
const BEAT_MS = 1000;

/** Reads for this client, or follows the tab that reads. */
export const share = (client) => new Member(client).contend();

class Member {
  // `reader`: it has a connection of its own and is not the leader; `follower`: it takes the blocks
  // of the leader; `none`: it has not begun, or pauses while the page is hidden.
  #role = "none";
  // Blocks that the leader has sent while this tab was a reader.
  #waiting = [];
  // Messages are taken one after another.
  #work = Promise.resolve();
  #withdraw = new AbortController();
  #release;
  #sentAt = 0;
  #suspended;

  constructor(client) {
    this.client = client;
    this.air = new BroadcastChannel(client._key);
    this.air.onmessage = ({ data }) => {
      this.#work = this.#work.then(() => this.#receive(data)).catch(() => this.#read());
    };
    client._relay = (block, before) => this.#send({ block, before });
    client._relayBeat = () => this.#sendBeat();
    client._relayStatus = (status, members) => this.#noteStatus(status, members);
    if (client._options.pauseWhileHidden) {
      document.addEventListener("visibilitychange", this.contend);
    }
  }

  /** Competes for the lock, except where the page is hidden and its connection pauses. */
  contend = async () => {
    const { client } = this;
    this.#withdraw.abort();
    if (client.readyState == CLOSED) return;
    if (client._options.pauseWhileHidden && document.hidden) return this.#pause();
    const { signal } = (this.#withdraw = new AbortController());
    // Where the lock is free, this tab needs no connection before it leads.
    const isLeader = await this.#request({ ifAvailable: true }, signal);
    if (isLeader || signal.aborted) return;
    if (this.#role == "none") this.#read();
    this.#request({ signal }, signal);
  };

  /** Requests the lock, and leads while it has it. The result is whether this tab leads. */
  #request(options, signal) {
    return new Promise((settle) => {
      const lead = (lock) => {
        const isLeader = !!lock && !signal.aborted;
        settle(isLeader);
        return isLeader ? this.#lead() : undefined;
      };
      // The request is rejected when it is withdrawn.
      navigator.locks.request(this.client._key, options, lead).catch(() => settle(false));
    });
  }

  /** Leads. The lock is held until the promise is settled. */
  #lead() {
    this.#role = "leader";
    this.#waiting = [];
    this.client._follow();
    return new Promise((release) => (this.#release = release));
  }

  #read() {
    if (this.#role == "leader" || this.client.readyState == CLOSED) return;
    this.#role = "reader";
    this.client._follow();
  }

  #pause() {
    // A follower needs no connection, and goes on while another tab leads.
    if (this.#role == "follower") return;
    this.#role = "none";
    this.client._halt();
    this.#release?.();
    const reason = "The page is hidden";
    this.client._setStatus("reconnecting", { since: Date.now(), reason, wait: 0 });
  }

  #send(message) {
    if (this.#role != "leader") return;
    this.#sentAt = Date.now();
    this.air.postMessage(message);
  }

  /** Shows that the leader runs, and how far it is. */
  #sendBeat() {
    if (Date.now() - this.#sentAt > BEAT_MS) this.#send({ before: this.client.lastEventId });
  }

  #noteStatus(status, members) {
    if (!/ended|denied|closed/.test(status)) return this.#send({ status, members });
    // A client that is denied or closed leaves the others to the next leader.
    if (status == "ended") this.#send({ status });
    this.#role = "none";
    clearTimeout(this.#suspended);
    globalThis.document?.removeEventListener("visibilitychange", this.contend);
    this.#withdraw.abort();
    this.#release?.();
    this.air.close();
  }

  async #receive(message) {
    if (this.#role == "follower") {
      this.#watch();
      if (message.status) this.#takeStatus(message);
      else if (this.#covers(message.before)) await this.#take(message);
      else this.#fallBehind(message);
    } else if (this.#role == "reader" && !message.status) {
      this.#waiting.push(message);
      await this.#catchUp();
    }
  }

  /** Becomes a follower as soon as no event is missing between its own and those of the leader. */
  async #catchUp() {
    if (this.#waiting.length > BLOCKS_MAX) this.#waiting.shift();
    if (!this.#covers(this.#waiting[0].before)) {
      // A leader that has no cursor yet may begin anywhere.
      if (!this.#waiting[0].before) this.#waiting.shift();
      return;
    }
    this.#role = "follower";
    this.client._halt();
    this.#watch();
    for (const message of this.#waiting.splice(0)) await this.#take(message);
  }

  /** Reads by itself when the leader seems to be suspended. */
  #watch() {
    const beat = this.client._options.heartbeat ?? HEARTBEAT_MS;
    clearTimeout(this.#suspended);
    this.#suspended = setTimeout(
      () => this.#role == "follower" && this.#read(),
      beat * HEARTBEATS_UNTIL_SUSPENDED,
    );
  }

  /** Reads by itself again: a block of the leader was lost, or a new leader is at another place. */
  #fallBehind(message) {
    this.#waiting = [message];
    this.#read();
  }

  async #take({ block }) {
    if (!block) return;
    const isKnown = block.type != "segment" && block.id && this.#covers(block.id);
    if (!isKnown) await this.client._take(block);
  }

  #takeStatus({ status, members }) {
    if (status == "ended") this.client._finish(status);
    else this.client._setStatus(status, members);
  }

  #covers(cursor) {
    return !!cursor && covers(this.client.lastEventId, cursor, this.client._channels.length);
  }
}
