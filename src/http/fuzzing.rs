//! The parsers of requests and of the bodies of publishes, for `tools/fuzz`.

pub use super::body_events::{Shape, removes_key, shape, single_event};
pub use super::negotiation::{accepts_event_stream, accepts_gzip, accepts_openmetrics};
pub use super::problem::Problem;
pub use super::websocket::wire_config;

use super::body_turns::BodyTurns;
use super::intake::{Intake, PublisherId};
use super::route::Query;
use super::{access, history, publish, subscribe};
use crate::core::cursor::EventId;
use crate::core::resume::ResumeFrom;
use bytes::Bytes;
use hyper::HeaderMap;

/// The token in the header `Authorization`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    access::bearer(headers)
}

/// The values of the cookies of a name.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    access::cookies(headers, name).collect()
}

/// Where a stream begins.
pub fn start(headers: &HeaderMap, query: &Query, channels: usize) -> Result<ResumeFrom, Problem> {
    subscribe::asked(headers, query, channels)
}

/// A position in the query of a request for the history.
pub fn position(text: &str) -> Result<EventId, Problem> {
    history::place("after", text)
}

/// The number of events that a page of the history has at most.
pub fn page_limit(query: &Query) -> Result<usize, Problem> {
    history::history_limit(query)
}

/// Whether the body of a publish is compressed.
pub fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    publish::is_gzip(headers)
}

/// The idempotency key of a publish.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    publish::idempotency_key(headers)
}

/// Decodes a compressed body.
pub async fn gunzip(bytes: &[u8], limit: usize) -> Result<Option<Bytes>, Problem> {
    let intake = Intake::new(8 * limit, 2 * limit);
    let mut room = intake.room(PublisherId::Subject(String::new()));
    publish::gunzip(bytes, limit, &mut room, &BodyTurns::new(1)).await
}
