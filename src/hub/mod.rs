//! The origin's middle: who asks for which channels, where the stream begins and when it ends.
//!
//! Everything HTTP comes in through [`Hub::join`] and [`Hub::publish`]; everything the store
//! accepts comes in through [`ChannelRegistry`]. No socket and no header is known here.

pub mod channel;
mod join;
pub mod reader;
pub mod registry;

pub use join::{Join, Joined, Prelude, Wanted};

use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::core::segment::SegmentClock;
use crate::core::sse;
use crate::hub::channel::{ReadError, charged_state};
use crate::hub::registry::ChannelRegistry;
use crate::limits::budget::{Budget, Charge, Exhausted};
use crate::store::{Page, PageLimit, Publication, Published, State, Store, StoreError};
use crate::sync::clock::Clock;
use crate::sync::lifecycle::{Lifecycle, Stage};
use crate::sync::timers::{Timer, Timers};
use crate::sync::waiters::Registration;
use crate::telemetry::metrics::Metrics;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long the end of a segment waits for events that the store gave an earlier id. It costs
/// nobody an event: what comes later is the next response's.
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// Pause between two sweeps of the channels in memory.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);

/// Shared by every connection.
pub struct Hub {
    /// The time, by the store's clock.
    clock: Clock,
    /// When responses end.
    segments: SegmentClock,
    /// Channels in memory.
    registry: Arc<ChannelRegistry>,
    /// Where events are kept.
    store: Arc<dyn Store>,
    /// The ends of responses.
    ends: Timers,
    /// The next comments of quiet streams.
    heartbeats: Timers,
    metrics: Metrics,
    /// The memory of answers.
    budget: Budget,
    /// Longest wait for the store.
    store_timeout: Duration,
    lifecycle: Arc<Lifecycle>,
    /// Counts the streams that are being answered, so that a drain can wait for them.
    streams: TaskTracker,
}

