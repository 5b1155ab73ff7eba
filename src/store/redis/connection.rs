//! One connection to Redis (or to each node of a cluster), with the time limits fred leaves open.
//!
//! Found by experiment on fred 10.1, and the reason for each setting: without a policy it never
//! reconnects; without a limit its queue grows for as long as Redis is away; a command to a silent
//! peer waits for ever, and its own detection of silence never fires under steady writes. So every
//! command has a time limit here, and a few that ran out in a row force a new connection.

use super::reply::text;
use crate::store::StoreError;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{Config, Options, ReconnectPolicy, Server};
use fred::types::{Builder, ClusterHash, CustomCommand, Value};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::Receiver as BroadcastReceiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// Commands that ran out of time in a row before the connection is made anew.
const SILENT_MAX: u32 = 2;
/// Commands that may wait for a connection; more are refused at once.
const QUEUE_MAX: usize = 20_000;
/// How often a command is written before it fails: reads may be repeated, and so may publishes,
/// which carry a key of their own.
const ATTEMPTS_MAX: u32 = 5;
/// Longest wait for a connection, and for a forced new one.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Most causes that are logged until all is well again.
const LOGGED_MAX: usize = 16;
/// An error of the server, as one of a wrong type of key, is logged once in this time.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);
/// Errors that concern the whole server, and not one key.
const SERVER_ERRORS: [&str; 7] =
    ["OOM", "NOREPLICAS", "READONLY", "MISCONF", "MASTERDOWN", "LOADING", "CLUSTERDOWN"];
/// How long a connection must have lasted before the log says that there is one again.
const STEADY_TIME: Duration = Duration::from_secs(30);
/// How often a command looks whether there is a connection again.
const REACHABLE_PAUSE: Duration = Duration::from_millis(10);
/// Pauses between tries to connect, in ms.
const RECONNECT_MS: (u32, u32) = (50, 1_000);

/// A Lua script, run by its digest.
pub struct Script {
    lua: String,
    digest: String,
}

/// A connection.
pub struct RedisConnection {
    client: Client,
    timeout: Duration,
    silent: AtomicU32,
    /// Why there is no connection, as long as there is none.
    cause: Cause,
}

/// Shared by all connections of a store, so that a cause is logged once.
pub type Cause = Arc<Mutex<Causes>>;

/// Why there is no connection.
#[derive(Debug, Default)]
pub struct Causes {
    now: Option<String>,
    /// What the log says already, since all was well.
    logged: Vec<String>,
    /// What the server has refused, by the code that its error begins with, and when that was logged.
    refused: Vec<(String, Instant)>,
}

impl Script {
    pub fn new(lua: &str) -> Self {
        Self { lua: lua.to_owned(), digest: fred::util::sha1_hash(lua) }
    }

    /// One that begins with what is known of a channel.
    pub fn of_channel(lua: &str) -> Self {
        Self::new(&[include_str!("channel.lua"), lua].concat())
    }
}

