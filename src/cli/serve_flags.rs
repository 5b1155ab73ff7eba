//! The flags of `headwater serve`, and the [`Config`] that is built from them.

use super::access::{AccessArguments, Secret};
use super::capacity;
use super::channel_settings::{PatternSettings, of_patterns};
use super::demo_cache::CacheArguments;
use super::headings;
use super::limits::{ClientLimits, LimitArguments};
use super::logging::LogFormat;
use super::redis::RedisArguments;
use super::traces::TraceArguments;
use super::units::{bytes, duration, positive, switch};
use crate::core::segment::{LANES_MAX, SEGMENT_MS, SegmentClock};
use crate::http::HttpConfig;
use crate::limits::memory::MemoryShares;
use crate::origin::{Config, MemoryConfig, StoreAddress, StoreConfig};
use crate::server::listener::ListenAddress;
use crate::server::tls::{Tls, TlsConfig};
use crate::server::{Drain, ServerConfig};
use crate::store::Limits;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Default of `--max-store-bytes`, except for a store in memory.
const STORE_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Args, Debug)]
pub struct ServeArguments {
    /// File with settings, which flags and variables take precedence over; empty = no file
    /// [default: /etc/headwater/headwater.toml, if it exists]
    #[arg(help_heading = headings::CONFIG, long, env = "HEADWATER_CONFIG", value_name = "FILE")]
    pub(super) config: Option<String>,
    /// Address that clients, publishers and caches connect to: HOST:PORT, :PORT for all addresses
    /// of this machine, or unix:PATH; repeat for more
    #[arg(help_heading = headings::LISTEN, long, env = "HEADWATER_LISTEN", default_value = "127.0.0.1:8080", value_delimiter = ',')]
    pub(super) listen: Vec<ListenAddress>,
    /// Address of /metrics, /healthz and /readyz for operators, in the same form as --listen
    #[arg(help_heading = headings::LISTEN, long,
        env = "HEADWATER_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_delimiter = ','
    )]
    pub(super) admin_listen: Vec<ListenAddress>,
    /// Certificate of the TCP listeners, a PEM file with its intermediate certificates after it;
    /// --listen addresses then take HTTPS (HTTP/2 and HTTP/1.1), and Unix sockets still plain HTTP
    #[arg(help_heading = headings::LISTEN, long, env = "HEADWATER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, a PEM file
    #[arg(help_heading = headings::LISTEN, long, env = "HEADWATER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Authorities of the certificates of edges, a PEM file: an edge that connects with such a
    /// certificate vouches for its requests, as with --edge-auth
    #[arg(help_heading = headings::LISTEN, long, env = "HEADWATER_TLS_EDGE_CA", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_edge_ca: Option<PathBuf>,
    /// Use TLS on the addresses of --admin-listen, too
    #[arg(help_heading = headings::LISTEN, long, env = "HEADWATER_TLS_ADMIN", value_parser = switch())]
    pub(super) tls_admin: bool,
    /// Store of the events: disk:<directory>, memory, or a redis://, rediss://, redis-sentinel://
    /// or redis-cluster:// URL; or @FILE that holds it
    #[arg(help_heading = headings::STORAGE, long,
        env = "HEADWATER_STORE",
        default_value = "disk:./headwater-data",
        hide_env_values = true
    )]
    pub(super) store: Secret,
    #[command(flatten)]
    pub(super) redis: RedisArguments,
    /// Longest wait for the store before a publish is refused or a stream is shed (time)
    #[arg(help_heading = headings::STORAGE, long, env = "HEADWATER_STORE_TIMEOUT", default_value = "2s", value_parser = duration)]
    pub(super) store_timeout: Duration,
    /// Length of a segment; responses end at whole multiples of it (time, 1s to 10m)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_SEGMENT", default_value = "30s", value_parser = duration)]
    pub(super) segment: Duration,
    /// Number of lanes, which spread the reconnects of clients over several boundaries (1 to 64)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_LANES", default_value_t = 1)]
    pub(super) lanes: u64,
    /// Time between rejoin ticks, which end the streams of clients that were disconnected, so that
    /// these share responses again; 0 = only at the boundary (time; 1s behind a CDN)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_REJOIN_TICK", default_value = "0", value_parser = duration)]
    pub(super) rejoin_tick: Duration,
    /// Time without data after which a stream sends a comment (time)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_HEARTBEAT", default_value = "5s", value_parser = duration)]
    pub(super) heartbeat: Duration,
    /// Most bytes of events in one response, at least --max-event; the event that reaches the limit
    /// is still sent whole, then the response ends early and the client resumes after it (size)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_SEGMENT_BYTES", default_value = "8MiB", value_parser = bytes)]
    pub(super) segment_bytes: u64,
    /// Longest wait of a long poll (?mode=hold) for an event (time)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_LONG_POLL_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub(super) long_poll_timeout: Duration,
    /// Longest wait of a long poll (?mode=hold) for more events after its first one (time)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_LONG_POLL_LINGER", default_value = "20ms", value_parser = duration)]
    pub(super) long_poll_linger: Duration,
    /// Most bytes of events in the response to a long poll (?mode=hold), which is built in memory;
    /// the event that reaches the limit is still sent whole (size)
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_LONG_POLL_BYTES", default_value = "1MiB", value_parser = bytes)]
    pub(super) long_poll_bytes: u64,
    /// Age at which events are dropped (time)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_RETAIN_AGE", default_value = "24h", value_parser = duration)]
    pub(super) retain_age: Duration,
    /// Most events kept in a channel (count)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_RETAIN_EVENTS", default_value_t = 100_000)]
    pub(super) retain_events: u64,
    /// Most bytes of events kept in a channel (size)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_RETAIN_BYTES", default_value = "64MiB", value_parser = bytes)]
    pub(super) retain_bytes: u64,
    /// Most channels in the store (count)
    #[arg(help_heading = headings::STORAGE, long, env = "HEADWATER_MAX_CHANNELS", default_value_t = 100_000)]
    pub(super) max_channels: u64,
    /// Time after which a channel without events, state and publishes is forgotten (time)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_CHANNEL_IDLE", default_value = "7d", value_parser = duration)]
    pub(super) channel_idle: Duration,
    /// Most keys in the state of one channel (count)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_MAX_KEYS", default_value_t = 10_000)]
    pub(super) max_keys: u64,
    /// Settings of the channels that a pattern matches, instead of the flags of these names, such as
    /// "prices.* retain-age=1h retain-events=1000"; repeat for more. The most precise pattern
    /// applies. Settings: retain-age, retain-events, retain-bytes, channel-idle, max-keys,
    /// max-state-bytes
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_CHANNEL_SETTINGS", value_delimiter = ',', value_name = "PATTERN NAME=VALUE...")]
    pub(super) channel_settings: Vec<PatternSettings>,
    /// Most bytes in the state of one channel (size)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_MAX_STATE_BYTES", default_value = "8MiB", value_parser = bytes)]
    pub(super) max_state_bytes: u64,
    /// Most bytes of events and state in the whole store. By default 1GiB, and with --store memory
    /// at most a sixteenth of the memory of the machine or its container (size)
    #[arg(help_heading = headings::STORAGE, long, env = "HEADWATER_MAX_STORE_BYTES", value_parser = bytes)]
    pub(super) max_store_bytes: Option<u64>,
    /// Least free space on the disk of the store; below it publishes are refused (size)
    #[arg(help_heading = headings::STORAGE, long, env = "HEADWATER_DISK_RESERVE", default_value = "32MiB", value_parser = bytes)]
    pub(super) disk_reserve: u64,

    /// Time for which an Idempotency-Key is remembered (time)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_IDEMPOTENCY_AGE", default_value = "10m", value_parser = duration)]
    pub(super) idempotency_age: Duration,
    /// Most Idempotency-Keys remembered at once (count)
    #[arg(help_heading = headings::RETENTION, long, env = "HEADWATER_MAX_IDEMPOTENCY_KEYS", default_value_t = 1_000_000)]
    pub(super) max_idempotency_keys: u64,
    /// Most bytes of one event's data; at most --segment-bytes, --max-batch and --retain-bytes
    /// (size)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_MAX_EVENT", default_value = "1MiB", value_parser = bytes)]
    pub(super) max_event: u64,
    /// Most bytes of one NDJSON batch (size)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_MAX_BATCH", default_value = "8MiB", value_parser = bytes)]
    pub(super) max_batch: u64,
    /// Most events in one NDJSON batch (count)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_MAX_BATCH_EVENTS", default_value_t = 10_000)]
    pub(super) max_batch_events: usize,
    /// Most bytes of publishes that are being read at the same time. By default a sixteenth of
    /// the memory of the machine or its container, at most 64MiB, and at least twice --max-batch (size)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_PUBLISH_BUFFER", value_parser = bytes)]
    pub(super) publish_buffer: Option<u64>,
    /// Most bytes of events in the tail buffers in memory, over all channels. By default a
    /// sixteenth of the memory of the machine or its container, at most 256MiB (size)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_LIVE_BYTES", value_parser = bytes)]
    pub(super) live_bytes: Option<u64>,
    /// Most bytes of responses, of pages of old events and of states in memory, over all requests;
    /// 0 = a quarter of the memory of the machine or its container (size)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_ANSWER_BYTES", default_value = "0", value_parser = bytes)]
    pub(super) answer_bytes: u64,
    #[command(flatten)]
    pub(super) limits: LimitArguments,
    /// When the streams of a stopping process end. With `now` clients reconnect at once: use it for
    /// an origin whose store no other origin has, best with sockets from systemd
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_DRAIN", value_enum, default_value = "boundary")]
    pub(super) drain: DrainEnd,
    /// Least time between the failure of /readyz and the end of a stopping process, for load
    /// balancers (time)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_DRAIN_DELAY", default_value = "0s", value_parser = duration)]
    pub(super) drain_delay: Duration,
    /// Longest wait of a stopping process for its streams to end, after --drain-delay (time)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_DRAIN_TIMEOUT", default_value = "75s", value_parser = duration)]
    pub(super) drain_timeout: Duration,
    /// Origin whose pages may read the channels, such as https://example.com; repeat for more.
    /// Without a key, a loopback address also lets the pages of this machine read, and no other
    /// pages [default: all]
    #[arg(help_heading = headings::LISTEN, long = "cors-origin", env = "HEADWATER_CORS_ORIGIN", value_delimiter = ',')]
    pub(super) cors_origins: Vec<String>,
    /// Host name that a listener on a loopback address without a key, and the list of channels on
    /// the admin listener, accept in addition to localhost, such as live.example.com; repeat for more
    #[arg(help_heading = headings::LISTEN, long = "allowed-host", env = "HEADWATER_ALLOWED_HOST", value_delimiter = ',')]
    pub(super) allowed_hosts: Vec<String>,
    #[command(flatten)]
    pub(super) access: AccessArguments,
    /// Send the headers Surrogate-Key and Cache-Tag, with which a CDN can purge a channel
    #[arg(help_heading = headings::SEGMENTS, long, env = "HEADWATER_SURROGATE_KEYS", value_parser = switch())]
    pub(super) surrogate_keys: bool,
    /// Serve the demo: a departures board, a ticker, background jobs and a chat, at / and /demo/
    #[arg(help_heading = headings::DEMO, long, env = "HEADWATER_DEMO", value_parser = switch())]
    pub(super) demo: bool,
    #[command(flatten)]
    pub(super) demo_cache: CacheArguments,
    #[command(flatten)]
    pub(super) traces: TraceArguments,
    /// Lowest severity of the messages on standard error: error, warn, info or debug
    #[arg(help_heading = headings::DEMO, long, env = "HEADWATER_LOG", default_value = "info")]
    pub(super) log: tracing::Level,
    /// How the messages are written
    #[arg(help_heading = headings::DEMO, long, env = "HEADWATER_LOG_FORMAT", value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,
}

