//! The start of a stream: which position each channel is read from, which gaps and state come
//! before the events, and when the stream ends.

use super::channel::ReadError;
use super::reader::Reader;
use super::registry::Lease;
use super::{Hub, too_slow};
use crate::core::cursor::{Cursor, EventId};
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::core::resume::{ResumeFrom, Start, StartPlan};
use crate::core::segment::{Arrival, Segment, Span};
use crate::core::sse::{self, Format, Gap};
use crate::limits::budget::Exhausted;
use crate::store::StoreError;
use bytes::Bytes;
use futures_util::future::try_join_all;

/// The stream that a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The channels, in the order of the URL.
    pub names: &'a [ChannelName],
    /// The position from which the client asks to read.
    pub asked: &'a ResumeFrom,
    /// The lane whose boundaries end it.
    pub lane: u64,
    /// The stream does not end with its segment: that of a WebSocket, and of a long poll, which ends
    /// by a time of its own.
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
    /// The gaps and the state, which come before the events.
    pub prelude: Prelude,
}

/// The part of a stream before its events.
pub struct Prelude {
    /// The cursor after which the events begin.
    pub cursor: Cursor,
    /// The gaps of which the client is informed.
    pub gaps: Vec<Gap>,
    /// The events of the state, a chunk for each channel; empty where there is no state.
    pub state: Vec<Bytes>,
}

/// The outcome of [`Hub::join`].
pub enum Join {
    /// A stream.
    Stream(Box<Joined>),
    /// The channels have ended, and the client has all of their events.
    NothingLeft,
}

impl Hub {
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
        let starts = self.in_time(self.plan(&wanted, &leases, span.segment)).await?;
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
        let Some(plan) = self.plan(&wanted, &leases, span.segment).await? else {
            return Ok(Join::NothingLeft);
        };
        let all_after = plan.starts.iter().all(|start| matches!(start, Start::After(_)));
        let (mut positions, mut state) = (Vec::new(), Vec::new());
        for (lease, start) in leases.iter().zip(&plan.starts) {
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
            ResumeFrom::After(cursor) if all_after && !plan.gaps.is_empty() => cursor.clone(),
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
        let prelude = Prelude { cursor, gaps: plan.gaps, state };
        Ok(Join::Stream(Box::new(Joined { reader, span, prelude })))
    }

    /// How the stream starts; `None`: every channel has ended, and the client has its end.
    async fn plan(
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
    /// The SSE events before the channel's events: opening, gaps, state and its closing.
    pub fn pieces(self, number: u64, ends_at: u64) -> Vec<Bytes> {
        let cursor = self.cursor.to_string();
        let has_state = !self.state.is_empty();
        let mut head = Vec::with_capacity(256);
        sse::opening(&mut head, (!has_state).then_some(&cursor), number, ends_at);
        self.gaps.iter().for_each(|gap| sse::gap(&mut head, gap));
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
