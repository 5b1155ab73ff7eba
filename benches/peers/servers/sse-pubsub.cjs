// sse-pubsub in a server of Node.js alone: `node sse-pubsub.cjs PORT`. GET is the stream of the one
// channel, POST publishes to it.
const http = require("node:http");
const SSEChannel = require("sse-pubsub");

// The default of `maxStreamDuration`, 30 s, would end streams during a measurement. Everything else
// is as in the README of the package.
const channel = new SSEChannel({ maxStreamDuration: 600_000 });

http
  .createServer((request, response) => {
    if (request.method === "GET") {
      channel.subscribe(request, response);
      return;
    }
    let data = "";
    request.setEncoding("utf8");
    request.on("data", (piece) => (data += piece));
    request.on("end", () => {
      channel.publish(data);
      response.writeHead(201, { "Content-Length": 0 }).end();
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
