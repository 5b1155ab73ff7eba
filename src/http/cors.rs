//! The headers of the CORS protocol (Fetch standard): which pages may read a response, and which
//! headers they may send.

use super::route::Route;
use super::{CHANNEL_METHODS, HttpResponse, READ_METHODS};
use crate::http::stream_body::ResponseBody;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HeaderMap, HeaderValue, VARY,
};
use hyper::{Response, StatusCode};

/// The response headers that a page may read, beside those that CORS always allows.
const EXPOSED: &str = "Headwater-Shed, Headwater-Response, Headwater-Fresh, Retry-After";
/// The request headers that a page may send if its preflight lists none, or too many.
const TAKEN: &str = "Last-Event-ID, Cache-Control, Content-Type, Idempotency-Key, Authorization";
/// The longest list of requested headers that the response to a preflight repeats, in bytes.
const REQUESTED_BYTES_MAX: usize = 1024;

/// The pages that may read a response.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers {
    /// The `Origin` header of the request.
    pub asked: Option<HeaderValue>,
    /// Whether the response depends on `Origin` also without `--cors-origin`.
    pub varies: bool,
    /// Whether no page may read the response, because a page of another site sent the request, or
    /// because it is for an unknown host.
    pub is_shut_out: bool,
    /// Whether a page of this machine sent the request. Such a page may read the response even if
    /// `--cors-origin` does not name it.
    pub is_local: bool,
}

/// Adds the headers that name the pages that may read the response. `allowed` has the web origins of
/// `--cors-origin`.
pub(super) fn allow_origin(allowed: &[String], readers: &Readers, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    if readers.varies || !allowed.is_empty() {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    if readers.is_shut_out {
        return;
    }
    if allowed.is_empty() {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        return;
    }
    let is_allowed = |asked: &&HeaderValue| {
        readers.is_local || allowed.iter().any(|one| one.as_bytes() == asked.as_bytes())
    };
    if let Some(origin) = readers.asked.as_ref().filter(is_allowed) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // Without this header, no page can read the response to a request with credentials.
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// The response to a preflight. All requested headers are allowed, because tracing libraries add
/// headers of their own to every request of a page; `allow_origin` decides which pages may send
/// them.
pub(super) fn preflight(route: Option<&Route>, asked: &HeaderMap) -> HttpResponse {
    let methods = match route {
        Some(Route::Channels(_)) | None => CHANNEL_METHODS,
        Some(_) => READ_METHODS,
    };
    let mut answer = Response::new(ResponseBody::Full(Default::default()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    let requested = asked.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let requested = requested.filter(|names| names.len() <= REQUESTED_BYTES_MAX).cloned();
    let taken = requested.unwrap_or(HeaderValue::from_static(TAKEN));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, taken);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}
