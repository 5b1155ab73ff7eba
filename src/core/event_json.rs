//! An event as JSON. Streams with `?format=json`, WebSocket frames, the history and the state all
//! use this object.

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, Field};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// The JSON object of an event. A member that the event does not have is left out.
#[derive(Debug, Serialize)]
pub struct EventJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    /// The members that a control event (`end` or `gap`) has in place of `data`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    members: Option<Map<String, Value>>,
}

impl<'a> EventJson<'a> {
    /// Returns the object of an event of `channel`. `id` is `None` for an event of the state,
    /// because its id is not a position from which a client may resume.
    pub fn new(channel: &'a ChannelName, id: Option<EventId>, event: &'a Event) -> Self {
        let control = event.as_control().map(|(kind, _)| kind);
        let is_text = control.is_none();
        Self {
            kind: control.unwrap_or("event"),
            channel: channel.as_str(),
            id,
            event: event.kind.as_ref().map(Field::as_str).filter(|_| is_text),
            key: event.key.as_ref().map(Field::as_str),
            data: is_text.then_some(&*event.data),
            removed: event.removes_key(),
            members: control.and_then(|_| serde_json::from_str(&event.data).ok()),
        }
    }

    /// Appends the object to `out`, on one line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let written = serde_json::to_writer(out, self);
        debug_assert!(written.is_ok(), "a Vec takes all bytes, and every member is text");
    }
}

fn as_text<S: Serializer>(id: &Option<EventId>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}
