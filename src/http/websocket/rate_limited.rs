//! Limits how many bytes a second are read from a WebSocket.
//!
//! The session limits the messages too, but the WebSocket library reports only complete messages: a
//! client could send empty fragments of one message without end. Therefore this limit counts bytes.
//!
//! Over HTTP/2, the WebSocket is one stream of a connection. Each read from the WebSocket adds its
//! bytes to the [`ByteCredit`] of the connection, so they do not use up the fixed rate at which
//! frames that belong to no request are read. For a client that does not read, hyper queues several
//! writes. A write over HTTP/2 is therefore cut to a few KiB, so that this queue takes little
//! memory.

use crate::limits::intake_pace::ByteCredit;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A read over HTTP/2 counts as at least this number of bytes. Each DATA frame is a read of its own,
/// so a client could otherwise cause as many reads as it may send bytes.
const H2_READ_BYTES_MIN: NonZeroU32 = NonZeroU32::new(64).expect("it is not zero");
/// The most bytes of one write over HTTP/2. hyper queues up to three writes, and its HTTP/2 library
/// one more, for a client that does not read.
const H2_WRITE_BYTES_MAX: usize = 4 * 1024;

/// A connection whose reads fail with [`io::ErrorKind::QuotaExceeded`] when bytes arrive too fast.
pub struct RateLimited<S> {
    stream: S,
    limit: DefaultDirectRateLimiter,
    credit: Option<Arc<ByteCredit>>,
    /// The number of bytes that a read counts at least.
    read_bytes_min: NonZeroU32,
}

impl<S> RateLimited<S> {
    /// Wraps a connection from which at most `bytes` a second may be read. `credit` is that of
    /// the HTTP/2 connection that carries this one, if there is one.
    pub fn new(stream: S, bytes: NonZeroU32, credit: Option<Arc<ByteCredit>>) -> Self {
        let limit = RateLimiter::direct(Quota::per_second(bytes));
        let over_h2 = credit.as_ref().map(|_| H2_READ_BYTES_MIN.min(bytes));
        Self { stream, limit, credit, read_bytes_min: over_h2.unwrap_or(NonZeroU32::MIN) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RateLimited<S> {
    /// Closes the sending side. Over HTTP/2 this waits until everything was given to the connection.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes the sending side, then reads and discards at most `bytes_max` bytes until the peer
    /// has closed its side too.
    pub async fn discard(&mut self, bytes_max: u64) {
        if self.finish().await.is_ok() {
            let mut rest = (&mut self.stream).take(bytes_max);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.ok();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RateLimited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let count = u32::try_from(buffer.filled().len() - before).unwrap_or(u32::MAX);
        let is_within = match NonZeroU32::new(count) {
            None => true,
            Some(count) => {
                if let Some(credit) = &self.credit {
                    credit.body(count.get() as usize);
                }
                let counted = count.max(self.read_bytes_min);
                matches!(self.limit.check_n(counted), Ok(Ok(())))
            }
        };
        match is_within {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RateLimited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = match self.credit {
            Some(_) => &bytes[..bytes.len().min(H2_WRITE_BYTES_MAX)],
            None => bytes,
        };
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
