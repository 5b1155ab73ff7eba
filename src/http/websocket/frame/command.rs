//! Parses the messages of a client on a WebSocket: one JSON object in each text frame.

use crate::core::cursor::Cursor;
use crate::core::event::{ChannelName, Event, FieldError};
use crate::core::ndjson::{Members, event_of};
use crate::core::resume::ResumeFrom;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The types of messages that a client may send.
const TYPES: [&str; 4] = ["subscribe", "unsubscribe", "publish", "ping"];
/// The longest `ref`, in bytes. It is limited because the answer repeats it.
const REFERENCE_BYTES_MAX: usize = 128;

/// The `ref` of a message. The client chooses it, and the answer repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reference {
    /// A string.
    Text(String),
    /// An integer.
    Number(i64),
}

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The `ref` of the message, if it has one.
    pub reference: Option<Reference>,
    /// The command in the message.
    pub command: ClientMessage,
}

/// The command of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// Subscribe to these channels, each from its own position on.
    Subscribe(Vec<(ChannelName, ResumeFrom)>),
    /// End the subscriptions to these channels.
    Unsubscribe(Vec<ChannelName>),
    /// Publish one event.
    Publish(Box<Publish>),
    /// Answer with a `pong`.
    Ping,
}

/// An event that a client publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The channel to publish to.
    pub channel: ChannelName,
    /// The event.
    pub event: Event,
    /// Whether the event is also sent to this client, if it is subscribed to the channel.
    pub echo: bool,
    /// The key that identifies a repeated publish, like the header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

/// The reason for which a message is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The `ref` of the message, if it could be read.
    pub reference: Option<Reference>,
    /// The member that is wrong, if the error is in one member.
    pub field: Option<&'static str>,
    /// The error text.
    pub why: String,
    /// The limit that was exceeded, if that is the error.
    pub limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "ref")]
    reference: Option<Value>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    channels: Option<Vec<String>>,
    after: Option<Value>,
    // A `null` is data too, and must differ from a missing member.
    #[serde(borrow, default, deserialize_with = "there")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    remove: Option<bool>,
    echo: Option<bool>,
    idempotency_key: Option<String>,
}

/// Only the `ref`, for a message that cannot be parsed as a whole.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "ref")]
    reference: Option<Value>,
}

fn there<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// An error in one member of a message.
struct Wrong {
    field: Option<&'static str>,
    why: String,
    limit: Option<usize>,
}

impl Frame {
    /// Parses a message. `event_bytes` is the most bytes of data that an event may have.
    ///
    /// # Errors
    /// Fails when the text is not a valid message. The error names the member that is wrong.
    pub fn parse(text: &str, event_bytes: usize) -> Result<Self, FrameError> {
        let unread = |why: String| {
            let named = serde_json::from_str::<Named>(text).ok().and_then(|named| named.reference);
            let reference = reference(named).unwrap_or_default();
            FrameError { reference, field: None, why, limit: None }
        };
        if !text.trim_start().starts_with('{') {
            // serde would also read an array, by the order of its elements, so it is refused here.
            let why = "a frame is a JSON object".to_owned();
            return Err(FrameError { reference: None, field: None, why, limit: None });
        }
        let mut raw: Raw<'_> = serde_json::from_str(text)
            .map_err(|error| unread(format!("not a frame of ours: {error}")))?;
        let fail =
            |reference, Wrong { field, why, limit }| FrameError { reference, field, why, limit };
        let reference = reference(raw.reference.take()).map_err(|wrong| fail(None, wrong))?;
        match raw.command(event_bytes) {
            Ok(command) => Ok(Self { reference, command }),
            Err(wrong) => Err(fail(reference, wrong)),
        }
    }
}

fn reference(said: Option<Value>) -> Result<Option<Reference>, Wrong> {
    let is_integer = |number: &serde_json::Number| number.as_i64();
    match said {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= REFERENCE_BYTES_MAX => {
            Ok(Some(Reference::Text(text)))
        }
        Some(Value::Number(number)) if is_integer(&number).is_some() => {
            Ok(is_integer(&number).map(Reference::Number))
        }
        Some(_) => {
            let why = format!(
                "is a string of at most {REFERENCE_BYTES_MAX} bytes, or an integer of 64 bits"
            );
            Err(Wrong { limit: Some(REFERENCE_BYTES_MAX), ..wrong("ref", why) })
        }
    }
}

