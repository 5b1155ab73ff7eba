//! An origin: the real hub, streams and HTTP layer of Headwater, on a connection to the model of
//! Redis or on a log of its own. Its clients reach it through pipes in memory, on which hyper speaks
//! HTTP/1.1.

use super::World;
use super::clock::MachineTime;
use super::local;
use super::redis::{Next, Redis};
use crate::random::Random;
use headwater::access::{Access, AccessConfig};
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, StoredEvent};
use headwater::core::log_state::LogState;
use headwater::core::segment::SegmentClock;
use headwater::http::websocket::{Handshake, Session};
use headwater::http::{Admission, AppState, Caller, HttpConfig, TlsPeer, answer};
use headwater::hub::Hub;
use headwater::hub::registry::ChannelRegistry;
use headwater::limits::budget::Budget;
use headwater::limits::connections::{Clients, ClientsConfig};
use headwater::store::{
    ChannelFilter, ChannelLimits, ChannelSize, EventSink, Limits, Page, PageLimit, Publication,
    Published, State, Store, StoreError, StoreFuture, StoreMetrics,
};
use headwater::sync::clock::Clock;
use headwater::sync::lifecycle::Stage;
use headwater::sync::waiters::Registration;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::task::JoinSet;

/// `--store-timeout` of the origins.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// The memory of the tail buffers and of the responses, in bytes.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;
/// How long a load balancer sends requests to an origin whose streams have ended, in ms.
const NOTICED_MS: u64 = 500;
/// The bytes that the pipe to an origin holds.
const PIPE_BYTES: usize = 16 * 1024;

/// A running origin. Dropping it kills it.
pub struct Origin {
    pub number: usize,
    pub hub: Arc<Hub>,
    pub time: Arc<MachineTime>,
    pub feed: Arc<Feed>,
    /// `None` where the origin has a log of its own.
    link: Option<Arc<Link>>,
    app: Arc<AppState>,
    tasks: Mutex<JoinSet<()>>,
}

/// The events that the streams of one origin have received from its store.
#[derive(Default)]
pub struct Feed {
    /// Whether all streams end as soon as the next event has arrived.
    pub ends_at_event: AtomicBool,
    /// When the origin received each event, in ms.
    received: Mutex<HashMap<(ChannelName, EventId), u64>>,
}

/// The connection of one origin to Redis.
struct Link {
    redis: Arc<Redis>,
    random: Mutex<Random>,
    place: AtomicU64,
    /// The origin reads nothing from the firehose before this instant (ms).
    cut_until: AtomicU64,
    feed: Arc<Feed>,
    limits: Arc<ChannelLimits>,
}

impl Feed {
    /// Notes events that have arrived at `now`, in ms.
    pub fn receive(&self, channel: &ChannelName, events: &[StoredEvent], now: u64) {
        let ids = events.iter().map(|stored| ((channel.clone(), stored.id), now));
        self.received.lock().extend(ids);
    }

    /// Returns when an event arrived, in ms.
    pub fn received_at(&self, event: &(ChannelName, EventId)) -> Option<u64> {
        self.received.lock().get(event).copied()
    }

    /// Returns the number of events that have arrived.
    pub fn count(&self) -> usize {
        self.received.lock().len()
    }
}

