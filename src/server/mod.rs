//! Accepts connections and drains them; the only place that listens.
//!
//! [`run`] is given its listeners and the signal to stop. A connection speaks HTTP/1.1 or, by its first bytes, HTTP/2 (h2c with prior knowledge).
//! Draining is "accept no more, wait for the boundary": streams end by themselves, so nothing is
//! cut and no client notices more than a reconnect.

pub mod connection;
pub mod listener;
pub mod unread_answers;

use crate::http::stream_body::ResponseBody;
use crate::http::websocket::{Handshake, Session};
use crate::http::{Admission, AppState, Caller};
use crate::limits::client_address::Client;
use crate::limits::connections::{Acquired, Permit};
use crate::limits::intake_pace::{Allowance, IntakePace};
use crate::server::connection::{Connection, Requests, ResponseKind, Switched};
use crate::server::listener::{Listener, Stream};
use crate::server::unread_answers::UnreadAnswers;
use crate::sync::lifecycle::Stage;
use crate::sync::shutdown::Shutdown;
use crate::sync::waiters::Registration;
use hyper::Version;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Most bytes of a request's head, and about what hyper queues for a slow client.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most HTTP/2 streams on a connection; of a trusted proxy, which sends the requests of many clients
/// over few connections, more.
const H2_STREAMS_MAX: u32 = 100;
const H2_PROXY_STREAMS_MAX: u32 = 10_000;
/// How often a connection looks for answers that its client does not read.
const UNREAD_PAUSE: Duration = Duration::from_millis(500);
/// Most bytes that wait in an HTTP/2 stream for a client that does not read: what lags stays in
/// the shared log. With hyper's 400 KiB, one connection of 5,000 such streams held 2 GB.
const H2_UNSENT_BYTES: usize = 16 * 1024;
/// Most connections of operators.
const ADMIN_CONNECTIONS: usize = 512;
/// How long connections without a stream may take to close when the process ends.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the rest of HTTP/2's beginning may take after its first byte: all of it comes in one
/// packet, and while it does not, the connection is looked at again and again.
const PREFACE_TIME_MAX: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted: out of descriptors, most likely, and some must
/// close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How HTTP/2 begins (RFC 9113, section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What `run` needs beside the origin.
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    /// Most connections served at once.
    pub max_connections: usize,
    /// Connections beyond those that are still answered, with the advice to come back later; more
    /// are closed at once, so that files are left for the log and for operators.
    pub overload_connections: usize,
    /// How long a stopping process waits for its streams.
    pub drain_timeout: Duration,
    /// How long the head of a request may take: a slow one holds a place and sends nothing.
    pub head_timeout: Duration,
    /// How long a connection without a request stays open.
    pub idle_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            overload_connections: 512,
            drain_timeout: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every stream reached its end.
    Drained,
    /// So many connections were cut.
    Cut { connections: usize },
}

struct Server {
    origin: Arc<AppState>,
    config: ServerConfig,
}

/// A peer that is connected.
struct Peer {
    caller: Caller,
    /// What the connection holds of its client's share.
    _permit: Option<Permit>,
}

/// Bound sockets, each with whether it is open to this machine without a key.
type Listeners = [(Listener, bool)];

/// Serves until `shutdown` asks to stop, then drains. If it asks again, what still runs is cut.
pub async fn run(
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    origin: Arc<AppState>,
    config: ServerConfig,
    shutdown: &Shutdown,
) -> Stopped {
    let server = Server { origin: origin.clone(), config };
    let is_open = !origin.access.guards_publishing();
    let guarded = |listener: Listener| {
        let is_guarded = is_open && listener.is_loopback();
        (listener, is_guarded)
    };
    let listeners: Vec<_> = listeners.into_iter().map(guarded).collect();
    let admin: Vec<_> = admin.into_iter().map(guarded).collect();
    let serve = async {
        let mut connections = JoinSet::new();
        server.accept_until(shutdown.next(), listeners, &mut connections).await;
        tracing::info!(connections = connections.len(), "draining");
        let lifecycle = origin.hub.lifecycle();
        lifecycle.advance(Stage::Draining);
        let is_drained = tokio::select! {
            ended = timeout(config.drain_timeout, origin.hub.streams_end()) => ended.is_ok(),
            () = shutdown.next() => false,
        };
        lifecycle.advance(Stage::Closing);
        close(connections, is_drained, &origin).await
    };
    tokio::select! {
        never = server.serve_admin(&admin) => never,
        stopped = serve => stopped,
    }
}