impl Raw<'_> {
    fn command(self, event_bytes: usize) -> Result<ClientMessage, Wrong> {
        if !TYPES.contains(&&*self.kind) {
            return Err(wrong("type", "is subscribe, unsubscribe, publish or ping"));
        }
        let is_subscribe = self.kind == "subscribe";
        let is_publish = self.kind == "publish";
        let is_listening = is_subscribe || self.kind == "unsubscribe";
        for (field, is_there, belongs) in [
            ("channels", self.channels.is_some(), is_listening),
            ("after", self.after.is_some(), is_subscribe),
            ("channel", self.channel.is_some(), is_publish),
            ("data", self.data.is_some(), is_publish),
            ("event", self.event.is_some(), is_publish),
            ("key", self.key.is_some(), is_publish),
            ("remove", self.remove.is_some(), is_publish),
            ("echo", self.echo.is_some(), is_publish),
            ("idempotency_key", self.idempotency_key.is_some(), is_publish),
        ] {
            if is_there && !belongs {
                let why = format!("does not belong in a frame of the type {:?}", self.kind);
                return Err(wrong(field, why));
            }
        }
        match &*self.kind {
            "subscribe" => {
                let names = names(self.channels)?;
                let asked = asked(&names, self.after)?;
                Ok(ClientMessage::Subscribe(names.into_iter().zip(asked).collect()))
            }
            "unsubscribe" => Ok(ClientMessage::Unsubscribe(names(self.channels)?)),
            "publish" => {
                self.publish(event_bytes).map(|publish| ClientMessage::Publish(publish.into()))
            }
            _ => Ok(ClientMessage::Ping),
        }
    }

    fn publish(self, event_bytes: usize) -> Result<Publish, Wrong> {
        let channel = self.channel.ok_or_else(|| wrong("channel", "is missing"))?;
        let channel = name(&channel, "channel")?;
        let data = self.data.ok_or_else(|| wrong("data", "is missing"))?;
        let (kind, key) = (self.event.as_deref(), self.key.as_deref());
        let removes_key = self.remove.unwrap_or_default();
        let event = event_of(Members { data, kind, key, removes_key }, event_bytes).map_err(
            |(field, problem)| Wrong { field, limit: problem.limit(), why: problem.to_string() },
        )?;
        let idempotency_key = self.idempotency_key;
        Ok(Publish { channel, event, echo: self.echo.unwrap_or(true), idempotency_key })
    }
}

fn name(text: &str, field: &'static str) -> Result<ChannelName, Wrong> {
    ChannelName::parse(text).map_err(|error| {
        let limit = match &error {
            FieldError::TooLong { limit, .. } => Some(*limit),
            _ => None,
        };
        Wrong { limit, ..wrong(field, error.to_string()) }
    })
}

fn wrong(field: &'static str, why: impl Into<String>) -> Wrong {
    Wrong { field: Some(field), why: why.into(), limit: None }
}

fn names(raw: Option<Vec<String>>) -> Result<Vec<ChannelName>, Wrong> {
    let raw = raw.filter(|raw| !raw.is_empty());
    let raw = raw.ok_or_else(|| wrong("channels", "names none"))?;
    let mut names = Vec::with_capacity(raw.len());
    for text in &raw {
        names.push(name(text, "channels")?);
    }
    let mut sorted = names.clone();
    sorted.sort_unstable();
    match sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(wrong("channels", "names one twice")),
        false => Ok(names),
    }
}

