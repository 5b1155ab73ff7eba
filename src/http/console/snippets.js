// Commands and programs that do what the visitor has just done, at the address that clients use.

import { byId, make, setText } from "./dom.js";
import { pathOf } from "./publish.js";

const SOCKET = "unix:";

/** Quotes a text for a shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const json = (value) => JSON.stringify(value);

/** A program for Node.js as one command of a shell. No line of it can be `END` alone. */
const inNode = (program) => `node --input-type=module <<'END'\n${program}\nEND`;

/** The program of a page or of Node.js that publishes an event. */
function publishing(url, { data }, headers) {
  const lines = [`method: "POST",`];
  const names = Object.entries(headers);
  if (names.length) lines.push(`headers: ${json(headers)},`);
  lines.push(`body: ${json(data)},`);
  return `const answer = await fetch(${json(url)}, {\n  ${lines.join("\n  ")}\n});
console.log(answer.status, await answer.json());`;
}

/** The program for Node.js that reads a channel. */
function reading(url, token) {
  const fixed = { Accept: "text/event-stream", ...(token && { Authorization: `Bearer ${token}` }) };
  return `const headers = ${json(fixed)};
for (let retry = 0, status = 200; status == 200; ) {
  const answer = await fetch(${json(url)}, { headers });
  status = answer.status;
  let rest = "";
  for await (const text of answer.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    const blocks = (rest + text).split("\\n\\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => RegExp("^" + name + ": ?(.*)", "m").exec(block)?.[1];
      if (field("id") !== undefined) headers["Last-Event-ID"] = field("id");
      retry = Number(field("retry") ?? retry);
      if (field("data") && !field("event")) console.log(JSON.parse(field("data")));
    }
  }
  await new Promise((wake) => setTimeout(wake, retry));
}`;
}

/** The snippets for a publish, or without an event for a stream of the channel. */
function snippets({ base, channel, event, token }) {
  const isSocket = base.startsWith(SOCKET);
  const path = event ? pathOf(event) : `/channels/${encodeURIComponent(channel)}`;
  const url = (isSocket ? "http://localhost" : base.replace(/\/+$/, "")) + path;
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (event?.idempotencyKey) headers["Idempotency-Key"] = event.idempotencyKey;
  const options = Object.entries(headers).map(([name, text]) => `-H ${quoted(`${name}: ${text}`)}`);
  if (isSocket) options.unshift(`--unix-socket ${quoted(base.slice(SOCKET.length))}`);
  options.unshift(event ? `--data-raw ${quoted(event.data)}` : "-N");
  const curl = ["curl", ...options, quoted(url)].join(" ");
  if (isSocket) {
    const text = "// The origin listens on a Unix socket only: name the address of the proxy in front of it above.";
    return { curl, browser: text, node: text };
  }
  if (event) {
    const program = publishing(url, event, headers);
    return { curl, browser: program, node: inNode(program) };
  }
  const query = new URLSearchParams({ format: "json", ...(token && { access_token: token }) });
  const browser = `new EventSource(${json(`${url}?${query}`)})
  .onmessage = ({ data }) => console.log(JSON.parse(data));`;
  return { curl, browser, node: inNode(reading(`${url}?format=json`, token)) };
}

/** Shows the snippets for what was done. */
export function showSnippets(done) {
  const { event, channel, token } = done;
  setText(byId("done"), event ? `Publishing to ${event.channel}` : `Reading ${channel}`);
  for (const [name, text] of Object.entries(snippets(done))) {
    const parts = token ? text.split(token) : [text];
    // The style shows dots in the place of a token. The copy has the token.
    const secret = () => make("span", { className: "secret", textContent: token });
    const code = parts.flatMap((part, index) => (index ? [secret(), part] : [part]));
    byId(`snippet-${name}`).replaceChildren(make("code", {}, ...code));
  }
  byId("snippet-secret").hidden = !token;
}
