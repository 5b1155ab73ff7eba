// Publishes each line of the standard input as one event, in order and each exactly once:
//
//   node examples/publish.mjs http://127.0.0.1:8080/channels/greetings
//
// A publish without a usable answer is repeated with the same Idempotency-Key, so the origin stores
// the event once. The origin remembers a key for ten minutes (--idempotency-age); the program gives
// up before that.

import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const GIVE_UP_MS = 540_000;
const REQUEST_MS = 10_000;

async function publish(url, data) {
  const headers = { "Idempotency-Key": randomUUID(), "Content-Type": "text/plain" };
  const giveUp = Date.now() + GIVE_UP_MS;
  for (let wait = 100; ; wait = Math.min(2 * wait, 10_000)) {
    let status, text;
    try {
      const signal = AbortSignal.timeout(REQUEST_MS);
      const answer = await fetch(url, { method: "POST", body: data, headers, signal });
      [status, text] = [answer.status, await answer.text()];
      if (answer.ok) return JSON.parse(text).id;
    } catch (error) {
      [status, text] = [503, `${error.message}: ${error.cause}`];
    }
    const isTemporary = status >= 500 || status === 408 || status === 429;
    if (!isTemporary || Date.now() > giveUp) throw new Error(text);
    // A random part keeps many publishers from coming back at the same instant.
    await sleep(wait * (0.5 + Math.random()));
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(await publish(process.argv[2], line));
}