impl Hub {
    /// A hub on a store that tells `registry`.
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
            metrics: Metrics::new(&store.metrics()),
            lifecycle: Arc::default(),
            streams: TaskTracker::new(),
            clock,
            segments,
            registry,
            store,
            store_timeout,
            budget,
        }
    }

    /// Wakes, ends and sweeps for as long as it is polled.
    pub async fn run(&self) {
        let ends = async {
            let settle = async |timer: Arc<Timer>| {
                let settled = self.store.settle(timer.at());
                // Late or not, the responses end: their cursors are right either way.
                tokio::time::timeout(SETTLE_MAX, settled).await.ok();
                timer.fire();
            };
            // Side by side: while the store is silent, each end waits its own time and no longer.
            let mut settling = FuturesUnordered::new();
            loop {
                tokio::select! {
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
            }
        };
        tokio::join!(ends, heartbeats, sweeps, self.registry.announce());
    }

    /// Brings the gauges up to date.
    pub async fn refresh_metrics(&self) {
        let is_up = self.in_time(self.store.ready()).await.is_ok();
        self.store.metrics().up.set(is_up.into());
        self.metrics.channels_live.set(self.registry.len() as i64);
        self.metrics.clock_lead_seconds.set(self.clock.lead_ms() as f64 / 1_000.0);
        self.metrics.clock_steps.set(self.clock.steps() as i64);
    }

    /// Accepts a publish.
    ///
    /// # Errors
    /// As the store says, and when it does not answer in time.
    pub async fn publish(&self, publication: Publication) -> Result<Published, StoreError> {
        let events = publication.events.len() as u64;
        let bytes: usize = publication.events.iter().map(crate::core::event::Event::weight).sum();
        let published = self.settled(self.store.publish(publication)).await?;
        if !published.repeated {
            self.metrics.published(events, bytes as u64);
        }
        Ok(published)
    }

    /// Waits for a change of the store. The store itself says after `--store-timeout` what became
    /// of it; only where it does not even do that, nothing is known.
    ///
    /// # Errors
    /// As the store says.
    async fn settled<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let silent = || StoreError::Unclear("the store does not answer".to_owned());
        tokio::time::timeout(self.store_timeout * 2, answer).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Waits for the store, but not for ever.
    ///
    /// # Errors
    /// As the store says, and when it does not answer in time.
    pub async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.store_timeout, answer).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Waits for memory for an answer, but not for ever.
    ///
    /// # Errors
    /// When other answers do not leave so much in time.
    pub async fn memory(&self, bytes: usize) -> Result<Charge, Exhausted> {
        self.budget.charge_in_time(bytes).await
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.lifecycle.has_reached(Stage::Draining)
    }

    /// The stages in which the process ends. From `Draining` on, no response runs over its next
    /// boundary.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Counts a stream for as long as the token lives.
    pub fn count_stream(&self) -> TaskTrackerToken {
        self.streams.token()
    }

    /// The number of streams that are being answered.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Waits until every stream has ended.
    pub async fn streams_end(&self) {
        self.streams.close();
        self.streams.wait().await;
    }

    /// The time, by the store's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// When responses end.
    pub fn segments(&self) -> &SegmentClock {
        &self.segments
    }

    /// The metrics of this process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Longest wait for the store.
    pub fn store_timeout(&self) -> Duration {
        self.store_timeout
    }

    /// Whether other origins use the same store.
    pub fn shares_store(&self) -> bool {
        self.store.is_shared()
    }

    /// The timer of the instant `at` (ms) at which responses end. It fires once the store has
    /// settled up to that instant.
    pub fn end_timer(&self, at: u64) -> Registration<Timer> {
        self.ends.at(at)
    }

    /// The timer of the instant `at` (ms) at which a quiet stream may send a comment.
    pub fn heartbeat_timer(&self, at: u64) -> Registration<Timer> {
        self.heartbeats.at(at)
    }

    /// A page of the events after `position`.
    ///
    /// # Errors
    /// As [`Hub::in_time`].
    pub async fn read(
        &self,
        name: &ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.in_time(self.store.read(name, position, limit)).await
    }

    /// A page of the events before `before`, the newest of them.
    ///
    /// # Errors
    /// As [`Hub::in_time`].
    pub async fn read_back(
        &self,
        name: &ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.in_time(self.store.read_back(name, before, limit)).await
    }

    /// The last position before the instant `ms`.
    ///
    /// # Errors
    /// As [`Hub::in_time`].
    pub async fn position_before(
        &self,
        name: &ChannelName,
        ms: u64,
    ) -> Result<EventId, StoreError> {
        self.in_time(self.store.position_before(name, ms)).await
    }

    /// How far the log of a channel reaches.
    ///
    /// # Errors
    /// As [`Hub::in_time`].
    pub async fn log_state(&self, name: &ChannelName) -> Result<LogState, StoreError> {
        self.in_time(self.store.log_state(name)).await
    }

    /// The state of a channel, and the charge for the memory that it takes.
    ///
    /// # Errors
    /// When the store does not answer, or memory is not given in time.
    pub async fn state(&self, name: &ChannelName) -> Result<(State, Charge), ReadError> {
        charged_state(&*self.store, &self.budget, name).await
    }

    /// A charge for a copy of `bytes` that is kept for later requests; `None` where memory is
    /// short.
    pub fn keep_copy(&self, bytes: usize) -> Option<Charge> {
        self.budget.keep(bytes)
    }

    /// Ends a channel; returns the id of its `end` event.
    ///
    /// # Errors
    /// As [`Hub::settled`].
    pub async fn close(&self, name: &ChannelName) -> Result<EventId, StoreError> {
        self.settled(self.store.close(name)).await
    }

    /// Opens a channel that has ended.
    ///
    /// # Errors
    /// As [`Hub::settled`].
    pub async fn reopen(&self, name: &ChannelName) -> Result<(), StoreError> {
        self.settled(self.store.reopen(name)).await
    }

    /// Whether the store would accept a publish.
    ///
    /// # Errors
    /// Why it would not.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.in_time(self.store.ready()).await
    }

    /// The wait before a client asks again after a planned end, in ms. While an origin drains whose
    /// store no other origin shares, nobody will answer for some seconds; where others share the
    /// store, one of them answers at once, and the closing blocks of all origins stay the same.
    pub fn retry_ms(&self) -> u64 {
        match self.is_draining() && !self.store.is_shared() {
            true => sse::RETRY_BROKEN_MS,
            false => sse::RETRY_PLANNED_MS,
        }
    }
}

fn too_slow() -> StoreError {
    StoreError::Down("no answer in time (--store-timeout)".to_owned())
}
