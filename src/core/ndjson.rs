//! Parses a batch of events as a publisher sends it: one JSON object per line, or each object after
//! a record separator. A batch is accepted whole or not at all.
//!
//! If `data` is a string, that string becomes the data of the event. If `data` is any other JSON
//! value, its compact JSON text becomes the data, with numbers and the order of members unchanged.

use crate::core::event::{Event, Field, FieldError};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The separator of the objects in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// A line break: NDJSON, also named JSON Lines.
    Line,
    /// U+001E before each object: a JSON text sequence (RFC 7464).
    Record,
}

/// Limits on one publish.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Largest number of events in a batch.
    pub events: usize,
    /// Largest size of one event's data, in bytes.
    pub event_bytes: usize,
}

/// The error of a batch that was refused. Nothing of the batch is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchError {
    /// The line at which the faulty object begins, counted from 1. It is 0 if the error concerns
    /// the batch as a whole.
    pub line: usize,
    /// The faulty member, if the error concerns a single member.
    pub field: Option<&'static str>,
    /// The problem.
    pub problem: BatchProblem,
}

/// The problem of a batch that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchProblem {
    /// An entry is not a JSON object with only the known members.
    Json(String),
    /// The batch has no event.
    Empty,
    /// The batch has more events than the limit.
    TooMany { limit: usize },
    /// An event's data is larger than the limit.
    TooLarge { bytes: usize, limit: usize },
    /// The value of `event` or `key` was refused.
    Field(FieldError),
    /// An event has `remove` but no key.
    NoKey,
    /// An event has no data and does not remove a key.
    NoData,
}

/// The members of an event in JSON.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// The data as raw JSON.
    pub data: &'a RawValue,
    /// The type.
    pub kind: Option<&'a str>,
    /// The key.
    pub key: Option<&'a str>,
    /// Whether the event removes its key from the state.
    pub removes_key: bool,
}

/// The data of an event that only removes its key.
const EMPTY_TEXT: &str = "\"\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(default)]
    remove: bool,
}

/// Deserializes a member that is present. A plain `Option` would take the value `null` for an
/// absent member.
fn present<'a, D: Deserializer<'a>>(member: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(member).map(Some)
}

/// Parses a batch. Blank lines are skipped.
///
/// # Errors
/// Fails at the first faulty line. The error names the line, and the field and the limit if there
/// is one.
pub fn parse_batch(
    text: &str,
    separator: Separator,
    limits: BatchLimits,
) -> Result<Vec<Event>, BatchError> {
    let mut events = Vec::new();
    let separator = if separator == Separator::Line { '\n' } else { '\u{1e}' };
    let mut line = 1;
    for object in text.split(separator) {
        let at = line + object.len() - object.trim_start_matches('\n').len();
        line += object.matches('\n').count() + usize::from(separator == '\n');
        if object.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
            continue;
        }
        if events.len() == limits.events {
            let problem = BatchProblem::TooMany { limit: limits.events };
            return Err(BatchError { line: at, field: None, problem });
        }
        let event = parse_object(object, limits).map_err(|(field, problem)| BatchError {
            line: at,
            field,
            problem,
        })?;
        events.push(event);
    }
    if events.is_empty() {
        return Err(BatchError { line: 0, field: None, problem: BatchProblem::Empty });
    }
    Ok(events)
}

fn parse_object(
    object: &str,
    limits: BatchLimits,
) -> Result<Event, (Option<&'static str>, BatchProblem)> {
    // `serde_json` would also accept an array, and assign its elements to the members in order.
    if !object.trim_start().starts_with('{') {
        let why = "an event is a JSON object with \"data\"";
        return Err((None, BatchProblem::Json(why.to_owned())));
    }
    let json = |error: serde_json::Error| (None, BatchProblem::Json(error.to_string()));
    let Line { data, event, key, remove } = serde_json::from_str(object).map_err(json)?;
    let (kind, key) = (event.as_deref(), key.as_deref());
    let data = match data {
        Some(data) => data,
        None if remove => serde_json::from_str(EMPTY_TEXT).map_err(json)?,
        None => return Err((None, BatchProblem::NoData)),
    };
    event_of(Members { data, kind, key, removes_key: remove }, limits.event_bytes)
}

