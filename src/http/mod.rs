//! The HTTP layer: it routes requests by path and method, and sets the headers that all responses
//! have in common.
//!
//! Each kind of response has a file of its own. Only this folder chooses status codes; the folders
//! below it, such as `hub` and `core`, decide about channels and time.

mod access;
mod admin;
mod audit;
mod body_events;
mod bound;
mod caller;
mod channel_changes;
mod channel_list;
mod config;
mod console;
mod cors;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
mod intake;
mod long_poll;
mod negotiation;
pub mod probe;
mod problem;
mod publish;
mod readiness;
pub mod route;
mod site;
mod state;
pub mod stream_body;
mod subscribe;
mod turns;
pub mod websocket;

use crate::access::Access;
use crate::core::caching::Freshness;
use crate::core::event::ChannelName;
use crate::http::stream_body::ResponseBody;
use crate::hub::Hub;
use crate::limits::budget::Exhausted;
use crate::limits::client_address::Client;
use crate::limits::connections::{Acquired, Clients, ClientsConfig, Permit};
use crate::sync::replaceable::Replaceable;
use crate::telemetry::exposition;
use access::{Audience, Denied};
use admin::Reloads;
pub use admin::{ReloadRequest, Reloaded};
use audit::Audit;
use bound::Bound;
use bytes::Bytes;
pub use caller::{Admission, Caller, TlsPeer};
pub use config::{HttpConfig, WebSocketLimits};
use cors::Readers;
pub use files::ExtraFile;
use files::{ExtraFiles, Found};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue,
    TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use probe::{RESPONSE_HEADER, Responses};
use problem::Problem;
use publish::Publishing;
use readiness::Readiness;
use route::{Query, Route};
use state::States;
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const CHANNEL_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const READ_METHODS: &str = "GET, HEAD, OPTIONS";

type HttpResponse = Response<ResponseBody>;

/// The state that all requests share.
pub struct AppState {
    /// The channels, the segments and the store.
    pub hub: Arc<Hub>,
    /// The access control: keys, private channels and edge secrets.
    pub access: Access,
    /// The permits that each client holds.
    pub clients: Arc<Clients>,
    config: Replaceable<HttpConfig>,
    files: ExtraFiles,
    bound: OnceLock<Bound>,
    publishing: Publishing,
    responses: Responses,
    readiness: Readiness,
    states: States,
    audit: Audit,
    /// The requests to read the settings again.
    pub reloads: Reloads,
    /// One permit for each large response that is being built.
    builds: Arc<Semaphore>,
    /// One permit for each request for a stream over HTTP/2.
    streams: Arc<Semaphore>,
}

/// The client of one request, and its permit.
struct Sender {
    admission: Admission,
    /// The permit of this request, if it counts against the limit of its client.
    permit: Option<Permit>,
    client: Client,
}

