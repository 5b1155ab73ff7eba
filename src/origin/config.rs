//! Finished, checked values: what the command line becomes before anything is opened.

use crate::core::segment::SegmentClock;
use crate::http::HttpConfig;
use crate::limits::connections::ClientsConfig;
use crate::server::listener::ListenAddress;
use crate::store::Limits;
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
