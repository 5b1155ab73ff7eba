//! Limits how many bytes a second are read from a WebSocket.
//!
//! The session limits the messages too, but the WebSocket library reports only complete messages: a
//! client could send empty fragments of one message without end. Therefore this limit counts bytes.

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A connection whose reads fail with [`io::ErrorKind::QuotaExceeded`] when bytes arrive too fast.
pub struct RateLimited<S> {
    stream: S,
    limit: DefaultDirectRateLimiter,
}

impl<S> RateLimited<S> {
    /// Wraps a connection from which at most `bytes` a second may be read.
    pub fn new(stream: S, bytes: NonZeroU32) -> Self {
        Self { stream, limit: RateLimiter::direct(Quota::per_second(bytes)) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RateLimited<S> {
    /// Closes the sending side, then reads and discards at most `bytes_max` bytes until the peer
    /// has closed its side too.
    pub async fn discard(&mut self, bytes_max: u64) {
        if self.stream.shutdown().await.is_ok() {
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
            Some(count) => matches!(self.limit.check_n(count), Ok(Ok(()))),
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
