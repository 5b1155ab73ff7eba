//! `/ws`: the handshake of a WebSocket, and the rights of its client.
//!
//! Over HTTP/1.1 the handshake is a `GET` with `Upgrade` (RFC 6455), over HTTP/2 a `CONNECT` with
//! `:protocol` (RFC 8441). `accept_connect` turns the second into the first for all checks, and
//! only `handshake_response` distinguishes them.
//!
//! An invalid request gets an HTTP error. To refuse a client, the origin completes the handshake
//! and then closes the connection with a code and a reason, because the script of a page cannot
//! read the status of a failed handshake. Only a page of a site that may not connect at all gets a
//! `403` (RFC 6455, section 4.2.2).

pub mod frame;
mod rate_limited;
mod session;
mod subscription;
mod wire;

pub use session::Session;
pub use wire::{Wire, close, failed, wire, wire_config};

use super::access::{bearer, cookies, explanation, is_vouched, out_of_scope};
use super::problem::Problem;
use super::route::Query;
use super::site::{Site, is_local_page, site};
use super::{Admission, AppState, HttpResponse};
use crate::access::scope::Right;
use crate::access::token::{Grant, TokenError};
use crate::access::{Access, Credentials, Decision};
use crate::core::event::ChannelName;
use crate::http::stream_body::ResponseBody;
use crate::limits::connections::Permit;
use crate::limits::intake_pace::ByteCredit;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The name of the subprotocol.
const PROTOCOL: &str = "headwater";
/// The prefix of a subprotocol that carries a token. A page can choose no other header of the
/// handshake.
const TOKEN_PROTOCOL: &str = "bearer.";
/// Seconds after which a client that is over a limit may connect again.
const RETRY_CROWDED_S: u64 = 10;
/// Seconds after which a client whose token cannot be checked yet may connect again.
const RETRY_KEYS_S: u64 = 5;

/// The result of a successful handshake.
pub struct Handshake {
    credentials: Credentials,
    /// The reason for which the connection is closed at once, if it is.
    close_reason: Option<CloseReason>,
    /// The credit of the connection, if the WebSocket is a stream over HTTP/2.
    credit: Option<Arc<ByteCredit>>,
    _permits: Permits,
}

/// The permits of a WebSocket: that of its client, and that of a stream over HTTP/2.
pub type Permits = (Option<Permit>, Option<OwnedSemaphorePermit>);

/// The code and the reason with which a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    code: CloseCode,
    reason: String,
}

impl CloseReason {
    fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The process ends. The client should connect again at once, to another process.
    fn restart() -> Self {
        Self::new(CloseCode::Restart, "this origin restarts, connect again")
    }

    /// The token is not valid or has expired, or the client does not answer pings.
    fn policy(reason: impl Into<String>) -> Self {
        Self::new(CloseCode::Policy, reason)
    }

    /// The client cannot be served now, and may connect again after `seconds`.
    fn later(reason: &str, seconds: u64) -> Self {
        Self::new(CloseCode::Again, format!("{reason}; try again in {seconds} s"))
    }
}

