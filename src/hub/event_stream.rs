//! Decides what a stream sends next: events, a comment, the closing event, or an abort.
//!
//! Only this module decides that. Three drivers poll an [`EventStream`]: the body of an HTTP
//! response that hyper sends (HTTP/2, HTTP/1.0 and TLS), the task of a connection that catches up,
//! and the pump of the fan-out, which polls one stream for a whole group of subscribers.
//!
//! A stream ends without an error only if its last cursor covers exactly the events that were sent.
//! Any other end is an error, and the driver must break off the transfer, so that no cache keeps
//! the response.

use super::reader::{Delivery, Place, ReadFailure, Reader, Step};
use super::{Hub, Joined};
use crate::core::caching::Ending;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::core::segment::Span;
use crate::core::sse::{self, Format};
use crate::limits::connections::Permit;
use crate::sync::plants::{Plant, is_planted};
use crate::sync::timers::Timer;
use crate::sync::waiters::Registration;
use crate::telemetry::metrics::JoinKind;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The times of heartbeats are rounded up to multiples of this, in ms, so that many streams share
/// one timer.
const HEARTBEAT_GRID_MS: u64 = 250;
/// A stream that still sends events of its segment this long after the end of the segment, in ms,
/// is closed. The client continues in the next response, because the cursor is right at every
/// event.
const OVERRUN_MS: u64 = 5_000;

/// The stream of one response, or of a group of responses that are at the same place.
pub struct EventStream {
    hub: Arc<Hub>,
    reader: Reader,
    span: Span,
    ready: VecDeque<Bytes>,
    bytes_left: usize,
    end: Registration<Timer>,
    heartbeat: Registration<Timer>,
    heartbeat_ms: u64,
    sent_at: u64,
    /// The least mark of the closing cursor, in ms. The first event sets it to 0, because the
    /// positions of the cursor then differ from those of the request.
    least_mark: u64,
    /// Whether the stream began before all streams were ended early.
    may_end_early: bool,
    ending: Option<Ending>,
    /// The positions up to which the pass of a group will have sent everything. They are noted only
    /// while a traced event waits for its delivery.
    sending: Option<Vec<EventId>>,
}

/// The streams that can share one group: from the same cursor on, they send the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    names: Vec<ChannelName>,
    format: Format,
    ends_at: u64,
    next_number: u64,
    /// The least mark of the closing cursor, if it is after the end. Otherwise 0: it changes the
    /// closing cursor only if the stream ends early, and then in the same way for the whole group.
    late_mark: u64,
}

/// The account of one stream: its permits, and its part in the metrics. Dropping it counts the end
/// of the stream.
pub struct StreamAccount {
    hub: Arc<Hub>,
    ending: Option<Ending>,
    _counted: TaskTrackerToken,
    /// The permit of the stream's client, and the permit for a stream over HTTP/2.
    held: (Option<Permit>, Option<OwnedSemaphorePermit>),
}

/// A stream with its account.
pub struct CountedStream {
    /// The stream.
    pub stream: EventStream,
    /// Its account.
    pub account: StreamAccount,
}

/// The error that breaks off a transfer, with its reason.
#[derive(Clone, Copy, Debug)]
pub struct StreamAborted(pub Ending);

impl EventStream {
    /// Creates a stream that begins now. After `bytes_max` bytes of events it ends early.
    pub fn new(hub: Arc<Hub>, joined: Joined, heartbeat: Duration, bytes_max: usize) -> Self {
        let Joined { reader, span, prelude, least_mark } = joined;
        let ready = prelude.chunks(span.segment.number, span.ends_at).into();
        // A join that was waiting for the store when all streams ended has a lifetime that was
        // computed before. Its stream ends early too.
        let may_end_early = hub.early_end().is_none() || span.ends_at > hub.clock().now();
        let stream = Self::begin(hub, reader, span, ready, heartbeat.as_millis() as u64, bytes_max);
        Self { may_end_early, least_mark, ..stream }
    }

    /// Creates a stream that continues at `places`, where this one was or is. It has `bytes_left`
    /// bytes of events until it ends early.
    pub fn fork(&self, places: &[Place], bytes_left: usize) -> Self {
        let reader = self.reader.fork(places);
        let (hub, ready) = (self.hub.clone(), VecDeque::new());
        let stream = Self::begin(hub, reader, self.span, ready, self.heartbeat_ms, bytes_left);
        Self { may_end_early: self.may_end_early, least_mark: self.least_mark, ..stream }
    }

