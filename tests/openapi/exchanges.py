"""Fixed requests for the answers that generated requests rarely reach: ends of channels, repeated
publishes, gaps, shed responses and refusals. Each answer is compared with openapi.json."""

import contextlib
import gzip
import http.client
import itertools

import requests
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import hooks  # noqa: F401 (it registers how texts are read)
from documents import sse
from origin import EDGE_SECRET, OPENAPI, SECRET, Origin, token

CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
# Every path uses those that its template names; the checks of answers do not look at the values.
PATH_PARAMETERS = {"channel": "a", "version": "0", "module": "share.js"}
STREAM = "/channels/{channel}"
HISTORY = "/channels/{channel}/history"
STATE = "/channels/{channel}/state"
LINES = {"Content-Type": "application/x-ndjson"}
CONNECTIONS = 4
ONLY_JSON = {"Accept": "application/json"}


def prepare(origin, headers=None):
    """Fills the channels that hooks.py and schemathesis.toml name."""

    def send(method, channel, body=None, **query):
        answer = requests.request(
            method, f"{origin.url}/channels/{channel}", params=query, data=body, headers=headers
        )
        assert answer.ok, answer.text

    for channel in ("ended", "reopened"):
        send("POST", channel, "first", key="k")
        send("POST", channel, "second")
        send("DELETE", channel)
    send("DELETE", "reopened", reopen="1")
    send("POST", "reopened", "third")
    for key in ("x", "y", "z"):
        send("POST", "keyed", f"state of {key}", key=key, event="price")
    # Of more than 100 events a page has only the first, and the page is never the last one.
    for number in range(120):
        send("POST", "long", f"event {number}")


class Exchanges:
    """Sends requests to one origin, and collects what differs from the description."""

    def __init__(self, origin):
        self.origin = origin
        self.document = schemathesis.openapi.from_path(OPENAPI)
        self.faults = []
        self.count = 0

    def send(self, status, method, path, *holds, channel=None, **options):
        """Sends a request, and compares the answer with its description, with the expected status, and
        with texts that the body or a header must hold. Returns the answer."""
        url = self.origin.url + path.replace("{channel}", channel or "")
        answer = requests.request(method, url, timeout=10, **options)
        return self.judge(answer, status, method, path, holds, options)

    def send_file(self, status, version, *holds):
        """Sends a request for a module of the client."""
        path = "/headwater/{version}/{module}"
        url = self.origin.url + f"/headwater/{version}/share.js"
        options = {"allow_redirects": False}
        return self.judge(requests.get(url, timeout=10, **options), status, "GET", path, holds, options)

    def judge(self, answer, status, method, path, holds, options):
        self.count += 1
        case = self.document[path][method].Case(path_parameters=PATH_PARAMETERS)
        faults = (
            []
            if answer.status_code == status
            else [f"the status is {answer.status_code} instead of {status}"]
        )
        try:
            case.validate_response(answer, checks=CHECKS)
        except Exception as error:  # The checks raise failures, groups of failures, and errors.
            faults += [str(one) for one in getattr(error, "exceptions", [error])]
        whole = answer.text + "\n".join(f"{name.lower()}: {value}" for name, value in answer.headers.items())
        faults += [f"the answer lacks {text!r}" for text in holds if text not in whole]
        for fault in faults:
            self.faults.append(
                f"{method} {path} {options}: {fault}\n{answer.status_code} {answer.text[:500]}"
            )
        return answer


