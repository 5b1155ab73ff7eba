"""A conversation over a WebSocket. Each message is compared with asyncapi.json, in both directions."""

import asyncio
import json

import requests
import websockets

from documents import Document
from origin import ASYNCAPI, Origin

CLIENT = ("subscribe", "unsubscribe", "publish", "ping")
ORIGIN = ("subscribed", "unsubscribed", "stored", "event", "gap", "end", "error", "pong")
# The time without a message after which an answer counts as complete, in seconds.
SILENCE = 0.3


class Conversation:
    def __init__(self, socket):
        self.socket = socket
        self.document = Document(ASYNCAPI)
        self.faults = []
        self.seen = set()

    def kinds(self, message, names):
        """The names of the described messages that a message matches."""
        messages = self.document.root["components"]["messages"]
        return [name for name in names if not self.document.errors(messages[name]["payload"], message)]

    async def say(self, message, *expected, is_valid=True):
        """Sends a message, and expects answers of these kinds in this order."""
        text = message if isinstance(message, str) else json.dumps(message)
        if not isinstance(message, str):
            kinds = self.kinds(message, CLIENT)
            if bool(kinds) != is_valid:
                self.faults.append(f"{text} is described as {'valid' if kinds else 'wrong'}")
            self.seen.update(kinds)
        await self.socket.send(text)
        found = []
        while True:
            try:
                answer = json.loads(await asyncio.wait_for(self.socket.recv(), SILENCE))
            except TimeoutError:
                break
            kinds = self.kinds(answer, ORIGIN)
            if len(kinds) != 1:
                self.faults.append(f"{answer} matches {kinds or 'no message'}")
            found += kinds
        self.seen.update(found)
        if tuple(found) != expected:
            self.faults.append(f"{text} was answered with {found} instead of {list(expected)}")


async def converse(origin):
    def post(method, channel, data=None, **query):
        answer = requests.request(method, f"{origin.url}/channels/{channel}", data=data, params=query)
        assert answer.ok, answer.text
        return answer.json().get("id")

    # A fresh join of a channel with state has the same answers at any time. That of another channel
    # depends on the segment.
    post("POST", "fx", '{"bid":1.0712}', key="EURUSD", event="price")
    post("POST", "keyed", "x", key="k")
    url = f"ws://127.0.0.1:{origin.port}/ws"
    async with websockets.connect(url, subprotocols=["headwater"], compression=None) as socket:
        with_it = Conversation(socket)
        say = with_it.say
        await say({"type": "ping", "ref": 1}, "pong")
        await say({"type": "ping", "ref": None}, "pong")
        await say({"type": "subscribe", "channels": ["fx"], "ref": 2}, "event", "subscribed")
        await say(
            {"type": "subscribe", "channels": ["news", "old"], "after": "0-0", "ref": "n"},
            "subscribed",
            "subscribed",
        )
        note = {
            "type": "publish",
            "channel": "news",
            "data": {"a": 1},
            "event": "note",
            "idempotency_key": "one",
        }
        await say({**note, "ref": 3}, "stored", "event")
        await say({**note, "ref": 4}, "stored")
        await say({"type": "publish", "channel": "fx", "data": "", "key": "EURUSD", "echo": False}, "stored")
        await say(
            {"type": "publish", "channel": "fx", "data": "x", "key": "EURUSD", "remove": True},
            "stored",
            "event",
        )
        await say(
            {"type": "publish", "channel": "fx", "data": None, "event": None, "key": None}, "stored", "event"
        )
        await say({"type": "publish", "channel": "fx", "data": 1, "event": "gap"}, "error", is_valid=False)
        await say({"type": "publish", "channel": "fx", "data": 1, "remove": True}, "error", is_valid=False)
        await say({"type": "publish", "channel": "fx", "data": 1, "more": 1}, "error", is_valid=False)
        await say({"type": "publish", "channel": "fx"}, "error", is_valid=False)
        await say({"type": "subscribe", "channels": []}, "error", is_valid=False)
        await say({"type": "subscribe", "channels": ["x"], "after": {"x": 1}}, "error", is_valid=False)
        await say({"type": "ping", "ref": 1.5}, "error", is_valid=False)
        await say({"type": "dance"}, "error", is_valid=False)
        await say("{", "error")
        await say({"type": "unsubscribe", "channels": ["news"], "ref": 8}, "unsubscribed")
        await say({"type": "unsubscribe", "channels": ["news"], "ref": 8}, "error")
        await say(
            {"type": "subscribe", "channels": ["keyed"], "after": {"keyed": "yesterday"}},
            "gap",
            "event",
            "subscribed",
        )
        await say({"type": "subscribe", "channels": ["news"], "after": "0-0"}, "subscribed", "event")
        end = post("DELETE", "news")
        await say({"type": "ping"}, "end", "pong")
        await say({"type": "subscribe", "channels": ["news"], "after": {"news": end}}, "subscribed", "end")
        await say({"type": "subscribe", "channels": ["news"], "after": "0-0"}, "subscribed", "event", "end")
        await say({"type": "subscribe", "channels": ["other"], "after": {"other": None}}, "subscribed")
        await say({"type": "publish", "channel": "news", "data": "late", "ref": 12}, "error")
        await say({"type": "subscribe", "channels": ["headwater.fault"], "ref": 13}, "error")
        missing = {*CLIENT, *ORIGIN} - with_it.seen
        if missing:
            with_it.faults.append(f"the conversation had no {', '.join(sorted(missing))}")
        return with_it.faults


def check(flags):
    with Origin(*flags) as origin:
        faults = asyncio.run(converse(origin))
    for fault in faults:
        print(f"FAIL {fault}")
    print(f"{'FAIL' if faults else 'ok  '} conversation over a WebSocket", flush=True)
    return not faults
