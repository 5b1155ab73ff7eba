//! A connection over a Unix socket. A write fails if the peer takes no bytes for too long.
//!
//! For TCP the kernel closes a connection whose peer takes no bytes (`TCP_USER_TIMEOUT`). A Unix
//! socket has no such limit, so the time is measured here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

/// A Unix socket. A write fails when the peer has taken no bytes for too long.
#[derive(Debug)]
pub struct LocalStream {
    socket: UnixStream,
    /// The longest time for which the peer may take no bytes.
    unread_time: Duration,
    /// The end of that time, while a write waits.
    given_up: Option<Pin<Box<Sleep>>>,
}

impl LocalStream {
    /// Puts no limit on the time.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, unread_time: Duration::MAX, given_up: None }
    }

    /// Sets the longest time for which the peer may take no bytes.
    pub fn bound(&mut self, unread_time: Duration) {
        self.unread_time = unread_time;
    }

    /// The socket without the limit.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Takes the socket out of the runtime.
    ///
    /// # Errors
    /// Fails when the runtime cannot stop watching the connection.
    pub fn into_std(self) -> io::Result<std::os::unix::net::UnixStream> {
        self.socket.into_std()
    }

    /// Fails a write that has waited too long.
    fn in_time(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.given_up = None;
            return written;
        }
        let time = self.unread_time;
        let given_up = self.given_up.get_or_insert_with(|| Box::pin(sleep(time)));
        ready!(given_up.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.in_time(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.in_time(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
