//! The flags of `headwater serve`, and the [`Config`] that they make.

use super::access::{AccessArguments, Secret};
use super::capacity;
use super::limits::{ClientLimits, LimitArguments};
use super::units::{bytes, duration, positive, switch};
use crate::core::segment::{LANES_MAX, SEGMENT_MS, SegmentClock};
use crate::http::HttpConfig;
use crate::origin::{Config, MemoryConfig, RedisOptions, StoreConfig};
use crate::server::ServerConfig;
use crate::server::listener::ListenAddress;
use crate::store::Limits;
use crate::store::redis::SHARDS_MAX;
use clap::Args;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct ServeArguments {
    /// Address that clients, publishers and caches connect to: HOST:PORT, :PORT for all addresses of
    /// this machine, or unix:PATH; repeat for more
    #[arg(long, env = "HEADWATER_LISTEN", default_value = "127.0.0.1:8080", value_delimiter = ',')]
    pub(super) listen: Vec<ListenAddress>,
    /// Address of /metrics, /healthz and /readyz for operators, written in the same way
    #[arg(
        long,
        env = "HEADWATER_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_delimiter = ','
    )]
    pub(super) admin_listen: Vec<ListenAddress>,
    /// Where events are kept: disk:<directory>, memory, or a redis://, rediss://, redis-sentinel://
    /// or redis-cluster:// URL; or @FILE that holds it
    #[arg(
        long,
        env = "HEADWATER_STORE",
        default_value = "disk:./headwater-data",
        hide_env_values = true
    )]
    pub(super) store: Secret,
    /// What all keys in Redis begin with; deployments that share a Redis differ in it
    #[arg(long, env = "HEADWATER_REDIS_PREFIX", default_value = "headwater")]
    pub(super) redis_prefix: String,
    /// Number of shards that channels are spread over in Redis; fixed for a prefix (1 to 64)
    #[arg(long, env = "HEADWATER_REDIS_SHARDS", default_value_t = 4)]
    pub(super) redis_shards: usize,
    /// Replicas of Redis that must have an event before it is acknowledged (count)
    #[arg(long, env = "HEADWATER_REDIS_WAIT_REPLICAS", default_value_t = 0)]
    pub(super) redis_wait_replicas: u32,
    /// Longest wait for the store before a publish is refused or a stream put off (time)
    #[arg(long, env = "HEADWATER_STORE_TIMEOUT", default_value = "2s", value_parser = duration)]
    pub(super) store_timeout: Duration,
    /// Length of a segment; responses end at whole multiples of it (time, 1s to 10m)
    #[arg(long, env = "HEADWATER_SEGMENT", default_value = "30s", value_parser = duration)]
    pub(super) segment: Duration,
    /// Number of lanes that split the wave of reconnects at a boundary (1 to 64)
    #[arg(long, env = "HEADWATER_LANES", default_value_t = 1)]
    pub(super) lanes: u64,
    /// Where a client that broke off rejoins the crowd; 0 = at the boundary (time; 1s behind a CDN)
    #[arg(long, env = "HEADWATER_REJOIN_TICK", default_value = "0", value_parser = duration)]
    pub(super) rejoin_tick: Duration,
    /// Quiet time after which a stream sends a comment (time)
    #[arg(long, env = "HEADWATER_HEARTBEAT", default_value = "5s", value_parser = duration)]
    pub(super) heartbeat: Duration,
    /// Most events sent in one response, at least --max-event; the event that reaches it is still sent
    /// whole, then the response ends early and the client goes on from there (size)
    #[arg(long, env = "HEADWATER_SEGMENT_BYTES", default_value = "8MiB", value_parser = bytes)]
    pub(super) segment_bytes: u64,
    /// Longest wait of a ?mode=long poll for an event (time)
    #[arg(long, env = "HEADWATER_LONG_POLL_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub(super) long_poll_timeout: Duration,
    /// How long a ?mode=answer of a long poll waits for more events after its first (time)
    #[arg(long, env = "HEADWATER_LONG_POLL_LINGER", default_value = "20ms", value_parser = duration)]
    pub(super) long_poll_linger: Duration,
    /// Most events in one ?mode=answer of a long poll, which is built in memory; the event that reaches it is
    /// still sent whole (size)
    #[arg(long, env = "HEADWATER_LONG_POLL_BYTES", default_value = "1MiB", value_parser = bytes)]
    pub(super) long_poll_bytes: u64,
    /// Drop events older than this (time)
    #[arg(long, env = "HEADWATER_RETAIN_AGE", default_value = "24h", value_parser = duration)]
    pub(super) retain_age: Duration,
    /// Most events kept in a channel (count)
    #[arg(long, env = "HEADWATER_RETAIN_EVENTS", default_value_t = 100_000)]
    pub(super) retain_events: u64,
    /// Most bytes of events kept in a channel (size)
    #[arg(long, env = "HEADWATER_RETAIN_BYTES", default_value = "64MiB", value_parser = bytes)]
    pub(super) retain_bytes: u64,
    /// Most channels in the store (count)
    #[arg(long, env = "HEADWATER_MAX_CHANNELS", default_value_t = 100_000)]
    pub(super) max_channels: u64,
    /// Forget a channel that has had no event, no state and no publish for this long (time)
    #[arg(long, env = "HEADWATER_CHANNEL_IDLE", default_value = "7d", value_parser = duration)]
    pub(super) channel_idle: Duration,
    /// Most keys in the state of one channel (count)
    #[arg(long, env = "HEADWATER_MAX_KEYS", default_value_t = 10_000)]
    pub(super) max_keys: u64,
    /// Most bytes in the state of one channel (size)
    #[arg(long, env = "HEADWATER_MAX_STATE_BYTES", default_value = "8MiB", value_parser = bytes)]
    pub(super) max_state_bytes: u64,
    /// Most bytes of events and state in the whole store (size)
    #[arg(long, env = "HEADWATER_MAX_STORE_BYTES", default_value = "1GiB", value_parser = bytes)]
    pub(super) max_store_bytes: u64,
    /// Refuse publishes while less space than this is free on the disk of the store (size)
    #[arg(long, env = "HEADWATER_DISK_RESERVE", default_value = "32MiB", value_parser = bytes)]
    pub(super) disk_reserve: u64,

    /// How long an Idempotency-Key is remembered (time)
    #[arg(long, env = "HEADWATER_IDEMPOTENCY_AGE", default_value = "10m", value_parser = duration)]
    pub(super) idempotency_age: Duration,
    /// Most Idempotency-Keys remembered at once (count)
    #[arg(long, env = "HEADWATER_MAX_IDEMPOTENCY_KEYS", default_value_t = 1_000_000)]
    pub(super) max_idempotency_keys: u64,
    /// Most bytes of one event's data; at most --segment-bytes, --max-batch and --retain-bytes (size)
    #[arg(long, env = "HEADWATER_MAX_EVENT", default_value = "1MiB", value_parser = bytes)]
    pub(super) max_event: u64,
    /// Most bytes of one NDJSON batch (size)
    #[arg(long, env = "HEADWATER_MAX_BATCH", default_value = "8MiB", value_parser = bytes)]
    pub(super) max_batch: u64,
    /// Most events in one NDJSON batch (count)
    #[arg(long, env = "HEADWATER_MAX_BATCH_EVENTS", default_value_t = 10_000)]
    pub(super) max_batch_events: usize,
    /// Most bytes of publishes being read at once (size)
    #[arg(long, env = "HEADWATER_PUBLISH_BUFFER", default_value = "64MiB", value_parser = bytes)]
    pub(super) publish_buffer: u64,
    /// Most bytes of recent events in memory, over all channels (size)
    #[arg(long, env = "HEADWATER_LIVE_BYTES", default_value = "256MiB", value_parser = bytes)]
    pub(super) live_bytes: u64,
    /// Most bytes of answers, of pages of old events and of states in memory, over all requests; 0 = a
    /// quarter of the memory of the machine or its container (size)
    #[arg(long, env = "HEADWATER_ANSWER_BYTES", default_value = "0", value_parser = bytes)]
    pub(super) answer_bytes: u64,
    #[command(flatten)]
    pub(super) limits: LimitArguments,
    /// How long a stopping process waits for its streams to reach their boundary (time)
    #[arg(long, env = "HEADWATER_DRAIN_TIMEOUT", default_value = "75s", value_parser = duration)]
    pub(super) drain_timeout: Duration,
    /// Origin whose pages may read the channels, as https://example.com; repeat for more. A loopback
    /// address without a key lets pages of this machine read beside them, and no others [default: all]
    #[arg(long = "cors-origin", env = "HEADWATER_CORS_ORIGIN", value_delimiter = ',')]
    pub(super) cors_origins: Vec<String>,
    /// Host that a listener on a loopback address answers to beside localhost while there is no key,
    /// as live.example.com; repeat for more
    #[arg(long = "allowed-host", env = "HEADWATER_ALLOWED_HOST", value_delimiter = ',')]
    pub(super) allowed_hosts: Vec<String>,
    #[command(flatten)]
    pub(super) access: AccessArguments,
    /// Send Surrogate-Key and Cache-Tag, for purging at a CDN
    #[arg(long, env = "HEADWATER_SURROGATE_KEYS", value_parser = switch())]
    pub(super) surrogate_keys: bool,
    /// Feed the channels departures and ticker, and show them at /
    #[arg(long, env = "HEADWATER_DEMO", value_parser = switch())]
    pub(super) demo: bool,
    /// Least severe messages on standard error: error, warn, info or debug
    #[arg(long, env = "HEADWATER_LOG", default_value = "info")]
    pub(super) log: tracing::Level,
}

