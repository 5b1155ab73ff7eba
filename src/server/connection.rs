//! One accepted connection, as hyper reads and writes it. It adds three rules to those of hyper.
//!
//! A request head must arrive within `--head-timeout`, which is much shorter than the time for
//! which a cache may keep an idle connection open. A client that is too slow receives a `408`.
//!
//! A client that closes its sending side after a request still gets a complete response (`nc -N`
//! and old HTTP clients do this; hyper's `half_close`). During a stream, closing the sending side
//! counts as a disconnect, because otherwise the stream would keep its permit (its place under the
//! connection limit) until a write fails.
//!
//! A stream that must be aborted over HTTP/1.0 ends with a reset. Its body has no length and no
//! last chunk, so after a normal close a cache would treat it as complete.

use crate::http::websocket::Handshake;
use crate::limits::intake_pace::IntakePace;
use crate::server::listener::Stream;
use crate::server::takeover::Taken;
use crate::sync::clock::machine_now;
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The number of unsent bytes that the kernel accepts for a slow client. The events after them stay
/// in the shared log.
const UNSENT_BYTES: u32 = 32 * 1024;

/// An accepted connection.
pub struct Connection {
    /// The socket, until the server takes it.
    stream: Option<Stream>,
    /// Bytes that were already read from the socket.
    unread: Bytes,
    requests: Arc<Requests>,
    head_time: Option<Duration>,
    slow_head: Option<SlowHead>,
    pace: IntakePace,
    is_shut: bool,
}

/// The state of the requests on a connection, which the HTTP service reports to the connection.
#[derive(Default)]
pub struct Requests {
    begun: AtomicU64,
    /// Whether a request was answered since the connection was last polled.
    has_had_turn: AtomicBool,
    /// Whether the next request has arrived before the response to the last one was complete.
    has_next: AtomicBool,
    is_answering: AtomicBool,
    is_streaming: AtomicBool,
    /// Whether only the close of the connection marks the end of the stream.
    is_unbounded: AtomicBool,
    handover: Mutex<Option<Handover>>,
}

/// A connection that hyper does not serve any longer.
pub enum Handover {
    /// The response is a stream, and nothing of it was written.
    Stream(Box<Taken>),
    /// The connection changes to the WebSocket protocol.
    WebSocket(Box<Switched>),
}

/// A connection that changes to the WebSocket protocol after its response is written.
pub struct Switched {
    /// Resolves to the connection.
    pub upgrade: OnUpgrade,
    /// The handshake of the client.
    pub handshake: Arc<Handshake>,
}

/// What a response means for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// A complete body.
    Finished,
    /// A stream with a marked end.
    Stream,
    /// A stream whose end is the end of the connection, as in HTTP/1.0.
    UnboundedStream,
    /// The last response: the bytes after it are WebSocket frames, not requests.
    Switch,
}

struct SlowHead {
    begun: u64,
    sleep: Pin<Box<Sleep>>,
}

impl Requests {
    /// Creates the state of a connection. `has_next` says whether its next request has arrived
    /// before the last response was complete.
    pub fn new(has_next: bool) -> Self {
        Self { has_next: AtomicBool::new(has_next), ..Self::default() }
    }

    /// Records that the head of a request was read.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.is_streaming.store(false, Ordering::Relaxed);
        self.is_answering.store(true, Ordering::Release);
    }

    /// Records that the connection is polled again.
    pub fn begin_turn(&self) {
        self.has_had_turn.store(false, Ordering::Relaxed);
    }

    /// Waits, after the first request of a turn, until other connections had theirs. Otherwise a
    /// connection with many requests at once (pipelining) would be served many of them in a row.
    /// Returns whether the request was pipelined.
    pub async fn take_turn(&self) -> bool {
        let mut is_pipelined = self.has_next.swap(false, Ordering::Relaxed);
        while self.has_had_turn.swap(true, Ordering::Relaxed) {
            is_pipelined = true;
            tokio::task::yield_now().await;
        }
        is_pipelined
    }

    /// Records that a request is answered. A request that hyper reads in the same poll is pipelined.
    pub fn end_turn(&self) {
        self.has_had_turn.store(true, Ordering::Relaxed);
    }

    /// Records the kind of the response to the request.
    pub fn answered(&self, answered: ResponseKind) {
        self.is_unbounded.store(answered == ResponseKind::UnboundedStream, Ordering::Relaxed);
        let is_streaming = matches!(answered, ResponseKind::Stream | ResponseKind::UnboundedStream);
        self.is_streaming.store(is_streaming, Ordering::Relaxed);
        self.is_answering.store(answered == ResponseKind::Switch, Ordering::Release);
    }

    /// Records that hyper does not serve the connection any longer.
    pub fn hand_over(&self, handover: Handover) {
        *self.handover.lock() = Some(handover);
    }

    /// Whether a stream has to be taken out of hyper.
    pub fn has_stream(&self) -> bool {
        let handover = self.handover.lock();
        handover.as_ref().is_some_and(|handover| matches!(handover, Handover::Stream(_)))
    }

    /// Takes the record of [`Requests::hand_over`], if there is one.
    pub fn take_handover(&self) -> Option<Handover> {
        self.handover.lock().take()
    }

    /// Whether the head of any request was read.
    pub fn any(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }
}

