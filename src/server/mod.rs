//! Accepts connections, serves them, and drains them when the process stops.
//!
//! [`run`] receives its listeners and the shutdown signal. Over TLS, the handshake chooses between
//! HTTP/1.1 and HTTP/2. Without TLS, a connection uses HTTP/2 if its first bytes are the HTTP/2
//! preface (prior knowledge), and HTTP/1.1 otherwise. While draining, the server accepts
//! connections of clients until each lane has had a boundary, and those of operators until the end.
//! The server waits until every stream has reached its planned end, so that clients only have to
//! reconnect. The planned end is the boundary, or with `--drain now` the end of the drain delay.
//! Streams are cut only when `--drain-timeout` is over or a second stop is requested.

pub mod connection;
mod connection_log;
mod http1;
mod http2;
pub mod listener;
mod local_stream;
pub mod paced;
mod takeover;
pub mod tls;
pub mod unread_answers;
mod unsent;

use crate::fanout::Pumps;
use crate::http::websocket::{Session, Wire};
use crate::http::{Admission, AppState, Caller, TlsPeer};
use crate::limits::client_address::Client;
use crate::limits::connections::{Acquired, Permit};
use crate::limits::request_pace::RequestPace;
use crate::server::connection::Switched;
use crate::server::connection_log::{ConnectionLog, Reason, Transport};
use crate::server::listener::{Listener, Stream};
use crate::server::tls::{Accepted, Tls};
use crate::sync::lifecycle::Stage;
use crate::sync::shutdown::Shutdown;
use crate::sync::waiters::Registration;
use hyper::Version;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// The most bytes in the head of a request, and about the number of bytes that hyper queues for a
/// slow client.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most connections on the admin listeners.
const ADMIN_CONNECTIONS: usize = 512;
/// The longest time for connections without a stream to close when the process ends.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest time for the rest of the HTTP/2 preface after its first byte. It normally arrives in
/// one packet; while it is incomplete, the connection is checked every 10 ms.
const PREFACE_TIME_MAX: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted. Most likely the process has no file
/// descriptor left, and other connections must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// When the streams of a stopping process end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// At their boundaries.
    Boundary,
    /// At once.
    Now,
}

/// The limits and timeouts of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    /// The most connections that are served at the same time.
    pub max_connections: usize,
    /// The number of connections above `max_connections` that are still answered. Their streams and
    /// long polls are shed (`shed` in `http/subscribe.rs`), their WebSockets are closed (`handshake`
    /// in `http/websocket/mod.rs`), and other requests are served. Further connections are closed at once, so that file descriptors are
    /// left for the log and for operators.
    pub overload_connections: usize,
    /// When the streams of a stopping process end.
    pub drain: Drain,
    /// The least time between the failure of `/readyz` and the end of the process. Meanwhile load
    /// balancers find other origins.
    pub drain_delay: Duration,
    /// The longest time that a stopping process waits for its streams to end.
    pub drain_timeout: Duration,
    /// The longest time for the head of a request to arrive, because a slow request occupies a
    /// connection.
    pub head_timeout: Duration,
    /// The time for which a connection without a request stays open.
    pub idle_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            overload_connections: 512,
            drain: Drain::Boundary,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
        }
    }
}

/// How the server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every stream reached its planned end.
    Drained,
    /// Streams were cut; `connections` is their number.
    Cut { connections: usize },
}

/// The parts of the server that its connections use.
struct Served {
    origin: Arc<AppState>,
    config: ServerConfig,
    tls: Option<Arc<Tls>>,
    pumps: Arc<Pumps>,
}

/// The peer of a connection.
struct Peer {
    caller: Caller,
    /// The pace of the connection's requests. A trusted proxy and operators have none, because a
    /// proxy sends the requests of many clients.
    pace: Option<Arc<RequestPace>>,
    /// The permit of the connection's client.
    _permit: Option<Permit>,
}

/// The bound sockets, each with a flag: whether it serves only this machine and needs no key.
type Listeners = [(Listener, bool)];

