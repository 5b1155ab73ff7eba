//! Requests in, answers out: which path, which method, which headers every answer carries.
//!
//! One file an answer. Status codes stand only in this folder; what is true about channels and
//! time is decided further in.

mod access;
mod config;
mod cors;
mod history;
mod intake;
mod long_poll;
pub mod probe;
mod problem;
mod publish;
mod readiness;
mod route;
mod site;
mod state;
pub mod stream_body;
mod subscribe;
pub mod websocket;

use crate::access::Access;
use crate::core::caching::Freshness;
use crate::core::event::ChannelName;
use crate::http::stream_body::ResponseBody;
use crate::hub::Hub;
use crate::limits::budget::Exhausted;
use crate::limits::client_address::Client;
use crate::limits::connections::{Acquired, Clients, Permit};
use access::{Audience, Denied};
use bytes::Bytes;
pub use config::{HttpConfig, WebSocketLimits};
use cors::Readers;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use probe::{RESPONSE_HEADER, Responses};
use problem::Problem;
use publish::Publishing;
use readiness::Readiness;
use route::{Query, Route};
use state::States;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The page of `serve --demo`.
const DEMO_PAGE: &str = include_str!("../demo/page.html");
const CHANNEL_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const READ_METHODS: &str = "GET, HEAD, OPTIONS";

type HttpResponse = Response<ResponseBody>;

/// What every request is answered with.
pub struct AppState {
    /// Channels, segments and the store.
    pub hub: Arc<Hub>,
    /// Who may do what.
    pub access: Access,
    /// What each client holds.
    pub clients: Arc<Clients>,
    config: HttpConfig,
    publishing: Publishing,
    responses: Responses,
    readiness: Readiness,
    states: States,
    /// A permit for each answer that is being built.
    builds: Arc<Semaphore>,
    /// A permit for each stream over HTTP/2.
    streams: Arc<Semaphore>,
}

/// What is asked of one request beside what it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Served.
    Normal,
    /// One connection too many: streams are sent away for a while.
    Overloaded,
    /// One too many of one client: as well, and it may not publish either.
    OverLimit,
    /// On the admin listener.
    Admin,
}

/// Who sent a request, as far as its connection shows.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// What is asked of it.
    pub admission: Admission,
    /// The address of the peer.
    pub address: IpAddr,
    /// The listener is open to this machine without a key, so pages of other sites are kept out.
    pub is_guarded: bool,
}

/// The client of one request, and what it holds.
struct Sender {
    admission: Admission,
    /// Its part of its client's share.
    permit: Option<Permit>,
    client: Client,
}

impl Admission {
    /// Whether there is no room for this one.
    pub fn is_refused(self) -> bool {
        matches!(self, Self::Overloaded | Self::OverLimit)
    }
}

