//! Connections over HTTP/1.1 and HTTP/1.0.
//!
//! hyper reads the requests, and sends every response that is not a stream. A connection that
//! becomes a WebSocket leaves hyper for good. A connection whose response is a stream leaves hyper
//! until the stream has ended. Over TLS or HTTP/1.0, or if the request has a body, hyper sends the
//! stream itself.

use super::connection::{Connection, Handover, Requests, ResponseKind, Switched};
use super::connection_log::Reason;
use super::listener::Stream;
use super::paced::paced;
use super::takeover::{self, Taken};
use super::{HEAD_BYTES_MAX, Peer, Served};
use crate::fanout::group::Outcome;
use crate::fanout::socket::Socket;
use crate::http::stream_body::ResponseBody;
use crate::http::websocket::Handshake;
use crate::http::{self, AppState, Caller};
use crate::hub::event_stream::CountedStream;
use crate::limits::intake_pace::IntakePace;
use crate::sync::lifecycle::Stage;
use crate::sync::waiters::Registration;
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::time::timeout;

/// A connection whose stream has caught up.
struct Waiting {
    socket: Socket,
    stream: Box<CountedStream>,
    after: Box<After>,
}

/// What is needed after a stream.
struct After {
    /// Bytes after the request of the stream, which were read with it.
    unread: Bytes,
    /// Whether the connection closes after the stream.
    closes: bool,
}

/// What follows after hyper.
enum Next {
    /// The connection changes to the WebSocket protocol.
    WebSocket(Box<Switched>),
    /// A stream is sent on the connection. `unread` are bytes after its request.
    Stream { stream: Stream, taken: Box<Taken>, unread: Bytes },
}

/// Serves the requests of a connection, one after another. While a stream is with a pump, the
/// future keeps only what is needed afterwards: everything else is in boxed futures.
pub(super) async fn serve(stream: Stream, served: &Served, peer: &Peer) -> Reason {
    let mut waiting = Box::pin(until_caught_up(stream, Bytes::new(), served, peer)).await;
    loop {
        let Waiting { socket, stream, after } = match waiting {
            Ok(waiting) => waiting,
            Err(reason) => return reason,
        };
        let outcome = served.pumps.send(socket, stream).await;
        waiting = Box::pin(resume(outcome, after, served, peer)).await;
    }
}

/// Serves requests until one has a stream that has caught up. `unread` are bytes that were already
/// read from it.
///
/// # Errors
/// Fails when the connection has ended.
async fn until_caught_up(
    mut stream: Stream,
    mut unread: Bytes,
    served: &Served,
    peer: &Peer,
) -> Result<Waiting, Reason> {
    loop {
        match Box::pin(serve_requests(stream, unread, served, peer)).await? {
            Next::WebSocket(switched) => {
                let ended = super::serve_websocket(*switched, served.origin.clone()).await;
                return Err(Reason::WebSocket(ended.and_then(|(_, code)| code)));
            }
            Next::Stream { stream: own, taken, unread: after } => {
                let now = served.origin.hub.clock().machine_now();
                let (head, body, closes) = taken.into_parts(now);
                let after = Box::new(After { unread: after, closes });
                match takeover::send(own, head, body).await.ok_or(Reason::InStream)? {
                    (own, Some(body)) => return Waiting::new(own, body, after),
                    (own, None) => (stream, unread) = after.next_request(own, served).await?,
                }
            }
        }
    }
}

/// Continues after a pump.
async fn resume(
    outcome: Outcome,
    after: Box<After>,
    served: &Served,
    peer: &Peer,
) -> Result<Waiting, Reason> {
    match takeover::resume(outcome, served.origin.write_timeout()).await.ok_or(Reason::InStream)? {
        (stream, Some(body)) => Waiting::new(stream, body, after),
        (stream, None) => {
            let (stream, unread) = after.next_request(stream, served).await?;
            until_caught_up(stream, unread, served, peer).await
        }
    }
}

impl Waiting {
    fn new(stream: Stream, body: Box<CountedStream>, after: Box<After>) -> Result<Self, Reason> {
        let socket = stream.into_socket().map_err(|_| Reason::Failed)?;
        Ok(Self { socket, stream: body, after })
    }
}

impl After {
    /// Waits for the next request.
    ///
    /// # Errors
    /// Fails if the connection has to close.
    async fn next_request(
        self,
        stream: Stream,
        served: &Served,
    ) -> Result<(Stream, Bytes), Reason> {
        if self.closes || self.unread.is_empty() && !has_request(&stream, served).await {
            return Err(Reason::Finished);
        }
        Ok((stream, self.unread))
    }
}

