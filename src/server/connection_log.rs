//! The log lines about each connection, at `debug`. Any client can open connections, so the number
//! of these lines is bounded.

use crate::sync::throttle::Throttle;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

/// The most lines of a kind in ten seconds.
const LINES_MAX: u32 = 1_000;

static OPENED: Throttle = Throttle::with(LINES_MAX);
static CLOSED: Throttle = Throttle::with(LINES_MAX);
static REFUSED: Throttle = Throttle::with(LINES_MAX);

/// The protocols of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The client has not sent enough yet.
    Unknown,
    Http1,
    Http1Tls,
    Http2,
    Http2Tls,
    /// One stream of a connection over HTTP/2.
    WebSocketStream,
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The process has cut the connection: it ends, or an operator needs the place.
    Cut,
    /// The client has sent no valid TLS handshake in time.
    Tls,
    /// The client has sent nothing in time, or has reset the connection before.
    NoRequest,
    /// One side has closed the connection between two requests.
    Finished,
    /// A request was not valid or too slow, or the client has disconnected before its response.
    Failed,
    /// The client has disconnected during a stream, or the stream was aborted.
    InStream,
    /// The client has not read a response in time.
    Unread,
    /// A WebSocket has ended: the code with which the origin has closed it; `None` if the client has
    /// closed it or has disconnected.
    WebSocket(Option<u16>),
}

/// The log of one connection. The line about its end is written when the value is dropped.
#[derive(Debug)]
pub struct ConnectionLog {
    client: IpAddr,
    transport: Transport,
    begun: Instant,
    reason: Reason,
}

impl ConnectionLog {
    /// Begins with a connection that was accepted.
    pub fn new(client: IpAddr) -> Self {
        Self { client, transport: Transport::Unknown, begun: Instant::now(), reason: Reason::Cut }
    }

    /// Logs that the connection is open, with these protocols.
    pub fn opened(&mut self, transport: Transport) {
        self.transport = transport;
        if is_wanted()
            && let Some(suppressed) = OPENED.admit(Instant::now())
        {
            let Self { client, transport, .. } = self;
            tracing::debug!(%client, %transport, suppressed, "a connection was opened");
        }
    }

    /// Records why the connection has ended.
    pub fn ended(&mut self, reason: Reason) {
        self.reason = reason;
    }

    /// Logs that a connection was closed at once, because of a limit.
    pub fn refused(client: IpAddr, flag: &str) {
        if is_wanted()
            && let Some(suppressed) = REFUSED.admit(Instant::now())
        {
            tracing::debug!(%client, flag, suppressed, "a connection was refused");
        }
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        if is_wanted()
            && let Some(suppressed) = CLOSED.admit(Instant::now())
        {
            let Self { client, transport, begun, reason } = self;
            let seconds = begun.elapsed().as_millis() as f64 / 1_000.0;
            tracing::debug!(
                %client, %transport, seconds, %reason, suppressed, "a connection was closed"
            );
        }
    }
}

fn is_wanted() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

impl Transport {
    /// The protocols of a connection over TCP or a Unix socket.
    pub fn new(is_h2: bool, is_tls: bool) -> Self {
        match (is_h2, is_tls) {
            (false, false) => Self::Http1,
            (false, true) => Self::Http1Tls,
            (true, false) => Self::Http2,
            (true, true) => Self::Http2Tls,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Http1 => "http/1.1",
            Self::Http1Tls => "http/1.1+tls",
            Self::Http2 => "h2",
            Self::Http2Tls => "h2+tls",
            Self::WebSocketStream => "websocket+h2",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "cut",
            Self::Tls => "tls-failed",
            Self::NoRequest => "no-request",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::InStream => "in-stream",
            Self::Unread => "unread",
            Self::WebSocket(None) => "websocket-gone",
            Self::WebSocket(Some(code)) => return write!(f, "websocket-{code}"),
        })
    }
}
