//! Builds the answers to the messages of a client on a WebSocket: one JSON object in each text
//! frame.
//!
//! The messages for events and gaps are not built here: each of them is the text of the `data:`
//! lines in a stream with `?format=json`. The same holds for the end of a channel, with one
//! exception: if the client subscribes with a cursor after the last event of an ended channel, the
//! function `end` builds the message.

use super::Reference;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use serde_json::{Value, json};

/// The `ack` of a subscription. The events after `cursor` follow.
pub fn subscribed(reference: Option<&Reference>, channel: &ChannelName, cursor: &str) -> String {
    answer("ack", reference, json!({ "channel": channel.as_str(), "cursor": cursor }))
}

/// The `ack` of the end of a subscription. All events up to `cursor` were sent.
pub fn unsubscribed(reference: Option<&Reference>, channel: &ChannelName, cursor: &str) -> String {
    let said = json!({ "channel": channel.as_str(), "cursor": cursor, "unsubscribed": true });
    answer("ack", reference, said)
}

/// The `ack` of a publish, which is durably stored. `repeated`: an earlier publish with the same
/// idempotency key stored the event.
pub fn published(reference: Option<&Reference>, id: EventId, repeated: bool) -> String {
    let mut said = json!({ "id": id.to_string() });
    if repeated {
        said["repeated"] = true.into();
    }
    answer("ack", reference, said)
}

/// The answer to a `ping`.
pub fn pong(reference: Option<&Reference>) -> String {
    answer("pong", reference, json!({}))
}

/// The answer to a refused message. `problem` is the same object as in the body of an HTTP error.
pub fn error(reference: Option<&Reference>, problem: Value) -> String {
    answer("error", reference, json!({ "problem": problem }))
}

/// The `end` of a channel of which the client has already received the last event.
pub fn end(channel: &ChannelName) -> String {
    answer("end", None, json!({ "channel": channel.as_str() }))
}

fn answer(kind: &str, reference: Option<&Reference>, said: Value) -> String {
    let reference = reference.map(|one| format!(r#","ref":{}"#, json!(one))).unwrap_or_default();
    let said = said.to_string();
    let comma = if said == "{}" { "" } else { "," };
    format!(r#"{{"type":"{kind}"{reference}{comma}{}"#, &said[1..])
}
