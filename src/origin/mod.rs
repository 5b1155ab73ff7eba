//! Assembles an origin from its parts. No other module does this.
//!
//! `headwater serve`, the tests and programs that embed an origin all use [`Headwater::open`] and
//! [`Headwater::run`].

mod collector;
pub mod config;
mod key_set;
mod listeners;

pub use crate::http::Reloaded;
pub use crate::store::redis::RedisTls;
pub use crate::sync::shutdown::Shutdown;
pub use config::{Config, MemoryConfig, RedisOptions, StoreAddress, StoreConfig, TracesConfig};
pub use listeners::Listeners;

use crate::access::Access;
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};
use crate::demo;
use crate::fanout::Pumps;
use crate::http::{AppState, ReloadRequest};
use crate::hub::Hub;
use crate::hub::registry::ChannelRegistry;
use crate::limits::budget::Budget;
use crate::limits::connections::Clients;
use crate::limits::memory::MemoryShares;
use crate::server::tls::Tls;
use crate::server::{self, ServerConfig, Stopped};
use crate::store::local::{Backing, FILE_BYTES, LocalConfig, LocalStore};
use crate::store::redis::{RedisConfig, RedisStore};
use crate::store::{ChannelLimits, Publication, Store};
use crate::sync::clock::Clock;
use crate::telemetry::process::memory_limit;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Pause between two sweeps, which remove what is too old.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// An origin whose store is open. It serves no requests until [`Headwater::run`] is called.
pub struct Headwater {
    app: Arc<AppState>,
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    server: ServerConfig,
    tls: Option<Arc<Tls>>,
    token_jwks: Option<String>,
    is_demo: bool,
    demo_url: Option<String>,
}

/// Why an origin cannot be opened, cannot continue, or does not accept an event, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

/// Publishes into an origin of the same process, without HTTP. It needs no token, and the rates and
/// size limits of HTTP publishes do not apply.
#[derive(Clone)]
pub struct Publisher(Arc<Hub>);

/// Changes the settings of an origin that runs.
#[derive(Clone)]
pub struct Reloader {
    app: Arc<AppState>,
    tls: Option<Arc<Tls>>,
}

impl Headwater {
    /// Opens the store, and starts nothing else.
    ///
    /// # Errors
    /// Fails when the store cannot be opened; the text says why.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let tls = config.tls.as_ref().map(Tls::new).transpose().map_err(Error)?.map(Arc::new);
        let clock = Clock::default();
        let shares = MemoryShares::of(memory_limit());
        let live_bytes = config.memory.live_bytes.unwrap_or(shares.tails);
        let traces = Arc::new(collector::traces(config.traces.as_ref()).map_err(Error)?);
        let registry = ChannelRegistry::new(clock.clone(), live_bytes).with_traces(traces);
        let registry = Arc::new(registry);
        let store = open_store(&config, &clock, &registry).await.map_err(Error)?;
        let answer_bytes = config.memory.answer_bytes.unwrap_or(shares.answers);
        let timeout = config.store.timeout;
        let budget = Budget::new(answer_bytes, timeout);
        let hub = Hub::new(clock, config.segments, registry, store.clone(), timeout, budget);
        let hub = Arc::new(hub);
        let (is_demo, demo_url) = (config.demo, config.demo_url);
        let (access, clients) = (Access::new(config.access), Clients::new(config.clients));
        let streams_max = config.server.max_connections;
        let app = AppState::new(hub.clone(), config.http, access, clients, streams_max);
        let (server, token_jwks) = (config.server, config.token_jwks);
        let app = Arc::new(app);
        Ok(Self { app, hub, store, server, tls, token_jwks, is_demo, demo_url })
    }

    /// Returns a publisher for code in the same process.
    pub fn publisher(&self) -> Publisher {
        Publisher(self.hub.clone())
    }

    /// Returns the means to change the settings while the origin runs, and the requests for that
    /// from the admin listener.
    pub fn reloader(&self) -> (Reloader, mpsc::Receiver<ReloadRequest>) {
        let reloader = Reloader { app: self.app.clone(), tls: self.tls.clone() };
        (reloader, self.app.reloads.receive())
    }

    /// Serves until `shutdown` requests a stop, then drains: the streams end at their boundaries,
    /// and the store is closed.
    ///
    /// # Errors
    /// Fails when the store can no longer work.
    pub async fn run(self, listeners: Listeners, shutdown: Shutdown) -> Result<Stopped, Error> {
        let Self { app, hub, store, server, tls, token_jwks, is_demo, demo_url } = self;
        let sweeps = async {
            loop {
                tokio::time::sleep(SWEEP_PAUSE).await;
                store.sweep().await;
                app.sweep();
            }
        };
        let keys = async {
            match token_jwks {
                Some(source) => app.access.keep_keys(key_set::fetch_from(source)).await,
                None => std::future::pending().await,
            }
        };
        let is_tls =
            |is_admin: bool| tls.as_ref().is_some_and(|tls: &Arc<Tls>| !is_admin || tls.on_admin);
        let console = listeners.console_url(is_tls(true));
        let links = demo::Links { console, cache: demo_url };
        let files = if is_demo { demo::files(&links) } else { Vec::new() };
        app.set_bound(listeners.public_urls(is_tls(false)), &files);
        let Listeners { public, admin, are_inherited } = listeners;
        if are_inherited {
            hub.expect_successor();
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let no_pumps = |error| Error(format!("the fan-out cannot start: {error}"));
        let windows_bytes = MemoryShares::of(memory_limit()).windows;
        let pumps = Arc::new(Pumps::start(cores, windows_bytes).map_err(no_pumps)?);
        let stopped = tokio::select! {
            stopped = server::run(public, admin, app.clone(), (server, tls), pumps.clone(), &shutdown) => stopped,
            why = pumps.failed() => return Err(Error(why)),
            why = store.failed() => return Err(Error(why)),
            () = hub.run() => Stopped::Drained,
            () = sweeps => Stopped::Drained,
            () = keys => Stopped::Drained,
            () = demo::feed(hub.clone()), if is_demo => Stopped::Drained,
        };
        store.stop().await;
        // This waits for a thread that needs the runtime.
        let stop_traces = tokio::task::spawn_blocking(move || hub.traces().stop());
        stop_traces.await.unwrap_or_default();
        tracing::info!(?stopped, "stopped");
        Ok(stopped)
    }
}