impl Origin {
    /// Starts an origin. Returns why its log cannot be used.
    pub async fn start(
        world: &Arc<World>,
        number: usize,
        random: &mut Random,
    ) -> Result<Arc<Self>, String> {
        let drift = random.choose(&[0, 0, 100, -100, 2_000]);
        let ahead = random.choose(&[0, 0, 30, -400, 5_000]);
        let time = Arc::new(MachineTime::new(world.time.clone(), drift, ahead));
        let clock = Clock::simulated(time.clone());
        let registry = Arc::new(ChannelRegistry::new(clock.clone(), MEMORY_BYTES));
        let feed = Arc::new(Feed::default());
        let random = Random::of(random.number(), "link", number as u64);
        let mut tasks = JoinSet::new();
        let mut steps = None;
        let mut link = None;
        let store: Arc<dyn Store> = match &world.machine {
            Some(machine) => {
                let opened = machine.open(world, clock.clone(), registry.clone(), feed.clone());
                let (store, stepped) = opened.await?;
                steps = Some(stepped);
                tasks.spawn(local::sweep(store.clone()));
                store
            }
            None => {
                clock.correct(time.behind_ms());
                let link = link.insert(Arc::new(Link {
                    redis: world.redis.clone(),
                    random: Mutex::new(random.clone()),
                    place: AtomicU64::new(world.redis.end_of_firehose().0),
                    cut_until: AtomicU64::new(0),
                    feed: feed.clone(),
                    limits: Limits::default().into(),
                }));
                Arc::new(Linked(link.clone()))
            }
        };
        let segments =
            SegmentClock { length_ms: world.segment_ms, lanes: 1, rejoin_tick_ms: 1_000 };
        let budget = Budget::new(MEMORY_BYTES, STORE_TIMEOUT);
        let hub = Hub::new(clock.clone(), segments, registry.clone(), store, STORE_TIMEOUT, budget);
        let hub = Arc::new(hub);
        let (access, clients) =
            (Access::new(AccessConfig::default()), Clients::new(ClientsConfig::default()));
        let http = HttpConfig { segment_bytes: world.segment_bytes, ..HttpConfig::default() };
        let app = Arc::new(AppState::new(hub.clone(), http, access, clients, 1_000));
        let running = hub.clone();
        tasks.spawn(async move { running.run().await });
        if let Some(steps) = steps {
            tasks.spawn(local::run(steps, hub.clone(), feed.clone(), random));
        }
        if let Some(link) = &link {
            tasks.spawn(follow(link.clone(), registry, hub.clone()));
            tasks.spawn(follow_time(clock, time.clone()));
        }
        let tasks = Mutex::new(tasks);
        Ok(Arc::new(Self { number, hub, time, feed, link, app, tasks }))
    }

    /// Returns the client's end of a new connection.
    pub fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let app = self.app.clone();
        let caller = Caller {
            admission: Admission::Normal,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            is_guarded: false,
            tls: TlsPeer::None,
        };
        self.tasks.lock().spawn(serve(app, caller, theirs));
        ours
    }

    /// Whether the origin accepts connections. A load balancer notices within half a second that the
    /// streams of a draining origin have ended.
    pub fn accepts(&self) -> bool {
        self.hub.early_end().is_none_or(|ended| self.hub.clock().now() < ended + NOTICED_MS)
    }

    /// Cuts the origin off from Redis until an instant (ms).
    pub fn cut_link(&self, until: u64) {
        if let Some(link) = &self.link {
            link.cut_until.store(until, Ordering::Relaxed);
        }
    }

    /// Begins to drain. `at_event`: all streams end as soon as the next event has arrived.
    pub fn drain(&self, at_event: bool) {
        self.hub.lifecycle().advance(Stage::Draining);
        match at_event {
            true => self.feed.ends_at_event.store(true, Ordering::Relaxed),
            false => self.hub.end_streams(),
        }
    }

    /// Ends the process without a warning.
    pub fn kill(&self) {
        self.tasks.lock().abort_all();
    }
}

/// Serves the client at the other end of a pipe, also after a change to the WebSocket protocol.
async fn serve(app: Arc<AppState>, caller: Caller, pipe: DuplexStream) {
    let switched = Mutex::new(None);
    let service = service_fn(async |mut request| {
        let upgrade = hyper::upgrade::on(&mut request);
        let mut answer = answer(&app, request, &caller).await;
        let handshake = answer.extensions_mut().remove::<Arc<Handshake>>();
        *switched.lock() = handshake.map(|handshake| (upgrade, handshake));
        Ok::<_, std::convert::Infallible>(answer)
    });
    let connection = hyper::server::conn::http1::Builder::new();
    let connection = connection.serve_connection(TokioIo::new(pipe), service);
    connection.with_upgrades().await.unwrap_or_default();
    let Some((upgrade, handshake)) = switched.into_inner() else { return };
    let Ok(upgraded) = upgrade.await else { return };
    let mut stage = Registration::new(app.hub.lifecycle().clone());
    let draining = poll_fn(|context| match stage.poll_reached(context, Stage::Draining) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    Session::new(app.clone(), upgraded, handshake).await.run(draining).await;
}

/// Follows the clock of Redis.
async fn follow_time(clock: Clock, machine: Arc<MachineTime>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.correct(machine.behind_ms());
    }
}