/// Serves requests with hyper, until a response takes the connection away from it.
///
/// # Errors
/// Fails when the connection has ended.
async fn serve_requests(
    stream: Stream,
    unread: Bytes,
    served: &Served,
    peer: &Peer,
) -> Result<Next, Reason> {
    let Served { origin, config, .. } = served;
    let head_time = Some(config.head_timeout);
    let pace = IntakePace::default();
    let requests = Arc::new(Requests::new(!unread.is_empty()));
    let write_timeout = origin.write_timeout();
    let is_plain = stream.is_plain();
    let connection =
        Connection::new(stream, unread, requests.clone(), head_time, write_timeout, pace);
    let caller = peer.caller;
    let mut stage = Registration::new(origin.hub.lifecycle().clone());
    let service = service_fn(|request| {
        let (origin, requests, pace) = (origin.clone(), requests.clone(), peer.pace.clone());
        requests.begin();
        // The future of a request is boxed because it is many times larger than the connection of
        // an idle stream.
        Box::pin(async move {
            let is_pipelined = requests.take_turn().await;
            let pace = pace.as_deref().filter(|_| is_pipelined);
            let is_publish = request.method() == Method::POST;
            let answer = answer(request, &origin, &requests, &caller, is_plain);
            let answer = paced(pace, is_publish, answer).await;
            requests.end_turn();
            Ok::<_, Infallible>(answer)
        }) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(config.idle_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    let mut is_told = false;
    // The end of a stream is counted by its body.
    let reason = poll_fn(|context| {
        requests.begin_turn();
        let mut connection = Pin::new(&mut connection);
        if !is_told && stage.poll_reached(context, Stage::Closing) {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        let polled = connection.poll(context).map(|ended| match ended {
            Ok(()) => Reason::Finished,
            Err(_) => Reason::Failed,
        });
        if requests.has_stream() { Poll::Ready(Reason::InStream) } else { polled }
    })
    .await;
    let taken = match requests.take_handover().ok_or(reason)? {
        Handover::WebSocket(switched) => return Ok(Next::WebSocket(switched)),
        Handover::Stream(taken) => taken,
    };
    let parts = connection.into_parts().ok_or(reason)?;
    let (stream, after) = parts.io.into_inner().take().ok_or(reason)?;
    // A copy, because even an empty handle would keep hyper's whole buffer.
    let unread = [parts.read_buf, after].concat().into();
    Ok(Next::Stream { stream, taken, unread })
}

/// Waits for the next request after a stream. Returns `false` if the connection has to close.
async fn has_request(stream: &Stream, served: &Served) -> bool {
    let mut stage = Registration::new(served.origin.hub.lifecycle().clone());
    let arrives = poll_fn(|context| {
        if let Poll::Ready(peeked) = stream.poll_peek(context, &mut [0]) {
            return Poll::Ready(peeked.is_ok_and(|count| count > 0));
        }
        match stage.poll_reached(context, Stage::Closing) {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    });
    timeout(served.config.idle_timeout, arrives).await.unwrap_or(false)
}

/// Answers a request of an HTTP/1 connection. It does not return if the response takes the
/// connection away from hyper.
async fn answer(
    mut request: Request<Incoming>,
    origin: &AppState,
    requests: &Requests,
    caller: &Caller,
    is_plain: bool,
) -> Response<ResponseBody> {
    let version = request.version();
    let closes = takeover::wants_close(request.headers());
    // A body that was not read yet would be taken for the next request.
    let is_complete = request.body().is_end_stream();
    let upgrade = hyper::upgrade::on(&mut request);
    let mut answer = http::answer(origin, request, caller).await;
    let handshake = answer.extensions_mut().remove::<Arc<Handshake>>();
    if version == Version::HTTP_11 && is_complete && is_plain {
        let (head, body) = answer.into_parts();
        match body {
            ResponseBody::Stream(body) => {
                let taken = Box::new(Taken { head, body, closes });
                requests.hand_over(Handover::Stream(taken));
                return std::future::pending().await;
            }
            other => answer = Response::from_parts(head, other),
        }
    }
    requests.answered(match answer.body() {
        _ if handshake.is_some() => ResponseKind::Switch,
        ResponseBody::Stream(_) if version < Version::HTTP_11 => ResponseKind::UnboundedStream,
        ResponseBody::Stream(_) => ResponseKind::Stream,
        _ => ResponseKind::Finished,
    });
    if let Some(handshake) = handshake {
        let switched = Box::new(Switched { upgrade, handshake });
        requests.hand_over(Handover::WebSocket(switched));
    }
    answer
}
