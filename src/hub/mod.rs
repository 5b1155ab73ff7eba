//! The origin's middle: who asks for which channels, where the stream begins and when it ends.
//!
//! Everything HTTP comes in through [`Hub::join`] and [`Hub::publish`]; everything the store
//! accepts comes in through [`ChannelRegistry`]. No socket and no header is known here.

pub mod channel;
pub mod reader;
pub mod registry;

use crate::core::cursor::{Cursor, EventId};
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::core::resume::{ResumeFrom, Start, StartPlan};
use crate::core::segment::{Arrival, Segment, SegmentClock, Span};
use crate::core::sse::{self, Format, GapReason};
use crate::hub::channel::ReadError;
use crate::hub::reader::Reader;
use crate::hub::registry::{ChannelRegistry, Lease};
use crate::limits::budget::{Budget, Charge, Exhausted};
use crate::store::{Publication, Published, Store, StoreError};
use crate::sync::clock::Clock;
use crate::sync::timers::Timers;
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::StreamExt;

/// How long the end of a segment waits for events that the store gave an earlier id. It costs
/// nobody an event: what comes later is the next response's.
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// Pause between two sweeps of the channels in memory.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);

/// Shared by every connection.
pub struct Hub {
    /// The time, by the store's clock.
    pub clock: Clock,
    /// When responses end.
    pub segments: SegmentClock,
    /// Channels in memory.
    pub registry: Arc<ChannelRegistry>,
    /// Where events are kept.
    pub store: Arc<dyn Store>,
    /// The ends of responses.
    pub ends: Timers,
    /// The next comments of quiet streams.
    pub heartbeats: Timers,
    /// What happened so far.
    pub metrics: Metrics,
    /// The memory of answers.
    pub budget: Budget,
    store_timeout: Duration,
    /// While draining: the instant (ms) by which every response ends; 0 before.
    drain_by: AtomicU64,
}

/// What a client wants to read.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The channels, in the order of the URL.
    pub names: &'a [ChannelName],
    /// Where the stream begins.
    pub asked: &'a ResumeFrom,
    /// Which lane's boundaries end it.
    pub lane: u64,
    /// It has no end of its own, where a segment has one.
    pub is_endless: bool,
    /// How events are written.
    pub format: Format,
}

/// A stream that can begin.
pub struct Joined {
    /// Its events.
    pub reader: Reader,
    /// When it ends.
    pub span: Span,
    /// What the client must be told is missing, and the state.
    pub prelude: Prelude,
}

/// What comes before the events.
pub struct Prelude {
    /// The cursor the events begin after.
    pub cursor: Cursor,
    /// Blocks that tell of gaps.
    pub gaps: Vec<u8>,
    /// Their reasons.
    pub gap_reasons: Vec<GapReason>,
    /// Blocks of state, a piece a channel; empty where there is none.
    pub state: Vec<Bytes>,
}

