//! The HTTP layer.
//!
//! `router` chooses the module that answers a request. Each kind of response has a module of its
//! own, whose functions take the shared state ([`AppState`]) or only the parts that they need. Only
//! this folder chooses the status codes of responses. The layers that it uses, such as `hub` and
//! `core`, decide about channels and time.

mod access;
mod admin;
mod app_state;
mod audit;
mod body_events;
mod body_turns;
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
mod router;
mod site;
mod state;
pub mod stream_body;
mod subscribe;

pub mod websocket;

use crate::core::caching::Freshness;
use crate::telemetry::exposition;
pub use admin::{ReloadRequest, Reloaded};
pub use app_state::AppState;
use bytes::Bytes;
pub use caller::{Admission, Caller, TlsPeer};
pub use config::{HttpConfig, WebSocketLimits};
pub use files::ExtraFile;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use problem::Problem;
pub use router::answer;
use stream_body::ResponseBody;

const CHANNEL_METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
const READ_METHODS: &str = "GET, HEAD, OPTIONS";

type HttpResponse = Response<ResponseBody>;

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
