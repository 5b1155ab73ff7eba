//! Real Redis servers on free ports, with what can happen to them.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A `redis-server` with its files in a directory of its own. Ends with the value.
pub struct RedisServer {
    child: Child,
    directory: TempDir,
    flags: Vec<String>,
    pub port: u16,
}

impl RedisServer {
    /// Without persistence.
    pub fn start() -> Self {
        Self::with(&["--save", ""])
    }

    pub fn with(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let flags: Vec<String> = flags.iter().map(|flag| flag.to_string()).collect();
        // Somebody may take a free port first: then the next one.
        loop {
            let port = free_port();
            if let Some(child) = launch(&directory, port, &flags) {
                return Self { child, directory, flags, port };
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }

    /// Starts again what was killed, on the same port with the same files.
    pub fn start_again(&mut self) {
        let child = launch(&self.directory, self.port, &self.flags);
        self.child = child.expect("its port is free");
    }

    /// One command, by redis-cli.
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

pub fn command(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(words).output();
    let output = output.expect("redis-cli runs (Debian package redis-tools)");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

pub fn signal(pid: u32, name: &str) {
    let words = [format!("-{name}"), pid.to_string()];
    assert!(Command::new("kill").args(words).status().expect("kill runs").success());
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// `None`: the port is taken.
fn launch(directory: &TempDir, port: u16, flags: &[String]) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
    command.arg("--dir").arg(directory.path()).args(flags);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("redis-server runs (Debian package redis-server)");
    let begun = Instant::now();
    while crate::redis_kit::command(port, &["PING"]) != "PONG" {
        if child.try_wait().expect("a child").is_some() {
            return None;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "redis answers");
        #[expect(clippy::disallowed_methods, reason = "no runtime here")]
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(child)
}

/// A way to a server that can stop passing anything on, without a word to either side.
pub struct Relay {
    pub port: u16,
    frozen: tokio::sync::watch::Sender<bool>,
    accepting: tokio::task::AbortHandle,
}

impl Relay {
    pub async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let (frozen, watched) = tokio::sync::watch::channel(false);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                let Ok(far) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                let ((near_read, near_write), (far_read, far_write)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(near_read, far_write, watched.clone()));
                tokio::spawn(pass(far_read, near_write, watched.clone()));
            }
        });
        Self { port: own, frozen, accepting: accepting.abort_handle() }
    }

    pub fn freeze(&self, is_frozen: bool) {
        self.frozen.send_replace(is_frozen);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes bytes on while it is not frozen. Ends with either side.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut frozen: tokio::sync::watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
