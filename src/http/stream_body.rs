//! The bodies of HTTP responses, above all the body of a stream.
//!
//! The connection polls the body of a stream when it can send, and the body then reads the next
//! events from the hub. The body keeps in memory only the SSE events before the first event of the
//! channel, and the closing one. It ends without an error only if its last cursor covers exactly
//! the events that were sent. Any other end is an error, which makes hyper abort the transfer, so
//! that no cache keeps the response.

use crate::core::caching::Ending;
use crate::core::segment::Span;
use crate::core::sse;
use crate::hub::reader::{Lost, Reader, Step};
use crate::hub::{Hub, Joined};
use crate::limits::connections::Permit;
use crate::sync::timers::Timer;
use crate::sync::waiters::Registration;
use crate::telemetry::metrics::{JoinKind, Unreported};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::pin::Pin;
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

/// The body of any response.
pub enum ResponseBody {
    /// A complete body.
    Full(Bytes),
    /// No body, in the response to a HEAD request for a stream.
    Head,
    /// The body of a stream.
    Stream(Box<StreamBody>),
}

/// The body of one stream.
pub struct StreamBody {
    hub: Arc<Hub>,
    reader: Reader,
    span: Span,
    ready: VecDeque<Bytes>,
    bytes_left: usize,
    end: Registration<Timer>,
    heartbeat: Registration<Timer>,
    heartbeat_ms: u64,
    sent_at: u64,
    unreported: Unreported,
    ending: Option<Ending>,
    _counted: TaskTrackerToken,
    /// The permit of the stream's client, and the permit for a stream over HTTP/2.
    held: (Option<Permit>, Option<OwnedSemaphorePermit>),
}

/// The error that makes hyper break off the transfer, with its reason.
#[derive(Clone, Copy, Debug)]
pub struct StreamAborted(pub Ending);

impl StreamBody {
    /// Creates the body of a stream that begins now. After `bytes_max` bytes of events it ends
    /// early.
    pub fn new(
        hub: Arc<Hub>,
        joined: Joined,
        kind: JoinKind,
        heartbeat: Duration,
        bytes_max: usize,
    ) -> Self {
        let Joined { reader, span, prelude } = joined;
        hub.metrics().opened(kind);
        let heartbeat_ms = heartbeat.as_millis() as u64;
        let sent_at = hub.clock().now();
        Self {
            end: hub.end_timer(span.ends_at),
            heartbeat: hub.heartbeat_timer(on_grid(sent_at + heartbeat_ms)),
            ready: prelude.chunks(span.segment.number, span.ends_at).into(),
            bytes_left: bytes_max,
            unreported: Unreported::default(),
            ending: None,
            _counted: hub.count_stream(),
            held: (None, None),
            reader,
            span,
            heartbeat_ms,
            sent_at,
            hub,
        }
    }

    /// Keeps the permit of the client and the permit for a stream over HTTP/2 until the stream
    /// ends.
    pub fn keep(&mut self, permit: Option<Permit>, stream: Option<OwnedSemaphorePermit>) {
        self.held = (permit, stream);
    }

    fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamAborted>>> {
        if let Some(chunk) = self.ready.pop_front() {
            self.count(0, chunk.len());
            return Poll::Ready(Some(Ok(chunk)));
        }
        if self.ending.is_some() {
            return Poll::Ready(None);
        }
        // The timer is polled before the reader: once the timer has fired, the reader finds every
        // event before the end.
        let is_over = self.end.poll_fired(context.waker());
        match self.reader.poll_next(context, self.bytes_left) {
            Poll::Ready(Ok(Step::Events(delivery))) => {
                self.count(delivery.events, delivery.bytes.len());
                self.sent_at = self.hub.clock().now();
                self.bytes_left = self.bytes_left.saturating_sub(delivery.bytes.len());
                if self.bytes_left == 0 {
                    self.close(Ending::Full);
                } else if self.sent_at > self.span.ends_at + OVERRUN_MS {
                    self.close(Ending::Boundary);
                }
                Poll::Ready(Some(Ok(delivery.bytes)))
            }
            Poll::Ready(Ok(Step::Ended)) => {
                self.ending = Some(Ending::ChannelEnd);
                Poll::Ready(None)
            }
            Poll::Ready(Err(lost)) => Poll::Ready(Some(Err(self.abort(&lost)))),
            Poll::Pending if is_over => {
                self.close(Ending::Boundary);
                self.poll_chunk(context)
            }
            Poll::Pending => self.poll_heartbeat(context),
        }
    }

    fn poll_heartbeat(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamAborted>>> {
        while self.heartbeat.poll_fired(context.waker()) {
            let now = self.hub.clock().now();
            let is_quiet = now >= self.sent_at + self.heartbeat_ms;
            if is_quiet {
                self.sent_at = now;
            }
            self.heartbeat = self.hub.heartbeat_timer(on_grid(self.sent_at + self.heartbeat_ms));
            if is_quiet {
                self.count(0, sse::HEARTBEAT.len());
                self.report();
                return Poll::Ready(Some(Ok(Bytes::from_static(sse::HEARTBEAT))));
            }
        }
        Poll::Pending
    }

    fn count(&mut self, events: u64, bytes: usize) {
        self.unreported.add(self.hub.metrics(), events, bytes);
    }

    fn report(&mut self) {
        self.unreported.report(self.hub.metrics());
    }

    fn close(&mut self, ending: Ending) {
        debug_assert!(ending.is_whole());
        let mut block = Vec::with_capacity(128);
        let cursor = Joined::closing_cursor(&self.reader, self.span.ends_at);
        sse::closing(&mut block, &cursor, self.span.next_number, self.hub.retry_ms());
        self.ready.push_back(block.into());
        self.ending = Some(ending);
    }

    fn abort(&mut self, lost: &Lost) -> StreamAborted {
        let ending = match lost {
            Lost::FellBehind => Ending::FellBehind,
            Lost::Store(why) => {
                tracing::warn!(%why, "a stream is aborted");
                Ending::StoreLost
            }
        };
        self.ending = Some(ending);
        StreamAborted(ending)
    }
}

fn on_grid(ms: u64) -> u64 {
    ms.div_ceil(HEARTBEAT_GRID_MS) * HEARTBEAT_GRID_MS
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.report();
        let gone = if self.hub.is_draining() { Ending::Cut } else { Ending::ClientGone };
        self.hub.metrics().ended(self.ending.unwrap_or(gone));
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = StreamAborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamAborted>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Head => Poll::Ready(None),
            Self::Stream(stream) => {
                stream.poll_chunk(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Head | Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Display for StreamAborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "aborted: {}", self.0.as_str())
    }
}

impl std::error::Error for StreamAborted {}
