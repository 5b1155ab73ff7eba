//! `headwater serve`: flags to a [`Config`], then bind, run, and say how it ended.

use super::access::{AccessArguments, Secret, fetch_from};
use super::capacity;
use super::limits::{ClientLimits, LimitArguments};
use super::logging::start_log;
use super::signals::Signals;
use super::units::{bytes, duration, positive, switch};
use super::{fail, misused};
use crate::access::Access;
use crate::core::segment::{LANES_MAX, SEGMENT_MS, SegmentClock};
use crate::demo;
use crate::http::AppState;
use crate::http::HttpConfig;
use crate::hub::Hub;
use crate::hub::registry::ChannelRegistry;
use crate::limits::budget::Budget;
use crate::limits::connections::Clients;
use crate::origin::config::{Config, RedisOptions, StoreAddress};
use crate::server::listener::{ListenAddress, Listener};
use crate::server::{self, ServerConfig, Stopped};
use crate::store::local::{Backing, LocalConfig, LocalStore, SEGMENT_BYTES};
use crate::store::redis::{RedisConfig, RedisStore, SHARDS_MAX};
use crate::store::{Limits, Store};
use crate::sync::clock::Clock;
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Polls of tasks after which a worker looks for sockets that have become readable. A connection with
/// pipelined requests takes 0.16 ms in each poll; with tokio's default of 61, four such connections
/// raised the p99 of other publishers from 1.5 to 18 ms, and with 8 to 8.5 ms.
const POLLS_BEFORE_SOCKETS: u32 = 8;
/// Threads that read old events from the store; each reads for some microseconds at a time.
const STORE_READERS: usize = 16;
/// Pause between two sweeps of what is too old.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub struct ServeArguments {
    /// Address that clients, publishers and caches connect to: HOST:PORT, :PORT for all addresses of
    /// this machine, or unix:PATH; repeat for more
    #[arg(long, env = "HEADWATER_LISTEN", default_value = "127.0.0.1:8080", value_delimiter = ',')]
    listen: Vec<ListenAddress>,
    /// Address of /metrics, /healthz and /readyz for operators, written in the same way
    #[arg(
        long,
        env = "HEADWATER_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_delimiter = ','
    )]
    admin_listen: Vec<ListenAddress>,
    /// Where events are kept: disk:<directory>, memory, or a redis://, rediss://, redis-sentinel://
    /// or redis-cluster:// URL; or @FILE that holds it
    #[arg(
        long,
        env = "HEADWATER_STORE",
        default_value = "disk:./headwater-data",
        hide_env_values = true
    )]
    store: Secret,
    /// What all keys in Redis begin with; deployments that share a Redis differ in it
    #[arg(long, env = "HEADWATER_REDIS_PREFIX", default_value = "headwater")]
    redis_prefix: String,
    /// Number of shards that channels are spread over in Redis; fixed for a prefix (1 to 64)
    #[arg(long, env = "HEADWATER_REDIS_SHARDS", default_value_t = 4)]
    redis_shards: usize,
    /// Replicas of Redis that must have an event before it is acknowledged (count)
    #[arg(long, env = "HEADWATER_REDIS_WAIT_REPLICAS", default_value_t = 0)]
    redis_wait_replicas: u32,
    /// Longest wait for the store before a publish is refused or a stream put off (time)
    #[arg(long, env = "HEADWATER_STORE_TIMEOUT", default_value = "2s", value_parser = duration)]
    store_timeout: Duration,
    /// Length of a segment; responses end at whole multiples of it (time, 1s to 10m)
    #[arg(long, env = "HEADWATER_SEGMENT", default_value = "30s", value_parser = duration)]
    segment: Duration,
    /// Number of lanes that split the wave of reconnects at a boundary (1 to 64)
    #[arg(long, env = "HEADWATER_LANES", default_value_t = 1)]
    lanes: u64,
    /// Where a client that broke off rejoins the crowd; 0 = at the boundary (time; 1s behind a CDN)
    #[arg(long, env = "HEADWATER_REJOIN_TICK", default_value = "0", value_parser = duration)]
    rejoin_tick: Duration,
    /// Quiet time after which a stream sends a comment (time)
    #[arg(long, env = "HEADWATER_HEARTBEAT", default_value = "5s", value_parser = duration)]
    heartbeat: Duration,
    /// Most events sent in one response, at least --max-event; the event that reaches it is still sent
    /// whole, then the response ends early and the client goes on from there (size)
    #[arg(long, env = "HEADWATER_SEGMENT_BYTES", default_value = "8MiB", value_parser = bytes)]
    segment_bytes: u64,
    /// Longest wait of a ?mode=long poll for an event (time)
    #[arg(long, env = "HEADWATER_LONG_POLL_TIMEOUT", default_value = "20s", value_parser = duration)]
    long_poll_timeout: Duration,
    /// How long a ?mode=answer of a long poll waits for more events after its first (time)
    #[arg(long, env = "HEADWATER_LONG_POLL_LINGER", default_value = "20ms", value_parser = duration)]
    long_poll_linger: Duration,
    /// Most events in one ?mode=answer of a long poll, which is built in memory; the event that reaches it is
    /// still sent whole (size)
    #[arg(long, env = "HEADWATER_LONG_POLL_BYTES", default_value = "1MiB", value_parser = bytes)]
    long_poll_bytes: u64,
    /// Drop events older than this (time)
    #[arg(long, env = "HEADWATER_RETAIN_AGE", default_value = "24h", value_parser = duration)]
    retain_age: Duration,
    /// Most events kept in a channel (count)
    #[arg(long, env = "HEADWATER_RETAIN_EVENTS", default_value_t = 100_000)]
    retain_events: u64,
    /// Most bytes of events kept in a channel (size)
    #[arg(long, env = "HEADWATER_RETAIN_BYTES", default_value = "64MiB", value_parser = bytes)]
    retain_bytes: u64,
    /// Most channels in the store (count)
    #[arg(long, env = "HEADWATER_MAX_CHANNELS", default_value_t = 100_000)]
    max_channels: u64,
    /// Forget a channel that has had no event, no state and no publish for this long (time)
    #[arg(long, env = "HEADWATER_CHANNEL_IDLE", default_value = "7d", value_parser = duration)]
    channel_idle: Duration,
    /// Most keys in the state of one channel (count)
    #[arg(long, env = "HEADWATER_MAX_KEYS", default_value_t = 10_000)]
    max_keys: u64,
    /// Most bytes in the state of one channel (size)
    #[arg(long, env = "HEADWATER_MAX_STATE_BYTES", default_value = "8MiB", value_parser = bytes)]
    max_state_bytes: u64,
    /// Most bytes of events and state in the whole store (size)
    #[arg(long, env = "HEADWATER_MAX_STORE_BYTES", default_value = "1GiB", value_parser = bytes)]
    max_store_bytes: u64,
    /// Refuse publishes while less space than this is free on the disk of the store (size)
    #[arg(long, env = "HEADWATER_DISK_RESERVE", default_value = "32MiB", value_parser = bytes)]
    disk_reserve: u64,

    /// How long an Idempotency-Key is remembered (time)
    #[arg(long, env = "HEADWATER_IDEMPOTENCY_AGE", default_value = "10m", value_parser = duration)]
    idempotency_age: Duration,
    /// Most Idempotency-Keys remembered at once (count)
    #[arg(long, env = "HEADWATER_MAX_IDEMPOTENCY_KEYS", default_value_t = 1_000_000)]
    max_idempotency_keys: u64,
    /// Most bytes of one event's data; at most --segment-bytes, --max-batch and --retain-bytes (size)
    #[arg(long, env = "HEADWATER_MAX_EVENT", default_value = "1MiB", value_parser = bytes)]
    max_event: u64,
    /// Most bytes of one NDJSON batch (size)
    #[arg(long, env = "HEADWATER_MAX_BATCH", default_value = "8MiB", value_parser = bytes)]
    max_batch: u64,
    /// Most events in one NDJSON batch (count)
    #[arg(long, env = "HEADWATER_MAX_BATCH_EVENTS", default_value_t = 10_000)]
    max_batch_events: usize,
    /// Most bytes of publishes being read at once (size)
    #[arg(long, env = "HEADWATER_PUBLISH_BUFFER", default_value = "64MiB", value_parser = bytes)]
    publish_buffer: u64,
    /// Most bytes of recent events in memory, over all channels (size)
    #[arg(long, env = "HEADWATER_LIVE_BYTES", default_value = "256MiB", value_parser = bytes)]
    live_bytes: u64,
    /// Most bytes of answers, of pages of old events and of states in memory, over all requests; 0 = a
    /// quarter of the memory of the machine or its container (size)
    #[arg(long, env = "HEADWATER_ANSWER_BYTES", default_value = "0", value_parser = bytes)]
    answer_bytes: u64,
    #[command(flatten)]
    limits: LimitArguments,
    /// How long a stopping process waits for its streams to reach their boundary (time)
    #[arg(long, env = "HEADWATER_DRAIN_TIMEOUT", default_value = "75s", value_parser = duration)]
    drain_timeout: Duration,
    /// Origin whose pages may read the channels, as https://example.com; repeat for more. A loopback
    /// address without a key lets pages of this machine read beside them, and no others [default: all]
    #[arg(long = "cors-origin", env = "HEADWATER_CORS_ORIGIN", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// Host that a listener on a loopback address answers to beside localhost while there is no key,
    /// as live.example.com; repeat for more
    #[arg(long = "allowed-host", env = "HEADWATER_ALLOWED_HOST", value_delimiter = ',')]
    allowed_hosts: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    /// Send Surrogate-Key and Cache-Tag, for purging at a CDN
    #[arg(long, env = "HEADWATER_SURROGATE_KEYS", value_parser = switch())]
    surrogate_keys: bool,
    /// Feed the channels departures and ticker, and show them at /
    #[arg(long, env = "HEADWATER_DEMO", value_parser = switch())]
    demo: bool,
    /// Least severe messages on standard error: error, warn, info or debug
    #[arg(long, env = "HEADWATER_LOG", default_value = "info")]
    log: tracing::Level,
}

