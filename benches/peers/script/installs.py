"""Brings the peers to this machine, below target/peers, with the ordinary clients of the package
registries. What cannot be had is reported as missing, with the reason."""

import glob
import os
import re
import shutil
from pathlib import Path

CENTRIFUGO = "v6.9.1"
MERCURE = "latest"
DURABLE_STREAMS = "0.3.0"
SSE_PUBSUB = "1.4.5"
BETTER_SSE = "0.16.1"
# Longest time of one installation, in seconds. Centrifugo alone takes minutes to build.
PATIENCE = 1800


class Missing(Exception):
    """A server that cannot be measured here, and why."""


class Installer:
    def __init__(self, children, repository, headwater, say):
        self.children, self.say = children, say
        self.repository = Path(repository)
        self.target = self.repository / "target" / "peers"
        self.target.mkdir(parents=True, exist_ok=True)
        self.headwater_path = headwater and Path(headwater).resolve()
        self.versions = {}
        self.done = {}

    def need(self, name):
        """Installs a package once; the path that its server needs."""
        if name not in self.done:
            try:
                self.done[name] = getattr(self, name)()
            except Missing as missing:
                self.done[name] = missing
        if isinstance(self.done[name], Missing):
            raise self.done[name]
        return self.done[name]

    def run(self, *command, environment=None, directory=None):
        self.say(f"install: {' '.join(map(str, command))}")
        environment = {**os.environ, **(environment or {})}
        status, output, errors = self.children.call(
            list(map(str, command)), PATIENCE, environment=environment, directory=directory
        )
        if status != 0:
            raise Missing(f"`{Path(command[0]).name} {command[1]}` failed: {reason(errors)}")
        return output.strip()

    def tool(self, name, package):
        """A program of this machine, from its Debian package where it is missing."""
        if shutil.which(name) is None and os.geteuid() == 0 and shutil.which("apt-get"):
            # The comparison starts the servers itself: at this runlevel the package does not.
            environment = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
            self.run("apt-get", "update", "-qq", environment=environment)
            self.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", package,
                     environment=environment)
        path = shutil.which(name)
        if path is None:
            raise Missing(f"{name} is not installed (Debian package {package})")
        return path

    def client(self):
        """The load client and the bare loop."""
        manifest = self.repository / "benches" / "peers" / "Cargo.toml"
        self.run("cargo", "build", "--release", "--locked", "--manifest-path", manifest,
                 "--target-dir", self.target / "client")
        return self.target / "client" / "release" / "peers"

    def headwater(self):
        path = self.headwater_path or self.repository / "target" / "release" / "headwater"
        commit = ""
        if self.headwater_path is None:
            self.run("cargo", "build", "--release", "--locked", "--target-dir",
                     self.repository / "target", directory=self.repository)
            head = self.run("git", "rev-parse", "--short", "HEAD", directory=self.repository)
            commit = f" ({head})"
        self.versions["Headwater"] = self.run(path, "--version").split()[-1] + commit
        return path

    def redis(self):
        server = self.tool("redis-server", "redis-server")
        self.tool("redis-benchmark", "redis-tools")
        found = re.search(r"v=(\S+)", self.run(server, "--version"))
        self.versions["Redis"] = found.group(1) if found else "unknown"
        return server

    def nchan(self):
        """The module is unpacked and not installed, so that the nginx of this machine stays as it
        is, and the user need not be root."""
        nginx = self.tool("nginx", "nginx")
        directory = self.target / "nchan"
        directory.mkdir(exist_ok=True)
        if not glob.glob(f"{directory}/*.deb"):
            if os.geteuid() == 0:
                self.run("apt-get", "update", "-qq")
            self.run("apt-get", "download", "-o", "APT::Sandbox::User=root", "libnginx-mod-nchan",
                     directory=directory)
        package = glob.glob(f"{directory}/*.deb")[0]
        self.run("dpkg-deb", "-x", package, directory)
        version = self.run("dpkg-deb", "-f", package, "Version")
        status, _, text = self.children.call([nginx, "-v"], 10)
        self.versions["nchan"] = f"{version}, nginx {text.strip().rpartition('/')[2]}"
        return nginx, directory / "usr/lib/nginx/modules/ngx_nchan_module.so"

    def centrifugo(self):
        binary = self.target / "go" / "bin" / "centrifugo"
        if f"\t{CENTRIFUGO}\t" not in self.go_version(binary):
            self.run("go", "install", f"github.com/centrifugal/centrifugo/v6@{CENTRIFUGO}",
                     environment={"GOBIN": str(binary.parent)})
        self.versions["Centrifugo"] = CENTRIFUGO
        return binary

    def mercure(self):
        self.go()
        directory = self.target / "mercure"
        binary = directory / "mercure"
        if not binary.exists():
            directory.mkdir(exist_ok=True)
            source = self.repository / "benches" / "peers" / "servers" / "mercure.go"
            shutil.copy(source, directory / "main.go")
            (directory / "go.mod").write_text("module peers/mercure\n")
            self.run("go", "get", f"github.com/dunglas/mercure/caddy@{MERCURE}",
                     directory=directory)
            self.run("go", "mod", "tidy", directory=directory)
            self.run("go", "build", "-o", binary, ".", directory=directory)
        found = re.search(r"dunglas/mercure\t(\S+)", self.go_version(binary))
        self.versions["Mercure"] = found.group(1) if found else "unknown"
        return binary

    def go(self):
        return self.tool("go", "golang-go")

    def go_version(self, binary):
        """The modules that a binary was built from."""
        self.go()
        return self.run("go", "version", "-m", binary) if binary.exists() else ""

    def durable_streams(self):
        root = self.target / "cargo"
        binary = root / "bin" / "durable-streams-server"
        if not binary.exists() or not self.run(binary, "--version").endswith(DURABLE_STREAMS):
            self.run("cargo", "install", "--locked", "--root", root, "--target-dir",
                     self.target / "cargo-build", f"durable-streams-server@{DURABLE_STREAMS}")
        self.versions["Durable Streams server"] = DURABLE_STREAMS
        return binary

    def node(self):
        return self.tool("node", "nodejs")

    def package(self, name, version):
        node, directory = self.node(), self.target / "node"
        self.tool("npm", "npm")
        directory.mkdir(exist_ok=True)
        modules = directory / "node_modules"
        found = modules / name / "package.json"
        if not found.exists() or f'"version": "{version}"' not in found.read_text():
            self.run("npm", "install", "--prefix", directory, "--no-audit", "--no-fund",
                     f"{name}@{version}")
        self.versions[name] = f"{version}, Node.js {self.run(node, '--version')}"
        return node, modules

    def sse_pubsub(self):
        return self.package("sse-pubsub", SSE_PUBSUB)

    def better_sse(self):
        return self.package("better-sse", BETTER_SSE)


def reason(errors):
    """The lines of an error that say what is wrong, without addresses and paths of the machine."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if "downloading" not in line][-2:]
    text = " ".join(telling) or "no reason given"
    text = re.sub(r"https?://\S+", "the registry", text)
    return re.sub(r"(?<!\S)/\S+", "a file", text)[:300]
