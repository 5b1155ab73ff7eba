// The form that publishes an event.

import { byId, setText } from "./dom.js";
import { API, Refused, ask, tokenHeaders } from "./origin.js";

const STORED_BEFORE = 200;

/** The event that the form describes. */
function described() {
  const value = (id) => byId(id).value;
  return {
    channel: value("publish-channel").trim(),
    type: value("publish-type"),
    key: value("publish-key"),
    idempotencyKey: value("publish-idempotency").trim(),
    data: value("publish-data"),
  };
}

/** The path of a publish, without the origin. */
export function pathOf({ channel, type, key }) {
  const given = Object.entries({ event: type, key }).filter(([, value]) => value);
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return `/channels/${encodeURIComponent(channel)}${query}`;
}

/**
 * Publishes what the form describes. `onSent(event)` is called before, and `onRefused(error)` when
 * a token is needed.
 */
export async function publish({ onSent, onStored, onRefused }) {
  const event = described();
  const headers = { "Headwater-Console": "1", ...tokenHeaders() };
  if (event.idempotencyKey) headers["Idempotency-Key"] = event.idempotencyKey;
  onSent(event);
  answer("sending", "Sending …");
  try {
    const options = { method: "POST", headers, body: event.data };
    const response = await ask(API + pathOf(event), options);
    const { id } = await response.json();
    const isDuplicate = response.status == STORED_BEFORE;
    if (isDuplicate) answer("duplicate", `Duplicate: this event was stored before with the id ${id}, and was not stored again.`);
    else answer("stored", `Stored with the id ${id}.`);
    onStored(event);
  } catch (error) {
    const isRefused = error instanceof Refused;
    answer("refused", isRefused ? `Not stored. ${error.message}` : lost(event));
    if (error.needsToken) onRefused(error);
  }
}

function lost({ idempotencyKey }) {
  const again = idempotencyKey
    ? "Send it again with the same idempotency key, and it is stored once."
    : "With an idempotency key it could be sent again without being stored twice.";
  return `No answer came, so the event may be stored or not. ${again}`;
}

function answer(outcome, text) {
  byId("answer").dataset.outcome = outcome;
  setText(byId("answer"), text);
}
