"""The servers, each with the settings that its documentation recommends for production, as far as
it names any, and with the requests that subscribe and publish.

Where a default would end streams, or forget events, before a measurement is over, it is raised: what
a server does with a client that comes back is not compared here."""

import base64
import hashlib
import hmac
import json
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

EVENT_BYTES = 200
KEY = "a-key-of-the-comparison-with-at-least-32-bytes"
# The rows of a server that has no rows of its own.
ALL_ROWS = ("fanout-1000", "fanout-8000", "flood", "idle", "latency", "publish")


@dataclass
class Launch:
    """A server on a port: how it starts, and what the load client sends to it."""

    command: list
    subscribe: str
    publish: str
    environment: dict = field(default_factory=dict)
    # Requests before the first publish, such as the one that creates a stream.
    setup: list = field(default_factory=list)
    # Servers that this one needs, which start before it and do not count for its costs.
    before: list = field(default_factory=list)


@dataclass
class Server:
    name: str
    label: str
    package: str
    settings: str
    # (what `need` returned, directory, ports) -> Launch
    launch: object
    rows: tuple = ALL_ROWS
    # Streams end at whole multiples of this time, in seconds.
    boundary: int = 0


def request(method, path, host, headers=(), body=None):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body is not None:
        length = len(body.encode()) + (EVENT_BYTES - len("{event}")) * body.count("{event}")
        lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines) + "\r\n\r\n" + (body or "")


def subscribe(path, host):
    return request("GET", path, host, ["Accept: text/event-stream"])


def bare_loop(binary, _directory, ports):
    host = f"127.0.0.1:{ports[0]}"
    text = ["Content-Type: text/plain"]
    return Launch(
        [binary, "loop", host],
        subscribe("/bench", host),
        request("POST", "/bench", host, text, "{event}"),
    )


def headwater(binary, directory, ports, store):
    """`--segment 10m` is the longest segment, and `--segment-bytes` leaves room for the events of a
    measurement, so that no stream ends in it (docs/reference/flags.md). Publishes have no limit of
    their rate, like those of the other servers."""
    host = f"127.0.0.1:{ports[0]}"
    command = [
        binary, "serve", "--listen", host, "--admin-listen", f"127.0.0.1:{ports[1]}",
        "--store", store.format(directory=directory, port=ports[2]),
        "--segment", "10m", "--segment-bytes", "1GiB", "--publish-rate", "0", "--log", "warn",
    ]
    return Launch(
        command,
        subscribe("/channels/bench", host),
        request("POST", "/channels/bench", host, ["Content-Type: text/plain"], "{event}"),
    )


def headwater_redis(paths, directory, ports):
    binary, redis = paths
    launch = headwater(binary, directory, ports, "redis://127.0.0.1:{port}")
    launch.before = [redis_server(redis, directory, ports[2])]
    return launch


def redis_server(binary, directory, port):
    """Without persistence, so that the disk is in neither side of the comparison."""
    return [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory),
            "--save", "", "--appendonly", "no", "--loglevel", "warning"]


NGINX = """
daemon off;
{user}
worker_processes auto;
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
load_module {module};
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  # The default closes the connection of a publisher after 1,000 requests.
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  nchan_shared_memory_size 512M;
  server {{
    listen {host};
    location = /sub {{
      nchan_subscriber eventsource;
      nchan_channel_id bench;
      nchan_subscriber_first_message newest;
    }}
    location = /pub {{
      nchan_publisher http;
      nchan_channel_id bench;
      nchan_message_buffer_length 10000;
      nchan_message_timeout 5m;
    }}
  }}
}}
"""


def nchan(paths, directory, ports, files=65536, root=True):
    """README of nchan: the directives `nchan_subscriber` and `nchan_publisher` ("Configuring Nchan"),
    `nchan_shared_memory_size` ("Memory Storage": comfortably above what is used), and
    `nchan_message_buffer_length` with `nchan_message_timeout` ("Publisher Endpoints"). Its default of
    10 messages is less than 3 ms of the fastest row. `worker_processes auto` is Debian's default."""
    nginx, module = paths
    host = f"127.0.0.1:{ports[0]}"
    text = NGINX.format(
        user="user root;" if root else "", files=files, connections=files - 100, host=host,
        directory=directory, module=module,
    )
    path = Path(directory) / "nginx.conf"
    path.write_text(text)
    return Launch(
        [nginx, "-p", str(directory), "-c", str(path), "-e", f"{directory}/error.log"],
        subscribe("/sub", host),
        request("POST", "/pub", host, ["Content-Type: text/plain"], "{event}"),
    )


