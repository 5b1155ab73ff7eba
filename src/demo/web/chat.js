// The chat. A room is a channel; its newest messages come from the history, and the connection goes
// on from there, over a WebSocket or SSE.

import { byId, make, setText, timeOfDay } from "./dom.js";
import { follow } from "./live.js";
import { askForToken, publish, tokenHeaders } from "./publish.js";

const ROOM = /^[a-z0-9-]{1,24}$/;
const EARLIER = 50;
const MESSAGES_MAX = 200;
const NAME_KEY = "headwater-demo-name";
const UNAUTHORIZED = 401;

const log = byId("log");
const list = byId("messages");
const settings = new URL(location).searchParams;
let client;
let channel;

async function enter(room, transport) {
  channel = `chat.${room}`;
  client?.close();
  // A screen reader does not read the earlier messages aloud.
  log.ariaBusy = "true";
  list.replaceChildren();
  setText(byId("room-name"), room);
  for (const place of document.querySelectorAll(".room-channel")) setText(place, channel);
  const entered = channel;
  const { events, next } = await earlier(channel);
  // The visitor may have gone on to another room.
  if (entered != channel) return;
  events.forEach(show);
  log.ariaBusy = "false";
  // A visitor over a WebSocket has a socket of his own, because he also publishes over it.
  const share = transport == "stream";
  client = follow([channel], { transport, share, state: false, cursor: next });
  client.onmessage = show;
  client.ongap = ({ reason }) => note(`Messages are missing here (${reason}).`);
}

/** The newest messages of a room. Without them the room begins with what is new. */
async function earlier(channel) {
  const url = `/channels/${channel}/history?last=${EARLIER}`;
  const answer = await fetch(url, { headers: tokenHeaders() }).catch(() => undefined);
  if (answer?.status == UNAUTHORIZED) askForToken("The server wants a token for this room.");
  return answer?.ok ? answer.json() : { events: [] };
}

function show({ id, data }) {
  if (!data) return;
  const { name, text } = read(data);
  const at = id ? timeOfDay(Number(id.split("-")[0])) : "";
  append(
    make("span", { className: "name", textContent: name }),
    make("time", { textContent: at, title: id ?? "" }),
    make("span", { className: "text", textContent: text }),
  );
}

const note = (text) => append(make("span", { className: "text", textContent: text }));

function append(...parts) {
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  list.append(make("li", {}, ...parts));
  if (list.children.length > MESSAGES_MAX) list.firstChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

/** A message, which any publisher may have written in any form. */
function read(data) {
  try {
    const { name, text } = JSON.parse(data);
    if (text !== undefined) return { name: String(name ?? "?").slice(0, 24), text: String(text) };
  } catch {
    // A publisher may send plain text.
  }
  return { name: "?", text: data };
}

byId("say").onsubmit = async (event) => {
  event.preventDefault();
  const [name, text] = [byId("name").value.trim() || "Guest", byId("text").value];
  byId("text").value = "";
  setText(byId("sent"), "");
  try {
    await publish(client, channel, { name, text });
  } catch (error) {
    byId("text").value ||= text;
    setText(byId("sent"), `Not sent: ${error.message}`);
  }
};

byId("settings").onsubmit = (event) => event.preventDefault();
byId("settings").onchange = ({ target }) => {
  if (target == byId("name")) return void localStorage.setItem(NAME_KEY, target.value);
  const room = byId("room").value;
  if (!ROOM.test(room)) return;
  const transport = byId("settings").elements.transport.value;
  history.replaceState({}, "", `?${new URLSearchParams({ room, transport })}`);
  enter(room, transport);
};

const wanted = settings.get("room") ?? "";
const room = ROOM.test(wanted) ? wanted : "lobby";
const transport = settings.get("transport") == "stream" ? "stream" : "websocket";
byId("room").value = room;
byId("settings").elements.transport.value = transport;
byId("name").value = localStorage.getItem(NAME_KEY) ?? `Guest ${Math.ceil(Math.random() * 99)}`;
enter(room, transport);
