//! The log lines about single requests: requests that ended or reopened a channel, requests that
//! were shed, and requests that were refused for missing rights, a limit or a fault of the origin.
//! The number of lines about shed and refused requests is bounded. The lines contain no payload, no
//! query and no token. The id of a request is in the line and in the problem that the client gets.

use super::HttpResponse;
use super::channel_changes::IsLogged;
use super::problem::Problem;
use crate::core::trace_context::{TRACEPARENT, TraceContext};
use crate::limits::client_address::Client;
use crate::limits::connections::Clients;
use crate::sync::random::random;
use crate::sync::throttle::Throttle;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode, Uri};
use std::net::IpAddr;
use std::time::Instant;

const REQUEST_ID: &str = "x-request-id";
const SHED: &str = "headwater-shed";
const READINESS: &str = "/readyz";
const REQUEST_ID_BYTES_MAX: usize = 128;
/// The most bytes of a path in a line. The names of channels are shorter.
const PATH_BYTES_MAX: usize = 1024;

/// The log lines whose number is bounded, because any client can cause them.
#[derive(Debug, Default)]
pub struct Audit {
    refused: Throttle,
    shed: Throttle,
}

/// What is logged of a request. It is copied before the request is handled.
pub struct RequestInfo {
    method: Method,
    uri: Uri,
    peer: IpAddr,
    traceparent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
}

impl Audit {
    /// Logs a request if its result is of interest, and returns the response. A problem gets the id
    /// of the request.
    pub fn finish(
        &self,
        info: &RequestInfo,
        clients: &Clients,
        answered: Result<HttpResponse, Problem>,
    ) -> HttpResponse {
        match answered {
            Ok(answer) => {
                self.note_success(info, clients, &answer);
                answer
            }
            Err(problem) => {
                let id = info.id();
                self.note_refusal(info, clients, &problem, &id);
                problem.with("request_id", id).into_response()
            }
        }
    }

    fn note_success(&self, info: &RequestInfo, clients: &Clients, answer: &HttpResponse) {
        if info.method == Method::DELETE && answer.extensions().get::<IsLogged>().is_none() {
            let (path, client, request_id) = (info.path(), info.client(clients), info.id());
            let is_reopened = info.uri.query().is_some_and(|query| query.contains("reopen=1"));
            match is_reopened {
                true => tracing::info!(path, %client, request_id, "a channel was opened again"),
                false => tracing::info!(path, %client, request_id, "a channel was ended"),
            }
        }
        if let Some(reason) = answer.headers().get(SHED)
            && let Some(suppressed) = self.shed.admit(Instant::now())
        {
            let (path, client, request_id) = (info.path(), info.client(clients), info.id());
            let reason = reason.to_str().unwrap_or_default();
            tracing::info!(reason, path, %client, request_id, suppressed, "a stream was shed");
        }
    }

    /// Logs refusals for missing rights, and refusals because of a limit or a fault of the origin.
    fn note_refusal(
        &self,
        info: &RequestInfo,
        clients: &Clients,
        problem: &Problem,
        request_id: &str,
    ) {
        let is_of_interest = matches!(
            problem.status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::INSUFFICIENT_STORAGE
        ) || problem.status.is_server_error();
        // Load balancers ask often, and the cause has a line of its own.
        if !is_of_interest || info.path() == READINESS {
            return;
        }
        let Some(suppressed) = self.refused.admit(Instant::now()) else { return };
        let (method, path, client) = (&info.method, info.path(), info.client(clients));
        let (status, problem) = (problem.status.as_u16(), problem.slug);
        tracing::info!(
            status, problem, %method, path, %client, request_id, suppressed, "a request was refused"
        );
    }
}

impl RequestInfo {
    /// Copies what is logged of a request that arrived from the address `peer`.
    pub fn new<B>(request: &Request<B>, peer: IpAddr, clients: &Clients) -> Self {
        let headers = request.headers();
        let is_proxy = clients.is_proxy(peer);
        let forwarded = || headers.get(clients.header()).cloned();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            peer,
            traceparent: headers.get(TRACEPARENT).cloned(),
            request_id: headers.get(REQUEST_ID).cloned(),
            forwarded: is_proxy.then(forwarded).flatten(),
        }
    }

    fn client(&self, clients: &Clients) -> Client {
        let forwarded = self.forwarded.as_ref().map(HeaderValue::as_bytes);
        let forwarded = forwarded.map(String::from_utf8_lossy);
        clients.client(self.peer, forwarded.iter().map(AsRef::as_ref))
    }

    /// The path, without its end if it is very long.
    fn path(&self) -> &str {
        let path = self.uri.path();
        // The path of a request is ASCII.
        path.get(..PATH_BYTES_MAX).unwrap_or(path)
    }

    /// The id of the request: that of its trace, the one that a proxy has given it, or a new one.
    fn id(&self) -> String {
        let text = |value: &'_ Option<HeaderValue>| {
            value.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let trace = text(&self.traceparent).and_then(|text| TraceContext::parse(&text));
        let trace = trace.map(|trace| format!("{:032x}", trace.trace_id));
        let given = || text(&self.request_id).filter(|id| is_request_id(id));
        trace.or_else(given).unwrap_or_else(|| format!("{:016x}", random()))
    }
}

/// Whether an id may be copied to a log: it has no spaces and no control characters.
fn is_request_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain)
}
