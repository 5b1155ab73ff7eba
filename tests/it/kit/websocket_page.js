// WebSockets of a page: what each sees is kept for websocket_clients.rs, which asks for it.
window.sockets ??= [];

function open(url, protocols) {
  const socket = new WebSocket(url, protocols);
  const seen = [];
  socket.onopen = () => seen.push(["open", socket.protocol]);
  socket.onmessage = (message) => seen.push(["text", message.data]);
  socket.onclose = (close) => seen.push(["closed", close.code, close.reason]);
  return window.sockets.push({ socket, seen }) - 1;
}

function obey(number, [kind, what]) {
  const { socket } = window.sockets[number];
  if (kind === "close") socket.close();
  else socket.send(kind === "binary" ? Uint8Array.from(what) : what);
}
