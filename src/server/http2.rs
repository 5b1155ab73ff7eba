//! Connections over HTTP/2.
//!
//! hyper sends all responses. An HTTP/2 stream that becomes a WebSocket (RFC 8441) gets a task of
//! its own.

use super::connection::{Connection, Requests, Switched};
use super::connection_log::{ConnectionLog, Reason, Transport};
use super::listener::Stream;
use super::paced::paced;
use super::unread_answers::{UnreadAnswers, Watched};
use super::{HEAD_BYTES_MAX, Peer, serve_websocket};
use crate::http::websocket::Handshake;
use crate::http::{self, AppState, Caller};
use crate::limits::intake_pace::{ByteCredit, IntakePace};
use crate::limits::request_pace::{RequestPace, Unanswered};
use crate::sync::lifecycle::Stage;
use crate::sync::waiters::Registration;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

/// The most HTTP/2 streams on a connection. A trusted proxy sends the requests of many clients over
/// few connections, so it has a higher limit.
const STREAMS_MAX: u32 = 100;
const PROXY_STREAMS_MAX: u32 = 10_000;
/// How often an HTTP/2 connection checks for responses that its client does not read.
const UNREAD_PAUSE: Duration = Duration::from_millis(500);
/// The most bytes that wait in an HTTP/2 stream for a client that does not read; the events after
/// them stay in the shared log. With hyper's default of 400 KiB, one connection with 5,000 such
/// streams used 2 GB.
const UNSENT_BYTES: usize = 16 * 1024;

/// Serves the requests of a connection.
pub(super) async fn serve(stream: Stream, origin: Arc<AppState>, peer: &Peer) -> Reason {
    let write_timeout = origin.write_timeout();
    let requests = Arc::new(Requests::default());
    let caller = peer.caller;
    // HTTP/2 frames may arrive at any time, so there is no timeout for heads; pings detect clients
    // that have disconnected.
    let credit = Arc::new(ByteCredit::default());
    let pace = IntakePace::of_frames(credit.clone());
    let connection =
        Connection::new(stream, Bytes::new(), requests.clone(), None, write_timeout, pace);
    let begun = requests.clone();
    let unread = Arc::new(UnreadAnswers::new(origin.heartbeat()));
    let watched = unread.clone();
    let pace = peer.pace.clone();
    let streams_max = match origin.clients.is_proxy(caller.address) {
        true => PROXY_STREAMS_MAX,
        false => STREAMS_MAX,
    };
    let mut stage = Registration::new(origin.hub.lifecycle().clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (origin, unread) = (origin.clone(), watched.clone());
        begun.begin();
        credit.request();
        request.extensions_mut().insert(credit.clone());
        let unanswered = pace.as_ref().map(RequestPace::begin);
        async move {
            let pace = unanswered.as_ref().and_then(Unanswered::pace);
            Ok::<_, Infallible>(answer(request, origin, caller, unread, pace).await)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(streams_max)
        .max_send_buf_size(UNSENT_BYTES)
        .enable_connect_protocol()
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .serve_connection(TokioIo::new(connection), service);
    let mut connection = pin!(connection);
    let mut is_told = false;
    let mut looks = tokio::time::interval(UNREAD_PAUSE);
    poll_fn(|context| {
        while looks.poll_tick(context).is_ready() {
            if unread.is_stuck(write_timeout) {
                // Only the whole connection can be closed from here. Responses that the client has
                // already read are not affected.
                return Poll::Ready(Reason::Unread);
            }
        }
        loop {
            let ended = connection.as_mut().poll(context).map(|ended| match ended {
                Ok(()) => Reason::Finished,
                Err(_) => Reason::Failed,
            });
            let is_sent_away = caller.admission.is_refused() && requests.any();
            // While the origin drains, a new connection still gets the answer to a request.
            let is_over = stage.poll_reached(context, Stage::Closing)
                || requests.any() && stage.poll_reached(context, Stage::Draining);
            let must_go = is_sent_away || is_over;
            if is_told || ended.is_ready() || !must_go {
                return ended;
            }
            // Sends GOAWAY: running requests continue, and the client opens a new connection for
            // further ones.
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}

/// Answers a request, at this pace if there is one. If the request asks for a WebSocket, a task
/// begins that serves it.
async fn answer(
    mut request: Request<Incoming>,
    origin: Arc<AppState>,
    caller: Caller,
    unread: Arc<UnreadAnswers>,
    pace: Option<&RequestPace>,
) -> Response<Watched> {
    let upgrade = hyper::upgrade::on(&mut request);
    let is_publish = request.method() == Method::POST;
    let mut answer = paced(pace, is_publish, http::answer(&origin, request, &caller)).await;
    if let Some(handshake) = answer.extensions_mut().remove::<Arc<Handshake>>() {
        let switched = Switched { upgrade, handshake };
        // It ends with the connection, whose streams then fail.
        let log = ConnectionLog::new(caller.address);
        tokio::spawn(serve_websocket_stream(switched, origin, unread.clone(), log));
    }
    answer.map(|body| unread.watch(body))
}

/// Serves a WebSocket that is a stream over HTTP/2. If its client does not read the last bytes in
/// time, the connection is closed: hyper cannot reset a single stream that has become a WebSocket.
async fn serve_websocket_stream(
    switched: Switched,
    origin: Arc<AppState>,
    unread: Arc<UnreadAnswers>,
    mut log: ConnectionLog,
) {
    log.opened(Transport::WebSocketStream);
    let write_timeout = origin.write_timeout();
    // The permits stay until the stream has ended.
    let _handshake = switched.handshake.clone();
    let Some((mut wire, code)) = serve_websocket(switched, origin).await else {
        return log.ended(Reason::Failed);
    };
    log.ended(Reason::WebSocket(code));
    if timeout(write_timeout, wire.get_mut().finish()).await.is_err() {
        log.ended(Reason::Unread);
        unread.give_up();
    }
}
