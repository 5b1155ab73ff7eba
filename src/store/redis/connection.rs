//! A connection to Redis (or to each node of a cluster), with the time limits that fred (the Redis
//! library) lacks.
//!
//! The settings result from experiments with fred 10.1. Without a reconnect policy, fred never
//! reconnects. Without a limit, its command queue grows as long as Redis is unreachable. A command
//! to a peer that does not answer waits forever, and fred's own detection of such a peer never
//! fires under steady writes. Every command therefore has a time limit here, and two timeouts in a
//! row force a new connection.

use super::reply::text;
use crate::store::StoreError;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{Config, Options, ReconnectPolicy, Server};
use fred::types::{Builder, ClusterHash, CustomCommand, Value};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::Receiver as BroadcastReceiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// How many timeouts in a row force a new connection.
const SILENT_MAX: u32 = 2;
/// Maximum number of commands that wait for a connection. Further commands are refused at once.
const QUEUE_MAX: usize = 20_000;
/// How often a command is written before it fails. Reads can be repeated, and so can publishes,
/// because each has an idempotency key.
const ATTEMPTS_MAX: u32 = 5;
/// Maximum time to connect, and to wait for a forced reconnection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Maximum number of causes that are logged until the connection has recovered.
const LOGGED_MAX: usize = 16;
/// The interval in which each kind of server error, for example a key of the wrong type, is logged
/// once.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);
/// Errors that concern the whole server and not a single key.
const SERVER_ERRORS: [&str; 7] =
    ["OOM", "NOREPLICAS", "READONLY", "MISCONF", "MASTERDOWN", "LOADING", "CLUSTERDOWN"];
/// How long a connection must last before its recovery is logged.
const STEADY_TIME: Duration = Duration::from_secs(30);
/// The interval at which a waiting command checks for a connection.
const REACHABLE_PAUSE: Duration = Duration::from_millis(10);
/// The shortest and the longest pause between attempts to connect, in ms.
const RECONNECT_MS: (u32, u32) = (50, 1_000);

/// A Lua script that is run by its digest.
pub struct Script {
    lua: String,
    digest: String,
}

/// A connection to Redis.
pub struct RedisConnection {
    client: Client,
    timeout: Duration,
    silent: AtomicU32,
    /// The cause of a missing connection.
    cause: Cause,
}

/// The causes are shared by all connections of a store, so that each cause is logged once.
pub type Cause = Arc<Mutex<Causes>>;

/// The causes of a missing connection and of refused commands.
#[derive(Debug, Default)]
pub struct Causes {
    now: Option<String>,
    /// The causes that were logged since the last recovery.
    logged: Vec<String>,
    /// The codes with which recent server errors began, and the time at which each was logged.
    refused: Vec<(String, Instant)>,
}

impl Script {
    pub fn new(lua: &str) -> Self {
        Self { lua: lua.to_owned(), digest: fred::util::sha1_hash(lua) }
    }

    /// Creates a script that begins with `channel.lua`.
    pub fn of_channel(lua: &str) -> Self {
        Self::new(&[include_str!("channel.lua"), lua].concat())
    }
}