impl ServeArguments {
    /// The settings of the origin. Checks the flags and does nothing else: no socket and no clock is
    /// used here, and no file but those of secrets and keys.
    ///
    /// # Errors
    /// Names the flag that is wrong.
    pub(super) fn config(&self) -> Result<Config, String> {
        let bounds = self.limits.finish(self.channel_idle, self.idempotency_age)?;
        let (access, token_jwks) = self.access.clone().finish()?;
        Ok(Config {
            store: StoreConfig {
                address: self.store.read("--store")?.parse()?,
                limits: limits(self)?,
                timeout: positive(self.store_timeout, "--store-timeout")?,
                disk_reserve: self.disk_reserve,
                redis: redis_options(self)?,
            },
            segments: segments(self)?,
            http: http_config(self, &bounds)?,
            access,
            token_jwks,
            clients: bounds.clients,
            server: ServerConfig {
                max_connections: self.limits.max_connections,
                drain_timeout: self.drain_timeout,
                head_timeout: bounds.head_timeout,
                idle_timeout: bounds.idle_timeout,
                ..ServerConfig::default()
            },
            memory: MemoryConfig {
                live_bytes: self.live_bytes as usize,
                answer_bytes: capacity::answer_bytes(self.answer_bytes)?,
            },
        })
    }
}

