// A WebSocket of Node's `ws`: does what its input says, tells what it sees. Both are lines of JSON
// that websocket_clients.rs knows.
const readline = require("node:readline");
const { WebSocket } = require("ws");

const [url, ...protocols] = process.argv.slice(2);
const socket = new WebSocket(url, protocols);
const tell = (...what) => console.log(JSON.stringify(what));

socket.on("open", () => tell("open", socket.protocol));
socket.on("message", (data) => tell("text", data.toString()));
socket.on("error", (error) => console.error(error.message));
socket.on("close", (code, reason) => {
  tell("closed", code, reason.toString());
  process.stdin.destroy();
});

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [kind, what] = JSON.parse(line);
  if (kind === "close") socket.close();
  else socket.send(kind === "binary" ? Uint8Array.from(what) : what);
});
