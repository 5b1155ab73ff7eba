//! Routes requests by path and method, and sets the headers that all responses have in common.
//!
//! A request is checked, admitted (it may count against the limit of its client), answered by the
//! module of its path, and logged if its result is of interest.

use super::access::{self, Audience, Denied, may_read};
use super::audit::RequestInfo;
use super::cors::{self, Readers};
use super::files::{self, Found};
use super::probe::{self, RESPONSE_HEADER};
use super::problem::Problem;
use super::route::{Query, Route};
use super::stream_body::ResponseBody;
use super::{
    Admission, AppState, Caller, HttpResponse, READ_METHODS, admin, console, history, publish,
    readiness, site, state, subscribe, text, websocket,
};
use crate::core::event::ChannelName;
use crate::limits::client_address::Client;
use crate::limits::connections::{Acquired, Permit};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, StatusCode, Version};
use tokio::sync::OwnedSemaphorePermit;

/// The client of one request, and its permit.
pub(super) struct Requester {
    pub admission: Admission,
    /// The permit of this request, if it counts against the limit of its client.
    pub permit: Option<Permit>,
    pub client: Client,
}

/// Answers one request.
pub async fn answer(
    app: &AppState,
    mut request: Request<Incoming>,
    caller: &Caller,
) -> HttpResponse {
    access::note_tls(&mut request, caller.tls);
    let info = RequestInfo::new(&request, caller.address, &app.clients);
    let version = request.version();
    let admission = caller.admission;
    let asks_for_socket = matches!(request.uri().path(), "/ws" | console::SOCKET);
    let is_known_method = websocket::accept_connect(&mut request, asks_for_socket);
    let (answered, readers) = match site::host(&request) {
        Err(problem) => (Err(problem), Readers::default()),
        Ok(host) => {
            let (readers, allowed) = site::guard(&app.config(), &request, caller, &host);
            let checked = allowed.and(is_known_method).and_then(|()| only_chunks(&request));
            let answered = match checked {
                Err(problem) => Err(problem),
                Ok(()) if admission == Admission::Admin => {
                    admin::answer(app, request, caller.address, &host).await
                }
                Ok(()) => admit(app, request, caller, &host).await,
            };
            (answered, readers)
        }
    };
    let mut answer = app.audit.finish(&info, &app.clients, answered);
    // The admin listener serves programs of operators, not web pages, so it needs no CORS
    // headers.
    if admission != Admission::Admin {
        cors::allow_origin(&app.config().cors_origins, &readers, answer.headers_mut());
    }
    let is_switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    // A proxy that forwards a handshake may forward all later bytes without parsing them, so a
    // connection after a failed handshake is closed.
    let may_be_piped = asks_for_socket && !is_switched;
    let must_close = app.hub.is_draining() || admission.is_refused() || may_be_piped;
    if must_close && version < Version::HTTP_2 && !is_switched {
        answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Counts a request through a proxy, or over HTTP/2, against the limit of its client. A direct
/// HTTP/1.1 connection is counted when it is accepted instead. A request through a proxy whose
/// response may be shared is not counted: a cache sends it for all clients with the same
/// request, so a refusal would be shared too.
async fn admit(
    app: &AppState,
    request: Request<Incoming>,
    caller: &Caller,
    host: &str,
) -> Result<HttpResponse, Problem> {
    let &Caller { admission, address, .. } = caller;
    let is_proxy = app.clients.is_proxy(address);
    // One HTTP/2 connection carries many streams, so each request is counted by itself.
    if admission != Admission::Normal || !is_proxy && request.version() != Version::HTTP_2 {
        let of = Requester { admission, permit: None, client: Client::at(address) };
        return route(app, request, host, of).await;
    }
    let values = request.headers().get_all(app.clients.header()).iter();
    // A proxy appends to the header that its client sent. Invalid UTF-8 in the client's part
    // must not hide the part of the proxy, so invalid bytes are replaced.
    let said: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let said = said.iter().map(AsRef::as_ref);
    let client = app.clients.client(address, said);
    if is_proxy && is_shareable(app, &request) {
        let of = Requester { admission, permit: None, client };
        return route(app, request, host, of).await;
    }
    let (admission, permit) = match app.clients.acquire(client) {
        Acquired::Granted(permit) => (Admission::Normal, permit),
        Acquired::OverLimit(permit) => (Admission::OverLimit, Some(permit)),
        Acquired::Rejected => (Admission::OverLimit, None),
    };
    let of = Requester { admission, permit, client };
    let mut answer = route(app, request, host, of).await?;
    if admission == Admission::OverLimit {
        // The refusal concerns one client, so a cache must not give it to another one.
        access::keep_private(&mut answer);
    }
    Ok(answer)
}

/// Whether the response to a request is the same for all clients, so that a cache may share it.
fn is_shareable(app: &AppState, request: &Request<Incoming>) -> bool {
    // A cache forwards a request with credentials for one client only.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read || request.headers().contains_key(AUTHORIZATION) {
        return false;
    }
    let names = match Route::parse(request.uri().path()) {
        Ok(Route::Channels(names)) => names,
        Ok(Route::History(name) | Route::State(name)) => vec![name],
        _ => return false,
    };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    matches!(may_read(app, request, &query, &names), Ok(Audience::Everyone))
}

pub(super) async fn route(
    app: &AppState,
    request: Request<Incoming>,
    host: &str,
    Requester { admission, permit, client }: Requester,
) -> Result<HttpResponse, Problem> {
    let path = request.uri().path();
    let is_options = request.method() == Method::OPTIONS;
    // `OPTIONS *` is about the server as a whole (RFC 9110, section 9.3.7).
    if is_options && path == "*" {
        return Ok(cors::preflight(None, request.headers()));
    }
    let bound = || app.bound.get()?.files.find(path);
    let route = match app.files.find(path).or_else(bound) {
        Some(file) => Route::File(Found::File(file)),
        None => Route::parse(path)?,
    };
    // A load balancer may use GET, HEAD or OPTIONS for its checks, and needs the same status.
    if is_options && !matches!(route, Route::Health | Route::Ready) {
        return Ok(cors::preflight(Some(&route), request.headers()));
    }
    let is_listening = matches!(route, Route::Channels(_) | Route::WebSocket)
        && matches!(*request.method(), Method::GET | Method::HEAD);
    if admission == Admission::OverLimit && !is_listening {
        return Err(Problem::over_limit());
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_write = matches!(*request.method(), Method::POST | Method::DELETE);
    match route {
        Route::Channels(names) if is_read => {
            let (admission, stream) = stream_permit(app, request.version(), admission);
            let mut answer = answer_stream(app, &request, &names, &query, admission).await?;
            if let ResponseBody::Stream(body) = answer.body_mut() {
                body.account.keep(permit, stream);
            }
            Ok(answer)
        }
        Route::Channels(names) if is_write && probe::is_fault(&names) => {
            Err(Problem::not_found(probe::TAKES_NO_EVENTS))
        }
        Route::Channels(names) => publish::answer(app, request, names, &query, client).await,
        Route::Health if is_read || is_options => Ok(text("ok\n".to_owned())),
        Route::Ready if is_read || is_options => readiness::answer(app).await,
        Route::Metrics => {
            Err(Problem::not_found("metrics are on the admin listener (--admin-listen)"))
        }
        _ if !is_read => Err(Problem::method(READ_METHODS)),
        Route::WebSocket => {
            let (admission, stream) = stream_permit(app, request.version(), admission);
            websocket::handshake(app, &request, host, &query, admission, (permit, stream))
        }
        Route::History(name) => {
            let audience = audience_of(app, &request, &query, &name)?;
            Ok(for_its(audience, history::answer(app, &name, &query).await?))
        }
        Route::State(name) => {
            let audience = audience_of(app, &request, &query, &name)?;
            Ok(for_its(audience, state::answer(app, &name, &query).await?))
        }
        Route::Home => Ok(files::home(request.headers())),
        Route::File(Found::File(file)) => Ok(file.answer(request.headers())),
        Route::File(Found::Elsewhere(path)) => Ok(files::redirect(&path)),
        Route::Health | Route::Ready => Err(Problem::method(READ_METHODS)),
    }
}

/// Answers a request for a stream or a long poll of these channels.
async fn answer_stream(
    app: &AppState,
    request: &Request<Incoming>,
    names: &[ChannelName],
    query: &Query,
    admission: Admission,
) -> Result<HttpResponse, Problem> {
    let mode = if query.get("mode") == Some("hold") { "hold" } else { "stream" };
    let name = app.responses.next(request, mode);
    let audience = may_read(app, request, query, names);
    // No cache stands in front of the console, so its streams say nothing about sharing.
    let is_console = admission == Admission::Admin;
    let mut answer = match &audience {
        Ok(audience) => {
            let is_shareable = *audience == Audience::Everyone && !is_console;
            subscribe::answer(app, request, names, query, (admission, is_shareable)).await?
        }
        Err(Denied::Expired) => subscribe::put_off(app, request)?,
        Err(Denied::NotYet(_)) => subscribe::shed_for_keys(app, request)?,
        Err(Denied::Refused(problem)) => return Err(problem.clone()),
    };
    if is_console || !matches!(audience, Ok(Audience::Everyone)) {
        access::keep_private(&mut answer);
    }
    answer.headers_mut().insert(RESPONSE_HEADER, name);
    Ok(answer)
}

/// Takes a permit for a stream over HTTP/2. One connection carries many streams, so all HTTP/2
/// streams together are limited to the maximum number of connections. If no permit is free, the
/// request is [`Admission::Overloaded`].
fn stream_permit(
    app: &AppState,
    version: Version,
    admission: Admission,
) -> (Admission, Option<OwnedSemaphorePermit>) {
    if version != Version::HTTP_2 {
        return (admission, None);
    }
    match app.streams.clone().try_acquire_owned() {
        Ok(permit) => (admission, Some(permit)),
        Err(_) if admission == Admission::Normal => (Admission::Overloaded, None),
        Err(_) => (admission, None),
    }
}

/// Returns which clients may receive a response that is not a stream, or why it is refused.
fn audience_of(
    app: &AppState,
    request: &Request<Incoming>,
    query: &Query,
    name: &ChannelName,
) -> Result<Audience, Problem> {
    let names = std::slice::from_ref(name);
    may_read(app, request, query, names).map_err(|denied| match denied {
        Denied::Expired => Problem::bad_token(access::EXPIRED),
        Denied::NotYet(problem) => problem,
        Denied::Refused(problem) => problem,
    })
}

/// Refuses a request with a transfer coding other than `chunked` (RFC 9112, section 6.1): hyper
/// only looks for `chunked` at the end of the list and does not decode the codings before it.
fn only_chunks(request: &Request<Incoming>) -> Result<(), Problem> {
    let lines = request.headers().get_all(TRANSFER_ENCODING).iter();
    let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    if codings.enumerate().all(|(n, one)| n == 0 && one.eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let detail = "the only transfer coding here is chunked, applied once; send the body without a \
                  transfer coding, or in chunks";
    let title = "The transfer coding is not known here";
    let problem = Problem::new(StatusCode::NOT_IMPLEMENTED, "transfer-coding", title, detail);
    Err(problem.with("field", "Transfer-Encoding"))
}

fn for_its(audience: Audience, mut answer: HttpResponse) -> HttpResponse {
    if audience == Audience::Bearer {
        access::keep_private(&mut answer);
    }
    answer
}
