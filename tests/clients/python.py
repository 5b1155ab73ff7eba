"""Follows a stream with one of the SSE libraries of PyPI until its channel ends, and prints every
message that the library delivers as a line of JSON. Arguments: the library, the URL."""

import asyncio
import json
import sys
import time

# Longer than the pause between two heartbeats of the origin.
SILENCE_S = 15
EVENT_BYTES = 2 << 20


def show(id, data):
    print(json.dumps({"id": id, "data": data}), flush=True)


def httpx_sse(url):
    import httpx
    from httpx_sse import connect_sse

    headers, retry_ms = {}, 3000
    with httpx.Client(timeout=SILENCE_S) as client:
        while True:
            try:
                with connect_sse(client, "GET", url, headers=headers) as source:
                    for event in source.iter_sse():
                        if event.id:
                            headers = {"Last-Event-ID": event.id}
                        if event.retry is not None:
                            retry_ms = event.retry
                        if event.event == "message":
                            show(event.id, event.data)
                        if event.event == "end":
                            return
            except httpx.TransportError as error:
                print(error, file=sys.stderr)
            time.sleep(retry_ms / 1000)


def requests_sse(url):
    from requests_sse import EventSource

    with EventSource(url, timeout=SILENCE_S, max_connect_retry=100) as source:
        for event in source:
            if event.type == "message":
                show(event.last_event_id, event.data)
            if event.type == "end":
                return


async def follow_with_aiohttp(url):
    from aiohttp import ClientError, ClientTimeout
    from aiohttp_sse_client.client import EventSource

    settings = {"timeout": ClientTimeout(sock_read=SILENCE_S), "read_bufsize": EVENT_BYTES}
    headers = {}
    while True:
        try:
            async with EventSource(url, headers=headers, **settings) as source:
                async for event in source:
                    headers = {"Last-Event-ID": event.last_event_id}
                    if event.type is None:
                        show(event.last_event_id, event.data)
                    if event.type == "end":
                        return
        except (ClientError, asyncio.TimeoutError) as error:
            print(error, file=sys.stderr)
            await asyncio.sleep(3)


def aiohttp_sse_client(url):
    asyncio.run(follow_with_aiohttp(url))


library, url = sys.argv[1:]
{
    "httpx-sse": httpx_sse,
    "requests-sse": requests_sse,
    "aiohttp-sse-client": aiohttp_sse_client,
}[library](url)
