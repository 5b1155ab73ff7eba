// The departures board: the state of the channel, ordered by the time of departure.

import { byId, oncePerFrame, setText } from "./dom.js";
import { FlapRows } from "./flaps.js";
import { follow } from "./live.js";

const FLIGHTS_MAX = 14;

const rows = new FlapRows(byId("board"), FLIGHTS_MAX, {
  time: 5,
  flight: 5,
  to: 10,
  gate: 3,
  status: 10,
});
const client = follow(["departures"]);

const render = oncePerFrame(() => {
  const flights = [...client.state.values()].map((data) => JSON.parse(data));
  rows.show(flights.sort((one, other) => one.minute - other.minute));
});

client.onstate = render;
client.onmessage = ({ data, removed }) => {
  if (!removed) setText(byId("board-clock"), JSON.parse(data).clock);
  render();
};
