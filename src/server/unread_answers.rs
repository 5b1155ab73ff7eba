//! Answers over HTTP/2, watched for clients that do not read.
//!
//! The kernel says of an HTTP/1.1 connection how long its bytes lie unread. An HTTP/2 client reads
//! frames, answers pings, and may still give a stream no room (RFC 9113, section 5.2), for as long as
//! it likes; hyper then does not ask the body for more. So each body notes when it was asked last.

use crate::http::stream_body::{ResponseBody, StreamAborted};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// A finished answer is given to HTTP/2 in pieces of this size, so that little of it waits there.
const CHUNK_BYTES: usize = 16 * 1024;

/// All answers of a connection that are not sent yet.
pub struct UnreadAnswers {
    begun: Instant,
    /// How long a stream may be quiet by itself: its comments come at this pace.
    heartbeat: Duration,
    answers: Mutex<Vec<Weak<LastPoll>>>,
}

/// When a body was asked for more, in ms since the connection began.
struct LastPoll {
    last: AtomicU64,
    is_stream: bool,
}

/// An answer of such a connection.
pub struct Watched {
    body: ResponseBody,
    unread: Arc<UnreadAnswers>,
    last_poll: Arc<LastPoll>,
}

impl UnreadAnswers {
    /// None yet.
    pub fn new(heartbeat: Duration) -> Self {
        Self { begun: Instant::now(), heartbeat, answers: Mutex::default() }
    }

    /// Watches one more.
    pub fn watch(self: &Arc<Self>, body: ResponseBody) -> Watched {
        let is_stream = matches!(body, ResponseBody::Stream(_));
        let last_poll = Arc::new(LastPoll { last: AtomicU64::new(self.now()), is_stream });
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&last_poll));
        Watched { body, unread: self.clone(), last_poll }
    }

    /// Whether the client has left an answer unread for so long.
    pub fn is_stuck(&self, longest: Duration) -> bool {
        let now = self.now();
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
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