impl Server {
    async fn accept_until(
        &self,
        stop: impl Future<Output = ()>,
        listeners: Vec<(Listener, bool)>,
        connections: &mut JoinSet<()>,
    ) {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                accepted = accept(&listeners) => {
                    self.origin.note_accept(accepted.as_ref().err());
                    let Ok((stream, address, is_guarded)) = accepted else {
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    self.spawn(stream, address, is_guarded, connections);
                }
                // Forgets finished connections, so the set stays as big as the load.
                Some(_) = connections.join_next() => self.note_connections(connections.len()),
            }
        }
    }

    /// Answers operators until the very end: they watch the drain here.
    async fn serve_admin(&self, admin: &Listeners) -> Stopped {
        let (mut connections, mut oldest_first) = (JoinSet::new(), VecDeque::new());
        loop {
            let Ok((stream, address, is_guarded)) = accept(admin).await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            oldest_first.retain(|connection: &AbortHandle| !connection.is_finished());
            // The oldest one ends, so that nobody shuts operators out by connecting.
            if oldest_first.len() == ADMIN_CONNECTIONS
                && let Some(oldest) = oldest_first.pop_front()
            {
                oldest.abort();
            }
            let admission = Admission::Admin;
            let peer = Peer { caller: Caller { admission, address, is_guarded }, _permit: None };
            oldest_first.push_back(connections.spawn(self.connection(stream, peer)));
        }
    }

    fn spawn(
        &self,
        stream: Stream,
        address: IpAddr,
        is_guarded: bool,
        connections: &mut JoinSet<()>,
    ) {
        let count = connections.len();
        if count >= self.config.max_connections.saturating_add(self.config.overload_connections) {
            return;
        }
        // Of a proxy it is the requests that are counted, each for whom it is for.
        let clients = &self.origin.clients;
        let acquired = match clients.is_proxy(address) {
            true => Acquired::Granted(None),
            false => clients.acquire(Client::at(address)),
        };
        let (admission, permit) = match acquired {
            Acquired::Rejected => return,
            Acquired::OverLimit(permit) => (Admission::OverLimit, Some(permit)),
            Acquired::Granted(permit) if count < self.config.max_connections => {
                (Admission::Normal, permit)
            }
            Acquired::Granted(permit) => (Admission::Overloaded, permit),
        };
        let peer = Peer { caller: Caller { admission, address, is_guarded }, _permit: permit };
        connections.spawn(self.connection(stream, peer));
        self.note_connections(connections.len());
    }

    fn note_connections(&self, count: usize) {
        self.origin.hub.metrics().connections_open.set(count as i64);
    }

    fn connection(&self, stream: Stream, peer: Peer) -> impl Future<Output = ()> + Send + use<> {
        let (origin, config) = (self.origin.clone(), self.config);
        async move {
            let first = poll_fn(|context| stream.poll_peek(context, &mut [0]));
            let Ok(Ok(_)) = timeout(config.idle_timeout, first).await else { return };
            let decided = timeout(PREFACE_TIME_MAX, speaks_h2(&stream)).await;
            let Ok(is_h2) = decided.unwrap_or(Ok(false)) else { return };
            if is_h2 {
                // Few and large: in a box, so that the many small ones stay small.
                Box::pin(serve_h2(stream, origin, &peer)).await;
                return;
            }
            let requests = Arc::new(Requests::default());
            serve_h1(stream, origin.clone(), &peer, config, &requests).await;
            if let Some(switched) = requests.take_switched() {
                // Few and large as well.
                Box::pin(serve_websocket(*switched, origin)).await;
            }
        }
    }
}