    fn begin(
        hub: Arc<Hub>,
        reader: Reader,
        span: Span,
        ready: VecDeque<Bytes>,
        heartbeat_ms: u64,
        bytes_left: usize,
    ) -> Self {
        let sent_at = hub.clock().now();
        Self {
            end: hub.end_timer(span.ends_at),
            heartbeat: hub.heartbeat_timer(on_grid(sent_at + heartbeat_ms)),
            reader,
            span,
            ready,
            bytes_left,
            heartbeat_ms,
            sent_at,
            least_mark: 0,
            may_end_early: true,
            ending: None,
            sending: None,
            hub,
        }
    }

    /// Returns the key of the group in which the stream can be sent.
    pub fn key(&self) -> StreamKey {
        StreamKey {
            names: self.reader.names(),
            format: self.reader.format(),
            ends_at: self.span.ends_at,
            next_number: self.span.next_number,
            late_mark: Some(self.least_mark).filter(|mark| *mark > self.span.ends_at).unwrap_or(0),
        }
    }

    /// Returns the least mark of the closing cursor, in ms.
    pub fn least_mark(&self) -> u64 {
        self.least_mark
    }

    /// Raises the least mark of the closing cursor to `mark` (ms), for a subscriber that joins a
    /// group.
    pub fn raise_least_mark(&mut self, mark: u64) {
        self.least_mark = self.least_mark.max(mark);
    }

    /// Returns the place in each channel up to which all events were handed out.
    pub fn places(&self) -> Box<[Place]> {
        self.reader.places()
    }

    /// Notes the events that the pass of a group will have sent, if one of them is traced.
    pub fn pass_begins(&mut self) {
        let has_traced = self.hub.traces().has_waiting();
        self.sending = has_traced.then(|| self.reader.positions());
    }

    /// Records that a pass has sent events. The oldest was stored at the time `stored_at`, in ms.
    pub fn pass_ended(&mut self, stored_at: u64) {
        self.hub.metrics().delivered(self.hub.clock().now().saturating_sub(stored_at));
        if let Some(positions) = self.sending.take() {
            self.hub.note_sent_to(&self.reader.names(), positions);
        }
    }

    /// Counts events, and bytes of the stream, that were sent to subscribers of a group.
    pub fn sent(&self, events: u64, bytes: u64) {
        self.hub.metrics().sent(events, bytes as usize);
    }

    /// Notes the number of subscribers that receive the stream.
    pub fn set_subscribers(&mut self, count: usize) {
        self.reader.set_subscribers(count);
    }

    /// Returns how many bytes of events follow before the stream ends early.
    pub fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Lets the stream run on to the end of its segment, however many bytes it sends. The driver
    /// of a group limits each subscriber by itself.
    pub fn without_bytes_max(mut self) -> Self {
        self.bytes_left = usize::MAX;
        self
    }

    /// Returns how the stream has ended, or `None` while it has not.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Whether the stream waits for new events, and not for a page of old ones.
    pub fn is_live(&self) -> bool {
        self.ready.is_empty() && self.ending.is_none() && !self.reader.is_paging()
    }

