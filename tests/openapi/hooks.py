"""Extensions of schemathesis for tests/openapi/run.

Each of them covers something that an OpenAPI document cannot express, or that schemathesis does not
do by itself. None of them hides a failure: they change which requests are generated and how their
bodies are encoded, and the checks of the responses stay as they are.
"""

import gzip
import json
import zlib

import schemathesis
from schemathesis.core import NotSet
from schemathesis.core.parameters import ParameterLocation

LINES = {
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-lines",
}
SEQUENCE = "application/json-seq"
ENCODED = ("text/plain", "application/octet-stream", "application/json", SEQUENCE, *sorted(LINES))
# tests/openapi/run fills these channels, and the demo publishes to the first two.
FILLED = ("ticker", "departures", "keyed", "ended", "reopened", "trimmed")
STARTS = ("after", "before", "since", "last")


@schemathesis.serializer(*ENCODED)
def body(context, value):
    """Encodes a body. schemathesis has no encoding for batches, and compresses no body for which it
    has generated `Content-Encoding: gzip`."""
    kind = context.case.media_type
    if kind in LINES or kind == SEQUENCE:
        # A value that is not a list is a negative test of the batch as a whole. It must stay wrong
        # as one line, so an object is sent as a list on that line.
        objects = value if isinstance(value, list) else [[value]]
        texts = [json.dumps(one, default=str) + "\n" for one in objects]
        encoded = "".join("\x1e" + text if kind == SEQUENCE else text for text in texts).encode()
    elif isinstance(value, bytes):
        encoded = value
    elif kind != "application/json" and isinstance(value, str):
        encoded = value.encode()
    else:
        encoded = json.dumps(value, default=str).encode()
    coding = (context.case.headers or {}).get("Content-Encoding")
    return gzip.compress(encoded) if coding in ("gzip", "x-gzip") else encoded


@schemathesis.deserializer("text/plain", "text/html", "application/openmetrics-text")
def text(context, response):
    """Makes texts comparable with their schemas. schemathesis compares JSON and streams only."""
    return response.text


@schemathesis.hook
def filter_case(context, case):
    """Drops requests that break a rule between several parameters.

    OpenAPI describes each parameter by itself, so schemathesis takes these requests for valid. The
    descriptions of the parameters say the rules in words, and exchanges.py checks the refusals."""
    query = {name: value for name, value in (case.query or {}).items() if value not in ("", None)}
    operation = case.operation.definition.raw.get("operationId")
    if operation in ("readHistory", "readHistoryHead"):
        starts = sum(name in query for name in STARTS)
        return starts <= 1 and not ("last" in query and "limit" in query)
    if operation == "publish":
        coding = (case.headers or {}).get("Content-Encoding")
        if coding in ("gzip", "x-gzip") and isinstance(case.body, NotSet):
            # No body is an empty text, and an empty text is not gzip.
            return False
        if case.media_type in LINES or case.media_type == SEQUENCE:
            return not any(name in query for name in ("event", "key", "remove"))
        return query.get("remove") not in ("true", "1") or "key" in query
    return True


@schemathesis.hook
def map_case(context, case):
    """Sends most requests for a stream to channels with events. The dictionaries of schemathesis.toml
    cannot be bound to a list. The choice depends on the generated names only, so that a seed gives
    the same requests again."""
    operation = case.operation.definition.raw.get("operationId")
    is_stream = operation in ("subscribe", "subscribeHead")
    if not is_stream or case.meta is None or case.meta.is_negative_at(ParameterLocation.PATH):
        return case
    choice = zlib.crc32(repr(case.path_parameters).encode())
    if choice % 10 < 7:
        first, second = choice // 10 % len(FILLED), choice // 100 % len(FILLED)
        names = dict.fromkeys((FILLED[first], FILLED[second]) if choice % 3 == 0 else (FILLED[first],))
        case.path_parameters["channel"] = ",".join(names)
    return case


@schemathesis.hook
def before_call(context, case, kwargs):
    """Closes the connection after the status 101. `requests` would send its next request on the
    upgraded connection, where the origin reads it as WebSocket frames."""
    if case.path == "/ws":
        kwargs["hooks"] = {"response": close_upgraded}


def close_upgraded(response, *_arguments, **_options):
    if response.status_code == 101:
        response.raw.close()