/// Answers a handshake. The response carries a [`Handshake`] for the connection.
pub(super) fn handshake(
    app: &AppState,
    request: &Request<Incoming>,
    host: &str,
    query: &Query,
    admission: Admission,
    permits: Permits,
) -> Result<HttpResponse, Problem> {
    let headers = request.headers();
    let mut answer = handshake_response(request)?;
    let site = site(&app.config(), headers, host);
    let is_local = !app.access.guards_publishing() && is_local_page(headers);
    if site == Site::Strange && !app.config().cors_origins.is_empty() && !is_local {
        let detail = "pages of this origin may not connect; name it with --cors-origin";
        let (status, title) = (StatusCode::FORBIDDEN, "Not from this page");
        return Err(Problem::new(status, "origin", title, detail));
    }
    let protocols = protocols(headers);
    if let Some(protocol) = chosen(&protocols) {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let offered = protocols.iter().find_map(|one| one.strip_prefix(TOKEN_PROTOCOL));
    let token = bearer(headers).or(offered).or(query.get("access_token"));
    let is_vouched = is_vouched(&app.access, request);
    // Without a key no token can be checked, and none is needed.
    let is_guarded = app.access.guards_publishing();
    let grant_of = |token| grant_of(app, token);
    let (grant, refused) = match token.filter(|_| is_guarded).map(grant_of) {
        // A bad cookie is ignored: a page cannot remove it, and public channels need no token.
        None if is_guarded && site != Site::Strange => {
            let name = app.access.cookie_name();
            let own = cookies(headers, &name);
            (own.into_iter().find_map(|token| grant_of(token).ok()), None)
        }
        None => (None, None),
        Some(Ok(grant)) => (Some(grant), None),
        Some(Err(close_reason)) => (None, Some(close_reason)),
    };
    let close_reason = match admission {
        _ if app.hub.is_draining() => Some(CloseReason::restart()),
        Admission::Overloaded => {
            Some(CloseReason::later("too many connections (--max-connections)", RETRY_CROWDED_S))
        }
        Admission::OverLimit => {
            let reason = "too many connections of one client (--max-connections-per-client)";
            Some(CloseReason::later(reason, RETRY_CROWDED_S))
        }
        Admission::Normal | Admission::Admin => refused,
    };
    let credentials = Credentials { grant, is_vouched };
    answer.extensions_mut().insert(Arc::new(Handshake {
        credentials,
        close_reason,
        credit: request.extensions().get().cloned(),
        _permits: permits,
    }));
    Ok(answer)
}

fn grant_of(app: &AppState, token: &str) -> Result<Grant, CloseReason> {
    let verified = app.access.verify(token, app.hub.clock().wall());
    verified.map_err(|refusal| match refusal {
        TokenError::UnknownKey | TokenError::Bad if app.access.missing_keys().is_some() => {
            CloseReason::later("tokens cannot be checked yet (--token-jwks)", RETRY_KEYS_S)
        }
        other => CloseReason::policy(explanation(other)),
    })
}

/// Checks whether a client may read or write a channel.
fn may(
    access: &Access,
    credentials: &Credentials,
    right: Right,
    name: &ChannelName,
) -> Result<(), Problem> {
    let names = std::slice::from_ref(name);
    match access.decide(credentials, right, names) {
        Decision::Open | Decision::Granted => Ok(()),
        Decision::NeedsToken => {
            Err(Problem::no_token("this needs a token: connect again with one"))
        }
        Decision::OutOfScope => Err(out_of_scope(right, names)),
    }
}

/// Turns a request for a WebSocket over HTTP/2 into a `GET`, so that all checks of a `GET` hold for
/// it. Any other `CONNECT` is refused.
///
/// # Errors
/// Fails with `501` where the protocol or the resource is not that of a WebSocket.
pub(super) fn accept_connect<B>(request: &mut Request<B>, is_socket: bool) -> Result<(), Problem> {
    if request.method() != Method::CONNECT {
        return Ok(());
    }
    if !is_connect(request) || !is_socket {
        let detail = "CONNECT opens a WebSocket over HTTP/2 here, at /ws and with :protocol \
                      websocket (RFC 8441), and nothing else";
        let (status, title) = (StatusCode::NOT_IMPLEMENTED, "CONNECT opens nothing else here");
        return Err(Problem::new(status, "connect", title, detail));
    }
    *request.method_mut() = Method::GET;
    Ok(())
}

/// Whether a request asks for a WebSocket over HTTP/2. Only a `CONNECT` may have a `:protocol`.
fn is_connect<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.version() == Version::HTTP_2
        && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

/// The response to a valid handshake, without the headers that depend on the client.
///
/// # Errors
/// Fails when the handshake is not valid for its version of HTTP.
fn handshake_response(request: &Request<Incoming>) -> Result<HttpResponse, Problem> {
    let headers = request.headers();
    let body = || ResponseBody::Full(Default::default());
    if is_connect(request) {
        let is_version_13 = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|one| one == "13");
        return match is_version_13 {
            true => Ok(Response::new(body())),
            false => Err(Problem::bad_field("Sec-WebSocket-Version", "the version is 13")),
        };
    }
    let made = create_response_with_body(&with_one_upgrade(request), body);
    // The library checks only the first key; RFC 6455, section 11.3.1, allows only one.
    let is_one = headers.get_all(SEC_WEBSOCKET_KEY).iter().count() < 2;
    made.ok().filter(|_| is_one).ok_or_else(|| no_handshake(request))
}

/// A copy of the head for the library, which does not find `websocket` in a list of protocols
/// (RFC 6455, section 4.2.1, asks for a header that contains it).
fn with_one_upgrade(request: &Request<Incoming>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    if has_word(request.headers(), UPGRADE, "websocket") {
        copy.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    copy
}

/// Whether the list that a header carries has this word.
fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
}

/// The problem of a request that is not a valid handshake: `400` if it requests a WebSocket with an
/// invalid key (RFC 6455, section 4.2.1), otherwise `426` with the protocol to upgrade to.
fn no_handshake(request: &Request<Incoming>) -> Problem {
    let headers = request.headers();
    let is_upgrade =
        has_word(headers, UPGRADE, "websocket") && has_word(headers, CONNECTION, "upgrade");
    let is_version_13 = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let version = request.version();
    if is_upgrade && is_version_13 && version == Version::HTTP_11 {
        let detail = "Sec-WebSocket-Key takes 16 bytes in base64, once";
        return Problem::bad_field("Sec-WebSocket-Key", detail);
    }
    Problem::only_websockets(version)
}

fn protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect()
}

/// The subprotocol of the response. A browser that offers subprotocols expects one of them.
fn chosen(protocols: &[&str]) -> Option<HeaderValue> {
    let ours = protocols.iter().find(|one| **one == PROTOCOL);
    let token = || protocols.iter().find(|one| one.starts_with(TOKEN_PROTOCOL));
    ours.or_else(token).and_then(|one| HeaderValue::from_str(one).ok())
}
