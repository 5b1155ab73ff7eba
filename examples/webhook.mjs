// Receives the webhooks of a GitHub repository, and publishes each delivery as one event:
//
//   GITHUB_WEBHOOK_SECRET=… PORT=3000 node examples/webhook.mjs http://127.0.0.1:8080/channels/github
//
// The id of the delivery is the Idempotency-Key: GitHub sends the same id when a delivery is sent
// again. GitHub allows that for three days, so start the origin with --idempotency-age 3d. Every
// client that may read the channel sees the payloads: publish those of a private repository to a
// private channel.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const PAYLOAD_MAX = 1024 * 1024; // the origin's --max-event
const GIVE_UP_MS = 8_000; // GitHub waits for ten seconds

const { GITHUB_WEBHOOK_SECRET: secret, PORT: port = 3000 } = process.env;
if (!secret) throw new Error("GITHUB_WEBHOOK_SECRET is the secret of the webhook");

function isSigned(body, signature = "") {
  const expected = Buffer.from(`sha256=${createHmac("sha256", secret).update(body).digest("hex")}`);
  const given = Buffer.from(signature);
  return given.length === expected.length && timingSafeEqual(given, expected);
}

async function publish(body, { "x-github-delivery": delivery, "x-github-event": event }) {
  const url = `${process.argv[2]}?event=${encodeURIComponent(event)}`;
  const signal = AbortSignal.timeout(GIVE_UP_MS);
  const request = { method: "POST", body, headers: { "Idempotency-Key": delivery }, signal };
  for (;; await sleep(500)) {
    const answer = await fetch(url, request).catch((error) => new Response(error, { status: 503 }));
    if (answer.status < 500 || signal.aborted) return answer;
  }
}

async function answer(request) {
  let body = Buffer.alloc(0);
  for await (const chunk of request) {
    body = Buffer.concat([body, chunk]);
    if (body.length > PAYLOAD_MAX) return new Response("too large", { status: 413 });
  }
  const isGood = isSigned(body, request.headers["x-hub-signature-256"]);
  return isGood ? publish(body, request.headers) : new Response("not signed", { status: 401 });
}

const server = createServer(async (request, response) => {
  // A status of 400 or more makes GitHub mark the delivery as failed.
  const { status, text } = await answer(request).then(
    async (answer) => ({ status: answer.status, text: await answer.text() }),
    (error) => ({ status: 503, text: String(error) }),
  );
  response.writeHead(status).end(text);
});
server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