fn segments(arguments: &ServeArguments) -> Result<SegmentClock, String> {
    let length_ms = arguments.segment.as_millis() as u64;
    if !SEGMENT_MS.contains(&length_ms) {
        return Err("--segment takes 1s to 10m".to_owned());
    }
    if !(1..=LANES_MAX).contains(&arguments.lanes) {
        return Err(format!("--lanes takes 1 to {LANES_MAX}"));
    }
    let rejoin_tick_ms = arguments.rejoin_tick.as_millis() as u64;
    if rejoin_tick_ms >= length_ms {
        return Err("--rejoin-tick takes less than --segment, or 0".to_owned());
    }
    Ok(SegmentClock { length_ms, lanes: arguments.lanes, rejoin_tick_ms })
}

fn http_config(arguments: &ServeArguments, bounds: &ClientLimits) -> Result<HttpConfig, String> {
    let (event, segment) = (arguments.max_event, arguments.segment_bytes);
    if event == 0 || arguments.max_batch_events == 0 {
        return Err("--max-event and --max-batch-events take 1 or more".to_owned());
    }
    if arguments.long_poll_linger >= arguments.long_poll_timeout {
        return Err("--long-poll-linger takes less than --long-poll-timeout".to_owned());
    }
    if event > segment || event > arguments.max_batch || event > arguments.retain_bytes {
        let others = "--segment-bytes, --max-batch and --retain-bytes";
        return Err(format!("--max-event may not be larger than {others}"));
    }
    if arguments.publish_buffer / 2 < arguments.max_batch {
        return Err(
            "--publish-buffer takes at least twice --max-batch: a compressed body and its \
                    text are in memory together"
                .to_owned(),
        );
    }
    Ok(HttpConfig {
        heartbeat: positive(arguments.heartbeat, "--heartbeat")?,
        segment_bytes: segment as usize,
        long_poll_timeout: positive(arguments.long_poll_timeout, "--long-poll-timeout")?,
        long_poll_linger: arguments.long_poll_linger,
        long_poll_bytes: arguments.long_poll_bytes.max(1) as usize,
        event_bytes: event as usize,
        batch_bytes: arguments.max_batch as usize,
        batch_events: arguments.max_batch_events,
        publish_buffer: arguments.publish_buffer as usize,
        body_timeout: bounds.body_timeout,
        publish_rates: bounds.publish_rates,
        websocket: bounds.websocket,
        write_timeout: bounds.write_timeout,
        cors_origins: cors_origins(&arguments.cors_origins)?,
        allowed_hosts: allowed_hosts(&arguments.allowed_hosts)?,
        surrogate_keys: arguments.surrogate_keys,
        demo: arguments.demo,
    })
}

