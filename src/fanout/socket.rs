//! A connected socket that the pump writes to without waiting.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// A non-blocking connected socket.
#[derive(Debug)]
pub enum Socket {
    /// A connection over TCP.
    Tcp(TcpStream),
    /// A connection over a Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Writes as many bytes as the kernel accepts now, and returns their number: 0 if it accepts
    /// none.
    ///
    /// # Errors
    /// Fails when the connection has failed.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // In a process with threads, the `send` of the C library is also a cancellation point. With it
        // a pass takes 1.8 times the instructions (`cargo test --release --bench costs`).
        loop {
            let written = match self {
                Self::Tcp(stream) => send(stream, bytes, SendFlags::NOSIGNAL),
                Self::Unix(stream) => send(stream, bytes, SendFlags::NOSIGNAL),
            };
            match written {
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl Socket {
    /// Whether the peer has closed its sending side, and everything that it sent was read.
    pub fn is_at_end(&self) -> bool {
        let peeked = match self {
            Self::Tcp(stream) => recv(stream, &mut [0], RecvFlags::PEEK),
            Self::Unix(stream) => recv(stream, &mut [0], RecvFlags::PEEK),
        };
        matches!(peeked, Ok((0, _)))
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}
