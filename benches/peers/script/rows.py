"""The measurements: which servers, which load, and one run of a server under a load."""

import csv
import http.client
import json
import os
import re
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass

import servers
from children import ended, wait_until
from installs import Missing
from servers import ALL_ROWS, Server


@dataclass
class Load:
    """A row: the parameters of the load client."""

    subscribers: int
    publishers: int
    # Events a second of all publishers together; 0 = each sends when it has its answer.
    rate: float
    # A fixed time of the measurement, in seconds, instead of --seconds.
    seconds: float = 0


LOADS = {
    # Four publishers reach the rate where an answer takes longer than the time between two events.
    "fanout-1000": Load(1_000, 4, 100),
    "fanout-8000": Load(8_000, 4, 10),
    "flood": Load(1_000, 4, 4_000),
    # One event a second shows that the streams live. Servers build their state in the first seconds.
    # Allocators keep the memory of a burst of requests for some seconds.
    "idle": Load(15_000, 1, 1, seconds=15),
    "latency": Load(1, 1, 200),
    "publish": Load(0, 64, 0),
}
# The search for the highest rate: 16 publishers, because one request under way for each of 4 would
# limit a server that waits for its disk.
SEARCH_SUBSCRIBERS, SEARCH_PUBLISHERS = 1_000, 16
SEARCH_FROM, SEARCH_TO = 1_000, 64_000
# Steps of the search after the first rate that fails, each of which halves what is uncertain.
SEARCH_HALVINGS = 3
P99_MAX_MS = 100
# A server that takes less of the offered events than this part does not hold the rate.
HELD = 0.95

WARM_UP, OPEN_TIME, DRAIN_TIME = 1.0, 60.0, 15.0
READY_SECONDS = 15


def all_servers(client):
    """The servers in the order of the table."""
    of_headwater = lambda store: lambda need, *rest: servers.headwater(
        need("headwater"), *rest, store=store)
    with_redis = lambda need, *rest: servers.headwater_redis(
        (need("headwater"), need("redis")), *rest)
    streams = lambda mode: lambda need, *rest: servers.durable_streams(
        need("durable_streams"), *rest, mode=mode)
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = lambda package, name: lambda need, *rest: servers.node(
        need(package), *rest, script=f"{here}/servers/{name}")
    searched = (*ALL_ROWS, "search")
    longest = "`--segment 10m --segment-bytes 1GiB --publish-rate 0`"
    only = ("publish",)
    return [
        Server("loop", "bare loop", "", "one `send` for each client and event",
               lambda need, *rest: servers.bare_loop(client, *rest)),
        Server("headwater-memory", "Headwater, memory", "Headwater", f"`--store memory`, {longest}",
               of_headwater("memory"), searched, boundary=600),
        Server("headwater-disk", "Headwater, disk", "Headwater", f"`--store disk:…`, {longest}",
               of_headwater("disk:{directory}/data"), searched, boundary=600),
        Server("headwater-redis", "Headwater, Redis", "Headwater",
               "`--store redis://…`, Redis without persistence", with_redis, only),
        Server("redis-xadd", "Redis alone, `XADD`", "Redis",
               "`redis-benchmark -c 64`, without persistence", None, only),
        Server("nchan", "nchan", "nchan",
               "`worker_processes auto`, `nchan_message_buffer_length 10000`, "
               "`nchan_shared_memory_size 512M`",
               lambda need, *rest: servers.nchan(need("nchan"), *rest, files=file_limit(),
                                                 root=os.geteuid() == 0)),
        Server("centrifugo", "Centrifugo", "Centrifugo", "memory engine, `uni_sse`, no history",
               lambda need, *rest: servers.centrifugo(need("centrifugo"), *rest)),
        Server("mercure", "Mercure", "Mercure", "transport `bolt`, `anonymous`",
               lambda need, *rest: servers.mercure(need("mercure"), *rest)),
        Server("durable-streams", "Durable Streams, memory", "Durable Streams server",
               "`storage.mode = \"memory\"`, no forced reconnects", streams("memory")),
        Server("durable-streams-durable", "Durable Streams, durable", "Durable Streams server",
               "`storage.mode = \"file-durable\"`", streams("file-durable"), only),
        Server("sse-pubsub", "sse-pubsub", "sse-pubsub", "defaults, `maxStreamDuration` 10 min",
               script("sse_pubsub", "sse-pubsub.cjs")),
        Server("better-sse", "better-sse", "better-sse", "defaults, one channel",
               script("better_sse", "better-sse.cjs")),
    ]