def centrifugo(binary, directory, ports):
    """Documentation of Centrifugo 6: "Unidirectional Server-Sent Events" (`uni_sse.enabled`,
    `cf_connect`), "Server API walkthrough" (`http_api.key`), "Channels and namespaces"
    (`allow_subscribe_for_client`, `allow_subscribe_for_anonymous`; history is off by default), and
    "Infrastructure tuning" (only the limit of open files)."""
    host = f"127.0.0.1:{ports[0]}"
    allowed = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
    configuration = {
        "http_server": {"address": "127.0.0.1", "port": ports[0]},
        "http_api": {"key": KEY},
        "client": {"allow_anonymous_connect_without_token": True},
        "uni_sse": {"enabled": True},
        "channel": {"without_namespace": allowed},
        "log": {"level": "warn"},
        # It would call a host outside of this machine.
        "usage_stats": {"disabled": True},
    }
    path = Path(directory) / "config.json"
    path.write_text(json.dumps(configuration))
    connect = urllib.parse.quote(json.dumps({"subs": {"bench": {}}}))
    headers = ["Content-Type: application/json", f"X-API-Key: {KEY}"]
    return Launch(
        [binary, "--config", str(path)],
        subscribe(f"/connection/uni_sse?cf_connect={connect}", host),
        request("POST", "/api/publish", host, headers, '{"channel":"bench","data":"{event}"}'),
    )


CADDYFILE = """
{{
  admin off
  auto_https off
  persist_config off
  log {{
    level WARN
  }}
}}
http://{host} {{
  mercure {{
    issuer https://publisher.example {{
      publisher {{
        jwt {key}
      }}
    }}
    resource_identifier {audience}
    anonymous
    write_timeout 0s
    transport bolt {{
      path {directory}/mercure.db
    }}
  }}
  respond "Not Found" 404
}}
"""


def mercure(binary, directory, ports):
    """Documentation of the Mercure.rocks hub: "Configuration" (`issuer`, `resource_identifier`,
    `anonymous`, `write_timeout`, and the transport `bolt`, which is the default), "Authorization" for
    the token, and "Load testing" (the limit of open files).

    The registries of the machine on which this was written do not have the hub, so it has never
    run here: compare its first results with its own load test."""
    host = f"127.0.0.1:{ports[0]}"
    audience = f"http://{host}/.well-known/mercure"
    path = Path(directory) / "Caddyfile"
    path.write_text(CADDYFILE.format(host=host, key=KEY, audience=audience, directory=directory))
    headers = [
        f"Authorization: Bearer {mercure_token(audience)}",
        "Content-Type: application/x-www-form-urlencoded",
    ]
    return Launch(
        [binary, "run", "--config", str(path), "--adapter", "caddyfile"],
        subscribe("/.well-known/mercure?match=bench&topic=bench", host),
        request("POST", "/.well-known/mercure", host, headers, "topic=bench&data={event}"),
        environment={"HOME": str(directory), "XDG_DATA_HOME": str(directory)},
    )


def mercure_token(audience):
    """An access token with the right to publish to every topic."""
    now = int(time.time())
    rights = {
        "type": "https://mercure.rocks/authorization-detail",
        "actions": ["publish"],
        "topics": [{"match": "*"}],
    }
    claims = {
        "iss": "https://publisher.example", "sub": "bench", "client_id": "bench", "jti": str(now),
        "aud": audience, "iat": now, "exp": now + 86400, "authorization_details": [rights],
    }
    part = lambda value: base64.urlsafe_b64encode(value).rstrip(b"=")
    head = {"alg": "HS256", "typ": "at+jwt"}
    signed = b".".join(part(json.dumps(value).encode()) for value in (head, claims))
    signature = hmac.new(KEY.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + part(signature)).decode()


def durable_streams(binary, directory, ports, mode):
    """CRATE_DOCS.md and config/prod.toml of the crate: `storage.mode`, `limits.*` (above what a
    measurement sends), and `transport.connection.sse_reconnect_interval_secs = 0`, which disables
    forced reconnects."""
    host = f"127.0.0.1:{ports[0]}"
    text = ["Content-Type: text/plain"]
    return Launch(
        [binary],
        subscribe("/v1/stream/bench?offset=now&live=sse", host),
        request("POST", "/v1/stream/bench", host, text, "{event}"),
        environment={
            "DS_SERVER__BIND_ADDRESS": host,
            "DS_STORAGE__MODE": mode,
            "DS_STORAGE__DATA_DIR": str(directory),
            "DS_LIMITS__MAX_MEMORY_BYTES": str(4 << 30),
            "DS_LIMITS__MAX_STREAM_BYTES": str(4 << 30),
            "DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS": "0",
            "DS_OBSERVABILITY__RUST_LOG": "warn",
        },
        setup=[request("PUT", "/v1/stream/bench", host, text, "")],
    )


def node(paths, _directory, ports, script):
    """README of sse-pubsub ("Usage"), and the guide "Broadcasting with channels" of better-sse."""
    program, modules = paths
    host = f"127.0.0.1:{ports[0]}"
    return Launch(
        [program, script, str(ports[0])],
        subscribe("/", host),
        request("POST", "/", host, ["Content-Type: text/plain"], "{event}"),
        environment={"NODE_ENV": "production", "NODE_PATH": str(modules)},
    )
