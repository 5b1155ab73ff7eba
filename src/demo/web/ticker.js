// The ticker. Its lines begin with the history, and go on with the stream.

import { byId, setText } from "./dom.js";
import { checkNumbers, follow } from "./live.js";
import { Prices, earlierPrices } from "./prices.js";
import { token } from "./publish.js";

const EARLIER = 1000;
const RATE_MS = 1000;

const prices = new Prices(byId("prices"));
window.headwater.drawn = prices.counts;
let newest = 0;
const take = (price) => {
  // The history and the stream overlap.
  if (price.n <= newest) return;
  newest = price.n;
  prices.take(price);
};

const earlier = earlierPrices(EARLIER, token()).catch(() => []);
const client = follow(["ticker"]);
checkNumbers(client, "ticker");
client.onmessage = async ({ id, data }) => {
  await earlier;
  if (id) take(JSON.parse(data));
};
for (const price of await earlier) take(price);

let counted = prices.counts.prices;
setInterval(() => {
  setText(byId("rate"), Math.round((prices.counts.prices - counted) / (RATE_MS / 1000)));
  counted = prices.counts.prices;
}, RATE_MS);