/// Serves until the first signal of `shutdown`, then drains. A second signal cuts the streams that
/// are still open.
pub async fn run(
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    origin: Arc<AppState>,
    (config, tls): (ServerConfig, Option<Arc<Tls>>),
    pumps: Arc<Pumps>,
    shutdown: &Shutdown,
) -> Stopped {
    let server = Arc::new(Served { origin: origin.clone(), config, tls, pumps: pumps.clone() });
    let is_open = !origin.access.guards_publishing();
    let guarded = |listener: Listener| {
        let is_guarded = is_open && listener.is_loopback();
        (listener, is_guarded)
    };
    let listeners: Vec<_> = listeners.into_iter().map(guarded).collect();
    let admin: Vec<_> = admin.into_iter().map(guarded).collect();
    let serve = async {
        let mut connections = JoinSet::new();
        server.accept_until(shutdown.next(), &listeners, &mut connections).await;
        tracing::info!(connections = connections.len(), "draining");
        let lifecycle = origin.hub.lifecycle();
        lifecycle.advance(Stage::Draining);
        let is_drained = tokio::select! {
            is_drained = server.drain(shutdown) => is_drained,
            // Clients and publishers may connect until the boundary, at which streams end.
            () = async {
                let last = sleep(server.accepting_drain());
                server.accept_until(last, &listeners, &mut connections).await;
                drop(listeners);
                std::future::pending().await
            } => false,
        };
        lifecycle.advance(Stage::Closing);
        let stopped = match is_drained {
            true => Stopped::Drained,
            // The streams are counted while they are still open.
            false => Stopped::Cut { connections: origin.hub.open_streams() },
        };
        if !is_drained {
            pumps.stop();
        }
        close(connections, is_drained).await;
        stopped
    };
    tokio::select! {
        never = server.serve_admin(&admin) => never,
        stopped = serve => stopped,
    }
}

impl Served {
    /// Waits until every stream has ended. Returns `false` if streams must be cut, after
    /// `drain_timeout` or a second signal.
    async fn drain(&self, shutdown: &Shutdown) -> bool {
        let Self { origin, config, .. } = self;
        let ended = async {
            sleep(config.drain_delay).await;
            if config.drain == Drain::Now {
                origin.hub.end_streams();
            }
            timeout(config.drain_timeout, origin.hub.streams_end()).await.is_ok()
        };
        tokio::select! {
            is_drained = ended => is_drained,
            () = shutdown.next() => false,
        }
    }

    /// How long a process that drains accepts connections: until every lane has had a boundary. A
    /// stream that begins later would keep the process alive for one more segment.
    fn accepting_drain(&self) -> Duration {
        let hub = &self.origin.hub;
        let now = hub.clock().now();
        let boundaries = Duration::from_millis(hub.segments().next_boundaries(now) - now);
        boundaries.max(self.config.drain_delay)
    }

    async fn accept_until(
        self: &Arc<Self>,
        stop: impl Future<Output = ()>,
        listeners: &Listeners,
        connections: &mut JoinSet<()>,
    ) {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                accepted = accept(listeners) => {
                    self.origin.note_accept(accepted.as_ref().err());
                    let Ok((stream, address, is_guarded)) = accepted else {
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    self.spawn(stream, address, is_guarded, connections);
                }
                // Finished connections are removed, so that the set only has open ones.
                Some(_) = connections.join_next() => self.note_connections(connections.len()),
            }
        }
    }

    /// Serves the admin listeners until the process ends, so that operators can observe the drain.
    async fn serve_admin(self: &Arc<Self>, admin: &Listeners) -> Stopped {
        let (mut connections, mut oldest_first) = (JoinSet::new(), VecDeque::new());
        loop {
            let Ok((stream, address, is_guarded)) = accept(admin).await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            oldest_first.retain(|connection: &AbortHandle| !connection.is_finished());
            // The oldest connection is closed, so that idle connections cannot block operators.
            if oldest_first.len() == ADMIN_CONNECTIONS
                && let Some(oldest) = oldest_first.pop_front()
            {
                oldest.abort();
            }
            let admission = Admission::Admin;
            let caller = Caller { admission, address, is_guarded, tls: TlsPeer::None };
            let tls = self.tls.clone().filter(|tls| tls.on_admin);
            let peer = Peer { caller, pace: None, _permit: None };
            oldest_first.push_back(connections.spawn(self.connection(stream, peer, tls)));
        }
    }

    fn spawn(
        self: &Arc<Self>,
        stream: Stream,
        address: IpAddr,
        is_guarded: bool,
        connections: &mut JoinSet<()>,
    ) {
        let count = connections.len();
        if count >= self.config.max_connections.saturating_add(self.config.overload_connections) {
            return ConnectionLog::refused(address, "--max-connections");
        }
        // A proxy's connection is not counted; each of its requests is counted for its client.
        let clients = &self.origin.clients;
        let is_proxy = clients.is_proxy(address);
        let acquired = match is_proxy {
            true => Acquired::Granted(None),
            false => clients.acquire(Client::at(address)),
        };
        let (admission, permit) = match acquired {
            Acquired::Rejected => {
                return ConnectionLog::refused(address, "--max-connections-per-client");
            }
            Acquired::OverLimit(permit) => (Admission::OverLimit, Some(permit)),
            Acquired::Granted(permit) if count < self.config.max_connections => {
                (Admission::Normal, permit)
            }
            Acquired::Granted(permit) => (Admission::Overloaded, permit),
        };
        let caller = Caller { admission, address, is_guarded, tls: TlsPeer::None };
        let pace = (!is_proxy).then(Arc::default);
        let peer = Peer { caller, pace, _permit: permit };
        connections.spawn(self.connection(stream, peer, self.tls.clone()));
        self.note_connections(connections.len());
    }

    /// Performs the TLS handshake of a connection, if it uses TLS, and finds out which version of
    /// HTTP it uses. Returns `None` if the connection has ended.
    async fn begin(
        &self,
        stream: Stream,
        tls: Option<Arc<Tls>>,
    ) -> Option<(Stream, Option<Version>, TlsPeer)> {
        let (tcp, tls) = match (stream, tls) {
            (Stream::Tcp(tcp), Some(tls)) => (tcp, tls),
            (stream, _) => {
                let protocol = protocol_of(&stream, self.config.idle_timeout).await;
                return Some((stream, protocol, TlsPeer::None));
            }
        };
        match tls.accept(tcp, self.config.head_timeout).await {
            Ok(Accepted { stream, version, is_edge }) => {
                let peer = if is_edge { TlsPeer::Edge } else { TlsPeer::Client };
                Some((Stream::Tls(Box::new(stream)), Some(version), peer))
            }
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }

    fn note_connections(&self, count: usize) {
        self.origin.hub.metrics().connections_open.set(count as i64);
    }

    fn connection(
        self: &Arc<Self>,
        stream: Stream,
        mut peer: Peer,
        tls: Option<Arc<Tls>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let served = self.clone();
        let mut log = ConnectionLog::new(peer.caller.address);
        async move {
            // The futures of everything but a stream are boxed, so that the many connections with
            // streams are small.
            let begun = Box::pin(served.begin(stream, tls)).await;
            let Some((stream, protocol, tls_peer)) = begun else { return log.ended(Reason::Tls) };
            peer.caller.tls = tls_peer;
            let Some(version) = protocol else { return log.ended(Reason::NoRequest) };
            let is_h2 = version == Version::HTTP_2;
            log.opened(Transport::new(is_h2, tls_peer != TlsPeer::None));
            let reason = match is_h2 {
                true => Box::pin(http2::serve(stream, served.origin.clone(), &peer)).await,
                false => http1::serve(stream, &served, &peer).await,
            };
            log.ended(reason);
        }
    }
}