/// When the streams of a stopping process end.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DrainEnd {
    /// At their boundaries, so that caches and clients notice nothing
    Boundary,
    /// At once (after --drain-delay), as planned ends with a cursor
    Now,
}

impl ServeArguments {
    /// Checks the flags, and returns the settings of the origin for a process that may use `memory`
    /// bytes. It uses no socket and no clock, and reads no files except those of secrets and keys.
    ///
    /// # Errors
    /// Fails when a flag has a wrong value; the text names the flag.
    pub(super) fn config(&self, memory: u64) -> Result<Config, String> {
        let shares = MemoryShares::of(memory);
        let bounds = self.limits.finish(self.channel_idle, self.idempotency_age)?;
        let (access, token_jwks) = self.access.clone().finish(self.tls_edge_ca.is_some())?;
        let address = self.store.read("--store")?.parse()?;
        let redis = self.redis.options(&address)?;
        let config = Config {
            store: StoreConfig {
                limits: limits(self, store_bytes(&address, &shares))?,
                channel_settings: of_patterns(&self.channel_settings)?,
                address,
                timeout: positive(self.store_timeout, "--store-timeout")?,
                disk_reserve: self.disk_reserve,
                redis,
            },
            segments: segments(self)?,
            http: http_config(self, &bounds, &shares)?,
            access,
            token_jwks,
            clients: bounds.clients,
            server: ServerConfig {
                max_connections: self.limits.max_connections.unwrap_or(shares.connections),
                drain: match self.drain {
                    DrainEnd::Boundary => Drain::Boundary,
                    DrainEnd::Now => Drain::Now,
                },
                drain_delay: self.drain_delay,
                drain_timeout: self.drain_timeout,
                head_timeout: bounds.head_timeout,
                idle_timeout: bounds.idle_timeout,
                ..ServerConfig::default()
            },
            tls: tls(self)?,
            memory: MemoryConfig {
                live_bytes: self.live_bytes.map(|bytes| bytes as usize),
                answer_bytes: capacity::answer_bytes(self.answer_bytes)?,
            },
            traces: self.traces.finish()?,
            demo: self.demo,
            demo_url: None,
        };
        self.demo_cache.check(&config, self.access.is_open())?;
        Ok(config)
    }
}