impl AppState {
    /// Creates the HTTP layer for a hub, with at most `streams_max` streams over HTTP/2.
    pub fn new(
        hub: Arc<Hub>,
        config: HttpConfig,
        access: Access,
        clients: Clients,
        streams_max: usize,
    ) -> Self {
        let publishing = Publishing::new(&config);
        let files = ExtraFiles::new(&config.files);
        let config = Replaceable::new(config);
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
            files,
            bound: OnceLock::new(),
            responses,
            readiness,
            states,
            audit: Audit::default(),
            reloads: Reloads::default(),
            builds,
            streams,
        }
    }

    /// Answers one request.
    pub async fn answer(&self, mut request: Request<Incoming>, caller: &Caller) -> HttpResponse {
        access::note_tls(&mut request, caller.tls);
        let info = self.request_info(&request, caller.address);
        let version = request.version();
        let admission = caller.admission;
        let asks_for_socket = matches!(request.uri().path(), "/ws" | console::SOCKET);
        let is_known_method = websocket::accept_connect(&mut request, asks_for_socket);
        let (answered, readers) = match site::host(&request) {
            Err(problem) => (Err(problem), Readers::default()),
            Ok(host) => {
                let (readers, allowed) = self.guard(&request, caller, &host);
                let checked = allowed.and(is_known_method).and_then(|()| only_chunks(&request));
                let answered = match checked {
                    Err(problem) => Err(problem),
                    Ok(()) if admission == Admission::Admin => {
                        self.answer_admin(request, caller.address, &host).await
                    }
                    Ok(()) => self.admit(request, caller, &host).await,
                };
                (answered, readers)
            }
        };
        let mut answer = self.audited(&info, answered);
        // The admin listener serves programs of operators, not web pages, so it needs no CORS
        // headers.
        if admission != Admission::Admin {
            self.allow_origin(&readers, answer.headers_mut());
        }
        let is_switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        // A proxy that forwards a handshake may forward all later bytes without parsing them, so a
        // connection after a failed handshake is closed.
        let may_be_piped = asks_for_socket && !is_switched;
        let must_close = self.hub.is_draining() || admission.is_refused() || may_be_piped;
        if must_close && version < Version::HTTP_2 && !is_switched {
            answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Replaces the settings and the limits of the clients. The memory for publish bodies keeps its
    /// size, and the length of responses stays, because the origins of one store share it.
    pub fn reload(&self, mut config: HttpConfig, clients: ClientsConfig) {
        let current = self.config();
        config.segment_bytes = current.segment_bytes;
        self.publishing.reload(config.publish_rates);
        self.clients.reload(clients);
        self.config.replace(config);
    }

    fn config(&self) -> Arc<HttpConfig> {
        self.config.get()
    }

    /// The time after which a stream that has sent nothing sends a comment.
    pub fn heartbeat(&self) -> std::time::Duration {
        self.config().heartbeat
    }

    /// The longest time for which a client may leave its response unread.
    pub fn write_timeout(&self) -> std::time::Duration {
        self.config().write_timeout
    }

    /// Drops unused entries of the rate limits and state bodies that no request is using.
    pub fn sweep(&self) {
        self.publishing.sweep();
        self.states.sweep();
    }

    /// Counts a request through a proxy, or over HTTP/2, against the limit of its client. A direct
    /// HTTP/1.1 connection is counted when it is accepted instead. A request through a proxy whose
    /// response may be shared is not counted: a cache sends it for all clients with the same
    /// request, so a refusal would be shared too.
    async fn admit(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        host: &str,
    ) -> Result<HttpResponse, Problem> {
        let &Caller { admission, address, .. } = caller;
        let is_proxy = self.clients.is_proxy(address);
        // One HTTP/2 connection carries many streams, so each request is counted by itself.
        if admission != Admission::Normal || !is_proxy && request.version() != Version::HTTP_2 {
            let of = Sender { admission, permit: None, client: Client::at(address) };
            return self.route(request, host, of).await;
        }
        let values = request.headers().get_all(self.clients.header()).iter();
        // A proxy appends to the header that its client sent. Invalid UTF-8 in the client's part
        // must not hide the part of the proxy, so invalid bytes are replaced.
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
            // The refusal concerns one client, so a cache must not give it to another one.
            access::keep_private(&mut answer);
        }
        Ok(answer)
    }

    /// Whether the response to a request is the same for all clients, so that a cache may share it.
    fn is_shareable(&self, request: &Request<Incoming>) -> bool {
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
        matches!(self.may_read(request, &query, &names), Ok(Audience::Everyone))
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        host: &str,
        Sender { admission, permit, client }: Sender,
    ) -> Result<HttpResponse, Problem> {
        let path = request.uri().path();
        let is_options = request.method() == Method::OPTIONS;
        // `OPTIONS *` is about the server as a whole (RFC 9110, section 9.3.7).
        if is_options && path == "*" {
            return Ok(cors::preflight(None, request.headers()));
        }
        let bound = || self.bound.get()?.files.find(path);
        let route = match self.files.find(path).or_else(bound) {
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
                let (admission, stream) = self.stream_permit(request.version(), admission);
                let mut answer = self.answer_stream(&request, &names, &query, admission).await?;
                if let ResponseBody::Stream(body) = answer.body_mut() {
                    body.account.keep(permit, stream);
                }
                Ok(answer)
            }
            Route::Channels(names) if is_write && probe::is_fault(&names) => {
                Err(Problem::not_found(probe::TAKES_NO_EVENTS))
            }
            Route::Channels(names) => self.write(request, names, &query, client).await,
            Route::Health if is_read || is_options => Ok(text("ok\n".to_owned())),
            Route::Ready if is_read || is_options => self.ready().await,
            Route::Metrics => {
                Err(Problem::not_found("metrics are on the admin listener (--admin-listen)"))
            }
            _ if !is_read => Err(Problem::method(READ_METHODS)),
            Route::WebSocket => {
                let (admission, stream) = self.stream_permit(request.version(), admission);
                self.handshake(&request, host, &query, admission, (permit, stream))
            }
            Route::History(name) => {
                let audience = self.audience_of(&request, &query, &name)?;
                Ok(for_its(audience, self.history(&name, &query).await?))
            }
            Route::State(name) => {
                let audience = self.audience_of(&request, &query, &name)?;
                Ok(for_its(audience, self.state(&name, &query).await?))
            }
            Route::Home => Ok(files::home(request.headers())),
            Route::File(Found::File(file)) => Ok(file.answer(request.headers())),
            Route::File(Found::Elsewhere(path)) => Ok(files::redirect(&path)),
            Route::Health | Route::Ready => Err(Problem::method(READ_METHODS)),
        }
    }

    /// Answers a request for a stream or a long poll of these channels.
    async fn answer_stream(
        &self,
        request: &Request<Incoming>,
        names: &[ChannelName],
        query: &Query,
        admission: Admission,
    ) -> Result<HttpResponse, Problem> {
        let mode = if query.get("mode") == Some("hold") { "hold" } else { "stream" };
        let name = self.responses.next(request, mode);
        let audience = self.may_read(request, query, names);
        // No cache stands in front of the console, so its streams say nothing about sharing.
        let is_console = admission == Admission::Admin;
        let mut answer = match &audience {
            Ok(audience) => {
                let is_shareable = *audience == Audience::Everyone && !is_console;
                self.subscribe(request, names, query, (admission, is_shareable)).await?
            }
            Err(Denied::Expired) => self.put_off(request)?,
            Err(Denied::NotYet(_)) => self.shed_for_keys(request)?,
            Err(Denied::Refused(problem)) => return Err(problem.clone()),
        };
        if is_console || !matches!(audience, Ok(Audience::Everyone)) {
            access::keep_private(&mut answer);
        }
        answer.headers_mut().insert(RESPONSE_HEADER, name);
        Ok(answer)
    }

    /// Waits for a permit to read many events and to build a response from them. The permits are
    /// few, so that some processors are always left for publishes and streams. Reading a store on
    /// another machine needs no permit (`None`), because this process only waits for it.
    async fn turn_to_read(&self) -> Result<Option<OwnedSemaphorePermit>, Exhausted> {
        match self.hub.shares_store() {
            true => Ok(None),
            false => self.turn_to_build(None).await.map(Some),
        }
    }

    /// Returns the permit that a request already has, or waits for one to build its response.
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

    /// Takes a permit for a stream over HTTP/2. One connection carries many streams, so all HTTP/2
    /// streams together are limited to the maximum number of connections. If no permit is free, the
    /// request is [`Admission::Overloaded`].
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

    /// Returns which clients may receive a response that is not a stream, or why it is refused.
    fn audience_of(
        &self,
        request: &Request<Incoming>,
        query: &Query,
        name: &ChannelName,
    ) -> Result<Audience, Problem> {
        let names = std::slice::from_ref(name);
        self.may_read(request, query, names).map_err(|denied| match denied {
            Denied::Expired => Problem::bad_token(access::EXPIRED),
            Denied::NotYet(problem) => problem,
            Denied::Refused(problem) => problem,
        })
    }
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
    let detail = "Transfer-Encoding takes chunked, once; send the body as it is, or in chunks";
    let title = "The transfer coding is not known here";
    let problem = Problem::new(StatusCode::NOT_IMPLEMENTED, "transfer-coding", title, detail);
    Err(problem.with("field", "Transfer-Encoding"))
}

/// The complete response of this `date`, as bytes on the wire, for a client whose request head did not arrive in
/// time. It is built here because hyper sends no response in this case.
pub fn too_slow_a_head(date: &str) -> Vec<u8> {
    let detail = "the request's head did not arrive in time; send it in one piece";
    let title = "The request was too slow";
    let body = Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-head", title, detail).json();
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n\
         cache-control: no-store\r\ndate: {date}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n\
         {body}",
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

/// The metrics as OpenMetrics, if the request accepts it by name, otherwise in the older format.
fn metrics(asked: &HeaderMap, openmetrics: &str) -> HttpResponse {
    let (kind, body) = match negotiation::accepts_openmetrics(asked) {
        true => (exposition::OPENMETRICS, openmetrics.to_owned()),
        false => (exposition::PROMETHEUS, exposition::to_prometheus(openmetrics)),
    };
    let mut answer = text(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
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

/// Makes a header value from text of this program, which is always a valid value.
fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}
