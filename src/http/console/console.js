// The console: it reads the channels and the metrics every few seconds, and puts the parts of the
// page together.

import { addCopyButtons, byId, setText, timeOfDay } from "./dom.js";
import { Channels } from "./channels.js";
import { Events } from "./events.js";
import { Picture } from "./picture.js";
import { publish } from "./publish.js";
import { showSnippets } from "./snippets.js";
import { Refused, askJson, setToken, token } from "./origin.js";

const REFRESH_MS = 2500;
const ADDRESS = "headwater-console-address";

let facts;
let channel = "";
// What the snippets do: reading a channel, or publishing an event.
let done;
let goneSince;

const channels = new Channels(choose);
const picture = new Picture();
const events = new Events({
  onRefused: askForToken,
  onEvent: (ms) => picture.addEvent(ms),
});

/** Shows a channel. */
function choose(name) {
  channel = name;
  history.replaceState(null, "", `?channel=${encodeURIComponent(name)}`);
  setText(byId("channel"), name);
  byId("publish-channel").value = name;
  byId("events-hint").hidden = true;
  byId("events-body").hidden = false;
  channels.mark(name);
  picture.setChannel(name);
  events.follow(name);
  note({ channel: name });
}

function note(what) {
  done = what;
  redrawSnippets();
}

function redrawSnippets() {
  byId("snippets").hidden = !done;
  byId("snippets-hint").hidden = Boolean(done);
  const base = byId("address").value.trim() || location.origin;
  if (done) showSnippets({ base, token: token(), ...done });
  setText(byId("doctor"), `headwater doctor ${base.startsWith("http") ? base : "URL"}`);
}

function askForToken(error) {
  byId("token-part").hidden = false;
  setText(byId("token-reason"), error.message);
}

/** Reads what does not change while the origin runs. */
async function readFacts() {
  facts = await askJson("/console/origin.json");
  picture.setFacts(facts);
  events.facts = facts;
  setText(byId("version"), facts.version);
  if (facts.needs_token) byId("token-part").hidden = false;
  if (!byId("address").value) byId("address").value = stored() ?? publicAddress(facts.public);
  redrawSnippets();
}

/** The address of the public listener, as this browser could reach it. */
function publicAddress(urls) {
  const url = urls.find((one) => one.startsWith("http")) ?? urls[0] ?? "";
  return url.replace(/\/\/(0\.0\.0\.0|\[::\])/, `//${location.hostname}`);
}

function stored() {
  try {
    return sessionStorage.getItem(ADDRESS) ?? undefined;
  } catch {
    return undefined;
  }
}

async function subscribers() {
  if (!channel) return undefined;
  try {
    return (await askJson(`/channels/${encodeURIComponent(channel)}`)).subscribers;
  } catch (error) {
    // Nothing was published to this channel yet.
    if (error instanceof Refused) return 0;
    throw error;
  }
}

async function refresh() {
  try {
    if (!facts || goneSince) await readFacts();
    await Promise.all([channels.refresh(), picture.refresh(await subscribers())]);
    showStatus("live", "Connected");
    goneSince = undefined;
  } catch (error) {
    if (error instanceof Refused) return showStatus("denied", error.message);
    goneSince ??= Date.now();
    showStatus("reconnecting", `No answer from the origin since ${timeOfDay(goneSince)}`);
  }
}

function showStatus(status, text) {
  document.body.dataset.status = status;
  // The same text would be announced again.
  setText(byId("status"), text);
}

async function keepRefreshing() {
  // A page that nobody sees asks for nothing.
  if (!document.hidden) await refresh();
  setTimeout(keepRefreshing, REFRESH_MS);
}

byId("filter").onsubmit = (event) => event.preventDefault();
byId("filter").oninput = refresh;
byId("transports").onchange = () => channel && events.follow(channel);
byId("languages").onchange = ({ target }) => {
  for (const name of ["curl", "browser", "node"]) byId(`part-${name}`).hidden = name != target.value;
};
byId("address").oninput = () => {
  try {
    sessionStorage.setItem(ADDRESS, byId("address").value);
  } catch {
    // The address counts until the page is closed.
  }
  redrawSnippets();
};
byId("token-form").onsubmit = (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  setText(byId("token-reason"), token() ? "This tab uses the token." : "This tab has no token.");
  redrawSnippets();
  if (channel) events.follow(channel);
};
byId("publish-form").onsubmit = (event) => {
  event.preventDefault();
  publish({
    onSent: (sent) => note({ event: sent }),
    onStored: (sent) => {
      if (sent.channel != channel) {
        choose(sent.channel);
        note({ event: sent });
      }
      refresh();
    },
    onRefused: askForToken,
  });
};

addCopyButtons();
byId("token").value = token();
const wanted = new URLSearchParams(location.search).get("channel");
refresh().then(() => {
  if (wanted) choose(wanted);
  setTimeout(keepRefreshing, REFRESH_MS);
});