impl ServeArguments {
    /// Checks that the origin does not listen on an address that other machines can reach while
    /// publishing needs no token, unless `--open-publish` is set.
    ///
    /// # Errors
    /// Fails if it does; the text names the flags.
    pub(super) fn check_openness(&self, config: &Config) -> Result<(), String> {
        let public = self.listen.iter().find(|address| !address.is_local());
        match public.filter(|_| !config.access.guards_publishing() && !self.access.is_open()) {
            Some(address) => Err(open_to_all(address)),
            None => Ok(()),
        }
    }
}

/// The error for an address on which every client could publish.
pub(super) fn open_to_all(address: &dyn std::fmt::Display) -> String {
    format!(
        "every client that reaches {address} could publish; name a key (--token-secret, --token-key, \
         --token-jwks), listen on 127.0.0.1 (--listen), or insist with --open-publish"
    )
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

/// The default of `--max-store-bytes`.
fn store_bytes(address: &StoreAddress, shares: &MemoryShares) -> u64 {
    match address {
        StoreAddress::Memory => shares.stored,
        StoreAddress::Disk(_) | StoreAddress::Redis(_) => STORE_BYTES,
    }
}

fn http_config(
    arguments: &ServeArguments,
    bounds: &ClientLimits,
    shares: &MemoryShares,
) -> Result<HttpConfig, String> {
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
    let least = arguments.max_batch.saturating_mul(2);
    let publish_buffer = arguments.publish_buffer.unwrap_or(least.max(shares.publishes as u64));
    if publish_buffer < least {
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
        publish_buffer: publish_buffer as usize,
        body_timeout: bounds.body_timeout,
        publish_rates: bounds.publish_rates,
        websocket: bounds.websocket,
        write_timeout: bounds.write_timeout,
        cors_origins: cors_origins(&arguments.cors_origins)?,
        allowed_hosts: allowed_hosts(&arguments.allowed_hosts)?,
        surrogate_keys: arguments.surrogate_keys,
        files: Vec::new(),
    })
}

