"""Publishes each line of the standard input as one event, in order and each exactly once:

    python3 examples/publish.py http://127.0.0.1:8080/channels/greetings

A publish without a usable answer is repeated with the same Idempotency-Key, so the origin stores
the event once. The origin remembers a key for ten minutes (--idempotency-age); the program gives up
before that.
"""

import json
import random
import sys
import time
import uuid
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

GIVE_UP_S = 540


def publish(url, data):
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "text/plain"}
    give_up, wait = time.monotonic() + GIVE_UP_S, 0.1
    while True:
        try:
            with urlopen(Request(url, data.encode(), headers), timeout=10) as answer:
                return json.load(answer)["id"]
        except (OSError, HTTPException) as error:
            status = error.code if isinstance(error, HTTPError) else 503
            is_temporary = status >= 500 or status in (408, 429)
            if not is_temporary or time.monotonic() > give_up:
                why = error.read().decode() if isinstance(error, HTTPError) else ""
                sys.exit(f"{error}\n{why}")
        # A random part keeps many publishers from coming back at the same instant.
        time.sleep(wait * random.uniform(0.5, 1.5))
        wait = min(2 * wait, 10)


for line in sys.stdin:
    print(publish(sys.argv[1], line.removesuffix("\n")), flush=True)
