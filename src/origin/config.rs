//! The settings of an origin, grouped by the module that uses them.

use crate::access::AccessConfig;
use crate::core::pattern::Pattern;
use crate::core::segment::SegmentClock;
use crate::http::HttpConfig;
use crate::limits::connections::ClientsConfig;
use crate::server::ServerConfig;
use crate::server::tls::TlsConfig;
use crate::store::redis::RedisTls;
use crate::store::{ChannelSettings, Limits};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// The settings of an origin. [`Config::default`] has the defaults of `headwater serve`, and
/// `docs/reference/flags.md` says what each of them means.
#[derive(Default)]
pub struct Config {
    /// The store, and the limits of what it keeps.
    pub store: StoreConfig,
    /// The length of segments and the lanes, which determine when responses end.
    pub segments: SegmentClock,
    /// The limits and timeouts of requests and responses.
    pub http: HttpConfig,
    /// The keys of tokens, and the private channels.
    pub access: AccessConfig,
    /// A file or URL with the keys of tokens as a JWKS (RFC 7517).
    pub token_jwks: Option<String>,
    /// The most connections of one client, and the trusted proxies.
    pub clients: ClientsConfig,
    /// The limit of connections, and their timeouts.
    pub server: ServerConfig,
    /// The certificate of the TCP listeners; `None`: they do not use TLS.
    pub tls: Option<TlsConfig>,
    /// The memory that channels and responses may take.
    pub memory: MemoryConfig,
    /// The collector of traces; `None`: traces are not exported.
    pub traces: Option<TracesConfig>,
    /// Whether to serve the pages of the demo and to publish its events.
    pub demo: bool,
    /// The URL of the demo behind a cache, if one was started for it.
    pub demo_url: Option<String>,
}

/// The export of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// The URL of a collector of OpenTelemetry that accepts OTLP over HTTP, without `/v1/traces`.
    pub endpoint: String,
    /// The share (0 to 1) of the publishes without `traceparent` that are traced.
    pub ratio: f64,
}

/// The store, and the limits of what it keeps.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The kind of store, and where it is.
    pub address: StoreAddress,
    /// How many events, channels and keys are kept.
    pub limits: Limits,
    /// Settings of the channels that a pattern matches. The most precise pattern applies.
    pub channel_settings: Vec<(Pattern, ChannelSettings)>,
    /// Longest wait for the store before a request is answered without it.
    pub timeout: Duration,
    /// Least free space on the disk of the store, in bytes; below it publishes are refused.
    pub disk_reserve: u64,
    /// The settings of Redis, if it is the store.
    pub redis: RedisOptions,
}

/// The memory that channels and responses may take, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryConfig {
    /// Most bytes in the tail buffers of all channels; `None`: a sixteenth of the memory that the
    /// process may use, at most 256 MiB.
    pub live_bytes: Option<usize>,
    /// Most bytes of responses in memory; `None`: a quarter of the memory that the process may use.
    pub answer_bytes: Option<usize>,
}

/// The kind of store, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// `memory`: events are kept in memory only.
    Memory,
    /// `disk:<directory>`: events are kept in a log in this directory.
    Disk(PathBuf),
    /// `redis://…`, `rediss://…`, `redis-sentinel://…` or `redis-cluster://…`: events are kept in
    /// the Redis at this URL.
    Redis(String),
}

/// The settings of Redis as a store.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The prefix of all keys.
    pub prefix: String,
    /// Number of shards that channels are spread over.
    pub shards: usize,
    /// Number of replicas that must have a publish before it is acknowledged.
    pub wait_replicas: u32,
    /// The authorities and the certificate for connections with TLS.
    pub tls: RedisTls,
}

impl Config {
    /// The settings that all origins on one Redis should have in common, each with its flag.
    /// Otherwise their segments end at different instants, and each origin trims the same channels
    /// by other limits.
    pub fn shared_settings(&self) -> Vec<(&'static str, String)> {
        let SegmentClock { length_ms, lanes, rejoin_tick_ms } = self.segments;
        let Limits { retain_age, retain_events, retain_bytes, .. } = self.store.limits;
        let Limits { channel_idle, keys, state_bytes, .. } = self.store.limits;
        let Limits { channels, total_bytes, idempotency_keys, .. } = self.store.limits;
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
            ("--max-channels", channels.to_string()),
            ("--max-store-bytes", total_bytes.to_string()),
            ("--max-idempotency-keys", idempotency_keys.to_string()),
            ("--channel-settings", self.channel_settings_text()),
        ]
    }
}

impl Config {
    /// Returns the settings of patterns as a text that is the same for the same settings.
    fn channel_settings_text(&self) -> String {
        let one = |(pattern, settings): &(Pattern, ChannelSettings)| {
            format!("{pattern} {}", serde_json::to_string(settings).unwrap_or_default())
        };
        let mut all: Vec<_> = self.store.channel_settings.iter().map(one).collect();
        all.sort();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            address: StoreAddress::Disk("./headwater-data".into()),
            limits: Limits::default(),
            channel_settings: Vec::new(),
            timeout: Duration::from_secs(2),
            disk_reserve: 32 * MIB,
            redis: RedisOptions::default(),
        }
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        let prefix = "headwater".to_owned();
        Self { prefix, shards: 4, wait_replicas: 0, tls: RedisTls::default() }
    }
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