impl AppState {
    /// The HTTP layer on a hub, with at most `streams_max` streams over HTTP/2.
    pub fn new(
        hub: Arc<Hub>,
        config: HttpConfig,
        access: Access,
        clients: Clients,
        streams_max: usize,
    ) -> Self {
        let publishing = Publishing::new(&config);
        let (clients, responses) = (Arc::new(clients), Responses::default());
        let readiness = Readiness::default();
        let states = States::default();
        let streams = Arc::new(Semaphore::new(streams_max.min(Semaphore::MAX_PERMITS)));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let builds = Arc::new(Semaphore::new((cores / 2).max(1)));
        Self {
            publishing,
            hub,
            access,
            clients,
            config,
            responses,
            readiness,
            states,
            builds,
            streams,
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> HttpResponse {
        let version = request.version();
        let admission = caller.admission;
        let asks_for_socket = request.uri().path() == "/ws";
        let (answered, readers) = match site::host(&request) {
            Err(problem) => (Err(problem), Readers::default()),
            Ok(host) => {
                let (readers, allowed) = self.guard(&request, caller, &host);
                let answered = match allowed.and_then(|()| only_chunks(&request)) {
                    Err(problem) => Err(problem),
                    Ok(()) if admission == Admission::Admin => self.answer_admin(&request).await,
                    Ok(()) => self.admit(request, caller, &host).await,
                };
                (answered, readers)
            }
        };
        let mut answer = answered.unwrap_or_else(Problem::into_response);
        // Operators' programs read the admin listener, and no page does.
        if admission != Admission::Admin {
            self.allow_origin(&readers, answer.headers_mut());
        }
        let is_switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        // A proxy that passes a handshake on may pass everything after it on too, as it comes.
        let may_be_piped = asks_for_socket && !is_switched;
        let must_close = self.hub.is_draining() || admission.is_refused() || may_be_piped;
        if must_close && version < Version::HTTP_2 && !is_switched {
            answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Quiet time after which a stream sends a comment.
    pub fn heartbeat(&self) -> std::time::Duration {
        self.config.heartbeat
    }

    /// For how long a client may read nothing of what it is sent.
    pub fn write_timeout(&self) -> std::time::Duration {
        self.config.write_timeout
    }

    /// Drops what the rate limit no longer needs to know.
    pub fn sweep(&self) {
        self.publishing.sweep();
        self.states.sweep();
    }

    /// Counts what comes through a proxy for the client that it is for. What a client holds by
    /// itself is counted with its connection. A request whose answer may be shared is not counted:
    /// a cache sends it for all clients that ask for the same, so a refusal would be shared too.
    async fn admit(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        host: &str,
    ) -> Result<HttpResponse, Problem> {
        let &Caller { admission, address, .. } = caller;
        let is_proxy = self.clients.is_proxy(address);
        // Over HTTP/2 one connection carries many streams, and each is one more that is held.
        if admission != Admission::Normal || !is_proxy && request.version() != Version::HTTP_2 {
            let of = Sender { admission, permit: None, client: Client::at(address) };
            return self.route(request, host, of).await;
        }
        let values = request.headers().get_all(self.clients.header()).iter();
        // A proxy adds to what its client wrote: bytes that are no text may hide nothing behind them.
        let said: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let said = said.iter().map(AsRef::as_ref);
        let client = self.clients.client(address, said);
        if is_proxy && self.is_shareable(&request) {
            let of = Sender { admission, permit: None, client };
            return self.route(request, host, of).await;
        }
        let (admission, permit) = match self.clients.acquire(client) {
            Acquired::Granted(permit) => (Admission::Normal, permit),
            Acquired::OverLimit(permit) => (Admission::OverLimit, Some(permit)),
            Acquired::Rejected => (Admission::OverLimit, None),
        };
        let of = Sender { admission, permit, client };
        let mut answer = self.route(request, host, of).await?;
        if admission == Admission::OverLimit {
            // It is about one client, and no cache may give it to another one.
            access::keep_private(&mut answer);
        }
        Ok(answer)
    }

    /// Whether the answer to a request is the same for everyone, so that a cache may share it.
    fn is_shareable(&self, request: &Request<Incoming>) -> bool {
        // Caches pass a request with credentials on for its client alone.
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
        matches!(self.may_read(request.headers(), &query, &names), Ok(Audience::Everyone))
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        host: &str,
        Sender { admission, permit, client }: Sender,
    ) -> Result<HttpResponse, Problem> {
        let path = request.uri().path();
        let is_options = request.method() == Method::OPTIONS;
        // About the server as a whole (RFC 9110, section 9.3.7).
        if is_options && path == "*" {
            return Ok(cors::preflight(None, request.headers()));
        }
        let route = Route::parse(path)?;
        // A load balancer may ask with any of these, and needs the one answer.
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
        match route {
            Route::Channels(names) if is_read => {
                let (admission, stream) = self.stream_permit(request.version(), admission);
                let mode = if query.get("mode") == Some("hold") { "hold" } else { "stream" };
                let name = self.responses.next(&request, mode);
                let audience = self.may_read(request.headers(), &query, &names);
                let mut answer = match &audience {
                    Ok(_) => self.subscribe(&request, &names, &query, admission).await?,
                    Err(Denied::Expired) => self.put_off(&request)?,
                    Err(Denied::NotYet(_)) => self.shed_for_keys(&request)?,
                    Err(Denied::Refused(problem)) => return Err(problem.clone()),
                };
                if !matches!(audience, Ok(Audience::Everyone)) {
                    access::keep_private(&mut answer);
                }
                answer.headers_mut().insert(RESPONSE_HEADER, name);
                if let ResponseBody::Stream(body) = answer.body_mut() {
                    body.keep(permit, stream);
                }
                Ok(answer)
            }
            Route::Channels(names) if probe::is_fault(&names) => {
                Err(Problem::not_found(probe::TAKES_NO_EVENTS))
            }
            Route::Channels(names) => self.write(request, names, &query, client).await,
            Route::Health if is_read || is_options => Ok(text("ok\n".to_owned())),
            Route::Ready if is_read || is_options => self.ready().await,
            _ if !is_read => Err(Problem::method(READ_METHODS)),
            Route::WebSocket => self.handshake(&request, host, &query, admission, permit),
            Route::History(name) => {
                let audience = self.audience_of(&request, &query, &name)?;
                Ok(for_its(audience, self.history(&name, &query).await?))
            }
            Route::State(name) => {
                let audience = self.audience_of(&request, &query, &name)?;
                Ok(for_its(audience, self.state(&name, &query).await?))
            }
            Route::Home if self.config.demo => Ok(page()),
            Route::Home => Err(Problem::not_found("the demo page is there with serve --demo")),
            Route::Health | Route::Ready => Err(Problem::method(READ_METHODS)),
            Route::Metrics => {
                Err(Problem::not_found("metrics are on the admin listener (--admin-listen)"))
            }
        }
    }

    /// A turn to read many events and to build an answer from them. Few do so at once, so that some
    /// of the processors are always left for publishes and streams. A store on another machine is
    /// read without one: that costs nothing here but the wait.
    async fn turn_to_read(&self) -> Result<Option<OwnedSemaphorePermit>, Exhausted> {
        match self.hub.shares_store() {
            true => Ok(None),
            false => self.turn_to_build(None).await.map(Some),
        }
    }

    /// The turn that a request has, or one to build its answer.
    async fn turn_to_build(
        &self,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<OwnedSemaphorePermit, Exhausted> {
        if let Some(turn) = turn {
            return Ok(turn);
        }
        let turn =
            tokio::time::timeout(self.hub.store_timeout(), self.builds.clone().acquire_owned())
                .await;
        turn.ok().and_then(Result::ok).ok_or(Exhausted)
    }

    /// A permit for a stream over HTTP/2, where a connection carries many: all together are no more
    /// than connections.
    fn stream_permit(
        &self,
        version: Version,
        admission: Admission,
    ) -> (Admission, Option<OwnedSemaphorePermit>) {
        if version != Version::HTTP_2 {
            return (admission, None);
        }
        match self.streams.clone().try_acquire_owned() {
            Ok(permit) => (admission, Some(permit)),
            Err(_) if admission == Admission::Normal => (Admission::Overloaded, None),
            Err(_) => (admission, None),
        }
    }

    /// Whom an answer that is no stream is for.
    fn audience_of(
        &self,
        request: &Request<Incoming>,
        query: &Query,
        name: &ChannelName,
    ) -> Result<Audience, Problem> {
        let names = std::slice::from_ref(name);
        self.may_read(request.headers(), query, names).map_err(|denied| match denied {
            Denied::Expired => Problem::unauthorized(access::EXPIRED),
            Denied::NotYet(problem) => problem,
            Denied::Refused(problem) => problem,
        })
    }

    async fn answer_admin(&self, request: &Request<Incoming>) -> Result<HttpResponse, Problem> {
        if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Err(Problem::method(READ_METHODS));
        }
        match Route::parse(request.uri().path())? {
            Route::Metrics => {
                self.hub.refresh_metrics().await;
                self.hub.metrics().ready.set(self.ready().await.is_ok().into());
                let mut answer = text(self.hub.metrics().text());
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                Ok(answer)
            }
            Route::Health => Ok(text("ok\n".to_owned())),
            Route::Ready => self.ready().await,
            _ => Err(Problem::not_found("here are /metrics, /healthz and /readyz")),
        }
    }
}

/// Refuses a body in a transfer coding that nothing here decodes (RFC 9112, section 6.1): the
/// library looks for `chunked` at the end of the list and leaves the codings before it alone.
fn only_chunks(request: &Request<Incoming>) -> Result<(), Problem> {
    let lines = request.headers().get_all(TRANSFER_ENCODING).iter();
    let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    if codings.enumerate().all(|(n, one)| n == 0 && one.eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let detail = "Transfer-Encoding takes chunked, once; send the body as it is, or in chunks";
    let title = "The transfer coding is not known here";
    let problem = Problem::new(StatusCode::NOT_IMPLEMENTED, "transfer-coding", title, detail);
    Err(problem.with("field", "Transfer-Encoding"))
}

/// The whole answer to a client whose request's head did not arrive in time, as it goes on the
/// wire: hyper has no answer for that.
pub fn too_slow_a_head() -> Vec<u8> {
    let detail = "the request's head did not arrive in time; send it in one piece";
    let title = "The request was too slow";
    let body = Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-head", title, detail).json();
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn for_its(audience: Audience, mut answer: HttpResponse) -> HttpResponse {
    if audience == Audience::Bearer {
        access::keep_private(&mut answer);
    }
    answer
}

fn page() -> HttpResponse {
    let mut answer = text(DEMO_PAGE.to_owned());
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn text(text: String) -> HttpResponse {
    let mut answer = Response::new(ResponseBody::Full(text.into()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, header(&Freshness::Never.cache_control(0)));
    answer
}

fn json(status: StatusCode, body: Bytes, cache_control: &str) -> HttpResponse {
    let mut answer = Response::new(ResponseBody::Full(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, header(cache_control));
    answer
}

/// Text of our own making, which a header can always hold.
fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}