/// Waits for the first bytes of a connection, and returns the version of HTTP that they announce.
async fn protocol_of(stream: &Stream, idle_timeout: Duration) -> Option<Version> {
    let first = poll_fn(|context| stream.poll_peek(context, &mut [0]));
    timeout(idle_timeout, first).await.ok()?.ok()?;
    let decided = timeout(PREFACE_TIME_MAX, speaks_h2(stream)).await;
    let is_h2 = decided.unwrap_or(Ok(false)).ok()?;
    Some(if is_h2 { Version::HTTP_2 } else { Version::HTTP_11 })
}

/// Serves a WebSocket after its handshake. Returns its connection, and the code with which the origin
/// has closed it.
async fn serve_websocket(switched: Switched, origin: Arc<AppState>) -> Option<(Wire, Option<u16>)> {
    let Switched { upgrade, handshake } = switched;
    // The client may have disconnected before the response was written.
    let upgraded = upgrade.await.ok()?;
    let mut stage = Registration::new(origin.hub.lifecycle().clone());
    let draining = poll_fn(|context| match stage.poll_reached(context, Stage::Draining) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    Some(Session::new(origin, upgraded, handshake).await.run(draining).await)
}

/// Whether the connection begins with the HTTP/2 preface. The bytes are not consumed.
async fn speaks_h2(stream: &Stream) -> std::io::Result<bool> {
    let mut seen = [0; H2_PREFACE.len()];
    loop {
        let count = poll_fn(|context| stream.poll_peek(context, &mut seen)).await?;
        if count == 0 || seen[..count] != H2_PREFACE[..count] {
            return Ok(false);
        }
        if count == H2_PREFACE.len() {
            return Ok(true);
        }
        // The bytes that have arrived keep the socket readable, so the rest is awaited by time.
        sleep(Duration::from_millis(10)).await;
    }
}

/// Accepts the next connection of any listener. Also returns the address of the peer, and whether
/// the listener is guarded.
async fn accept(listeners: &Listeners) -> std::io::Result<(Stream, IpAddr, bool)> {
    poll_fn(|context| {
        for (listener, is_guarded) in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted.map(|(stream, from)| (stream, from, *is_guarded)));
            }
        }
        Poll::Pending
    })
    .await
}

/// Closes all connections. After a drain, idle connections may close and responses may finish
/// first; otherwise all connections are cut at once.
async fn close(mut connections: JoinSet<()>, is_drained: bool) {
    if is_drained {
        let all = async { while connections.join_next().await.is_some() {} };
        timeout(CLOSE_TIME_MAX, all).await.ok();
    }
    connections.shutdown().await;
}