/// Builds an event from its members. The data may have at most `bytes_max` bytes.
///
/// # Errors
/// Fails when a member is refused. The error names the member and the problem.
pub fn event_of(
    Members { data, kind, key, removes_key }: Members<'_>,
    bytes_max: usize,
) -> Result<Event, (Option<&'static str>, BatchProblem)> {
    let json = |error: serde_json::Error| (Some("data"), BatchProblem::Json(error.to_string()));
    let data = match data.get() {
        text if text.starts_with('"') => serde_json::from_str::<String>(text).map_err(json)?,
        other => compact(other),
    };
    if data.len() > bytes_max {
        let (bytes, limit) = (data.len(), bytes_max);
        return Err((Some("data"), BatchProblem::TooLarge { bytes, limit }));
    }
    if removes_key && key.is_none() {
        return Err((Some("remove"), BatchProblem::NoKey));
    }
    let kind = kind.map(Field::kind).transpose();
    let key = key.map(Field::key).transpose();
    Ok(Event::new(
        kind.map_err(|error| (Some("event"), BatchProblem::Field(error)))?,
        key.map_err(|error| (Some("key"), BatchProblem::Field(error)))?,
        data,
        removes_key,
    ))
}

/// Removes the white space between the tokens of valid JSON.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            (escaped, in_string) = (c == '\\' && !escaped, c != '"' || escaped);
        } else if c == '"' {
            in_string = true;
        } else if matches!(c, ' ' | '\t' | '\r' | '\n') {
            continue;
        }
        out.push(c);
    }
    out
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if let Some(field) = self.field {
            write!(f, "\"{field}\" ")?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for BatchProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "not an event as JSON: {error}"),
            Self::Empty => write!(f, "the batch holds no event"),
            Self::TooMany { limit } => write!(f, "a batch holds at most {limit} events"),
            Self::TooLarge { bytes, limit } => {
                write!(f, "is {bytes} bytes long, the limit is {limit}")
            }
            Self::Field(error) => write!(f, "{error}"),
            Self::NoData => {
                write!(
                    f,
                    "\"data\" is missing; only an event with \"remove\":true and a key may lack it"
                )
            }
            Self::NoKey => write!(f, "takes a key out of the state, and needs \"key\""),
        }
    }
}

impl BatchProblem {
    /// Returns the limit that the batch exceeded, or `None` if the problem is not a limit.
    pub fn limit(&self) -> Option<usize> {
        match self {
            Self::TooMany { limit }
            | Self::TooLarge { limit, .. }
            | Self::Field(FieldError::TooLong { limit, .. }) => Some(*limit),
            _ => None,
        }
    }
}