/// Checks hosts, which must be written as in the header `Host`: a name, with or without a port.
fn allowed_hosts(hosts: &[String]) -> Result<Vec<String>, String> {
    match hosts.iter().find(|host| host.is_empty() || host.contains(['/', '*', '@', ' '])) {
        Some(host) => Err(format!(
            "--allowed-host: write {host:?} as live.example.com, without a scheme or a path"
        )),
        None => Ok(hosts.to_vec()),
    }
}

/// Checks origins, which must be written as in the header `Origin`, because they are compared with
/// it.
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

fn limits(arguments: &ServeArguments, store_bytes: u64) -> Result<Limits, String> {
    let total_bytes = arguments.max_store_bytes.unwrap_or(store_bytes);
    for (value, flag) in [
        (arguments.retain_events, "--retain-events"),
        (arguments.retain_bytes, "--retain-bytes"),
        (arguments.max_channels, "--max-channels"),
        (total_bytes, "--max-store-bytes"),
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
        total_bytes,
        idempotency_age: positive(arguments.idempotency_age, "--idempotency-age")?,
        idempotency_keys: arguments.max_idempotency_keys,
    })
}

fn tls(arguments: &ServeArguments) -> Result<Option<TlsConfig>, String> {
    let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) else {
        return match arguments.tls_admin {
            true => Err("--tls-admin needs --tls-cert and --tls-key".to_owned()),
            false => Ok(None),
        };
    };
    let config = TlsConfig {
        certificate: certificate.clone(),
        key: key.clone(),
        edge_authorities: arguments.tls_edge_ca.clone(),
        on_admin: arguments.tls_admin,
    };
    // The files are read here, so that a mistake in them is found by `config check`.
    Tls::new(&config).map(|_| Some(config))
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
        let flags = Line::parse_from(["headwater"]).serve.config(u64::MAX).unwrap();
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
