//! The commands of clients on a WebSocket, and the answers that repeat a part of them.

use super::batch;
use headwater::core::ndjson::{BatchLimits, Separator, parse_batch};
use headwater::core::resume::ResumeFrom;
use headwater::event::ChannelName;
use headwater::http::websocket::frame::{self, ClientMessage, Frame, Publish, Reference};
use serde_json::{Map, Value, json};

const EVENT_BYTES: usize = 64;
const REFERENCE_BYTES_MAX: usize = 128;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = Frame::parse(text, EVENT_BYTES);
    let generic = serde_json::from_str::<Value>(text).ok();
    let reference = match &parsed {
        Ok(frame) => frame.reference.as_ref(),
        Err(error) => {
            assert!(error.why.len() <= 512 + 2 * text.len());
            error.reference.as_ref()
        }
    };
    if let Some(Value::Object(members)) = &generic {
        repeated(members, reference, parsed.is_ok());
    }
    answers(reference);
    let Ok(frame) = parsed else { return };
    let again = written(&frame).to_string();
    assert_eq!(Frame::parse(&again, EVENT_BYTES).as_ref(), Ok(&frame));
    if let ClientMessage::Publish(publish) = &frame.command {
        same_in_a_batch(publish);
    }
}

/// The reference that an answer repeats is that of the command.
fn repeated(members: &Map<String, Value>, found: Option<&Reference>, is_accepted: bool) {
    let said = members.get("ref");
    match found {
        Some(Reference::Text(text)) => {
            assert!(text.len() <= REFERENCE_BYTES_MAX);
            assert_eq!(said.and_then(Value::as_str), Some(text.as_str()));
        }
        Some(Reference::Number(number)) => {
            assert_eq!(said.and_then(Value::as_i64), Some(*number));
        }
        None => assert!(!is_accepted || said.is_none_or(Value::is_null)),
    }
}

/// Each answer is one JSON object on one line.
fn answers(reference: Option<&Reference>) {
    let name = ChannelName::parse("a").expect("a name");
    for answer in [
        frame::pong(reference),
        frame::subscribed(reference, &name, "1-0"),
        frame::error(reference, json!({ "status": 400 })),
    ] {
        assert!(!answer.contains('\n'));
        let value: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(value.get("ref").cloned(), reference.map(|reference| json!(reference)));
    }
}

/// A command with the same meaning, from its parts.
fn written(Frame { reference, command }: &Frame) -> Value {
    let mut members = match command {
        ClientMessage::Subscribe(channels) => {
            assert!(!channels.is_empty());
            let names: Vec<&str> = channels.iter().map(|(name, _)| name.as_str()).collect();
            let after = channels.iter().map(|(name, from)| {
                let cursor = match from {
                    ResumeFrom::Now => Value::Null,
                    ResumeFrom::After(cursor) => cursor.to_string().into(),
                    ResumeFrom::Foreign(text) => text.as_str().into(),
                    other => panic!("{other:?} in a command"),
                };
                (name.to_string(), cursor)
            });
            let mut after = Value::Object(after.collect());
            // A cursor of another number of channels, which may be a cursor of one channel.
            if let (_, ResumeFrom::Foreign(text)) = &channels[0] {
                let is_same = |(_, from): &(_, ResumeFrom)| *from == channels[0].1;
                if channels.iter().all(is_same) {
                    after = text.as_str().into();
                }
            }
            json!({ "type": "subscribe", "channels": names, "after": after })
        }
        ClientMessage::Unsubscribe(names) => {
            let names: Vec<&str> = names.iter().map(ChannelName::as_str).collect();
            json!({ "type": "unsubscribe", "channels": names })
        }
        ClientMessage::Publish(publish) => {
            let event = &publish.event;
            let mut members = json!({
                "type": "publish", "channel": publish.channel.as_str(), "data": *event.data,
                "remove": event.removes_key(), "echo": publish.echo,
            });
            for (name, field) in [("event", &event.kind), ("key", &event.key)] {
                if let Some(field) = field {
                    members[name] = field.as_str().into();
                }
            }
            if let Some(key) = &publish.idempotency_key {
                members["idempotency_key"] = key.as_str().into();
            }
            members
        }
        ClientMessage::Ping => json!({ "type": "ping" }),
    };
    if let Some(reference) = reference {
        members["ref"] = json!(reference);
    }
    members
}

/// A line of a batch with the same members is the same event.
fn same_in_a_batch(publish: &Publish) {
    assert!(publish.event.data.len() <= EVENT_BYTES);
    let limits = BatchLimits { events: 1, event_bytes: EVENT_BYTES };
    let events = parse_batch(&batch::line(&publish.event), Separator::Line, limits);
    assert_eq!(events.as_deref(), Ok(std::slice::from_ref(&publish.event)));
}