impl std::error::Error for BatchError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: BatchLimits = BatchLimits { events: 3, event_bytes: 40 };

    fn datas(text: &str) -> Vec<String> {
        let events = parse_batch(text, Separator::Line, LIMITS).unwrap();
        events.into_iter().map(|event| event.data.into()).collect()
    }

    #[test]
    fn a_string_is_used_as_it_is_and_other_json_in_its_compact_form() {
        assert_eq!(datas(r#"{"data":"a\nb"}"#), ["a\nb"]);
        assert_eq!(
            datas("{\"data\": { \"z\" : 1.50, \"a\":[ 1 , \"x \\\" y\" ] } }\r\n\n"),
            [r#"{"z":1.50,"a":[1,"x \" y"]}"#]
        );
        assert_eq!(
            datas("{\"data\":null}\n{\"data\":12345678901234567890123}"),
            ["null", "12345678901234567890123"]
        );
    }

    #[test]
    fn type_and_key_come_along() {
        let text = r#"{"key":"k\u0031","event":"e","data":""}
                      {"key":"k","data":"x","remove":true}"#;
        let events = parse_batch(text, Separator::Line, LIMITS).unwrap();
        let removal = Event::stored(None, Some("k"), "x").removing_its_key();
        assert_eq!(events, [Event::stored(Some("e"), Some("k1"), ""), removal]);
    }

    #[test]
    fn a_sequence_has_its_objects_behind_separators() {
        let text = "\u{1e}{\"data\":\n1}\n\u{1e}{\"data\":\"a\"}\n";
        let events = parse_batch(text, Separator::Record, LIMITS).unwrap();
        assert_eq!(events.iter().map(|event| &*event.data).collect::<Vec<_>>(), ["1", "a"]);
        let text = "\u{1e}{\"data\":\n1}\n\u{1e}\n{\"dat\":1}\n";
        assert_eq!(parse_batch(text, Separator::Record, LIMITS).unwrap_err().line, 4);
    }

    #[test]
    fn a_refusal_names_the_line_the_field_and_the_limit() {
        let check = |text: &str, expected: &str| {
            let error = parse_batch(text, Separator::Line, LIMITS).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        };
        let empty = parse_batch("", Separator::Line, LIMITS).unwrap_err();
        assert_eq!(empty.to_string(), "the batch holds no event");
        check("\n \n", "the batch holds no event");
        check("{\"data\":1}\n[]", "line 2: not an event as JSON");
        check("[\"x\",\"e\",\"k\"]", "line 1: not an event as JSON: an event is a JSON object");
        check(r#"{"data":1,"remove":true}"#, "line 1: \"remove\" takes a key out");
        check("{\"data\":1}\n\n{\"dat\":1}", "line 3: not an event as JSON: unknown field `dat`");
        check("{}", "line 1: \"data\" is missing");
        check(r#"{"remove":true}"#, "line 1: \"remove\" takes a key out of the state");
        check(r#"{"data":1,"event":"gap"}"#, "line 1: \"event\" is reserved");
        check(r#"{"data":1,"key":"a\nb"}"#, "line 1: \"key\" holds a line break");
        check(r#"{"data":1,"key":""}"#, "line 1: \"key\" is empty");
        check(&format!(r#"{{"data":"{}"}}"#, "x".repeat(41)), "41 bytes long, the limit is 40");
        assert_eq!(datas(&format!(r#"{{"data":"{}"}}"#, "x".repeat(40))), ["x".repeat(40)]);
        check(&"{\"data\":1}\n".repeat(4), "line 4: a batch holds at most 3 events");
    }

    #[test]
    fn a_refusal_for_a_limit_has_the_limit() {
        let limit =
            |text: &str| parse_batch(text, Separator::Line, LIMITS).unwrap_err().problem.limit();
        assert_eq!(limit(&"{\"data\":1}\n".repeat(4)), Some(3));
        assert_eq!(limit(&format!(r#"{{"data":"{}"}}"#, "x".repeat(41))), Some(40));
        assert_eq!(limit(&format!(r#"{{"data":1,"key":"{}"}}"#, "x".repeat(257))), Some(256));
        assert_eq!((limit("{}"), limit("")), (None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}|(\\{\"data\":[^\n]{0,12}\\}\n?){0,4}") {
            if let Ok(events) = parse_batch(&text, Separator::Line, LIMITS) {
                prop_assert!((1..=3).contains(&events.len()));
            }
        }

        #[test]
        fn compact_json_means_the_same(text in r#"[\[\]{}:,"\\ 0-9a-z]{0,30}"#) {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                let again: serde_json::Value = serde_json::from_str(&compact(&text)).unwrap();
                prop_assert_eq!(again, value);
            }
        }

        #[test]
        fn strings_come_out_as_they_went_in(data in "\\PC{0,10}[\r\n\t\0]?\\PC{0,10}") {
            let limits = BatchLimits { events: 1, event_bytes: 1000 };
            let line = serde_json::json!({ "data": data }).to_string();
            let events = parse_batch(&line, Separator::Line, limits).unwrap();
            prop_assert_eq!(&*events[0].data, data);
        }
    }
}
