// The ticker. Its lines begin with the history, and go on with the stream.

import { byId, setText } from "./dom.js";
import { checkNumbers, follow } from "./live.js";
import { Prices, followPrices } from "./prices.js";
import { tokenHeaders } from "./publish.js";

const RATE_MS = 1000;

const prices = new Prices(byId("prices"));
window.headwater.drawn = prices.counts;
const client = follow(["ticker"]);
checkNumbers(client, "ticker");
await followPrices(prices, client, tokenHeaders());

let counted = prices.counts.prices;
setInterval(() => {
  setText(byId("rate"), Math.round((prices.counts.prices - counted) / (RATE_MS / 1000)));
  counted = prices.counts.prices;
}, RATE_MS);