def of_channels(to):
    """Publishes, ends and reads, at an origin without a key."""
    one = to.send(201, "POST", STREAM, channel="a", data="x").json()["id"]
    to.send(201, "POST", STREAM, channel="a", data="")
    to.send(
        201,
        "POST",
        STREAM,
        '"ids"',
        channel="a",
        data='{"data":1}\n{"data":"b","event":"e","key":"k"}\n',
        headers=LINES,
    )
    to.send(201, "POST", STREAM, '"id"', channel="a", json=[1, 2])
    key = {"Idempotency-Key": "one"}
    to.send(201, "POST", STREAM, channel="a", data="x", headers=key)
    to.send(200, "POST", STREAM, channel="a", data="x", headers=key)
    to.send(422, "POST", STREAM, "idempotency-key-reused", channel="a", data="y", headers=key)
    to.send(201, "POST", STREAM, channel="a", data=gzip.compress(b"x"), headers={"Content-Encoding": "gzip"})
    to.send(
        415, "POST", STREAM, "content-encoding", channel="a", data="x", headers={"Content-Encoding": "br"}
    )
    to.send(413, "POST", STREAM, "too-large", channel="a", data=b"x" * (1024 * 1024 + 1))
    to.send(413, "POST", STREAM, "too-large", channel="a", data='{"data":1}\n' * 10001, headers=LINES)
    to.send(400, "POST", STREAM, '"line":2', channel="a", data='{"data":1}\n{"dat":2}\n', headers=LINES)
    to.send(
        400,
        "POST",
        STREAM,
        '"line":1',
        '"field":"event"',
        channel="a",
        data='{"data":1,"event":"gap"}\n',
        headers=LINES,
    )
    to.send(400, "POST", STREAM, "bad-field", channel="a", data=b"\xff")
    to.send(400, "POST", STREAM, "bad-field", channel="a", data="x", params={"access_token": "t"})
    to.send(400, "POST", STREAM, "bad-field", channel="a,b", data="x")
    to.send(400, "POST", STREAM, "bad-field", channel="a", data="x", params={"remove": "true"})
    for name in ("event", "key", "remove"):
        to.send(
            400,
            "POST",
            STREAM,
            "bad-field",
            channel="a",
            data='{"data":1}',
            headers=LINES,
            params={name: "1"},
        )
    to.send(404, "POST", STREAM, "not-found", channel="headwater.fault", data="x")
    to.send(503, "GET", STREAM, "fault", channel="headwater.fault")
    to.send(404, "DELETE", STREAM, "no-channel", channel="never")
    end = to.send(200, "DELETE", STREAM, channel="ended").json()["id"]
    to.send(409, "POST", STREAM, "channel-closed", channel="ended", data="x")
    to.send(204, "GET", STREAM, channel="ended", params={"after": end})
    to.send(204, "HEAD", STREAM, channel="ended", headers={"Last-Event-ID": end})
    to.send(200, "GET", STREAM, "event: end", channel="ended", params={"after": "0-0"})
    to.send(200, "DELETE", STREAM, "reopened", channel="reopened", params={"reopen": "1"})
    for query in [
        {"format": "raw"},
        {"format": "json"},
        {"mode": "hold"},
        {"mode": "hold", "format": "json"},
    ]:
        to.send(200, "GET", STREAM, '"state":1', channel="keyed", params=query)
        to.send(200, "GET", STREAM, "state of x", channel="keyed,a", params={**query, "after": "0-0"})
    to.send(200, "GET", STREAM, "max-age=60", channel="a", params={"mode": "hold", "after": one})
    to.send(200, "GET", STREAM, '"reason":"ahead"', channel="a", params={"after": "9999999999999-0"})
    to.send(200, "GET", STREAM, '"reason":"trimmed"', channel="a", params={"after": "1-0"})
    to.send(200, "GET", STREAM, '"reason":"unknown"', channel="a", params={"after": "yesterday"})
    to.send(
        200, "GET", STREAM, '"reason":"unknown"', channel="a", params={"after": "1-0_2-0", "last": "none"}
    )
    to.send(400, "GET", STREAM, "bad-field", channel="a", params={"last": "0"})
    to.send(400, "GET", STREAM, "bad-field", channel="a,a")
    to.send(400, "GET", STREAM, '"limit":8', channel="a,b,c,d,e,f,g,h,i")
    to.send(200, "GET", HISTORY, "immutable", channel="long")
    to.send(200, "GET", HISTORY, "previous", channel="long", params={"last": "10"})
    to.send(200, "GET", HISTORY, "trimmed_to", channel="long", params={"after": "1-0"})
    to.send(200, "GET", HISTORY, '"type":"end"', channel="ended")
    to.send(400, "GET", HISTORY, "exclude each other", channel="a", params={"after": one, "last": "1"})
    to.send(400, "GET", HISTORY, "bad-field", channel="a", params={"last": "1", "limit": "1"})
    to.send(400, "GET", HISTORY, "bad-field", channel="a", params={"after": "18446744073709551616-0"})
    to.send(404, "GET", HISTORY, "not-found", channel="a,b")
    to.send(200, "GET", STATE, "state of z", channel="keyed")
    to.send(200, "GET", "/", "Headwater", "max-age=60")
    entry = to.send(200, "GET", "/headwater.js", "export").text
    to.send_file(200, entry.split("/")[2], "immutable")
    to.send_file(302, "0.0.1-abc", "location")
    to.send(200, "GET", "/healthz", "ok")
    to.send(200, "GET", "/readyz", "ready")
    for path in (STREAM, HISTORY, STATE):
        page = {"Origin": "http://localhost:3000", "Access-Control-Request-Headers": "x-trace"}
        to.send(204, "OPTIONS", path, "access-control-allow-headers: x-trace", channel="a", headers=page)


def of_requests(to):
    """Refusals of the request as a whole."""
    to.send(403, "GET", STREAM, "problem:host", channel="a", headers={"Host": "live.example"})
    foreign = {"Origin": "https://foreign.example"}
    to.send(403, "POST", STREAM, "problem:origin", channel="a", data="x", headers=foreign)
    answer = to.send(200, "GET", STATE, channel="a", headers=foreign)
    if "access-control-allow-origin" in answer.headers:
        to.faults.append("a page of another site may read the state")
    to.send(400, "GET", STATE, "bad-field", channel="a", headers={"Host": "a/b"})
    to.send(431, "GET", STATE, channel="a", headers={"X-Long": "x" * 70000})
    to.send(426, "GET", "/ws", "problem:websocket")
    # `requests` writes its own `Transfer-Encoding` while it prepares a request.
    prepared = requests.Request("POST", f"{to.origin.url}/channels/a", data=iter([b"x"])).prepare()
    prepared.headers["Transfer-Encoding"] = "gzip, chunked"
    answer = requests.Session().send(prepared, timeout=10)
    to.judge(answer, 501, "POST", STREAM, ["transfer-coding"], {"headers": prepared.headers})