impl RedisConnection {
    /// Begins to connect, and reconnects as long as the value exists. `timeout` applies to each
    /// command.
    ///
    /// # Errors
    /// Fails when the configuration is invalid.
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
        // The task ends with the client.
        let _task = client.connect();
        Ok(Self { client, timeout, silent: AtomicU32::new(0), cause })
    }

    /// Whether the cause of a missing connection is known, and therefore was logged.
    pub fn has_cause(&self) -> bool {
        self.cause.lock().now.is_some()
    }

    /// Whether the reason why commands fail was logged.
    pub fn is_explained(&self) -> bool {
        let causes = self.cause.lock();
        causes.now.is_some() || !causes.refused.is_empty()
    }

    /// Completes once there is a connection, or at once while no cause of a missing connection is
    /// known.
    pub async fn reachable(&self) {
        while !self.client.is_connected() && self.has_cause() {
            tokio::time::sleep(REACHABLE_PAUSE).await;
        }
    }

    /// Converts an error of a command. If there is no connection, the result contains the reason
    /// for that instead.
    pub fn down(&self, error: &Error) -> StoreError {
        let mut causes = self.cause.lock();
        if causes.now.is_none() {
            causes.refuse(error.details());
        }
        StoreError::Down(format!("redis: {}", causes.now.as_deref().unwrap_or(error.details())))
    }

    /// Notes that every shard has accepted a write.
    pub fn takes_writes(&self) {
        self.cause.lock().accept();
    }

    /// Waits for the first connection, at most for the timeout.
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
        match self.run_as("EVALSHA", &script.digest, slot, keys, arguments).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                self.run_as("EVAL", &script.lua, slot, keys, arguments).await
            }
            result => result,
        }
    }

    /// Runs a script without its digest, which needs other permissions.
    pub async fn run_text(
        &self,
        script: &Script,
        slot: u16,
        keys: &[String],
    ) -> Result<Value, Error> {
        self.run_as("EVAL", &script.lua, slot, keys, &[]).await
    }

    async fn run_as(
        &self,
        name: &'static str,
        script: &str,
        slot: u16,
        keys: &[String],
        arguments: &[Bytes],
    ) -> Result<Value, Error> {
        let head = [Value::from(script), Value::from(keys.len() as i64)];
        let keys = keys.iter().map(|key| Value::from(key.as_str()));
        let arguments = arguments.iter().map(|argument| Value::Bytes(argument.clone()));
        let words: Vec<Value> = head.into_iter().chain(keys).chain(arguments).collect();
        self.command(name, slot, words, self.timeout).await
    }

    /// Sends a command and waits for its answer, at most for `timeout`.
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

    /// Replaces the connection. Commands that wait on the old one fail.
    pub async fn reconnect(&self) {
        // A reconnection that takes longer continues in the background.
        tokio::time::timeout(CONNECT_TIME_MAX, self.client.force_reconnection()).await.ok();
    }

    async fn note_silence(&self) {
        if self.silent.fetch_add(1, Ordering::Relaxed) + 1 == SILENT_MAX {
            self.reconnect().await;
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// Returns the eviction policy of the server, if the server reports it.
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

    /// Whether this user may not run a command.
    pub async fn refuses(&self, name: &'static str, words: &[&str], slot: u16) -> bool {
        let words = words.iter().map(|word| Value::from(*word)).collect();
        let answer = self.command(name, slot, words, self.timeout).await;
        answer.is_err_and(|error| error.details().contains("NOPERM"))
    }

    pub async fn close(&self) {
        tokio::time::timeout(self.timeout, self.client.quit()).await.ok();
    }
}

/// Keeps the current cause of a missing connection, and logs each cause once. This also holds while
/// the connection repeatedly fails and recovers, for example with a server that refuses each write.
async fn note_causes(
    mut errors: BroadcastReceiver<(Error, Option<Server>)>,
    mut reconnects: BroadcastReceiver<Server>,
    cause: Cause,
) {
    let causes = || cause.lock();
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

    /// Notes that the server answered a command with an error. Each kind of error is logged once
    /// per `REFUSAL_PAUSE` and not for each publish.
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

    /// Notes that the server accepts writes, so that errors of the whole server are over.
    fn accept(&mut self) {
        let known = self.refused.len();
        self.refused.retain(|(code, _)| !SERVER_ERRORS.contains(&code.as_str()));
        if self.refused.len() < known {
            tracing::info!("redis takes writes again");
        }
    }

    /// Notes that a connection has lasted for `STEADY_TIME`.
    fn recover(&mut self) {
        if self.now.is_none() && !self.logged.is_empty() {
            tracing::info!("redis is connected again");
            self.logged.clear();
        }
    }
}

/// Describes an error of the connection, and what the operator can do about it.
fn explain(error: &Error, server: Option<&Server>) -> String {
    let text = error.details().trim_end_matches('.');
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if text.starts_with("READONLY") {
        return "READONLY: the server is a replica, which takes no writes; lead --store to the master, \
                or promote this server"
            .to_owned();
    }
    let advice = if text.starts_with("NOPERM") {
        "the user may not do what Headwater does when it connects: allow what docs/redis.md lists"
    } else if has(&["Connection refused"]) {
        "nothing listens there: start Redis, or correct the host and port in --store"
    } else if has(&["WRONGPASS", "NOAUTH", "invalid password", "AUTH"]) {
        "correct the user and password in --store (redis://user:password@host)"
    } else if has(&["lookup", "resolve", "Name or service not known", "dns"]) {
        "the host name in --store cannot be resolved"
    } else if has(&["CertificateRequired"]) {
        "the server wants a certificate of the client: name its files in --redis-cert and --redis-key"
    } else if has(&["AlertReceived"]) {
        "the server refuses the certificate in --redis-cert: use one that its tls-ca-cert-file has \
         signed"
    } else if has(&["NotValidForName"]) {
        "its certificate is for another name: write in --store a name or address that is in the \
         certificate"
    } else if has(&["Expired", "NotValidYet"]) {
        "its certificate is not valid at this time: renew it, or correct the clock"
    } else if has(&["UnknownIssuer", "InvalidCertificate", "certificate"]) {
        "its certificate is not trusted: name the file of its authority in --redis-ca"
    } else if has(&["InvalidContentType", "corrupt message", "InvalidMessage"]) {
        "the server does not speak TLS there: write redis:// instead of rediss://"
    } else if has(&["timed out"]) {
        "nothing answers there: correct the host and port, or write redis:// where the server does \
         not speak TLS"
    } else if has(&["Unexpected EOF", "Connection reset", "unexpected end", "closed"]) {
        "the server ended the connection: see the log of Redis, and write rediss:// in --store if the \
         server wants TLS, otherwise redis://"
    } else if has(&["Invalid role"]) {
        "the sentinels name a server that is a replica: wait for the end of a failover, or promote \
         this server"
    } else {
        "see the log of Redis"
    };
    let server = server.map(|server| format!(" to {server}")).unwrap_or_default();
    format!("no connection{server}: {text}; {advice}")
}

/// Converts an error of Redis or of the connection into an error for the operator.
pub fn down(error: &Error) -> StoreError {
    StoreError::Down(format!("redis: {}", error.details()))
}