/// As clients write them in `Host`: a name, with or without a port.
fn allowed_hosts(hosts: &[String]) -> Result<Vec<String>, String> {
    match hosts.iter().find(|host| host.is_empty() || host.contains(['/', '*', '@', ' '])) {
        Some(host) => Err(format!(
            "--allowed-host: write {host:?} as live.example.com, without a scheme or a path"
        )),
        None => Ok(hosts.to_vec()),
    }
}

/// As browsers write them in `Origin`: anything else would never be found equal.
fn cors_origins(origins: &[String]) -> Result<Vec<String>, String> {
    for origin in origins {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let is_whole = authority.is_some_and(|authority| {
            !authority.is_empty() && !authority.contains(['/', '*', '?', '#', ' ', '@'])
        });
        if !is_whole || origin.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(format!(
                "--cors-origin: write {origin:?} as https://example.com or http://localhost:3000, \
                 in small letters and without a path"
            ));
        }
    }
    Ok(origins.to_vec())
}

fn limits(arguments: &ServeArguments) -> Result<Limits, String> {
    for (value, flag) in [
        (arguments.retain_events, "--retain-events"),
        (arguments.retain_bytes, "--retain-bytes"),
        (arguments.max_channels, "--max-channels"),
        (arguments.max_store_bytes, "--max-store-bytes"),
    ] {
        if value == 0 {
            return Err(format!("{flag} takes 1 or more"));
        }
    }
    Ok(Limits {
        retain_age: positive(arguments.retain_age, "--retain-age")?,
        retain_events: arguments.retain_events,
        retain_bytes: arguments.retain_bytes,
        channels: arguments.max_channels,
        channel_idle: positive(arguments.channel_idle, "--channel-idle")?,
        keys: arguments.max_keys,
        state_bytes: arguments.max_state_bytes,
        total_bytes: arguments.max_store_bytes,
        idempotency_age: positive(arguments.idempotency_age, "--idempotency-age")?,
        idempotency_keys: arguments.max_idempotency_keys,
    })
}

fn redis_options(arguments: &ServeArguments) -> Result<RedisOptions, String> {
    let prefix = arguments.redis_prefix.clone();
    if prefix.is_empty() || prefix.contains(['{', '}']) {
        return Err("--redis-prefix takes one or more characters, but no braces".to_owned());
    }
    if !(1..=SHARDS_MAX).contains(&arguments.redis_shards) {
        return Err(format!("--redis-shards takes 1 to {SHARDS_MAX}"));
    }
    let (shards, wait_replicas) = (arguments.redis_shards, arguments.redis_wait_replicas);
    Ok(RedisOptions { prefix, shards, wait_replicas })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArguments,
    }

    /// A program that embeds an origin gets the defaults of the command.
    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_configuration() {
        let flags = Line::parse_from(["headwater"]).serve.config().unwrap();
        let defaults = Config::default();
        let text = |config: &Config| {
            let Config { store, segments, http, clients, server, memory, .. } = config;
            format!("{:#?}", (store, segments, http, clients, server, memory))
        };
        assert_eq!(text(&flags), text(&defaults));
        assert_eq!(flags.access.cookie_name, defaults.access.cookie_name);
        assert_eq!(flags.token_jwks, defaults.token_jwks);
    }
}