pub fn run(arguments: ServeArguments) -> ExitCode {
    let log = arguments.log;
    let access = arguments.access.clone();
    let checked = Config::try_from(arguments).and_then(|config| {
        let is_open = access.is_open();
        let (access, key_set) = access.finish()?;
        Ok((config, Access::new(access), key_set, is_open))
    });
    let (config, access, key_set, is_open) = match checked {
        Ok(checked) => checked,
        Err(error) => return misused(&error),
    };
    start_log(log);
    let longest = Duration::from_millis(config.segments.longest_ms());
    if config.drain_timeout < longest {
        tracing::warn!(
            "--drain-timeout is shorter than the longest response ({longest:?}): a stop cuts off the \
             streams that are still running then"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(POLLS_BEFORE_SOCKETS)
        .max_blocking_threads(STORE_READERS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    // Sockets are registered with the runtime when they are bound.
    let listeners = {
        let _runtime = runtime.enter();
        bind_all(&config.listen, "--listen").and_then(|listeners| {
            Ok((listeners, bind_all(&config.admin_listen, "--admin-listen")?))
        })
    };
    let (listeners, admin) = match listeners {
        Ok(listeners) => listeners,
        Err(error) => return fail(&error),
    };
    if let Err(error) = check_openness(&listeners, &access, is_open) {
        return misused(&error);
    }
    match runtime.block_on(serve(config, listeners, admin, access, key_set)) {
        Ok(Stopped::Drained) => ExitCode::SUCCESS,
        Ok(Stopped::Cut { connections }) => {
            fail(&format!("stopped; {connections} streams were cut"))
        }
        Err(error) => fail(&error),
    }
}

/// An address that other machines reach too takes no publishes from everyone by accident.
fn check_openness(listeners: &[Listener], access: &Access, is_open: bool) -> Result<(), String> {
    let public = listeners.iter().find(|listener| !listener.is_local());
    match public {
        Some(listener) if !access.guards_publishing() && !is_open => Err(format!(
            "everyone who reaches {listener} could publish; name a key (--token-secret, \
             --token-key, --token-jwks), listen on 127.0.0.1 (--listen), or insist with \
             --open-publish"
        )),
        _ => Ok(()),
    }
}

async fn serve(
    mut config: Config,
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    access: Access,
    key_set: Option<String>,
) -> Result<Stopped, String> {
    let overload_connections = capacity::bound(&mut config.max_connections);
    // Before the store writes: a file may be limited in size.
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let clock = Clock::default();
    let registry = Arc::new(ChannelRegistry::new(clock.clone(), config.live_bytes));
    let store = open_store(&config, &clock, &registry).await?;
    let budget = Budget::new(config.answer_bytes, config.store_timeout);
    let hub =
        Hub::new(clock, config.segments, registry, store.clone(), config.store_timeout, budget);
    let origin = Arc::new(AppState::new(
        Arc::new(hub),
        config.http.clone(),
        access,
        Clients::new(config.clients.clone()),
    ));
    let sweeps = async {
        loop {
            tokio::time::sleep(SWEEP_PAUSE).await;
            store.sweep().await;
            origin.sweep();
        }
    };
    let keys = async {
        match key_set {
            Some(source) => origin.access.keep_keys(fetch_from(source)).await,
            None => std::future::pending().await,
        }
    };
    let server_config = ServerConfig {
        max_connections: config.max_connections,
        overload_connections,
        drain_timeout: config.drain_timeout,
        head_timeout: config.head_timeout,
        write_timeout: config.http.write_timeout,
        idle_timeout: config.idle_timeout,
    };
    announce(&listeners, &admin, &config);
    let stopped = tokio::select! {
        stopped = server::run(listeners, admin, origin.clone(), server_config, async || signals.next().await) => stopped,
        why = store.failed() => return Err(why),
        () = origin.hub.run() => Stopped::Drained,
        () = sweeps => Stopped::Drained,
        () = keys => Stopped::Drained,
        () = demo::feed(origin.hub.clone()), if config.demo => Stopped::Drained,
    };
    store.stop().await;
    tracing::info!(?stopped, "stopped");
    Ok(stopped)
}

fn bind_all(addresses: &[ListenAddress], flag: &str) -> Result<Vec<Listener>, String> {
    let mut bound = Vec::new();
    for address in addresses {
        bound.extend(address.bind().map_err(|error| {
            format!("cannot listen on {address} ({flag}): {error}; choose another address")
        })?);
    }
    Ok(bound)
}

async fn open_store(
    config: &Config,
    clock: &Clock,
    registry: &Arc<ChannelRegistry>,
) -> Result<Arc<dyn Store>, String> {
    let local = |backing| {
        let (timeout, reserve) = (config.store_timeout, config.disk_reserve);
        let local = LocalConfig { timeout, reserve, segment_bytes: SEGMENT_BYTES };
        let store =
            LocalStore::open(backing, local, config.limits, clock.clone(), registry.clone());
        store.map(|store| Arc::new(store) as Arc<dyn Store>)
    };
    let store = match &config.store {
        StoreAddress::Memory => local(Backing::Memory),
        StoreAddress::Disk(directory) => local(Backing::Directory(directory.clone())),
        StoreAddress::Redis(url) => {
            let RedisOptions { prefix, shards, wait_replicas } = config.redis.clone();
            let (url, timeout) = (url.clone(), config.store_timeout);
            let settings = config.shared_settings();
            let redis = RedisConfig { url, prefix, shards, wait_replicas, timeout, settings };
            let store =
                RedisStore::open(redis, config.limits, clock.clone(), registry.clone()).await;
            store.map(|store| store as Arc<dyn Store>)
        }
    };
    store.map_err(|error| format!("{error} (--store)"))
}

/// The lines that scripts and people wait for.
fn announce(listeners: &[Listener], admin: &[Listener], config: &Config) {
    for listener in listeners {
        eprintln!("headwater: channels on {listener}/channels/");
    }
    for listener in admin {
        eprintln!("headwater: metrics on {listener}/metrics");
    }
    for listener in listeners.iter().filter(|_| config.demo) {
        eprintln!("headwater: demo page on {listener}/");
    }
}

impl TryFrom<ServeArguments> for Config {
    type Error = String;

    /// Checks; does nothing. No socket or clock is touched here, and no file but those of secrets.
    fn try_from(arguments: ServeArguments) -> Result<Self, String> {
        let segments = segments(&arguments)?;
        let bounds = arguments.limits.finish(arguments.channel_idle, arguments.idempotency_age)?;
        let http = http_config(&arguments, &bounds)?;
        let limits = limits(&arguments)?;
        Ok(Self {
            listen: arguments.listen.clone(),
            admin_listen: arguments.admin_listen.clone(),
            store: arguments.store.read("--store")?.parse()?,
            limits,
            redis: redis_options(&arguments)?,
            store_timeout: positive(arguments.store_timeout, "--store-timeout")?,
            disk_reserve: arguments.disk_reserve,
            segments,
            http,
            live_bytes: arguments.live_bytes as usize,
            answer_bytes: capacity::answer_bytes(arguments.answer_bytes)?,
            max_connections: arguments.limits.max_connections,
            clients: bounds.clients,
            head_timeout: bounds.head_timeout,
            idle_timeout: bounds.idle_timeout,
            drain_timeout: arguments.drain_timeout,
            demo: arguments.demo,
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
        store_timeout: positive(arguments.store_timeout, "--store-timeout")?,
        streams_max: arguments.limits.max_connections,
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