def file_limit():
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Failed(Exception):
    """A measurement that could not be made, and why."""


class Bench:
    """Runs servers under loads, one at a time."""

    def __init__(self, children, installer, client, seconds, say):
        self.children, self.installer, self.client = children, installer, client
        self.seconds, self.say = seconds, say
        self.number = 0

    def measure(self, server, row):
        """The result of one measurement, with a fresh process of the server."""
        if server.name == "redis-xadd":
            return self.redis_benchmark()
        if row == "search":
            return self.search(server)
        return self.load(server, LOADS[row])

    def load(self, server, load):
        work = tempfile.mkdtemp(prefix="work-", dir=self.installer.target)
        started = []
        try:
            with open(os.path.join(work, "output"), "wb") as log:
                return self.load_in(work, log, started, server, load)
        finally:
            for process in reversed(started):
                self.children.stop(process)
            shutil.rmtree(work, ignore_errors=True)

    def load_in(self, work, log, started, server, load):
        ports = [self.children.port() for _ in range(3)]
        launch = server.launch(self.installer.need, work, ports)
        environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("HEADWATER_", "CENTRIFUGO_", "DS_", "MERCURE_"))
        }
        environment.update(launch.environment)
        for command in launch.before:
            started.append(self.children.start(list(map(str, command)), environment, log))
            self.await_port(started[-1], ports[2], work)
        process = self.children.start(list(map(str, launch.command)), environment, log)
        started.append(process)
        self.await_port(process, ports[0], work)
        for text in launch.setup:
            self.ask(ports[0], text)
        # A publish before the measurement makes the channel, and shows that the requests are right.
        self.ask(ports[0], launch.publish.replace("{event}", "x" * servers.EVENT_BYTES))
        subscribers = min(load.subscribers, file_limit() - 500)
        seconds = load.seconds or self.seconds
        longest = OPEN_TIME + WARM_UP + seconds + DRAIN_TIME + 10
        if server.boundary:
            self.await_boundary(server.boundary, WARM_UP + seconds + 15)
        self.number = self.number % 60_000 + 1
        address = f"127.0.0.1:{ports[0]}"
        plan = {
            "subscribe_address": address, "publish_address": address,
            "subscribe": launch.subscribe, "publish": launch.publish,
            "server": process.pid, "run": self.number, "subscribers": subscribers,
            "publishers": load.publishers, "rate": load.rate, "warm_up": WARM_UP,
            "time": seconds, "open_time": OPEN_TIME, "drain_time": DRAIN_TIME,
        }
        status, output, errors = self.children.call(
            [str(self.client), "measure"], longest, json.dumps(plan)
        )
        if status != 0:
            raise Failed(f"the load client: {errors.strip()[-200:]}")
        if ended(process):
            raise Failed(f"the server ended: {tail(work)}")
        return {**json.loads(output), "subscribers": subscribers, "offered": load.rate}

    def await_port(self, process, port, work):
        def ready():
            if ended(process):
                raise Failed(f"the server ended at once: {tail(work)}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        if not wait_until(ready, READY_SECONDS):
            raise Failed(f"no one listens after {READY_SECONDS} s: {tail(work)}")

    def ask(self, port, text):
        """Sends a request until it is answered with success."""
        head, _, body = text.partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        problem = "no answer"

        def answered():
            nonlocal problem
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request(method, path, body.encode(), headers)
                response = connection.getresponse()
                problem = f"{response.status} {response.read(200).decode(errors='replace')}"
                return 200 <= response.status < 300
            except (OSError, http.client.HTTPException) as error:
                problem = str(error)
                return False
            finally:
                connection.close()

        if not wait_until(answered, READY_SECONDS):
            raise Failed(f"{method} {path.partition('?')[0]}: {problem}")

    def await_boundary(self, length, seconds):
        """Waits for the next boundary where a measurement would run into it."""
        left = length - time.time() % length
        if left < seconds:
            self.say(f"waiting {left:.0f} s for the end of the segment")
            time.sleep(left + 0.5)

    def search(self, server):
        """The highest rate that a server holds, between two bounds. A rate fails when it fails
        twice, because a single pause of the machine is longer than the limit of the p99."""
        held, failed, rate, halvings = 0, None, SEARCH_FROM, 0
        while rate <= SEARCH_TO and halvings <= SEARCH_HALVINGS:
            holds = self.holds(server, rate) or self.holds(server, rate)
            held, failed = (rate, failed) if holds else (held, rate)
            halvings += failed is not None
            rate = rate * 2 if failed is None else (held + failed) // 2
        return {"highest_rate": held}

    def holds(self, server, rate):
        """Whether a server takes this rate and delivers all of it in time."""
        load = Load(SEARCH_SUBSCRIBERS, SEARCH_PUBLISHERS, rate, seconds=min(4, self.seconds))
        result = self.load(server, load)
        p99 = (result["receive_ms"] or {}).get("p99", float("inf"))
        taken = result["events_per_second"]
        holds = (p99 < P99_MAX_MS and taken >= HELD * rate and result["lost"] == 0
                 and result["streams_opened"] - result["streams_ended"] == load.subscribers)
        self.say(f"  {rate} events/s: p99 {p99:.1f} ms, {taken:.0f}/s taken, "
                 f"{'holds' if holds else 'fails'}")
        return holds

    def redis_benchmark(self):
        """`XADD` of the same bytes over the same number of connections, without Headwater."""
        redis = self.installer.need("redis")
        work, started = tempfile.mkdtemp(prefix="work-", dir=self.installer.target), []
        try:
            port = self.children.port()
            with open(os.path.join(work, "output"), "wb") as log:
                command = servers.redis_server(redis, work, port)
                started.append(self.children.start(command, dict(os.environ), log))
                self.await_port(started[0], port, work)
            count = 20_000
            rate = self.xadd(port, count)["events_per_second"]
            count = int(min(max(rate * self.seconds, count), 5_000_000))
            return self.xadd(port, count)
        finally:
            for process in started:
                self.children.stop(process)
            shutil.rmtree(work, ignore_errors=True)

    def xadd(self, port, count):
        command = [
            "redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-c", "64", "-n", str(count),
            "--csv", "XADD", "bench", "MAXLEN", "~", "100000", "*", "data",
            "x" * servers.EVENT_BYTES,
        ]
        status, output, errors = self.children.call(command, 120)
        names, *lines = list(csv.reader(output.splitlines())) or [[]]
        if status != 0 or not lines:
            raise Failed(f"redis-benchmark: {(errors or output).strip()[-200:]}")
        found = dict(zip(names, lines[-1]))
        times = {part: float(found[f"{part}_latency_ms"]) for part in ("p50", "p99")}
        return {"events_per_second": float(found["rps"]), "answer_ms": times}


def tail(work):
    """The last words of a server, without the paths of this machine."""
    text = ""
    for name in ("output", "error.log"):
        path = os.path.join(work, name)
        if os.path.exists(path):
            with open(path, errors="replace") as log:
                text += log.read()[-2_000:]
    return re.sub(r"/\S+", "a file", " ".join(text.split())[-300:]) or "it said nothing"


__all__ = ["Bench", "Failed", "LOADS", "Load", "Missing", "all_servers"]
