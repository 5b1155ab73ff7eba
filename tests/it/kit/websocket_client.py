"""A WebSocket of Python's `websockets`: does what its input says, tells what it sees.

Both are lines of JSON that websocket_clients.rs knows.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError


def tell(*what):
    print(json.dumps(what), flush=True)


async def obey(socket):
    lines = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async for line in lines:
        match json.loads(line):
            case ["text", text]:
                await socket.send(text)
            case ["binary", numbers]:
                await socket.send(bytes(numbers))
            case ["close"]:
                await socket.close()


async def run(url, *protocols):
    async with connect(url, subprotocols=protocols, proxy=None, ping_interval=None) as socket:
        tell("open", socket.subprotocol)
        obeying = asyncio.create_task(obey(socket))
        try:
            async for message in socket:
                tell("text", message)
        except ConnectionClosedError:
            pass
        tell("closed", socket.close_code, socket.close_reason)
        obeying.cancel()


asyncio.run(run(*sys.argv[1:]))
