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
use crate::sync::plants::{Plant, is_planted};
use bytes::Bytes;
use futures_util::future::try_join_all;

/// The stream that a client requests.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The channels, in the order of the URL.
    pub names: &'a [ChannelName],
    /// The requested start of the stream.
    pub asked: &'a ResumeFrom,
    /// The lane whose boundaries end the stream.
    pub lane: u64,
    /// Whether the stream runs beyond its segment. This is so for a stream of a WebSocket, and for
    /// a stream of a long poll, which ends at a deadline of its own.
    pub is_endless: bool,
    /// The encoding of the events.
    pub format: Format,
}

/// A stream that is ready to begin.
pub struct Joined {
    /// The reader of the stream's events.
    pub reader: Reader,
    /// The lifetime of the stream.
    pub span: Span,
    /// The gaps and the state, which come before the events.
    pub prelude: Prelude,
    /// The least mark of the closing cursor, in ms, as long as the stream has no event
    /// ([`ResumeFrom::least_mark`]).
    pub least_mark: u64,
}

/// The part of a stream before its events.
pub struct Prelude {
    /// The cursor after which the events begin.
    pub cursor: Cursor,
    /// The gaps that the client is informed of.
    pub gaps: Vec<Gap>,
    /// The encoded events of the state, one chunk for each channel that begins with its state. It
    /// is empty if no channel does.
    pub state: Vec<Bytes>,
}

/// The outcome of [`Hub::join`].
pub enum Join {
    /// The stream can begin.
    Stream(Box<Joined>),
    /// All channels have ended, and the client has received all of their events.
    NothingLeft,
}

impl Hub {
    /// Begins a stream.
    ///
    /// # Errors
    /// Fails when the store fails or does not answer in time, or when no memory becomes free in
    /// time.
    pub async fn join(&self, wanted: Wanted<'_>) -> Result<Join, ReadError> {
        let mut join = std::pin::pin!(self.join_patiently(wanted));
        match tokio::time::timeout(self.store_timeout, join.as_mut()).await {
            Ok(joined) => joined,
            // The join may have waited for memory, or for another join that waited for memory.
            Err(_) if self.budget.is_short() => Err(Exhausted.into()),
            Err(_) => Err(too_slow().into()),
        }
    }

    /// Returns the lifetime of a stream that would begin now, or `None` if every channel has ended
    /// and the client has received the `end` events. It does not read the state.
    ///
    /// # Errors
    /// Fails when the store fails or does not answer in time.
    pub async fn preview(&self, wanted: Wanted<'_>) -> Result<Option<Span>, StoreError> {
        let open = |name| self.registry.open(name, wanted.format);
        let leases: Vec<Lease> = wanted.names.iter().map(open).collect();
        let span = self.span(wanted.lane, wanted.asked.arrival());
        let starts = self.in_time(self.plan(&wanted, &leases, span.segment)).await?;
        Ok(starts.map(|_| span))
    }

    /// Begins to read one channel in JSON, without an end at a boundary.
    ///
    /// # Errors
    /// Fails like [`Hub::join`].
    pub async fn join_endless(
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
            // `0-0` stands for the position before every event, in this log and in any other. A
            // client that kept it would not notice on its return that another log has replaced this
            // one.
            ResumeFrom::After(cursor) if all_after => {
                Cursor { positions: positions.clone(), mark: cursor.mark }
            }
            _ => Cursor { positions: positions.clone(), mark: None },
        };
        let until_ms = if is_endless { u64::MAX } else { span.ends_at };
        let leases = leases.into_iter().zip(positions).collect();
        let reader = Reader::new(self.store.clone(), self.budget.clone(), leases, until_ms);
        let prelude = Prelude { cursor, gaps: plan.gaps, state };
        let least_mark = asked.least_mark();
        Ok(Join::Stream(Box::new(Joined { reader, span, prelude, least_mark })))
    }

    /// Returns how the stream starts, or `None` if every channel has ended and the client has
    /// received the `end` events.
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
                    .all(|(lease, at)| is_in_tail_buffer(lease, *at)) =>
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
                // A duration counts back from the start of the segment, so that all clients of the
                // segment get the same response.
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
        if let Some(early) = self.early_end() {
            // All streams have ended. This one only gives the client a later mark.
            return self.segments.span_until(lane, now, now.max(early + 1));
        }
        match self.is_draining() {
            true => self.segments.span_in_drain(lane, now, arrival),
            false => self.segments.span(lane, now, arrival),
        }
    }
}

impl Joined {
    /// Returns the cursor after everything that `reader` has handed out, with the mark `mark` (ms).
    pub fn closing_cursor(reader: &Reader, mark: u64) -> String {
        let positions = match is_planted(Plant::CursorSkip) {
            true => reader.newest_positions(),
            false => reader.positions(),
        };
        let mark = Some(mark).filter(|_| !is_planted(Plant::EndlessReplay));
        Cursor { positions, mark }.to_string()
    }
}

impl Prelude {
    /// Returns the SSE events before the channel's events: the opening, the gaps, the state and the
    /// event that closes the state.
    pub fn chunks(self, number: u64, ends_at: u64) -> Vec<Bytes> {
        let cursor = self.cursor.to_string();
        let has_state = !self.state.is_empty();
        let mut head = Vec::with_capacity(256);
        // The client takes the cursor with the last of these events. If its connection breaks
        // before, it comes back with its former cursor and gets the gaps again.
        let opens_with_cursor = !has_state && self.gaps.is_empty();
        sse::opening(&mut head, opens_with_cursor.then_some(&cursor), number, ends_at);
        for (index, gap) in self.gaps.iter().enumerate() {
            let is_last = !has_state && index + 1 == self.gaps.len();
            sse::gap(&mut head, gap, is_last.then_some(&cursor));
        }
        let mut chunks = vec![Bytes::from(head)];
        if has_state {
            chunks.extend(self.state.into_iter().filter(|state| !state.is_empty()));
            let mut closing = Vec::with_capacity(128);
            sse::state_closing(&mut closing, &cursor, number, ends_at);
            chunks.push(closing.into());
        }
        chunks
    }
}

/// Whether the tail buffer alone shows that the client's position is in the log and that more
/// events may follow.
fn is_in_tail_buffer(lease: &Lease, position: EventId) -> bool {
    let log = lease.buffer();
    let is_within = log.covers(position) && log.last().is_some_and(|last| position <= last);
    // After an `end` event, only the store can tell whether the channel was reopened.
    is_within && !(log.is_ended() && log.last() == Some(position))
}
