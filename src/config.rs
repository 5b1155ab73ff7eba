//! Finished, checked values: what the command line becomes before anything is opened.

use crate::client_address::Network;
use crate::listener::ListenAddress;
use crate::segment::SegmentClock;
use crate::store::Limits;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Everything `serve` needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients, publishers and caches connect.
    pub listen: Vec<ListenAddress>,
    /// Where metrics and health are read.
    pub admin_listen: Vec<ListenAddress>,
    /// Where events are kept.
    pub store: StoreAddress,
    /// How much is kept.
    pub limits: Limits,
    /// How Redis is used, where it is the store.
    pub redis: RedisOptions,
    /// Longest wait for the store before a request is answered without it.
    pub store_timeout: Duration,
    /// Publishes are refused while fewer bytes are free on the disk of the store.
    pub disk_reserve: u64,
    /// When responses end.
    pub segments: SegmentClock,
    /// What a client is sent, and may send.
    pub http: HttpConfig,
    /// Most bytes of recent events in memory.
    pub live_bytes: usize,
    /// Most bytes of answers in memory.
    pub answer_bytes: usize,
    /// Most connections served at once.
    pub max_connections: usize,
    /// How much one client may hold.
    pub clients: ClientsConfig,
    /// Longest time that the head of a request may take.
    pub head_timeout: Duration,
    /// How long a connection without a request stays open.
    pub idle_timeout: Duration,
    /// How long a stopping process waits for its responses to end.
    pub drain_timeout: Duration,
    /// Feed the demo channels and serve their page.
    pub demo: bool,
}

impl Config {
    /// What all origins on one Redis should have in common, by the flags: otherwise their segments
    /// end at different instants, and each of them trims the same channels in its own way.
    pub fn shared_settings(&self) -> Vec<(&'static str, String)> {
        let SegmentClock { length_ms, lanes, rejoin_tick_ms } = self.segments;
        let Limits { retain_age, retain_events, retain_bytes, .. } = self.limits;
        let Limits { channel_idle, keys, state_bytes, .. } = self.limits;
        let time = |time: Duration| humantime::format_duration(time).to_string();
        vec![
            ("--segment", time(Duration::from_millis(length_ms))),
            ("--lanes", lanes.to_string()),
            ("--rejoin-tick", time(Duration::from_millis(rejoin_tick_ms))),
            ("--retain-age", time(retain_age)),
            ("--retain-events", retain_events.to_string()),
            ("--retain-bytes", retain_bytes.to_string()),
            ("--channel-idle", time(channel_idle)),
            ("--max-keys", keys.to_string()),
            ("--max-state-bytes", state_bytes.to_string()),
        ]
    }
}

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// `memory`
    Memory,
    /// `disk:<directory>`
    Disk(PathBuf),
    /// `redis://…`, `rediss://…`, `redis-sentinel://…` or `redis-cluster://…`
    Redis(String),
}

impl FromStr for StoreAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("disk", directory)) if !directory.is_empty() => Ok(Self::Disk(directory.into())),
            Some((scheme, _)) if scheme.starts_with("redis") || scheme.starts_with("valkey") => {
                Ok(Self::Redis(text.to_owned()))
            }
            _ => Err("--store: write it as disk:<directory>, memory or a redis:// URL".to_owned()),
        }
    }
}

/// How Redis is used.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// What all keys begin with.
    pub prefix: String,
    /// Number of shards.
    pub shards: usize,
    /// Replicas that must have a publish before it is acknowledged.
    pub wait_replicas: u32,
}

/// What the operator said of clients.
#[derive(Clone, Debug, Default)]
pub struct ClientsConfig {
    /// Most connections of one client; 0: no limit.
    pub most: usize,
    /// Who connects for others.
    pub proxies: Vec<Network>,
    /// The header in which they say for whom, in small letters.
    pub header: String,
}

/// Events a second; `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct RatesConfig {
    /// Into one channel.
    pub channel: Option<NonZeroU32>,
    /// From the bearers of tokens with one `sub`.
    pub subject: Option<NonZeroU32>,
    /// Channels that the bearers of tokens with one `sub` make.
    pub new_channels: Option<Allowance>,
    /// Publishes with an idempotency key from the bearers of tokens with one `sub`.
    pub idempotency_keys: Option<Allowance>,
}

/// So many at once, given back evenly over this time.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// How many.
    pub count: NonZeroU32,
    /// The time, longer than nothing.
    pub time: Duration,
}

/// What a WebSocket may do.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketLimits {
    /// Pause between two pings.
    pub ping: Duration,
    /// Most bytes of a message from a client.
    pub message_bytes: usize,
    /// Most messages a second from a client.
    pub frames_per_second: NonZeroU32,
    /// Most bytes a second from a client.
    pub bytes_per_second: NonZeroU32,
    /// Most channels that a client listens to.
    pub channels: usize,
}

/// What a client is sent, and may send.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Quiet time after which a stream sends a comment.
    pub heartbeat: Duration,
    /// Longest wait for the store, and for memory.
    pub store_timeout: Duration,
    /// Most streams over HTTP/2.
    pub streams_max: usize,
    /// Most bytes of events in one response.
    pub segment_bytes: usize,
    /// Longest wait of a hold request for an event.
    pub hold_timeout: Duration,
    /// How long a hold answer waits for more events after its first.
    pub hold_linger: Duration,
    /// Most bytes of events in one hold answer, which is built in memory.
    pub hold_bytes: usize,
    /// Most bytes of one event's data.
    pub event_bytes: usize,
    /// Most bytes of a batch.
    pub batch_bytes: usize,
    /// Most events in a batch.
    pub batch_events: usize,
    /// Most bytes of publishes being read at once.
    pub publish_buffer: usize,
    /// Longest time that the body of a publish may take.
    pub body_timeout: Duration,
    /// How fast events may come in.
    pub publish_rates: RatesConfig,
    /// What a WebSocket may do.
    pub websocket: WebSocketLimits,
    /// Longest time that a client may take nothing of what it is sent.
    pub write_timeout: Duration,
    /// Origins that may read; empty: all.
    pub cors_origins: Vec<String>,
    /// Hosts that a listener without a key answers to on a loopback address, beside its own.
    pub allowed_hosts: Vec<String>,
    /// Send `Surrogate-Key` and `Cache-Tag`.
    pub surrogate_keys: bool,
    /// Serve the demo page at `/`.
    pub demo: bool,
}
