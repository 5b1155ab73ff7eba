// The requests of the console: to the admin listener, and below API to the paths of the public one.

/** The prefix of the paths that the public listener has, too. */
export const API = "/console/api";
const STORED = "headwater-console-token";
const TIMEOUT_MS = 5000;
const UNAUTHORIZED = 401;

/** An answer that is no success. The message is for the reader. */
export class Refused extends Error {
  constructor(status, { type, title, detail } = {}) {
    const isMissing = status == UNAUTHORIZED && !token();
    const said = title ? `${title}: ${detail}` : `The answer has the status ${status}`;
    super(isMissing ? "A token is needed: enter it under “Access token”." : said);
    this.status = status;
    this.problem = type?.split(":").pop();
  }

  /** Whether another token may help. */
  get needsToken() {
    return this.status == UNAUTHORIZED || this.problem == "scope";
  }
}

// The token, where the browser forbids storage.
let kept = "";

/** The token that the visitor has entered in this tab; empty if there is none. */
export function token() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return kept;
  }
}

export function setToken(text) {
  kept = text;
  try {
    if (text) sessionStorage.setItem(STORED, text);
    else sessionStorage.removeItem(STORED);
  } catch {
    // It is kept until the page is closed.
  }
}

export const tokenHeaders = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/** Sends a request. It fails with `Refused` where the answer is an error. */
export async function ask(path, options = {}) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const answer = await fetch(path, { cache: "no-store", signal, ...options });
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => undefined));
}

/** The JSON of an answer. A path below API gets the token of the visitor. */
export async function askJson(path, options = {}) {
  const headers = path.startsWith(API) ? { ...tokenHeaders(), ...options.headers } : {};
  return (await ask(path, { ...options, headers })).json();
}
