// better-sse in a server of Node.js alone: `node better-sse.cjs PORT`. GET is the stream of the one
// channel, POST publishes to it.
const http = require("node:http");
const { createChannel, createSession } = require("better-sse");

// All options have their defaults, as in the guide "Broadcasting with channels".
const channel = createChannel();

http
  .createServer(async (request, response) => {
    if (request.method === "GET") {
      channel.register(await createSession(request, response));
      return;
    }
    let data = "";
    request.setEncoding("utf8");
    request.on("data", (piece) => (data += piece));
    request.on("end", () => {
      channel.broadcast(data);
      response.writeHead(201, { "Content-Length": 0 }).end();
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
