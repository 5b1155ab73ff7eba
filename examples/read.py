"""Prints the data of each event of a stream, over the ends of segments, faults and restarts, until
its channels have ended:

    python3 examples/read.py 'http://127.0.0.1:8080/channels/greetings?after=0-0'
"""

import sys
import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def blocks(lines):
    """Gives the fields of each block. A block that a fault has cut short is not given."""
    fields = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\n").partition(":")
        value = value.removeprefix(" ")
        if line == b"\n":
            yield fields
            fields = {}
        else:
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value


cursor, retry_ms = None, 3000
while True:
    try:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
        # A quiet stream has a comment every five seconds (--heartbeat).
        with urlopen(Request(sys.argv[1], headers=headers), timeout=15) as answer:
            if answer.status == 204:
                break
            for block in blocks(answer):
                cursor, retry_ms = block.get("id", cursor), int(block.get("retry", retry_ms))
                kind = block.get("event")
                if kind in ("gap", "end", "shed"):
                    print(kind, block["data"], file=sys.stderr)
                elif kind != "segment":
                    print(block["data"], flush=True)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError) and error.code < 500:
            raise
    time.sleep(retry_ms / 1000)