def of_tokens(to):
    """Reads and publishes at an origin whose channels are all private. The description says where the
    credentials are."""
    schemes = to.document.raw_schema["components"]["securitySchemes"]
    bearer = {"Authorization": f"Bearer {token('subscribe:* publish:*')}"}
    weak = {"Authorization": f"Bearer {token('subscribe:other publish:other')}"}
    expired = token("subscribe:*", -3600)
    to.send(201, "POST", STREAM, channel="a", data="x", headers=bearer)
    to.send(401, "POST", STREAM, "problem:token", "www-authenticate: Bearer", channel="a", data="x")
    to.send(403, "POST", STREAM, "problem:scope", channel="a", data="x", headers=weak)
    to.send(401, "POST", STREAM, channel="a", data="x", cookies={"headwater": token("publish:*")})
    to.send(
        400,
        "POST",
        STREAM,
        channel="a",
        data="x",
        params={"access_token": token("publish:*")},
        headers=bearer,
    )
    for path in (STREAM, HISTORY, STATE):
        to.send(401, "GET", path, "problem:token", channel="a")
        to.send(403, "GET", path, "problem:scope", channel="a", headers=weak)
        for good in [
            {"headers": bearer},
            {"params": {schemes["queryToken"]["name"]: token("subscribe:a")}},
            {"cookies": {schemes["cookieToken"]["name"]: token("subscribe:a")}},
        ]:
            to.send(200, "GET", path, "private, no-store", channel="a", **good)
        vouched = {schemes["edgeVouching"]["name"]: EDGE_SECRET}
        to.send(200, "GET", path, "public", channel="a", headers=vouched)
    shed = to.send(
        200, "GET", STREAM, "headwater-shed: token-expired", channel="a", params={"access_token": expired}
    )
    if [event.get("event") for event in sse(shed.text)] != ["shed"]:
        to.faults.append(f"a shed response has other events: {shed.text}")
    to.send(
        401, "GET", STREAM, "problem:token", channel="a", params={"access_token": expired}, headers=ONLY_JSON
    )
    to.send(401, "GET", HISTORY, "problem:token", channel="a", params={"access_token": expired})


def of_limits(to):
    """Answers to a client with as many connections as it may have. The origin closes connections over
    twice the limit at once, so the limit leaves room for some that are just being closed."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            held = http.client.HTTPConnection("127.0.0.1", to.origin.port, timeout=10)
            stack.enter_context(contextlib.closing(held))
            held.request("GET", "/healthz")
            held.getresponse().read()
        to.send(200, "GET", STREAM, "headwater-shed: client", "event: shed", channel="a")
        to.send(200, "HEAD", STREAM, "headwater-shed: client", channel="a")
        to.send(503, "GET", STREAM, "problem:client", "retry-after", channel="a", headers=ONLY_JSON)
        to.send(429, "GET", HISTORY, "problem:client", "retry-after", channel="a")
        to.send(429, "POST", STREAM, "problem:client", channel="a", data="x")
        to.send(429, "GET", "/", "problem:client")
        to.send(429, "GET", "/readyz", "problem:client")


def of_rates(to):
    """Answers to a publisher that is too fast, and at an origin that is full."""
    too_fast = itertools.dropwhile(
        lambda answer: answer.status_code == 201,
        (requests.post(f"{to.origin.url}/channels/a", data="x", timeout=10) for _ in range(100)),
    )
    to.judge(next(too_fast), 429, "POST", STREAM, ["problem:rate", "retry-after"], {})
    to.send(413, "POST", STREAM, "too-large", channel="b", data='{"data":1}\n' * 2, headers=LINES)
    to.send(507, "POST", STREAM, "limit-reached", channel="c", data="x")


def check(flags):
    faults, count = [], 0
    for flags_of_its_own, steps in [
        ([], (of_channels, of_requests)),
        (["--private", "*", "--token-secret", SECRET, "--edge-auth", EDGE_SECRET], (of_tokens,)),
        (["--max-connections-per-client", str(CONNECTIONS)], (of_limits,)),
        (["--publish-rate", "1", "--max-channels", "1"], (of_rates,)),
    ]:
        with Origin(*flags, *flags_of_its_own) as origin:
            to = Exchanges(origin)
            if of_channels in steps:
                prepare(origin)
            for step in steps:
                step(to)
            faults += to.faults
            count += to.count
    for fault in faults:
        print(f"FAIL {fault}")
    print(f"{'FAIL' if faults else 'ok  '} exchanges over HTTP: {count}", flush=True)
    return not faults