impl Connection {
    /// Wraps an accepted connection.
    ///
    /// `head_time` is the longest time for the head of a request; `None` where the client also
    /// sends other bytes, as in HTTP/2. `unread_time` is the longest time for which the client may
    /// leave bytes unread before the connection ends: hyper has no write timeout, and does not poll a body while the client does not read. `pace` limits how fast the bytes of the
    /// client are read. `unread` are bytes that were already read from the stream.
    pub fn new(
        mut stream: Stream,
        unread: Bytes,
        requests: Arc<Requests>,
        head_time: Option<Duration>,
        unread_time: Duration,
        pace: IntakePace,
    ) -> Self {
        stream.bound(UNSENT_BYTES, unread_time);
        let stream = Some(stream);
        Self { stream, unread, requests, head_time, slow_head: None, pace, is_shut: false }
    }

    /// Takes the socket, and the bytes that were read from it before and not from here. Afterwards
    /// nothing can be read or written here.
    pub fn take(&mut self) -> Option<(Stream, Bytes)> {
        Some((self.stream.take()?, std::mem::take(&mut self.unread)))
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_slow_head(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let begun = self.requests.begun.load(Ordering::Relaxed);
        let Some(slow) = self.slow_head.as_mut().filter(|slow| slow.begun == begun) else {
            self.slow_head = None;
            return Poll::Pending;
        };
        ready!(slow.sleep.as_mut().poll(context));
        let answer = crate::http::too_slow_a_head(&httpdate::fmt_http_date(machine_now()));
        // The client may not be reading, so writing the response is tried once, without waiting.
        self.stream().and_then(|stream| stream.try_write(&answer)).ok();
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the request's head took too long"))
    }

    fn note_read(&mut self) {
        let is_answering = self.requests.is_answering.load(Ordering::Acquire);
        let Some(head_time) = self.head_time.filter(|_| !is_answering) else { return };
        let begun = self.requests.begun.load(Ordering::Relaxed);
        // The timer of an earlier request may still exist if the next one follows at once.
        if self.slow_head.as_ref().is_some_and(|slow| slow.begun == begun) {
            return;
        }
        let sleep = Box::pin(tokio::time::sleep_until(Instant::now() + head_time));
        self.slow_head = Some(SlowHead { begun, sleep });
    }

    /// Checks whether the client has disconnected while hyper answers, because hyper does not read
    /// during this time. The error ends a stream, and drops a response that is being built.
    fn look_for_client(&self, context: &mut Context<'_>) -> io::Result<()> {
        let is_streaming = self.requests.is_streaming.load(Ordering::Relaxed);
        if !is_streaming && !self.requests.is_answering.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(stream) = &self.stream else { return Ok(()) };
        match stream.poll_peek(context, &mut [0]) {
            // A client that waits for a finished answer may have closed its sending side.
            Poll::Ready(Ok(0)) if is_streaming => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Err(error)) => Err(error),
            // No bytes have arrived, or the beginning of the next request has.
            _ => Ok(()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let requests = &self.requests;
        let is_streaming = requests.is_streaming.load(Ordering::Relaxed);
        let is_cut = is_streaming && requests.is_unbounded.load(Ordering::Relaxed) && !self.is_shut;
        if let Some(stream) = self.stream.as_ref().filter(|_| is_cut) {
            stream.reset_on_close();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pace.poll_may_read(context));
        let before = buffer.filled().len();
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(count));
            self.note_read();
            return Poll::Ready(Ok(()));
        }
        match self.stream()?.poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().len() - before;
                self.pace.read(read);
                if read > 0 {
                    self.note_read();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.pace.read(0);
                self.poll_slow_head(context).map(Err)
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_flush(context))?;
        Poll::Ready(self.look_for_client(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        self.stream()?.poll_shutdown(context)
    }
}