    /// Returns the next bytes, or `None` when the stream has ended as planned.
    ///
    /// # Errors
    /// Fails when the stream cannot go on without missing events.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, StreamAborted>>> {
        if let Some(bytes) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Delivery { bytes, events: 0 })));
        }
        if self.ending.is_some() {
            return Poll::Ready(None);
        }
        if self.bytes_left == 0 {
            self.close(Ending::Full);
            return self.poll_next(context);
        }
        // The timer is polled before the reader: once the timer has fired, the reader finds every
        // event before the end.
        let is_over = self.end.poll_fired(context.waker());
        match self.reader.poll_next(context, self.bytes_left) {
            Poll::Ready(Ok(Step::Events(_)))
                if is_over && self.hub.is_draining() && is_planted(Plant::DrainDrop) =>
            {
                self.close(Ending::Boundary);
                self.poll_next(context)
            }
            Poll::Ready(Ok(Step::Events(delivery))) => {
                self.sent_at = self.hub.clock().now();
                self.least_mark = 0;
                self.bytes_left = self.bytes_left.saturating_sub(delivery.bytes.len());
                if self.sent_at > self.span.ends_at + OVERRUN_MS {
                    self.close(Ending::Boundary);
                }
                Poll::Ready(Some(Ok(delivery)))
            }
            Poll::Ready(Ok(Step::Ended)) => {
                self.ending = Some(Ending::ChannelEnd);
                Poll::Ready(None)
            }
            Poll::Ready(Err(failure)) => Poll::Ready(Some(Err(self.abort(&failure)))),
            Poll::Pending if is_over => {
                self.close(Ending::Boundary);
                self.poll_next(context)
            }
            Poll::Pending => self.poll_heartbeat(context),
        }
    }

    fn poll_heartbeat(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, StreamAborted>>> {
        while self.heartbeat.poll_fired(context.waker()) {
            let now = self.hub.clock().now();
            let is_quiet = now >= self.sent_at + self.heartbeat_ms;
            if is_quiet {
                self.sent_at = now;
            }
            self.heartbeat = self.hub.heartbeat_timer(on_grid(self.sent_at + self.heartbeat_ms));
            if is_quiet {
                let bytes = Bytes::from_static(sse::HEARTBEAT);
                return Poll::Ready(Some(Ok(Delivery { bytes, events: 0 })));
            }
        }
        Poll::Pending
    }

    fn close(&mut self, ending: Ending) {
        debug_assert!(ending.is_whole());
        let mut block = Vec::with_capacity(128);
        // A stream that has ended early has the mark of that instant.
        let early = self.hub.early_end().filter(|_| self.may_end_early);
        let mark = match early {
            Some(early) => early.min(self.span.ends_at),
            // With a mark before the boundary, the next response ends with the mark of the boundary,
            // like all other responses of the segment.
            None if ending == Ending::Full => self.span.ends_at - 1,
            None => self.span.ends_at,
        };
        let cursor = Joined::closing_cursor(&self.reader, mark.max(self.least_mark));
        let number = match mark < self.span.segment.ends_at {
            true => self.span.segment.number,
            false => self.span.next_number,
        };
        sse::closing(&mut block, &cursor, number, self.hub.retry_ms());
        self.ready.push_back(block.into());
        self.ending = Some(ending);
    }

    fn abort(&mut self, failure: &ReadFailure) -> StreamAborted {
        let ending = match failure {
            ReadFailure::FellBehind => Ending::FellBehind,
            ReadFailure::Store(why) => {
                tracing::warn!(%why, "a stream is aborted");
                Ending::StoreFailed
            }
        };
        self.ending = Some(ending);
        StreamAborted(ending)
    }
}

impl StreamAccount {
    /// Opens the account of a stream, which now counts as open.
    pub fn open(hub: Arc<Hub>, kind: JoinKind) -> Self {
        hub.metrics().opened(kind);
        Self { ending: None, _counted: hub.count_stream(), held: (None, None), hub }
    }

    /// Keeps the permit of the client and the permit for a stream over HTTP/2 until the stream
    /// ends.
    pub fn keep(&mut self, permit: Option<Permit>, stream: Option<OwnedSemaphorePermit>) {
        self.held = (permit, stream);
    }

    /// Counts what was sent.
    pub fn sent(&mut self, events: u64, bytes: usize) {
        self.hub.metrics().sent(events, bytes);
    }

    /// Notes how the stream has ended. A stream without this note has lost its client, or was cut.
    pub fn ended(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }
}

impl CountedStream {
    /// Creates a stream that begins now, and counts it as open. After `bytes_max` bytes of events it
    /// ends early.
    pub fn new(
        hub: Arc<Hub>,
        joined: Joined,
        kind: JoinKind,
        heartbeat: Duration,
        bytes_max: usize,
    ) -> Self {
        let account = StreamAccount::open(hub.clone(), kind);
        Self { stream: EventStream::new(hub, joined, heartbeat, bytes_max), account }
    }

    /// Returns the next bytes of the stream, and counts them. The result is that of
    /// [`EventStream::poll_next`].
    ///
    /// # Errors
    /// Fails when the stream cannot go on without missing events.
    pub fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamAborted>>> {
        self.stream.poll_next(context).map(|next| match next {
            Some(Ok(delivery)) => {
                self.account.sent(delivery.events, delivery.bytes.len());
                self.stream.hub.note_sent(&self.stream.reader);
                Some(Ok(delivery.bytes))
            }
            Some(Err(aborted)) => {
                self.account.ended(aborted.0);
                Some(Err(aborted))
            }
            None => {
                self.stream.ending().into_iter().for_each(|ending| self.account.ended(ending));
                None
            }
        })
    }
}

impl Drop for StreamAccount {
    fn drop(&mut self) {
        let gone = if self.hub.is_draining() { Ending::Cut } else { Ending::ClientGone };
        self.hub.metrics().ended(self.ending.unwrap_or(gone));
    }
}

fn on_grid(ms: u64) -> u64 {
    ms.div_ceil(HEARTBEAT_GRID_MS) * HEARTBEAT_GRID_MS
}

impl std::fmt::Display for StreamAborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "aborted: {}", self.0.as_str())
    }
}

impl std::error::Error for StreamAborted {}
