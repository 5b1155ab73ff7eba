// Prints the data of each event of a stream, over the ends of segments, faults and restarts, until
// its channels have ended:
//
//   node examples/read.mjs 'http://127.0.0.1:8080/channels/greetings?after=0-0'
//
// headwater.js reconnects with the last id, notices a connection that is silent for 15 seconds, and
// drops duplicates.

// With the package (npm install ./src/client_js) it is "headwater".
import { connect } from "../src/client_js/headwater.js";

const client = connect(process.argv[2]);
client.onstatus = ({ status, reason }) => console.error(status, reason ?? "");
client.ongap = ({ channel, reason }) => console.error(`events of ${channel} are missing (${reason})`);
client.onend = ({ channel }) => console.error(`${channel} has ended`);

for await (const { data } of client) console.log(data);
