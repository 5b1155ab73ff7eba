//! Reads the events out of the body of a publish.

use super::problem::Problem;
use super::route::Query;
use crate::core::event::{Event, Field, FieldError};
use crate::core::ndjson::{BatchError, BatchLimits, BatchProblem, Separator, parse_batch};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap};

/// Whether the body of a publish is a single event or a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Single,
    Batch(Separator),
}

/// Returns the event of a body that is the data of one event. The query has its type and key.
///
/// # Errors
/// Fails when the body is not UTF-8, or when the type or the key is refused.
pub fn single_event(query: &Query, removes_key: bool, body: &[u8]) -> Result<Event, Problem> {
    let field = |name: &'static str, read: fn(&str) -> _| {
        let read = query.get(name).map(read).transpose();
        read.map_err(|error: FieldError| bad_event_field(name, &error))
    };
    let text = text(body)?;
    let (kind, key) = (field("event", Field::kind)?, field("key", Field::key)?);
    Ok(Event::new(kind, key, text, removes_key))
}

/// Returns the events of a batch.
///
/// # Errors
/// Fails when the body is not UTF-8, at the first faulty line, and beyond the limits.
pub fn batch_events(
    body: &[u8],
    separator: Separator,
    limits: BatchLimits,
) -> Result<Vec<Event>, Problem> {
    parse_batch(text(body)?, separator, limits).map_err(bad_batch)
}

fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        let detail = format!("the body is not UTF-8 from byte {at} on; events are text");
        let line = body[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::bad_field("data", detail).with("line", line)
    })
}

/// Reads from `Content-Type` whether the body is a batch. Of the media types of batches only
/// `application/json-seq` is registered (RFC 7464); the others are names in use for the same
/// format.
pub fn shape(headers: &HeaderMap) -> Shape {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonl"
        | "application/jsonlines"
        | "application/x-jsonlines"
        | "application/json-lines" => Shape::Batch(Separator::Line),
        "application/json-seq" => Shape::Batch(Separator::Record),
        _ => Shape::Single,
    }
}

/// Whether a single event removes its key. The parameters of a single event are refused for a
/// batch.
pub fn removes_key(query: &Query, shape: Shape) -> Result<bool, Problem> {
    if let (Shape::Batch(_), Some(name)) =
        (shape, ["event", "key", "remove"].into_iter().find(|name| query.get(name).is_some()))
    {
        let detail =
            format!("?{name}= is for a single event; in a batch each object has its own {name:?}");
        return Err(Problem::bad_field(name, detail));
    }
    let is_removal = match query.get("remove") {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(_) => return Err(Problem::bad_field("remove", "?remove= takes true or false")),
    };
    if is_removal && query.get("key").is_none() {
        let detail = "?remove=true takes a key out of the state; name it with ?key=";
        return Err(Problem::bad_field("remove", detail));
    }
    Ok(is_removal)
}

fn bad_event_field(field: &'static str, error: &FieldError) -> Problem {
    let problem = Problem::bad_field(field, format!("\"{field}\" {error}"));
    match error {
        FieldError::TooLong { limit, .. } => problem.with("limit", *limit),
        _ => problem,
    }
}

fn bad_batch(error: BatchError) -> Problem {
    let detail = format!("{error}; nothing of the batch was stored");
    let problem = match &error.problem {
        BatchProblem::TooMany { limit } | BatchProblem::TooLarge { limit, .. } => {
            let title = "Too much at once";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", title, detail)
                .with("limit", *limit)
        }
        BatchProblem::Field(FieldError::TooLong { limit, .. }) => {
            Problem::bad_field("batch", detail).with("limit", *limit)
        }
        _ => Problem::bad_field("batch", detail),
    };
    match (error.line, error.field) {
        (0, _) => problem,
        (line, None) => problem.with("line", line),
        (line, Some(field)) => problem.with("line", line).with("field", field),
    }
}
