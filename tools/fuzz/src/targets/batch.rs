//! Batches of events: NDJSON and JSON text sequences.

use headwater::core::event::{Event, Field};
use headwater::core::ndjson::{BatchLimits, BatchProblem, Separator, parse_batch};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt;

const LIMITS: BatchLimits = BatchLimits { events: 16, event_bytes: 256 };
const MEMBERS: [&str; 4] = ["data", "event", "key", "remove"];

/// The members of an object in their order, also those that have the name of an earlier one.
struct Members(Vec<(String, Value)>);

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (separator, mark) in [(Separator::Line, '\n'), (Separator::Record, '\u{1e}')] {
        let blank = |object: &&str| !object.trim_matches([' ', '\t', '\r', '\n']).is_empty();
        let objects: Vec<&str> = text.split(mark).filter(blank).collect();
        match parse_batch(text, separator, LIMITS) {
            Ok(events) => accepted(&objects, &events, separator),
            Err(error) => {
                assert!(error.line <= text.matches('\n').count() + 1, "{error:?}");
                assert!(error.to_string().len() <= 512 + 2 * text.len());
                refused(&objects, &error.problem);
            }
        }
    }
}

fn accepted(objects: &[&str], events: &[Event], separator: Separator) {
    assert_eq!(objects.len(), events.len());
    assert!(events.len() <= LIMITS.events);
    for (object, event) in objects.iter().zip(events) {
        assert!(event.data.len() <= LIMITS.event_bytes);
        // Numbers that are too large for a `Value` are valid data all the same.
        if let Ok(Value::Object(members)) = serde_json::from_str::<Value>(object) {
            same(&members, event);
        }
        let again = parse_batch(&line(event), Separator::Line, LIMITS);
        assert_eq!(again.as_deref(), Ok(std::slice::from_ref(event)));
    }
    // The same objects, in the other format.
    let (other, mark) = match separator {
        Separator::Line => (Separator::Record, "\u{1e}"),
        Separator::Record => (Separator::Line, "\n"),
    };
    let is_one_line = |object: &&str| !object.contains(['\n', '\r']);
    if separator == Separator::Line || objects.iter().all(|object| is_one_line(&object.trim())) {
        let text: String =
            objects.iter().map(|object| format!("{mark}{}\n", object.trim())).collect();
        assert_eq!(parse_batch(&text, other, LIMITS).as_deref(), Ok(events));
    }
}

/// The event has what a generic parser of JSON finds.
fn same(members: &Map<String, Value>, event: &Event) {
    assert!(members.keys().all(|name| MEMBERS.contains(&name.as_str())), "{members:?}");
    let data = members.get("data");
    match data {
        Some(Value::String(text)) => assert_eq!(**text, *event.data),
        Some(other) => {
            assert_eq!(serde_json::from_str::<Value>(&event.data).ok().as_ref(), Some(other));
            // Compact JSON is its own compact form.
            let again = format!("{{\"data\":{}}}", event.data);
            let again = parse_batch(&again, Separator::Line, LIMITS).expect("an event");
            assert_eq!(again[0].data, event.data);
        }
        None => assert!(event.data.is_empty() && event.removes_key()),
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    assert_eq!(event.kind.as_ref().map(Field::as_str), text("event"));
    assert_eq!(event.key.as_ref().map(Field::as_str), text("key"));
    let is_removal = members.get("remove") == Some(&Value::Bool(true));
    let removes = event.key.is_some() && (is_removal || event.data.is_empty());
    assert_eq!(event.removes_key(), removes);
}

/// The event as a line of a batch.
pub fn line(event: &Event) -> String {
    let mut members = json!({ "data": *event.data, "remove": event.removes_key() });
    for (name, field) in [("event", &event.kind), ("key", &event.key)] {
        if let Some(field) = field {
            members[name] = field.as_str().into();
        }
    }
    members.to_string()
}

/// A batch that a generic parser of JSON finds valid is refused for a reason that the generic
/// parser does not see.
fn refused(objects: &[&str], problem: &BatchProblem) {
    let BatchProblem::Json(why) = problem else { return };
    let is_right = |(name, value): &(String, Value)| match name.as_str() {
        "data" => true,
        "event" | "key" => value.is_string() || value.is_null(),
        "remove" => value.is_boolean(),
        _ => false,
    };
    let is_event = |object: &&str| {
        let Ok(Members(members)) = serde_json::from_str(object) else { return false };
        let names: HashSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        names.len() == members.len() && members.iter().all(is_right)
    };
    assert!(!objects.iter().all(is_event), "{why}");
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
