//! What the Fetch standard's CORS protocol is told: which pages may read an answer, and what they
//! may send.

use super::route::Route;
use super::{AppState, CHANNEL_METHODS, HttpResponse, READ_METHODS};
use crate::http::stream_body::ResponseBody;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HeaderMap, HeaderValue, VARY,
};
use hyper::{Response, StatusCode};

/// Headers that a page may read beside those that every page may.
const EXPOSED: &str = "Headwater-Shed, Headwater-Response, Headwater-Fresh";
/// Headers that a page may send when its preflight asks for none, or for too many.
const TAKEN: &str = "Last-Event-ID, Cache-Control, Content-Type, Idempotency-Key, Authorization";
/// Longest list of requested headers that a preflight gets back, in bytes.
const REQUESTED_BYTES_MAX: usize = 1024;

/// Which pages may read an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers {
    /// The page's origin, as the browser sent it.
    pub asked: Option<HeaderValue>,
    /// The answer depends on it, whatever `--cors-origin` says.
    pub varies: bool,
    /// A page of another site, which may read nothing here.
    pub is_shut_out: bool,
    /// A page of this machine, which may read here beside those of `--cors-origin`.
    pub is_local: bool,
}

impl AppState {
    /// Adds the headers that name the pages which may read an answer.
    pub(super) fn allow_origin(&self, readers: &Readers, headers: &mut HeaderMap) {
        let allowed = &self.config.cors_origins;
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
            // Without it no browser shows a page the answer to a request with credentials.
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// The answer to a preflight. The headers that are asked for are allowed, because tracing libraries
/// add their own to every request of a page; `allow_origin` says which pages this is for.
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
