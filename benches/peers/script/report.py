"""The results as Markdown: medians with the smallest and the largest value."""

import datetime
import os
import platform
import statistics
from pathlib import Path

BEGIN, END = "<!-- benches/peers: begin -->", "<!-- benches/peers: end -->"
KIB = 1024
# A server that delivers less of what was offered than this part has its rate in the table.
KEEPS_UP = 0.95


def whole(value):
    return f"{value:,.0f}"


def number(value):
    """Three digits that count, and commas between thousands."""
    value = float(f"{value:.3g}")
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    if value < 0.1:
        return f"{value:.3g}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values, unit="", show=number):
    """The median, and the range where there are several values."""
    values = [value for value in values if value is not None]
    if not values:
        return "none"
    unit = unit and f" {unit}"
    median = show(statistics.median(values))
    if len(values) == 1 or min(values) == max(values):
        return f"{median}{unit}"
    return f"{median}{unit} ({show(min(values))} to {show(max(values))})"


def of(result, *names):
    """A value inside a result, or none."""
    for name in names:
        result = result.get(name) if result else None
    return result


def table(head, lines):
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


class Tables:
    def __init__(self, servers, results, failures):
        self.servers, self.results, self.failures = servers, results, failures

    def rows(self, row, *columns):
        """A line for each server that was measured: its label and what the columns say."""
        lines = []
        for server in self.servers:
            runs = self.results.get(row, {}).get(server.name)
            if runs:
                lines.append([server.label, *(column(server, runs) for column in columns)])
            elif (row, server.label) in self.failures:
                lines.append([server.label, "failed", *[""] * (len(columns) - 1)])
        return lines

    def cpu(self, row):
        def column(_server, runs):
            text = spread([of(run, "server_cpu_us_per_delivery") for run in runs], "us")
            offered = runs[0]["offered"] * runs[0]["subscribers"]
            delivered = statistics.median(run["deliveries_per_second"] for run in runs)
            if delivered < KEEPS_UP * offered:
                text += f"; delivers {number(delivered)}/s of {number(offered)}"
            return text + incidents(runs)

        return column

    def beside_loop(self, row, name="server_cpu_us_per_delivery"):
        """The ratio to the bare loop, of values of the same run."""

        def column(server, runs):
            loop = self.results.get(row, {}).get("loop")
            if server.name == "loop" or not loop:
                return ""
            return spread(ratios(runs, loop, name))

        return column

    def fanout(self, row):
        return table(
            ["server", "CPU of the server a delivery", "bare loop = 1"],
            self.rows(row, self.cpu(row), self.beside_loop(row)),
        )

    def idle(self):
        def each(_server, runs):
            grown = [
                (run["memory_after_bytes"] - run["memory_before_bytes"]) / run["streams_opened"] / KIB
                for run in runs if run["streams_opened"]
            ]
            return spread(grown, "KiB")

        def clients(_server, runs):
            return spread([run["streams_opened"] for run in runs], show=whole) + incidents(runs)

        return table(
            ["server", "resident memory for an idle client", "clients"],
            self.rows("idle", each, clients),
        )

    def flood(self):
        value = lambda *names, unit="": lambda _server, runs: spread(
            [of(run, *names) for run in runs], unit)
        lost = lambda _server, runs: spread(
            [run["lost"] for run in runs], show=whole) + incidents(runs)
        return table(
            ["server", "deliveries a second", "events accepted a second",
             "publish to receive, p99", "lost deliveries", "publish acknowledged, p50"],
            self.rows(
                "flood", value("deliveries_per_second"), value("events_per_second"),
                value("receive_ms", "p99", unit="ms"), lost, value("answer_ms", "p50", unit="ms"),
            ),
        )

    def latency(self):
        at = lambda part: lambda _server, runs: spread(
            [of(run, "receive_ms", part) for run in runs], "ms")
        with_incidents = lambda server, runs: at("p99")(server, runs) + incidents(runs)
        return table(["server", "publish to receive, p50", "p99"],
                     self.rows("latency", at("p50"), with_incidents))

    def publish(self):
        rate = lambda _server, runs: spread([run["events_per_second"] for run in runs])
        p50 = lambda _server, runs: spread([of(run, "answer_ms", "p50") for run in runs], "ms")
        text = table(["server", "publishes a second", "acknowledged, p50"],
                     self.rows("publish", lambda server, runs: rate(server, runs) + incidents(runs),
                               p50))
        lines = [
            self.ratio("headwater-disk", "durable-streams-durable",
                       "Headwater with its store on disk beside Durable Streams in its durable mode"),
            self.ratio("headwater-redis", "redis-xadd", "Headwater on Redis beside `XADD` alone"),
        ]
        lines = [f"- {line}" for line in lines if line]
        return text + ("\n" + "\n".join(lines) + "\n" if lines else "")

    def ratio(self, name, base, text):
        results = self.results.get("publish", {})
        found = ratios(results.get(name, []), results.get(base, []), "events_per_second")
        return f"{text}: {spread(found)} times as many publishes." if found else None

    def search(self):
        highest = lambda _server, runs: spread([run["highest_rate"] for run in runs])
        return table(["server", "highest rate, events/s"], self.rows("search", highest))