impl Reloader {
    /// Uses the keys, the certificate, the private channels, the origins and hosts of pages, and the
    /// limits of requests, clients and publishers of `config`, for requests and connections that begin
    /// from now on. `RELOADED` in `cli/reload.rs` lists the flags. All other settings stay as they are.
    ///
    /// # Errors
    /// Fails when publishing would no longer need a token, or the certificate cannot be used; the
    /// limits are not changed then.
    pub fn apply(&self, config: Config) -> Result<(), Error> {
        self.app.access.reload(config.access).map_err(|why| Error(why.to_owned()))?;
        if let (Some(tls), Some(config)) = (&self.tls, &config.tls) {
            tls.reload(config).map_err(Error)?;
        }
        self.app.reload(config.http, config.clients);
        Ok(())
    }
}

impl Publisher {
    /// Stores events in a channel, either all of them or none. Returns their ids once the store has
    /// them durably.
    ///
    /// # Errors
    /// Fails when the channel has ended, or the store does not accept the events.
    pub async fn publish(
        &self,
        channel: &ChannelName,
        events: Vec<Event>,
    ) -> Result<Vec<EventId>, Error> {
        let publication = Publication { channel: channel.clone(), events, idempotency: None };
        let published = self.0.publish(publication).await;
        published.map(|published| published.ids).map_err(|error| Error(error.to_string()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

async fn open_store(
    config: &Config,
    clock: &Clock,
    registry: &Arc<ChannelRegistry>,
) -> Result<Arc<dyn Store>, String> {
    let StoreConfig { address, limits, channel_settings, timeout, disk_reserve, redis } =
        &config.store;
    let limits = Arc::new(ChannelLimits::new(*limits, channel_settings.clone()));
    let local = |backing| {
        let (timeout, reserve) = (*timeout, *disk_reserve);
        let local = LocalConfig { timeout, reserve, file_bytes: FILE_BYTES };
        let store =
            LocalStore::open(backing, local, limits.clone(), clock.clone(), registry.clone());
        store.map(|store| Arc::new(store) as Arc<dyn Store>)
    };
    let store = match address {
        StoreAddress::Memory => local(Backing::Memory),
        StoreAddress::Disk(directory) => local(Backing::Directory(directory.clone())),
        StoreAddress::Redis(url) => {
            let RedisOptions { prefix, shards, wait_replicas, tls } = redis.clone();
            let (url, timeout, settings) = (url.clone(), *timeout, config.shared_settings());
            let redis = RedisConfig { url, tls, prefix, shards, wait_replicas, timeout, settings };
            let store =
                RedisStore::open(redis, limits.clone(), clock.clone(), registry.clone()).await;
            store.map(|store| store as Arc<dyn Store>)
        }
    };
    store.map_err(|error| format!("{error} (--store)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(_: &T) {}

    /// The example in the documentation of the crate does so too, but it is compiled only after all
    /// other tests have passed.
    #[tokio::test]
    async fn an_origin_can_run_in_a_task() {
        let mut config = Config::default();
        config.store.address = StoreAddress::Memory;
        let origin = Headwater::open(config).await.unwrap();
        let listeners = Listeners::bind(&[], &[]).unwrap();
        is_send(&origin.run(listeners, Shutdown::default()));
    }
}
