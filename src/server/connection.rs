//! One accepted connection as hyper reads and writes it.
//!
//! Three things that hyper leaves open are decided here. A request's head must arrive within a
//! time of its own, much shorter than the time a cache may keep an idle connection, and whoever is
//! too slow is told so. A client that closes its sending side after a request still gets its
//! answer (`nc -N` does, and old HTTP clients; hyper's `half_close`), while the same thing on a
//! stream is taken for a client that went away, because waiting for a write to fail would keep its
//! place for seconds. And a stream that must be broken off over HTTP/1.0 ends with a reset: its
//! body has no length and no last chunk, so after a plain close a cache would take it for whole.

use crate::http::websocket::Handshake;
use crate::limits::intake_pace::IntakePace;
use crate::server::listener::Stream;
use hyper::upgrade::OnUpgrade;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes the kernel takes ahead of a slow client: what lags stays in the shared log instead.
const UNSENT_BYTES: u32 = 32 * 1024;

/// The connection.
pub struct Connection {
    stream: Stream,
    requests: Arc<Requests>,
    head_time: Option<Duration>,
    slow_head: Option<SlowHead>,
    pace: IntakePace,
    is_shut: bool,
}

/// What the service tells the socket of the requests on it.
#[derive(Default)]
pub struct Requests {
    begun: AtomicU64,
    is_answering: AtomicBool,
    is_streaming: AtomicBool,
    /// Closing is what ends the stream.
    is_unbounded: AtomicBool,
    switched: Mutex<Option<Box<Switched>>>,
}

/// A connection that speaks another protocol from now on, once its answer is written.
pub struct Switched {
    /// Gives the connection.
    pub upgrade: OnUpgrade,
    /// Whose it is.
    pub handshake: Arc<Handshake>,
}

/// What an answer is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// Finished bytes.
    Finished,
    /// A stream whose end is marked.
    Stream,
    /// A stream that ends with the connection, as in HTTP/1.0.
    UnboundedStream,
    /// The last one: what comes from here on is no request.
    Switch,
}

struct SlowHead {
    begun: u64,
    sleep: Pin<Box<Sleep>>,
}

impl Requests {
    /// A request's head was read.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.is_streaming.store(false, Ordering::Relaxed);
        self.is_answering.store(true, Ordering::Release);
    }

    /// Its answer is known.
    pub fn answered(&self, answered: ResponseKind) {
        self.is_unbounded.store(answered == ResponseKind::UnboundedStream, Ordering::Relaxed);
        let is_streaming = matches!(answered, ResponseKind::Stream | ResponseKind::UnboundedStream);
        self.is_streaming.store(is_streaming, Ordering::Relaxed);
        self.is_answering.store(answered == ResponseKind::Switch, Ordering::Release);
    }

    /// The connection is to be another's.
    pub fn switch(&self, switched: Switched) {
        *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = Some(switched.into());
    }

    /// Whose the connection is to be, once.
    pub fn take_switched(&self) -> Option<Box<Switched>> {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a request was read.
    pub fn any(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }
}

impl Connection {
    /// Takes a connection over. `head_time`: how long a request's head may take, where bytes from
    /// the client are requests and nothing else. `unread_time`: for how long a client may leave
    /// bytes unread before it is cut off; hyper has no write timeout, and does not poll a body
    /// while its client does not read. `pace`: how fast the client's bytes are read.
    pub fn new(
        stream: Stream,
        requests: Arc<Requests>,
        head_time: Option<Duration>,
        unread_time: Duration,
        pace: IntakePace,
    ) -> Self {
        stream.bound(UNSENT_BYTES, unread_time);
        Self { stream, requests, head_time, slow_head: None, pace, is_shut: false }
    }

    fn poll_slow_head(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let begun = self.requests.begun.load(Ordering::Relaxed);
        let Some(slow) = self.slow_head.as_mut().filter(|slow| slow.begun == begun) else {
            self.slow_head = None;
            return Poll::Pending;
        };
        ready!(slow.sleep.as_mut().poll(context));
        let answer = crate::http::too_slow_a_head();
        // The last word to a client that may not be reading: one try.
        self.stream.try_write(&answer).ok();
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the request's head took too long"))
    }

    fn note_read(&mut self) {
        let is_answering = self.requests.is_answering.load(Ordering::Acquire);
        let Some(head_time) = self.head_time.filter(|_| !is_answering) else { return };
        let begun = self.requests.begun.load(Ordering::Relaxed);
        // That of an earlier request may still be there, where the next one follows at once.
        if self.slow_head.as_ref().is_some_and(|slow| slow.begun == begun) {
            return;
        }
        let sleep = Box::pin(tokio::time::sleep_until(Instant::now() + head_time));
        self.slow_head = Some(SlowHead { begun, sleep });
    }

    /// Hyper reads nothing while it answers, so here the connection learns that its client went
    /// away: a stream ends, and what is being made for the client is dropped.
    fn look_for_client(&self, context: &mut Context<'_>) -> io::Result<()> {
        let is_streaming = self.requests.is_streaming.load(Ordering::Relaxed);
        if !is_streaming && !self.requests.is_answering.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.stream.poll_peek(context, &mut [0]) {
            // A client that waits for a finished answer may have closed its sending side.
            Poll::Ready(Ok(0)) if is_streaming => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Err(error)) => Err(error),
            // Pending, or the beginning of a next request.
            _ => Ok(()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let requests = &self.requests;
        let is_streaming = requests.is_streaming.load(Ordering::Relaxed);
        if is_streaming && requests.is_unbounded.load(Ordering::Relaxed) && !self.is_shut {
            self.stream.reset_on_close();
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
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(self.look_for_client(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
