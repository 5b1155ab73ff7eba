"""Publishes the rows of the outbox (outbox.sql) in their order, and deletes those that are stored:

    python3 examples/outbox.py http://127.0.0.1:8080/channels/orders

PGHOST, PGDATABASE and the other variables of PostgreSQL name the database. The program needs psycopg
(pip install 'psycopg[binary]'). It ends when it loses the database or an event is refused; have
it started again then. The channel's state is the table "orders". After an outage that is longer than
the origin's --idempotency-age (10 minutes), an event whose answer was lost is stored again.
"""

import sys
import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import psycopg


def publish(idempotency_key, key, data, removed):
    query = urlencode({"key": key, "remove": str(removed).lower()})
    request = Request(f"{sys.argv[1]}?{query}", data.encode(), {"Content-Type": "application/json"})
    request.add_header("Idempotency-Key", str(idempotency_key))
    while True:
        try:
            with urlopen(request, timeout=10):
                return
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError) and error.code < 500 and error.code not in (408, 429):
                raise
            print(error, file=sys.stderr)
        time.sleep(1)


with psycopg.connect(autocommit=True) as database:
    # One program at a time publishes. Another one waits here, and goes on when the first has ended.
    database.execute("SELECT pg_advisory_lock(hashtext('outbox'))")
    database.execute("LISTEN outbox")
    while True:
        rows = database.execute("SELECT * FROM outbox ORDER BY id LIMIT 100").fetchall()
        for id, *event in rows:
            publish(*event)
            database.execute("DELETE FROM outbox WHERE id = %s", [id])
        if not rows:
            list(database.notifies(timeout=5, stop_after=1))