/// Reads from `after` where each channel begins. The value is one cursor for all channels in their
/// order, as in a stream of several channels, or an object with one cursor for each channel. As in
/// a stream, text that is not a cursor of these channels is not an error: the client receives a
/// gap.
fn asked(names: &[ChannelName], after: Option<Value>) -> Result<Vec<ResumeFrom>, Wrong> {
    match after {
        None => Ok(vec![ResumeFrom::Now; names.len()]),
        Some(Value::String(text)) => match ResumeFrom::cursor(text.as_bytes(), names.len()) {
            ResumeFrom::After(Cursor { positions, mark }) => {
                let one = |position| ResumeFrom::After(Cursor { positions: vec![position], mark });
                Ok(positions.into_iter().map(one).collect())
            }
            other => Ok(vec![other; names.len()]),
        },
        Some(Value::Object(mut each)) => {
            let mut asked = Vec::with_capacity(names.len());
            for name in names {
                asked.push(match each.remove(name.as_str()) {
                    None | Some(Value::Null) => ResumeFrom::Now,
                    Some(Value::String(text)) => ResumeFrom::cursor(text.as_bytes(), 1),
                    Some(_) => return Err(wrong("after", "holds a cursor that is no string")),
                });
            }
            match each.keys().next() {
                None => Ok(asked),
                Some(other) => {
                    Err(wrong("after", format!("names {other:?}, which \"channels\" does not")))
                }
            }
        }
        Some(_) => Err(wrong("after", "is a cursor, or an object with one for each channel")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cursor::EventId;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Frame, String> {
        let said = |error: FrameError| format!("{:?} {}", error.field, error.why);
        Frame::parse(text, 20).map_err(said)
    }

    fn channel(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    #[test]
    fn a_subscription_takes_one_cursor_for_all_or_one_for_each() {
        let check = |after: &str, expected: [ResumeFrom; 2]| {
            let text = format!(r#"{{"type":"subscribe","ref":1,"channels":["b","a"]{after}}}"#);
            let frame = parse(&text).unwrap();
            let [b, a] = expected;
            let expected = ClientMessage::Subscribe(vec![(channel("b"), b), (channel("a"), a)]);
            assert_eq!(frame, Frame { reference: Some(Reference::Number(1)), command: expected });
        };
        let after = |ms| {
            let position = EventId { ms, seq: 0 };
            ResumeFrom::After(Cursor { positions: vec![position], mark: None })
        };
        let foreign = || ResumeFrom::Foreign("x".to_owned());
        check("", [ResumeFrom::Now, ResumeFrom::Now]);
        check(r#","after":"1-0_2-0""#, [after(1), after(2)]);
        check(r#","after":{"a":"2-0"}"#, [ResumeFrom::Now, after(2)]);
        check(r#","after":{"a":null,"b":"x"}"#, [foreign(), ResumeFrom::Now]);
        check(r#","after":"x""#, [foreign(), foreign()]);
        check(r#","after":"""#, [ResumeFrom::Now, ResumeFrom::Now]);
        // These cursors have another number of channels.
        let two = || ResumeFrom::Foreign("1-0_2-0".to_owned());
        check(r#","after":{"a":"1-0_2-0","b":"1-0_2-0"}"#, [two(), two()]);
        let one = || ResumeFrom::Foreign("1-0".to_owned());
        check(r#","after":"1-0""#, [one(), one()]);
        check(r#","after":"0-0""#, [after(0), after(0)]);
    }

    #[test]
    fn a_publish_is_read_as_a_line_of_a_batch_is() {
        let text = r#"{"type":"publish","channel":"a","data":{"x": 1.50},"event":"e","key":"k",
                       "remove":true,"echo":false,"idempotency_key":"i","ref":"r"}"#;
        let Frame { reference, command: ClientMessage::Publish(publish) } = parse(text).unwrap()
        else {
            panic!("no publish")
        };
        assert_eq!(reference, Some(Reference::Text("r".to_owned())));
        let removal = Event::stored(Some("e"), Some("k"), r#"{"x":1.50}"#).removing_its_key();
        assert_eq!(publish.event, removal);
        let null = parse(r#"{"type":"publish","channel":"a","data":null}"#).unwrap();
        assert!(matches!(null.command, ClientMessage::Publish(one) if &*one.event.data == "null"));
        assert!(!publish.echo && publish.idempotency_key.as_deref() == Some("i"));
    }

    #[test]
    fn a_refusal_names_the_member() {
        let check = |text: &str, expected: &str| {
            let said = parse(text).expect_err(text);
            assert!(said.contains(expected), "{text}: {said} lacks {expected}");
        };
        check("", "a frame is a JSON object");
        check("{", "EOF");
        check("[]", "a frame is a JSON object");
        check(r#"{"type":"dance"}"#, "\"type\"");
        check(r#"{"type":"dance","channel":"a","data":1}"#, "\"type\"");
        check(r#"{"type":"publish","channel":"a","data":1,"remove":true}"#, "\"remove\"");
        check(r#"{"type":"ping","data":1}"#, "\"data\"");
        check(r#"{"type":"ping","x":1}"#, "unknown field");
        check(r#"{"type":"publish","channel":"a"}"#, "\"data\"");
        check(r#"{"type":"publish","data":1}"#, "\"channel\"");
        check(r#"{"type":"publish","channel":"..","data":1}"#, "\"channel\"");
        check(r#"{"type":"publish","channel":"a","data":1,"event":"gap"}"#, "reserved");
        check(
            r#"{"type":"publish","channel":"a","data":"123456789012345678901"}"#,
            "the limit is 20",
        );
        check(r#"{"type":"subscribe"}"#, "\"channels\"");
        check(r#"{"type":"subscribe","channels":[]}"#, "\"channels\"");
        check(r#"{"type":"subscribe","channels":["a","a"]}"#, "twice");
        check(r#"{"type":"subscribe","channels":["a"],"after":{"b":"1-0"}}"#, "\"after\"");
        check(&format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(129)), "\"ref\"");
        for bad in ["{}", "1.5", "true", "9999999999999999999"] {
            check(&format!(r#"{{"type":"ping","ref":{bad}}}"#), "\"ref\"");
        }
        check(r#"{"type":"subscribe","channels":["a"],"after":{"a":1}}"#, "\"after\"");
        check(r#"{"type":"subscribe","channels":["a"],"after":[]}"#, "\"after\"");
        let unread = Frame::parse(r#"{"type":"ping","ref":7,"x":1}"#, 20).unwrap_err();
        assert_eq!(unread.reference, Some(Reference::Number(7)));
        assert_eq!(Frame::parse("[7]", 20).unwrap_err().reference, None);
    }

    proptest! {
        #[test]
        fn any_frame_is_read_or_refused(text in "\\PC{0,60}|\\{\"type\":\"(ping|publish|subscribe)\"(,\"[a-z]{2,8}\":[\\[\"a-z0-9\\]]{0,6}){0,3}\\}") {
            let _either_way = Frame::parse(&text, 20);
        }
    }
}
