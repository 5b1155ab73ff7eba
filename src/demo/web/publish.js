// The token of the visitor, and publishing with it. A server without keys needs no token.

import { byId } from "./dom.js";

const STORED = "headwater-demo-token";
const [UNAUTHORIZED, FORBIDDEN] = [401, 403];

/** The token that the visitor has entered in this tab, if any. */
export function token() {
  try {
    return sessionStorage.getItem(STORED) ?? undefined;
  } catch {
    // A browser may forbid storage.
    return undefined;
  }
}

/** The headers of a request that reads, with the token if there is one. */
export const tokenHeaders = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/** Shows the field for a token. */
export function askForToken(reason) {
  byId("token-reason").textContent = reason;
  byId("token-card").hidden = false;
  byId("token-form").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(STORED, byId("token").value.trim());
    location.reload();
  };
  byId("token").focus();
}

/**
 * Publishes through the client, which repeats a publish whose answer was lost. Where the server
 * refuses the token, the field for a token appears.
 */
export async function publish(client, channel, data, options) {
  try {
    return await client.publish(channel, data, options);
  } catch (error) {
    const isRefused = [UNAUTHORIZED, FORBIDDEN].includes(error.status) || error.isRefused;
    if (isRefused) askForToken(`The server did not accept the event: ${error.message}`);
    throw error;
  }
}