def ratios(runs, others, name):
    """A value beside that of another server in the same run."""
    bases = {other["in_run"]: of(other, name) for other in others}
    pairs = [(of(run, name), bases.get(run["in_run"])) for run in runs]
    return [value / base for value, base in pairs if value and base]


def incidents(runs):
    """What must not be silent: streams and events that did not take part, and false deliveries."""
    names = {
        "streams_refused": "streams refused", "streams_ended": "streams ended by the server",
        "events_refused": "publishes refused", "events_unanswered": "publishes without an answer",
        "duplicates": "duplicates", "reordered": "out of order", "damaged": "damaged",
    }
    found = []
    for name, text in names.items():
        most = max(run.get(name, 0) for run in runs)
        found += [f"up to {whole(most)} {text}"] if most else []
    return "; " + ", ".join(found) if found else ""


def short(row, result):
    """A line for the progress on the standard error."""
    if row == "search":
        return f"{result['highest_rate']} events/s"
    parts = [f"{number(result['events_per_second'])} events/s"]
    for name, text in (("server_cpu_us_per_delivery", "us a delivery"),
                       ("client_cpu_us_per_delivery", "us of the client"),
                       ("lost", "lost"), ("deliveries_per_second", "deliveries/s")):
        value = of(result, name)
        parts += [f"{number(value)} {text}"] if value is not None else []
    for name, text in (("receive_ms", "receive"), ("answer_ms", "answer")):
        if of(result, name):
            parts.append(f"{text} p50 {number(result[name]['p50'])} p99 {number(result[name]['p99'])} ms")
    return ", ".join(parts) + incidents([result])


def noise(results):
    """What other processes took from the machine meanwhile, which every figure suffers from."""
    cores = [run["other_cores"] for row in results.values() for runs in row.values()
             for run in runs if "other_cores" in run]
    return (f"\nBeside server and load client, other processes and interrupts used "
            f"{spread(cores)} cores." if cores else "")


def machine():
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    cores = len(os.sched_getaffinity(0))
    return (f"{cores} cores ({model}), {kib / KIB / KIB:.0f} GiB of memory, "
            f"Linux {platform.release()}")


def command(options):
    text = f"benches/peers/run --runs {options.runs} --seconds {options.seconds:g}"
    text += f" --only {','.join(options.only)}" if options.only else ""
    return text + (f" --rows {','.join(options.rows)}" if len(options.rows) < 7 else "")


SECTIONS = (
    ("fanout-1000", "1,000 clients, 100 events/s", lambda tables: tables.fanout("fanout-1000")),
    ("fanout-8000", "8,000 clients, 10 events/s", lambda tables: tables.fanout("fanout-8000")),
    ("idle", "Idle clients", lambda tables: tables.idle()),
    ("flood", "1,000 clients, 4 publishers that offer 4,000 events/s", lambda tables: tables.flood()),
    ("latency", "1 client, 200 events/s", lambda tables: tables.latency()),
    ("publish", "Publishes from 64 connections, without clients", lambda tables: tables.publish()),
    ("search", "Highest rate with 1,000 clients and a p99 below 100 ms",
     lambda tables: tables.search()),
)

METHOD = """\
Server and load client shared this machine. Events have 200 bytes. A cell has the median of {runs} and, in
parentheses, the smallest and the largest value; in each run the servers had their turns one after the other. CPU
is user and system time of all processes of the server. Memory counts each shared page once, and not what the
kernel needs for sockets. Losses, duplicates and latencies are counted from a number and a time in each event. A
publisher has one request under way, so a slow answer lowers the rate that it offers. A server that falls behind
sends several events at once, which costs less CPU for each of them than sending them one by one."""


def markdown(options, servers, results, versions, missing, failures):
    tables = Tables(servers, results, failures)
    runs = f"{options.runs} runs" if options.runs > 1 else "1 run"
    runs += f" of {options.seconds:g} s"
    today = datetime.date.today().isoformat()
    parts = [
        f"`{command(options)}` wrote this section on {today}.\nMachine: {machine()}.\n",
        METHOD.format(runs=runs) + noise(results) + "\n",
    ]
    for row, title, of_tables in SECTIONS:
        if row in options.rows:
            parts.append(f"### {title}\n\n{of_tables(tables)}")
    lines = [[server.label, versions.get(server.package, ""), server.settings] for server in servers]
    parts.append("### Versions and settings\n\n" + table(["server", "version", "settings"], lines))
    absent = [f"- {label}: {reason}" for label, reason in missing.items()]
    absent += [f"- {label}, {row}: failed: {reason}" for (row, label), reason in failures.items()]
    if absent:
        parts.append("### Missing or failed\n\n" + "\n".join(absent) + "\n")
    return "\n".join(parts)


def update(path, text):
    """Replaces what stands between the two marks of a document."""
    document = path.read_text()
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"peers: {path.name} lacks the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
