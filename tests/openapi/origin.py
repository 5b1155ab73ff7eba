"""Starts origins for the comparisons, and makes tokens for them."""

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "target/openapi"
OPENAPI = ROOT / "src/http/openapi.json"
ASYNCAPI = ROOT / "src/http/asyncapi.json"
SECRET = "a secret of the tests, 32 bytes or more"
EDGE_SECRET = "the secret of the edge"
# The range is below the ports that the system gives to clients.
PORTS = range(23000, 24000)


def free_ports(count):
    found = []
    for port in PORTS:
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
                found.append(port)
            except OSError:
                continue
        if len(found) == count:
            return found
    raise RuntimeError("no port is free")


class Origin:
    """An origin that runs inside of a `with` block."""

    def __init__(self, *flags):
        self.port, self.admin_port = free_ports(2)
        self.url, self.admin = (f"http://127.0.0.1:{port}" for port in (self.port, self.admin_port))
        self.command = [os.environ["TEST_HEADWATER"], "serve", "--store", "memory", "--log", "warn"]
        self.command += [
            "--listen",
            f"127.0.0.1:{self.port}",
            "--admin-listen",
            f"127.0.0.1:{self.admin_port}",
        ]
        self.command += flags

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{self.admin}/readyz", timeout=1)
                return self
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        raise RuntimeError(f"the origin does not answer: {self.command}")

    def __exit__(self, *_error):
        if self.process.poll() is not None:
            raise RuntimeError(f"the origin ended with the status {self.process.returncode}")
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def token(scope, seconds=3600):
    """A token (HS256) with these rights; a negative number of seconds makes one that has expired."""

    def part(value):
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    text = (
        part({"alg": "HS256", "typ": "JWT"}) + "." + part({"scope": scope, "exp": int(time.time()) + seconds})
    )
    return text + "." + part(hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest())