/// Follows the firehose.
async fn follow(link: Arc<Link>, registry: Arc<ChannelRegistry>, hub: Arc<Hub>) {
    let (_, mut epoch) = link.redis.end_of_firehose();
    loop {
        let now = link.redis.now();
        let cut_until = link.cut_until.load(Ordering::Relaxed);
        if now < cut_until {
            tokio::time::sleep(Duration::from_millis(cut_until - now)).await;
            continue;
        }
        if link.redis.reach().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let place = link.place.load(Ordering::Relaxed);
        match link.redis.next_entry(place, epoch) {
            Next::Entry(number, entry) => {
                link.place.store(number + 1, Ordering::Relaxed);
                link.feed.receive(&entry.channel, &entry.events, link.redis.now());
                registry.appended(&entry.channel, entry.previous, &entry.events);
                if link.feed.ends_at_event.swap(false, Ordering::Relaxed) {
                    hub.end_streams();
                }
                tokio::task::yield_now().await;
            }
            Next::Lost(place, newest_epoch) => {
                link.place.store(place, Ordering::Relaxed);
                epoch = newest_epoch;
                registry.lost_place();
            }
            Next::Wait => {
                let changed = link.redis.changed.notified();
                tokio::time::timeout(Duration::from_millis(50), changed).await.ok();
                let delay = link.random.lock().choose(&[0, 0, 1, 3, 20]);
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
        }
    }
}

/// The store of one origin.
struct Linked(Arc<Link>);

impl Link {
    async fn delay(&self) {
        let delay = self.random.lock().choose(&[0, 0, 1, 2, 5]);
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }

    /// A read: a way there, the work at one instant, and a way back.
    async fn ask<T>(&self, work: impl FnOnce(&Redis) -> T) -> Result<T, StoreError> {
        self.delay().await;
        self.redis.reach().await?;
        let answer = work(&self.redis);
        self.delay().await;
        Ok(answer)
    }
}

impl Store for Linked {
    fn publish(&self, publication: Publication) -> StoreFuture<'_, Result<Published, StoreError>> {
        Box::pin(async move {
            let Publication { channel, events, idempotency } = publication;
            let answer = self.0.ask(|redis| redis.publish(&channel, events, idempotency)).await?;
            match self.0.random.lock().one_in(20) {
                true => Err(StoreError::Unclear("the answer was lost".to_owned())),
                false => answer,
            }
        })
    }

    fn close<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(async { self.0.ask(|redis| redis.close(channel)).await? })
    }

    fn erase<'a>(&'a self, _: &'a ChannelName) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(async { Err(StoreError::Down("no world deletes a channel".to_owned())) })
    }

    fn reopen<'a>(&'a self, _: &'a ChannelName) -> StoreFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Err(StoreError::Down("no world opens a channel again".to_owned())) })
    }

    fn log_state<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<LogState, StoreError>> {
        Box::pin(self.0.ask(|redis| redis.log_state(channel)))
    }

    fn position_before<'a>(
        &'a self,
        channel: &'a ChannelName,
        ms: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(self.0.ask(move |redis| redis.position_before(channel, ms)))
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.0.ask(move |redis| redis.read(channel, position, limit)))
    }

    fn read_back<'a>(
        &'a self,
        _: &'a ChannelName,
        _: EventId,
        _: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>> {
        Box::pin(async { Err(StoreError::Down("no world reads the history".to_owned())) })
    }

    fn position_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        count: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(self.0.ask(move |redis| redis.position_back(channel, count)))
    }

    fn state<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<State, StoreError>> {
        Box::pin(self.0.ask(|redis| redis.state(channel)))
    }

    fn names<'a>(
        &'a self,
        _: &'a ChannelFilter,
    ) -> StoreFuture<'a, Result<Vec<ChannelName>, StoreError>> {
        Box::pin(async { Err(StoreError::Down("no world lists its channels".to_owned())) })
    }

    fn size<'a>(&'a self, _: &'a ChannelName) -> StoreFuture<'a, Result<ChannelSize, StoreError>> {
        Box::pin(async { Err(StoreError::Down("no world lists its channels".to_owned())) })
    }

    fn settle(&self, ms: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let (end, _) = self.0.redis.end_of_firehose();
                let is_there = self.0.place.load(Ordering::Relaxed) >= end;
                if is_there && self.0.redis.now() >= ms {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    fn ready(&self) -> StoreFuture<'_, Result<(), StoreError>> {
        Box::pin(self.0.redis.reach())
    }

    fn limits(&self) -> &Arc<ChannelLimits> {
        &self.0.limits
    }

    fn metrics(&self) -> StoreMetrics {
        StoreMetrics::default()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn stop(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {})
    }
}
