//! The centre of an origin: it connects streams with the store and with the channels in memory.
//! `core::resume` computes where a stream begins, and `core::segment` when it ends; the hub carries
//! this out.
//!
//! Streams and publishes come in from HTTP through [`Hub::join`] and [`Hub::publish`], and
//! everything that the store accepts comes in through [`ChannelRegistry`]. The hub does not deal
//! with sockets or headers.

pub mod channel;
pub mod event_stream;
mod join;
mod listing;
pub mod reader;
pub mod registry;
mod settings;

pub use join::{Join, Joined, Prelude, Wanted};
pub use listing::ChannelInfo;

use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::core::segment::SegmentClock;
use crate::core::sse;
use crate::hub::channel::{ReadError, charged_state};
use crate::hub::reader::Reader;
use crate::hub::registry::ChannelRegistry;
use crate::limits::budget::{Budget, Charge, Exhausted};
use crate::store::{Page, PageLimit, Publication, Published, State, Store, StoreError};
use crate::sync::clock::Clock;
use crate::sync::lifecycle::{Lifecycle, Stage};
use crate::sync::timers::{Timer, Timers};
use crate::sync::waiters::Registration;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long the end of a segment waits for events to which the store gave an earlier id. No client
/// misses an event because of this limit: an event that comes later is part of the next response.
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// Pause between two sweeps of the channel registry.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);

/// The hub of an origin, shared by every connection.
pub struct Hub {
    /// The time by the store's clock.
    clock: Clock,
    /// The instants at which responses end.
    segments: SegmentClock,
    /// The channels in memory.
    registry: Arc<ChannelRegistry>,
    /// The store that keeps the events.
    store: Arc<dyn Store>,
    /// The timers of the instants at which responses end.
    ends: Timers,
    /// The timers of the next comments of quiet streams.
    heartbeats: Timers,
    metrics: Metrics,
    /// The memory budget of the responses.
    budget: Budget,
    /// Longest wait for the store.
    store_timeout: Duration,
    lifecycle: Arc<Lifecycle>,
    /// The instant at which all streams have ended early, in ms; 0 if there is none.
    early_end: AtomicU64,
    /// Whether another process will serve the same sockets and the same store at once.
    has_successor: AtomicBool,
    /// Counts the streams that are being served, so that a drain can wait for them.
    streams: TaskTracker,
}

impl Hub {
    /// Returns a hub on a store that reports its events to `registry`.
    pub fn new(
        clock: Clock,
        segments: SegmentClock,
        registry: Arc<ChannelRegistry>,
        store: Arc<dyn Store>,
        store_timeout: Duration,
        budget: Budget,
    ) -> Self {
        Self {
            ends: Timers::new(clock.clone()),
            heartbeats: Timers::new(clock.clone()),
            metrics: Metrics::new(&store.metrics(), &registry.traces().exports),
            lifecycle: Arc::default(),
            early_end: AtomicU64::new(0),
            has_successor: AtomicBool::new(false),
            streams: TaskTracker::new(),
            clock,
            segments,
            registry,
            store,
            store_timeout,
            budget,
        }
    }