async fn serve_h1(
    stream: Stream,
    origin: Arc<AppState>,
    peer: &Peer,
    config: ServerConfig,
    requests: &Arc<Requests>,
) {
    let head_time = Some(config.head_timeout);
    let pace = IntakePace::default();
    let connection =
        Connection::new(stream, requests.clone(), head_time, origin.write_timeout(), pace);
    let caller = peer.caller;
    let requests = requests.clone();
    let mut stage = Registration::new(origin.hub.lifecycle().clone());
    let service = service_fn(move |mut request| {
        let (origin, requests) = (origin.clone(), requests.clone());
        requests.begin();
        // In a box: a request's future is many times larger than an idle stream's connection.
        Box::pin(async move {
            let version = request.version();
            let upgrade = hyper::upgrade::on(&mut request);
            let mut answer = origin.answer(request, &caller).await;
            let handshake = answer.extensions_mut().remove::<Arc<Handshake>>();
            requests.answered(match answer.body() {
                _ if handshake.is_some() => ResponseKind::Switch,
                ResponseBody::Stream(_) if version < Version::HTTP_11 => {
                    ResponseKind::UnboundedStream
                }
                ResponseBody::Stream(_) => ResponseKind::Stream,
                _ => ResponseKind::Finished,
            });
            if let Some(handshake) = handshake {
                requests.switch(Switched { upgrade, handshake });
            }
            Ok::<_, Infallible>(answer)
        }) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(config.idle_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut is_told = false;
    // How it ended is the client's affair; a stream's own end is counted with the stream.
    let _ended = poll_fn(|context| {
        if !is_told && stage.poll_reached(context, Stage::Closing) {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
}

/// Speaks WebSocket on a connection that has shaken hands.
async fn serve_websocket(switched: Switched, origin: Arc<AppState>) {
    let Switched { upgrade, handshake } = switched;
    // The client may have left before the answer was written.
    let Ok(upgraded) = upgrade.await else { return };
    let mut stage = Registration::new(origin.hub.lifecycle().clone());
    let draining = poll_fn(|context| match stage.poll_reached(context, Stage::Draining) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    Session::new(origin, upgraded, handshake).await.run(draining).await;
}

async fn serve_h2(stream: Stream, origin: Arc<AppState>, peer: &Peer) {
    let write_timeout = origin.write_timeout();
    let requests = Arc::new(Requests::default());
    let caller = peer.caller;
    // Frames come whenever they like, so no head is waited for: pings find out who is gone.
    let allowance = Arc::new(Allowance::default());
    let pace = IntakePace::of_frames(allowance.clone());
    let connection = Connection::new(stream, requests.clone(), None, write_timeout, pace);
    let begun = requests.clone();
    let unread = Arc::new(UnreadAnswers::new(origin.heartbeat()));
    let watched = unread.clone();
    let streams_max = match origin.clients.is_proxy(caller.address) {
        true => H2_PROXY_STREAMS_MAX,
        false => H2_STREAMS_MAX,
    };
    let mut stage = Registration::new(origin.hub.lifecycle().clone());
    let service = service_fn(move |mut request| {
        let (origin, unread) = (origin.clone(), watched.clone());
        begun.begin();
        allowance.request();
        request.extensions_mut().insert(allowance.clone());
        async move {
            let answer = origin.answer(request, &caller).await;
            Ok::<_, Infallible>(answer.map(|body| unread.watch(body)))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(streams_max)
        .max_send_buf_size(H2_UNSENT_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .serve_connection(TokioIo::new(connection), service);
    let mut connection = pin!(connection);
    let mut is_told = false;
    let mut looks = tokio::time::interval(UNREAD_PAUSE);
    let _ended = poll_fn(|context| {
        while looks.poll_tick(context).is_ready() {
            if unread.is_stuck(write_timeout) {
                // Only the whole connection can be ended from here; what was read stays read.
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            let ended = connection.as_mut().poll(context);
            let is_sent_away = caller.admission.is_refused() && requests.any();
            let must_go = is_sent_away || stage.poll_reached(context, Stage::Draining);
            if is_told || ended.is_ready() || !must_go {
                return ended;
            }
            // GOAWAY: what runs goes on, what is new goes elsewhere.
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
}

/// Looks at the first bytes and leaves them where they are.
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
        // The bytes seen so far keep the socket readable, so wait for more of them by time.
        sleep(Duration::from_millis(10)).await;
    }
}

/// The next connection of any listener, and whether that one is guarded.
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

/// Lets idle connections close and answers finish; after a cut, waits for nothing.
async fn close(mut connections: JoinSet<()>, is_drained: bool, origin: &AppState) -> Stopped {
    let streams = origin.hub.open_streams();
    if is_drained {
        let all = async { while connections.join_next().await.is_some() {} };
        timeout(CLOSE_TIME_MAX, all).await.ok();
    }
    connections.shutdown().await;
    match is_drained {
        true => Stopped::Drained,
        false => Stopped::Cut { connections: streams },
    }
}
