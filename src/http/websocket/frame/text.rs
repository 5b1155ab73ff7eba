//! The answers to a client's frames on a WebSocket: a JSON object in a text frame each.
//!
//! The frames of events, gaps and ends are not made here: they are the data of the blocks that
//! streams in `crate::core::sse::Format::Json` are made of.

use super::Reference;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use serde_json::{Value, json};

/// `ack` of a subscription: from `cursor` on its events follow.
pub fn subscribed(reference: Option<&Reference>, channel: &ChannelName, cursor: &str) -> String {
    answer("ack", reference, json!({ "channel": channel.as_str(), "cursor": cursor }))
}

/// `ack` of the end of a subscription: up to `cursor` all its events were sent.
pub fn unsubscribed(reference: Option<&Reference>, channel: &ChannelName, cursor: &str) -> String {
    let said = json!({ "channel": channel.as_str(), "cursor": cursor, "unsubscribed": true });
    answer("ack", reference, said)
}

/// `ack` of a publish: it is stored for good.
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

/// A refusal; `problem` is the same object that an HTTP answer has as its body.
pub fn error(reference: Option<&Reference>, problem: Value) -> String {
    answer("error", reference, json!({ "problem": problem }))
}

/// The end of a channel that had ended before.
pub fn end(channel: &ChannelName) -> String {
    answer("end", None, json!({ "channel": channel.as_str() }))
}

fn answer(kind: &str, reference: Option<&Reference>, said: Value) -> String {
    let reference = reference.map(|one| format!(r#","ref":{}"#, json!(one))).unwrap_or_default();
    let said = said.to_string();
    let comma = if said == "{}" { "" } else { "," };
    format!(r#"{{"type":"{kind}"{reference}{comma}{}"#, &said[1..])
}