    /// Wakes readers, ends responses, fires heartbeats and sweeps the channel registry, for as long
    /// as the future is polled.
    pub async fn run(&self) {
        let ends = async {
            let settle = async |timer: Arc<Timer>| {
                let settled = self.store.settle(timer.at());
                // The responses end even if the store has not settled in time: their cursors are
                // right either way.
                tokio::time::timeout(SETTLE_MAX, settled).await.ok();
                timer.fire();
            };
            // Several ends settle concurrently: while the store does not answer, each of them waits
            // only for its own timeout.
            let mut settling = FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    timer = self.ends.next_due() => settling.push(settle(timer)),
                    Some(()) = settling.next() => {}
                }
            }
        };
        let heartbeats = async {
            loop {
                self.heartbeats.next_due().await.fire();
            }
        };
        let sweeps = async {
            loop {
                tokio::time::sleep(SWEEP_PAUSE).await;
                self.registry.sweep();
                self.traces().sweep();
            }
        };
        tokio::join!(ends, heartbeats, sweeps, self.registry.announce());
    }

    /// Updates the gauges.
    pub async fn refresh_metrics(&self) {
        let is_up = self.in_time(self.store.ready()).await.is_ok();
        self.store.metrics().up.set(is_up.into());
        self.metrics.channels_live.set(self.registry.len() as i64);
        self.metrics.clock_lead_seconds.set(self.clock.lead_ms() as f64 / 1_000.0);
        self.metrics.clock_steps.set(self.clock.steps() as i64);
    }

    /// Stores the events of a publish.
    ///
    /// # Errors
    /// Fails when the store refuses the publish or does not answer in time.
    pub async fn publish(&self, publication: Publication) -> Result<Published, StoreError> {
        let events = publication.events.len() as u64;
        let bytes: usize = publication.events.iter().map(crate::core::event::Event::weight).sum();
        let begun = std::time::Instant::now();
        let span = self.traces().store(&publication);
        let published = self.settled(self.store.publish(publication)).await;
        span.ended(published.as_ref().err().map(StoreError::to_string));
        let published = published?;
        if !published.repeated {
            self.metrics.stored(begun.elapsed());
            self.metrics.published(events, bytes as u64);
        }
        Ok(published)
    }

    /// Waits for a write of the store. The store itself reports after `--store-timeout` whether the
    /// write was stored. If it does not report within twice that time, the result is unknown.
    ///
    /// # Errors
    /// Fails with the error of the store, or when the result is unknown.
    async fn settled<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let silent = || StoreError::Unclear("the store does not answer".to_owned());
        tokio::time::timeout(self.store_timeout * 2, answer).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Waits for the store, at most for the store timeout.
    ///
    /// # Errors
    /// Fails when the store fails or does not answer in time.
    pub async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.store_timeout, answer).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Waits for the memory of a response for a limited time.
    ///
    /// # Errors
    /// Fails when other responses do not leave enough memory in time.
    pub async fn memory(&self, bytes: usize) -> Result<Charge, Exhausted> {
        self.budget.charge_in_time(bytes).await
    }

    /// Returns the traces of the process.
    pub fn traces(&self) -> &Traces {
        self.registry.traces()
    }

    /// Notes that everything that a reader has handed out was sent to its clients.
    pub fn note_sent(&self, reader: &Reader) {
        if self.traces().has_waiting() {
            self.note_sent_to(&reader.names(), reader.positions());
        }
    }

    /// Notes that the events of these channels up to these positions were sent to clients.
    fn note_sent_to(&self, names: &[ChannelName], positions: Vec<EventId>) {
        let sent = names.iter().zip(positions);
        sent.for_each(|(name, position)| self.traces().delivered(name, position));
    }

    /// Whether the process is about to end (it drains or closes).
    pub fn is_draining(&self) -> bool {
        self.lifecycle.has_reached(Stage::Draining)
    }

    /// Returns the stages in which the process ends. A response that begins in `Draining` or later
    /// does not run past the next boundary.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Counts a stream for as long as the returned token exists.
    pub fn count_stream(&self) -> TaskTrackerToken {
        self.streams.token()
    }

    /// Ends all streams now, as planned. Their cursors have this instant as their mark, like those
    /// of a rejoin tick.
    pub fn end_streams(&self) {
        self.early_end.store(self.clock.now().max(1), Ordering::Release);
        self.ends.fire_all();
    }

    /// Returns the instant at which all streams have ended early, if they have.
    pub fn early_end(&self) -> Option<u64> {
        Some(self.early_end.load(Ordering::Acquire)).filter(|at| *at > 0)
    }

    /// Notes that another process takes over the sockets when this one ends, so that clients may
    /// reconnect at once.
    pub fn expect_successor(&self) {
        self.has_successor.store(true, Ordering::Release);
    }

    /// Returns the number of streams that are being served.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Waits until every stream has ended.
    pub async fn streams_end(&self) {
        self.streams.close();
        self.streams.wait().await;
    }

    /// Returns the clock, which follows the store's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the instants at which responses end.
    pub fn segments(&self) -> &SegmentClock {
        &self.segments
    }

    /// Returns the metrics of this process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the longest wait for the store.
    pub fn store_timeout(&self) -> Duration {
        self.store_timeout
    }

    /// Whether other origins use the same store.
    pub fn shares_store(&self) -> bool {
        self.store.is_shared()
    }

    /// Returns the timer of the instant `at` (ms) at which responses end. It fires once the store
    /// has settled up to that instant, or after `SETTLE_MAX`.
    pub fn end_timer(&self, at: u64) -> Registration<Timer> {
        self.ends.at(at)
    }

    /// Returns the timer of the instant `at` (ms) at which a quiet stream may send a comment.
    pub fn heartbeat_timer(&self, at: u64) -> Registration<Timer> {
        self.heartbeats.at(at)
    }

    /// Returns a page of the events after `position`.
    ///
    /// # Errors
    /// Fails like [`Hub::in_time`].
    pub async fn read(
        &self,
        name: &ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.in_time(self.store.read(name, position, limit)).await
    }

    /// Returns a page of the newest events before `before`.
    ///
    /// # Errors
    /// Fails like [`Hub::in_time`].
    pub async fn read_back(
        &self,
        name: &ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.in_time(self.store.read_back(name, before, limit)).await
    }

    /// Returns the last position before the instant `ms`.
    ///
    /// # Errors
    /// Fails like [`Hub::in_time`].
    pub async fn position_before(
        &self,
        name: &ChannelName,
        ms: u64,
    ) -> Result<EventId, StoreError> {
        self.in_time(self.store.position_before(name, ms)).await
    }

    /// Returns the state of a channel's log.
    ///
    /// # Errors
    /// Fails like [`Hub::in_time`].
    pub async fn log_state(&self, name: &ChannelName) -> Result<LogState, StoreError> {
        self.in_time(self.store.log_state(name)).await
    }

    /// Returns the state of a channel, and the charge for the memory that it takes.
    ///
    /// # Errors
    /// Fails when the store does not answer, or when no memory becomes free in time.
    pub async fn state(&self, name: &ChannelName) -> Result<(State, Charge), ReadError> {
        charged_state(&*self.store, &self.budget, name).await
    }

    /// Returns a charge for a copy of `bytes` bytes that is kept for later requests, or `None` if
    /// memory is short.
    pub fn keep_copy(&self, bytes: usize) -> Option<Charge> {
        self.budget.keep(bytes)
    }

    /// Ends a channel, and returns the id of its `end` event.
    ///
    /// # Errors
    /// Fails when the store refuses the change or does not answer in time.
    pub async fn close(&self, name: &ChannelName) -> Result<EventId, StoreError> {
        self.settled(self.store.close(name)).await
    }

    /// Reopens a channel that has ended.
    ///
    /// # Errors
    /// Fails when the store refuses the change or does not answer in time.
    pub async fn reopen(&self, name: &ChannelName) -> Result<(), StoreError> {
        self.settled(self.store.reopen(name)).await
    }

    /// Checks whether the store would accept a publish.
    ///
    /// # Errors
    /// Fails with the reason why the store would not accept it.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.in_time(self.store.ready()).await
    }

    /// Returns the reconnect delay after a planned end, in ms. If this origin drains, no other
    /// origin shares its store and no other process takes over its sockets, no origin responds for
    /// some seconds, so the delay is long. If other origins share the store, one of them responds
    /// at once, and the closing events of all origins stay the same.
    pub fn retry_ms(&self) -> u64 {
        let has_successor = self.store.is_shared() || self.has_successor.load(Ordering::Acquire);
        match self.is_draining() && !has_successor {
            true => sse::RETRY_BROKEN_MS,
            false => sse::RETRY_PLANNED_MS,
        }
    }
}

fn too_slow() -> StoreError {
    StoreError::Down("no answer in time (--store-timeout)".to_owned())
}