impl RedisConnection {
    /// Begins to connect, and goes on trying for as long as it lives. `timeout`: of each command.
    ///
    /// # Errors
    /// When the configuration cannot be right.
    pub fn open(config: &Config, timeout: Duration, cause: Cause) -> Result<Self, StoreError> {
        let mut config = config.clone();
        config.fail_fast = false;
        let mut builder = Builder::from_config(config);
        let (least, most) = RECONNECT_MS;
        builder.set_policy(ReconnectPolicy::new_exponential(0, least, most, 2));
        builder.with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIME_MAX;
            connection.internal_command_timeout = CONNECT_TIME_MAX;
            connection.max_command_attempts = ATTEMPTS_MAX;
            connection.max_command_buffer_len = QUEUE_MAX;
            connection.tcp.nodelay = Some(true);
            connection.tcp.user_timeout = Some(2 * CONNECT_TIME_MAX);
        });
        builder.with_performance_config(|performance| {
            performance.default_command_timeout = timeout;
        });
        let client = builder.build().map_err(|error| down(&error))?;
        tokio::spawn(note_causes(client.error_rx(), client.reconnect_rx(), cause.clone()));
        // Ends with the client.
        let _task = client.connect();
        Ok(Self { client, timeout, silent: AtomicU32::new(0), cause })
    }

    /// Whether it is known why there is no connection; the log says so already.
    pub fn has_cause(&self) -> bool {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).now.is_some()
    }

    /// Whether the log says already why commands fail.
    pub fn is_explained(&self) -> bool {
        let causes = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        causes.now.is_some() || !causes.refused.is_empty()
    }

    /// Ends once there is a connection, or it is not known to be gone.
    pub async fn reachable(&self) {
        while !self.client.is_connected() && self.has_cause() {
            tokio::time::sleep(REACHABLE_PAUSE).await;
        }
    }

    /// What went wrong, and why there is no connection where that is the reason.
    pub fn down(&self, error: &Error) -> StoreError {
        let mut causes = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.now.is_none() {
            causes.refuse(error.details());
        }
        StoreError::Down(format!("redis: {}", causes.now.as_deref().unwrap_or(error.details())))
    }

    /// The server has taken a write on every shard.
    pub fn takes_writes(&self) {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).accept();
    }

    /// Waits for the first connection, for a while.
    pub async fn connected(&self) -> Result<(), StoreError> {
        let connected = tokio::time::timeout(self.timeout, self.client.wait_for_connect()).await;
        let slow = |_| self.down(&Error::new(ErrorKind::Timeout, "no connection in time"));
        connected.map_err(slow)?.map_err(|error| self.down(&error))
    }

    /// Runs a script on the node that has `slot`.
    pub async fn run(
        &self,
        script: &Script,
        slot: u16,
        keys: &[String],
        arguments: &[Bytes],
    ) -> Result<Value, Error> {
        let run = async |name: &'static str, script: &str| {
            let head = [Value::from(script), Value::from(keys.len() as i64)];
            let keys = keys.iter().map(|key| Value::from(key.as_str()));
            let arguments = arguments.iter().map(|argument| Value::Bytes(argument.clone()));
            let words: Vec<Value> = head.into_iter().chain(keys).chain(arguments).collect();
            self.command(name, slot, words, self.timeout).await
        };
        match run("EVALSHA", &script.digest).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => run("EVAL", &script.lua).await,
            result => result,
        }
    }

    /// Sends a command, and waits for its answer for at most `timeout`.
    pub async fn command(
        &self,
        name: &'static str,
        slot: u16,
        words: Vec<Value>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let is_blocking = name == "XREAD";
        let command = CustomCommand::new_static(name, ClusterHash::Custom(slot), is_blocking);
        let options = Options { timeout: Some(timeout), ..Options::default() };
        let result = self.client.with_options(&options).custom::<Value, _>(command, words).await;
        match &result {
            Err(error) if *error.kind() == ErrorKind::Timeout => self.note_silence().await,
            _ => self.silent.store(0, Ordering::Relaxed),
        }
        result
    }

    /// Makes the connection anew. Whatever waits on the old one fails.
    pub async fn reconnect(&self) {
        // It goes on in the background when that takes longer.
        tokio::time::timeout(CONNECT_TIME_MAX, self.client.force_reconnection()).await.ok();
    }

    async fn note_silence(&self) {
        if self.silent.fetch_add(1, Ordering::Relaxed) + 1 == SILENT_MAX {
            self.reconnect().await;
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// The eviction policy of the servers, as far as they tell.
    pub async fn eviction_policy(&self, slot: u16) -> Option<String> {
        let words = vec![Value::from("GET"), Value::from("maxmemory-policy")];
        let answer = self.command("CONFIG", slot, words, self.timeout).await;
        let answer = answer.inspect_err(|error| {
            if error.details().contains("NOPERM") {
                tracing::warn!(%error, "maxmemory-policy cannot be looked at; it must be noeviction");
            }
        });
        let answer = answer.ok()?;
        match answer {
            Value::Array(mut pair) => text(pair.pop()?).ok(),
            Value::Map(map) => map.inner().into_values().next().and_then(|value| text(value).ok()),
            _ => None,
        }
    }

    /// Whether this user may not wait for replicas. No script can try that.
    pub async fn refuses_wait(&self, slot: u16) -> bool {
        let words = vec![Value::from(0), Value::from(1)];
        let answer = self.command("WAIT", slot, words, self.timeout).await;
        answer.is_err_and(|error| error.details().contains("NOPERM"))
    }

    pub async fn close(&self) {
        tokio::time::timeout(self.timeout, self.client.quit()).await.ok();
    }
}

/// Keeps the cause of what is wrong with a connection, and logs each cause once: also where the
/// connection comes and goes meanwhile, as with a server that refuses each write.
async fn note_causes(
    mut errors: BroadcastReceiver<(Error, Option<Server>)>,
    mut reconnects: BroadcastReceiver<Server>,
    cause: Cause,
) {
    let causes = || cause.lock().unwrap_or_else(PoisonError::into_inner);
    let mut connected_at = None::<Instant>;
    loop {
        let is_steady = async {
            match connected_at {
                Some(at) => tokio::time::sleep_until(at + STEADY_TIME).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = errors.recv() => match error {
                Ok((error, server)) => {
                    connected_at = None;
                    causes().fail(explain(&error, server.as_ref()));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            server = reconnects.recv() => match server {
                Err(RecvError::Closed) => return,
                _ => {
                    causes().now = None;
                    connected_at = Some(Instant::now());
                }
            },
            () = is_steady => {
                causes().recover();
                connected_at = None;
            }
        }
    }
}

impl Causes {
    fn fail(&mut self, cause: String) {
        let is_refusal = self.refused.iter().any(|(code, _)| cause.starts_with(code.as_str()));
        let is_known = is_refusal || self.logged.contains(&cause);
        if !is_known && self.logged.len() < LOGGED_MAX {
            tracing::error!("redis: {cause}");
            self.logged.push(cause.clone());
        }
        self.now = Some(cause);
    }

    /// The server has answered a command with an error. Each kind of error is logged once in a
    /// while, not for each of many publishes.
    fn refuse(&mut self, error: &str) {
        let code = error.split(' ').next().unwrap_or_default();
        let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
        self.refused.retain(|(_, at)| at.elapsed() < REFUSAL_PAUSE);
        let is_known = self.refused.iter().any(|(known, _)| known == code);
        if !is_code || is_known || self.refused.len() >= LOGGED_MAX {
            return;
        }
        if !self.logged.iter().any(|logged| logged.starts_with(code)) {
            tracing::error!("redis refuses a command: {error}");
        }
        self.refused.push((code.to_owned(), Instant::now()));
    }

    /// The server takes writes, so that an error of the whole server is over.
    fn accept(&mut self) {
        let known = self.refused.len();
        self.refused.retain(|(code, _)| !SERVER_ERRORS.contains(&code.as_str()));
        if self.refused.len() < known {
            tracing::info!("redis takes writes again");
        }
    }

    /// A connection has lasted for a while.
    fn recover(&mut self) {
        if self.now.is_none() && !self.logged.is_empty() {
            tracing::info!("redis is connected again");
            self.logged.clear();
        }
    }
}

/// The cause in the words of the way to Redis, and what to do about it.
fn explain(error: &Error, server: Option<&Server>) -> String {
    let text = error.details();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if text.starts_with("READONLY") {
        return "READONLY: the server is a replica, which takes no writes; lead --store to the master, \
                or promote this server"
            .to_owned();
    }
    let advice = if has(&["Connection refused"]) {
        "nothing listens there: start Redis, or correct the host and port in --store"
    } else if has(&["WRONGPASS", "NOAUTH", "invalid password", "AUTH"]) {
        "correct the user and password in --store (redis://user:password@host)"
    } else if has(&["lookup", "resolve", "Name or service not known", "dns"]) {
        "the host name in --store cannot be resolved"
    } else if has(&["UnknownIssuer", "InvalidCertificate", "certificate"]) {
        "its certificate is not trusted: name the file of its issuer in SSL_CERT_FILE"
    } else if has(&["InvalidContentType", "corrupt message", "InvalidMessage"]) {
        "the server does not speak TLS there: write redis:// instead of rediss://"
    } else if has(&["timed out"]) {
        "nothing answers there: correct the host and port, or write redis:// where the server does \
         not speak TLS"
    } else if has(&["Unexpected EOF", "Connection reset", "unexpected end", "closed"]) {
        "the server ended the connection; if it wants TLS, write rediss:// instead of redis://"
    } else {
        "see the log of Redis"
    };
    let server = server.map(|server| format!(" to {server}")).unwrap_or_default();
    format!("no connection{server}: {text}; {advice}")
}

/// What Redis or the way to it said, for the operator.
pub fn down(error: &Error) -> StoreError {
    StoreError::Down(format!("redis: {}", error.details()))
}