/// What came of an attempt to join.
pub enum Join {
    /// A stream.
    Stream(Box<Joined>),
    /// The channels have ended, and the client has all of it.
    NothingLeft,
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
            drain_by: AtomicU64::new(0),
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
            let settle = async |timer: Arc<crate::sync::timers::Timer>| {
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

    /// Begins a stream.
    ///
    /// # Errors
    /// When the store was needed and does not answer in time, or memory is not given in time.
    pub async fn join(&self, wanted: Wanted<'_>) -> Result<Join, ReadError> {
        let mut join = std::pin::pin!(self.join_patiently(wanted));
        match tokio::time::timeout(self.store_timeout, join.as_mut()).await {
            Ok(joined) => joined,
            // The join may have waited for memory, or for another one that did.
            Err(_) if self.budget.is_short() => Err(Exhausted.into()),
            Err(_) => Err(too_slow().into()),
        }
    }

    /// When a stream would end that is asked for now; `None`: every channel has ended and the client
    /// has its end. Reads no state.
    ///
    /// # Errors
    /// As [`Hub::join`].
    pub async fn preview(&self, wanted: Wanted<'_>) -> Result<Option<Span>, StoreError> {
        let open = |name| self.registry.open(name, wanted.format);
        let leases: Vec<Lease> = wanted.names.iter().map(open).collect();
        let span = self.span(wanted.lane, wanted.asked.arrival());
        let starts = self.in_time(self.beginning(&wanted, &leases, span.segment)).await?;
        Ok(starts.map(|_| span))
    }

    /// Begins to read one channel in JSON, for as long as its client stays.
    ///
    /// # Errors
    /// As [`Hub::join`].
    pub async fn join_for_good(
        &self,
        name: &ChannelName,
        asked: &ResumeFrom,
    ) -> Result<Join, ReadError> {
        let names = std::slice::from_ref(name);
        self.join(Wanted { names, asked, lane: 0, is_endless: true, format: Format::Json }).await
    }

    async fn join_patiently(&self, wanted: Wanted<'_>) -> Result<Join, ReadError> {
        let Wanted { names, asked, lane, is_endless, format } = wanted;
        let leases: Vec<Lease> =
            names.iter().map(|name| self.registry.open(name, format)).collect();
        let span = self.span(lane, asked.arrival());
        let Some(beginning) = self.beginning(&wanted, &leases, span.segment).await? else {
            return Ok(Join::NothingLeft);
        };
        let mut gaps = Vec::new();
        beginning.gaps.iter().for_each(|gap| sse::gap(&mut gaps, gap));
        let all_after = beginning.starts.iter().all(|start| matches!(start, Start::After(_)));
        let (mut positions, mut state) = (Vec::new(), Vec::new());
        for (lease, start) in leases.iter().zip(&beginning.starts) {
            positions.push(match start {
                Start::After(position) => *position,
                Start::Now => {
                    let fresh = lease.snapshot_in(span.segment, &*self.store, &self.budget).await?;
                    state.extend(fresh.state);
                    fresh.position
                }
            });
        }
        let cursor = match asked {
            ResumeFrom::After(cursor) if all_after && !gaps.is_empty() => cursor.clone(),
            // `0-0` stands for the place before every event, in this log and in any other: a client
            // that keeps it would not notice that the log is another one when it comes back.
            ResumeFrom::After(cursor) if all_after => {
                Cursor { positions: positions.clone(), mark: cursor.mark }
            }
            _ => Cursor { positions: positions.clone(), mark: None },
        };
        let until_ms = if is_endless { u64::MAX } else { span.ends_at };
        let leases = leases.into_iter().zip(positions).collect();
        let reader = Reader::new(self.store.clone(), self.budget.clone(), leases, until_ms);
        let gap_reasons = beginning.gaps.iter().map(|gap| gap.reason).collect();
        let prelude = Prelude { cursor, gaps, gap_reasons, state };
        Ok(Join::Stream(Box::new(Joined { reader, span, prelude })))
    }

    /// `None`: every channel has ended and the client has its end.
    async fn beginning(
        &self,
        Wanted { names, asked, .. }: &Wanted<'_>,
        leases: &[Lease],
        segment: Segment,
    ) -> Result<Option<StartPlan>, StoreError> {
        Ok(Some(match asked {
            ResumeFrom::Now => StartPlan::fresh(names.len()),
            ResumeFrom::After(cursor)
                if leases
                    .iter()
                    .zip(&cursor.positions)
                    .all(|(lease, at)| is_in_run(lease, *at)) =>
            {
                StartPlan::after(cursor)
            }
            ResumeFrom::After(cursor) => {
                let log_states = self.log_states(names).await?;
                let has_all = |(at, log_state): (&EventId, &LogState)| {
                    log_state.closed && *at == log_state.bounds.last
                };
                if cursor.positions.iter().zip(&log_states).all(has_all) {
                    return Ok(None);
                }
                StartPlan::decide(cursor, names, &log_states)
            }
            ResumeFrom::Foreign(requested) => {
                StartPlan::foreign(requested, names, &self.log_states(names).await?)
            }
            ResumeFrom::Since(since) => {
                // From the start of the segment, so that all clients of it get the same answer.
                let since_ms = since.ms(segment.starts_at);
                let befores = names.iter().map(|name| self.store.position_before(name, since_ms));
                let befores = try_join_all(befores).await?;
                let log_states = self.log_states(names).await?;
                StartPlan::since(since, since_ms, names, &befores, &log_states)
            }
            ResumeFrom::Last(count) => {
                let places = names.iter().map(|name| self.store.position_back(name, *count));
                StartPlan::at(&try_join_all(places).await?)
            }
        }))
    }

    async fn log_states(&self, names: &[ChannelName]) -> Result<Vec<LogState>, StoreError> {
        try_join_all(names.iter().map(|name| self.store.log_state(name))).await
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
    pub async fn settled<T>(
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

    /// From now on no response runs over its next boundary.
    pub fn begin_drain(&self) {
        let by = self.clock.now() + self.segments.longest_ms();
        self.drain_by.store(by, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.drain_by.load(Ordering::Relaxed) != 0
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

    fn span(&self, lane: u64, arrival: Arrival) -> Span {
        let now = self.clock.now();
        let span = self.segments.span(lane, now, arrival);
        if !self.is_draining() || span.ends_at <= span.segment.ends_at {
            return span;
        }
        self.segments.span_until(lane, now, span.segment.ends_at)
    }
}

impl Joined {
    /// The cursor of all that was handed out so far, marked with the instant `ends_at`.
    pub fn closing_cursor(reader: &Reader, ends_at: u64) -> String {
        Cursor { positions: reader.positions(), mark: Some(ends_at) }.to_string()
    }
}

impl Prelude {
    /// The blocks before the events: opening, gaps, state and its closing.
    pub fn pieces(self, number: u64, ends_at: u64) -> Vec<Bytes> {
        let cursor = self.cursor.to_string();
        let has_state = !self.state.is_empty();
        let mut head = Vec::with_capacity(256);
        sse::opening(&mut head, (!has_state).then_some(&cursor), number, ends_at);
        head.extend_from_slice(&self.gaps);
        let mut pieces = vec![Bytes::from(head)];
        if has_state {
            pieces.extend(self.state.into_iter().filter(|state| !state.is_empty()));
            let mut closing = Vec::with_capacity(128);
            sse::state_closing(&mut closing, &cursor, number, ends_at);
            pieces.push(closing.into());
        }
        pieces
    }
}

/// Whether the run alone shows that the client's place is in the log and more may come after it.
fn is_in_run(lease: &Lease, position: EventId) -> bool {
    let log = lease.log();
    let is_within = log.covers(position) && log.last().is_some_and(|last| position <= last);
    // Behind an end the store is asked: the channel may have been opened again, or not.
    is_within && !(log.is_ended() && log.last() == Some(position))
}

fn too_slow() -> StoreError {
    StoreError::Down("no answer in time (--store-timeout)".to_owned())
}
