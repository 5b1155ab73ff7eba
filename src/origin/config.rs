//! The settings of an origin, grouped by the part that owns them.

use crate::access::AccessConfig;
use crate::core::segment::SegmentClock;
use crate::http::HttpConfig;
use crate::limits::connections::ClientsConfig;
use crate::server::ServerConfig;
use crate::store::Limits;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// The settings of an origin. [`Config::default`] has the defaults of `headwater serve`, and
/// `docs/reference/flags.md` says what each of them means.
#[derive(Default)]
pub struct Config {
    /// Where events are kept, and how many.
    pub store: StoreConfig,
    /// When responses end.
    pub segments: SegmentClock,
    /// What a client receives, and may send.
    pub http: HttpConfig,
    /// The keys of tokens, and the private channels.
    pub access: AccessConfig,
    /// A file or URL with the keys of tokens as a JWKS (RFC 7517).
    pub token_jwks: Option<String>,
    /// The share of each client.
    pub clients: ClientsConfig,
    /// Connections and their timeouts.
    pub server: ServerConfig,
    /// The memory that channels and answers may take.
    pub memory: MemoryConfig,
}

/// Where events are kept, and how many.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which store.
    pub address: StoreAddress,
    /// How much is kept.
    pub limits: Limits,
    /// Longest wait for the store before a request is answered without it.
    pub timeout: Duration,
    /// Publishes are refused while fewer bytes are free on the disk of the store.
    pub disk_reserve: u64,
    /// How Redis is used, where it is the store.
    pub redis: RedisOptions,
}

/// The memory that channels and answers may take, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryConfig {
    /// Most bytes of recent events in memory.
    pub live_bytes: usize,
    /// Most bytes of answers in memory; `None`: a quarter of the memory that the process may use.
    pub answer_bytes: Option<usize>,
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

/// How Redis is used.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The beginning of all keys.
    pub prefix: String,
    /// Number of shards.
    pub shards: usize,
    /// Replicas that must have a publish before it is acknowledged.
    pub wait_replicas: u32,
}

impl Config {
    /// The settings, by their flags, that all origins on one Redis should have in common.
    /// Otherwise their segments end at different instants, and each of them trims the same channels
    /// in its own way.
    pub fn shared_settings(&self) -> Vec<(&'static str, String)> {
        let SegmentClock { length_ms, lanes, rejoin_tick_ms } = self.segments;
        let Limits { retain_age, retain_events, retain_bytes, .. } = self.store.limits;
        let Limits { channel_idle, keys, state_bytes, .. } = self.store.limits;
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

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            address: StoreAddress::Disk("./headwater-data".into()),
            limits: Limits::default(),
            timeout: Duration::from_secs(2),
            disk_reserve: 32 * MIB,
            redis: RedisOptions::default(),
        }
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { prefix: "headwater".to_owned(), shards: 4, wait_replicas: 0 }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { live_bytes: 256 * MIB as usize, answer_bytes: None }
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
