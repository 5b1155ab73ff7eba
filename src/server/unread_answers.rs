//! Detects HTTP/2 clients that do not read their responses.
//!
//! `server::listener` (`Stream::bound`) limits how long the bytes of any connection may stay
//! unread, which is enough for HTTP/1.1. An HTTP/2 client can read frames and answer pings, and
//! still keep the flow-control window of a stream closed (RFC 9113, section 5.2) for any time;
//! hyper then does not poll the body. Each body therefore records when it was last polled, and
//! `server::http2` closes the connection of a body that was not polled for too long.

use crate::http::stream_body::ResponseBody;
use crate::hub::event_stream::StreamAborted;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// A complete response is given to hyper in chunks of this size, so that little of it waits in
/// hyper's send buffer.
const CHUNK_BYTES: usize = 16 * 1024;

/// All responses of a connection that are not completely sent yet.
pub struct UnreadAnswers {
    begun: Instant,
    /// The longest time for which a stream has nothing to send; after it, the stream sends a
    /// comment.
    heartbeat: Duration,
    answers: Mutex<Vec<Weak<LastPoll>>>,
    is_given_up: AtomicBool,
}

/// When hyper last polled a body, in ms since the connection began.
struct LastPoll {
    last: AtomicU64,
    is_stream: bool,
}

/// The body of a response whose polls are recorded.
pub struct Watched {
    body: ResponseBody,
    unread: Arc<UnreadAnswers>,
    last_poll: Arc<LastPoll>,
}

impl UnreadAnswers {
    /// Creates the record of a connection without responses. `heartbeat` is the longest time for
    /// which a stream has nothing to send.
    pub fn new(heartbeat: Duration) -> Self {
        Self {
            begun: Instant::now(),
            heartbeat,
            answers: Mutex::default(),
            is_given_up: AtomicBool::new(false),
        }
    }

    /// Adds a response, and returns its body with a record of its polls.
    pub fn watch(self: &Arc<Self>, body: ResponseBody) -> Watched {
        let is_stream = matches!(body, ResponseBody::Stream(_));
        let last_poll = Arc::new(LastPoll { last: AtomicU64::new(self.now()), is_stream });
        let mut answers = self.answers.lock();
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&last_poll));
        Watched { body, unread: self.clone(), last_poll }
    }

    /// Records that the client has left the end of a WebSocket unread for too long.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Whether the client has left a response unread for longer than `longest`; for a stream, the
    /// heartbeat time is added.
    pub fn is_stuck(&self, longest: Duration) -> bool {
        if self.is_given_up.load(Ordering::Relaxed) {
            return true;
        }
        let now = self.now();
        let answers = self.answers.lock();
        answers.iter().filter_map(Weak::upgrade).any(|last_poll| {
            let quiet = if last_poll.is_stream { self.heartbeat } else { Duration::ZERO };
            let longest = (longest + quiet).as_millis() as u64;
            now > last_poll.last.load(Ordering::Relaxed) + longest
        })
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = StreamAborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamAborted>>> {
        self.last_poll.last.store(self.unread.now(), Ordering::Relaxed);
        if let ResponseBody::Full(bytes) = &mut self.body {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            return Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))));
        }
        Poll::Ready(ready!(Pin::new(&mut self.body).poll_frame(context)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
