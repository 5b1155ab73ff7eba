"""Runs all comparisons of the API descriptions with an origin. tests/openapi/run starts it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import documents
import exchanges
import frames
from origin import EDGE_SECRET, HOME, OPENAPI, SECRET, Origin, token

HERE = Path(__file__).parent
# The heartbeat is shorter than a segment, so that comments stand in the streams.
FLAGS = ["--segment", "1s", "--heartbeat", "300ms", "--long-poll-timeout", "300ms", "--surrogate-keys"]
STREAMS = ["--include-operation-id", "subscribe", "--include-operation-id", "subscribeHead"]
OTHERS = ["--exclude-operation-id", "subscribe", "--exclude-operation-id", "subscribeHead"]
REQUESTS = ["--phases", "examples,coverage,fuzzing"]


def fuzz(name, document, url, seconds, seed, *options):
    """Starts schemathesis in a process of its own. One process has one worker, because Python 3.11
    sometimes fails to parse in several threads at once (`AST constructor recursion depth`)."""
    log = HOME / f"{name}.log"
    command = [HOME / "bin/schemathesis", "--config-file", HERE / "schemathesis.toml", "run", document]
    command += ["--url", url, "--seed", str(seed), "--max-time", str(max(1, int(seconds))), *options]
    with log.open("w") as out:
        # schemathesis keeps files in its working directory, and finds hooks.py from there.
        run = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, cwd=HOME)
    # The last test case may still wait for a stream, and the report takes a moment.
    return name, run, log, time.monotonic() + seconds + 60


def ends_well(name, run, log, until):
    try:
        status = run.wait(max(1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        run.kill()
        status = "it did not end in time"
    text = log.read_text()
    last = text.strip().splitlines()[-1].strip("= ") if text.strip() else "no output"
    cases = next((line.strip() for line in text.splitlines() if " generated, " in line), "")
    print(f"{'ok  ' if status == 0 else 'FAIL'} generated requests, {name}: {last}; {cases}", flush=True)
    if status != 0:
        print(f"exit status: {status}\n{text}")
    return status == 0


def with_generated_requests(seconds, seed):
    results = []
    with Origin(*FLAGS, "--demo") as origin:
        exchanges.prepare(origin)
        # Streams wait most of the time, so their requests run beside the others.
        streams = fuzz("streams", OPENAPI, origin.url, seconds * 0.7, seed, *STREAMS, *REQUESTS)
        for name, share, options in [
            ("other paths", 0.35, [*OTHERS, "--exclude-tag", "admin", *REQUESTS]),
            ("sequences", 0.35, ["--exclude-tag", "admin", "--phases", "stateful"]),
        ]:
            results.append(ends_well(*fuzz(name, OPENAPI, origin.url, seconds * share, seed, *options)))
        results.append(ends_well(*streams))
        for name, url, options in [
            ("admin listener", origin.admin, []),
            ("probes of the public listener", origin.url, ["--exclude-path", "/metrics"]),
        ]:
            options = ["--include-tag", "admin", *REQUESTS, *options]
            results.append(ends_well(*fuzz(name, OPENAPI, url, seconds * 0.05, seed, *options)))
    flags = ["--private", "*", "--token-secret", SECRET, "--edge-auth", EDGE_SECRET]
    with Origin(*FLAGS, *flags) as origin:
        rights = {"Authorization": f"Bearer {token('publish:* subscribe:*')}"}
        exchanges.prepare(origin, rights)
        options = ["--include-path-regex", "^/channels/", "-H", f"Authorization: {rights['Authorization']}"]
        # `ignored_auth` sends each kind of request without a token and with a wrong one.
        run = fuzz(
            "private channels", private_document(), origin.url, seconds * 0.2, seed, *options, *REQUESTS
        )
        results.append(ends_well(*run))
    return all(results)


def private_document():
    """The document for an origin whose channels are all private: no operation on a channel goes without
    a token. The document itself says that a token is needed for some channels only, and schemathesis
    would then never check that one is required."""
    document = json.loads(OPENAPI.read_text())
    for path, methods in document["paths"].items():
        for operation in methods.values() if path.startswith("/channels/") else []:
            if isinstance(operation, dict) and "security" in operation:
                operation["security"] = [one for one in operation["security"] if one]
    changed = HOME / "private.json"
    changed.write_text(json.dumps(document))
    return changed


def main():
    # Without a handler the process would end at once, and leave its origins behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    results = [documents.check(), exchanges.check(FLAGS), frames.check(FLAGS)]
    results.append(with_generated_requests(seconds, seed))
    if not all(results):
        print("tests/openapi: the descriptions and the origin differ")
        sys.exit(1)
    print("tests/openapi: the descriptions and the origin agree")


if __name__ == "__main__":
    main()
