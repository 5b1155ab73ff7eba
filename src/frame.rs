//! What is said over a WebSocket: JSON objects in text frames, in and out.
//!
//! What goes out is made of the same blocks that streams are made of, so a client is told the same
//! whichever way it listens. An event's text is made piece by piece: a slow client of a large event
//! holds one piece, and not all of it.

use crate::cursor::{Cursor, EventId};
use crate::event::{ChannelName, Event, FieldError};
use crate::join::Asked;
use crate::ndjson::event_of;
use crate::sse::Block;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Longest `ref`, in bytes: it is sent back.
const REFERENCE_BYTES_MAX: usize = 128;
/// About how long a piece of an event's text is, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// What a client calls a frame of its own; comes back in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Reference {
    /// A string.
    Text(String),
    /// An integer.
    Number(i64),
}

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the client calls it.
    pub reference: Option<Reference>,
    /// What it wants.
    pub command: Command,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send these channels, each from a place on.
    Subscribe(Vec<(ChannelName, Asked)>),
    /// Send these no more.
    Unsubscribe(Vec<ChannelName>),
    /// Publish.
    Publish(Box<Publish>),
    /// Say that you are there.
    Ping,
}

/// One event from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub channel: ChannelName,
    /// The event.
    pub event: Event,
    /// Whether it comes back to the client too, where that is subscribed.
    pub echo: bool,
    /// Makes a repeated publish recognisable, as the header of the same name.
    pub idempotency_key: Option<String>,
}

/// A frame that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// What the client called it, where that could be read.
    pub reference: Option<Reference>,
    /// The member at fault, where there is one.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub why: String,
    /// The limit that was passed, where it is one.
    pub limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "ref")]
    reference: Option<Reference>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    channels: Option<Vec<String>>,
    after: Option<After>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    echo: Option<bool>,
    idempotency_key: Option<String>,
}

/// A cursor for all channels in their order, as a stream of several gives it, or one for each.
#[derive(Deserialize)]
#[serde(untagged)]
enum After {
    All(String),
    Each(BTreeMap<String, Option<String>>),
}

/// What is wrong with a member.
struct Wrong {
    field: Option<&'static str>,
    why: String,
    limit: Option<usize>,
}

impl Frame {
    /// Reads a frame; `event_bytes`: most bytes of an event's data.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn parse(text: &str, event_bytes: usize) -> Result<Self, FrameError> {
        let raw: Raw<'_> = serde_json::from_str(text).map_err(|error| FrameError {
            reference: None,
            field: None,
            why: format!("not a frame of ours: {error}"),
            limit: None,
        })?;
        let reference = raw.reference.clone();
        let is_short = |reference: &&Reference| match reference {
            Reference::Text(text) => text.len() <= REFERENCE_BYTES_MAX,
            Reference::Number(_) => true,
        };
        let command = match reference.as_ref().is_none_or(|reference| is_short(&reference)) {
            true => raw.command(event_bytes),
            false => Err(Wrong {
                limit: Some(REFERENCE_BYTES_MAX),
                ..wrong("ref", format!("is longer than {REFERENCE_BYTES_MAX} bytes"))
            }),
        };
        let reference = reference.filter(|reference| is_short(&reference));
        match command {
            Ok(command) => Ok(Self { reference, command }),
            Err(Wrong { field, why, limit }) => Err(FrameError { reference, field, why, limit }),
        }
    }
}

impl Raw<'_> {
    fn command(self, event_bytes: usize) -> Result<Command, Wrong> {
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
                Ok(Command::Subscribe(names.into_iter().zip(asked).collect()))
            }
            "unsubscribe" => Ok(Command::Unsubscribe(names(self.channels)?)),
            "publish" => self.publish(event_bytes).map(|publish| Command::Publish(publish.into())),
            "ping" => Ok(Command::Ping),
            _ => Err(wrong("type", "is subscribe, unsubscribe, publish or ping")),
        }
    }

    fn publish(self, event_bytes: usize) -> Result<Publish, Wrong> {
        let channel = self.channel.ok_or_else(|| wrong("channel", "is missing"))?;
        let channel = name(&channel, "channel")?;
        let data = self.data.ok_or_else(|| wrong("data", "is missing"))?;
        let event = event_of(data, self.event.as_deref(), self.key.as_deref(), event_bytes)
            .map_err(|(field, problem)| Wrong {
                field,
                limit: problem.limit(),
                why: problem.to_string(),
            })?;
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

/// Where each channel is to begin. As on a stream, what is no cursor of ours is no mistake: the
/// client hears of a gap.
fn asked(names: &[ChannelName], after: Option<After>) -> Result<Vec<Asked>, Wrong> {
    match after {
        None => Ok(vec![Asked::Fresh; names.len()]),
        Some(After::All(text)) => {
            let asked = Asked::from_last_event_id(text.as_bytes(), names.len());
            let Asked::After(Cursor { positions, mark }) = asked else {
                return Ok(vec![asked; names.len()]);
            };
            let one = |position| Asked::After(Cursor { positions: vec![position], mark });
            Ok(positions.into_iter().map(one).collect())
        }
        Some(After::Each(mut each)) => {
            let asked = names.iter().map(|name| {
                let text = each.remove(name.as_str()).flatten().unwrap_or_default();
                Asked::from_last_event_id(text.as_bytes(), 1)
            });
            let asked = asked.collect();
            match each.pop_first() {
                None => Ok(asked),
                Some((other, _)) => {
                    Err(wrong("after", format!("names {other:?}, which \"channels\" does not")))
                }
            }
        }
    }
}

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

/// The text of a block, in pieces: an event, or a `gap` or `end` that the channel itself holds.
pub fn pieces<'a>(
    channel: &'a ChannelName,
    block: &Block<'a>,
) -> impl Iterator<Item = String> + use<'a> {
    let id = block.id.map(|id| format!(r#","id":"{id}""#)).unwrap_or_default();
    let (kind, members) = match block.kind {
        Some("gap") => ("gap", Some(block.data())),
        Some("end") => ("end", None),
        _ => ("event", None),
    };
    let mut head = format!(r#"{{"type":"{kind}","channel":"{channel}"{id}"#);
    if kind != "event" {
        // Its data is an object of ours: its members become the frame's.
        let members = members.as_deref().map(|data| data.trim_start_matches('{'));
        head.push_str(&members.map_or("}".to_owned(), |members| format!(",{members}")));
        return Pieces { head: Some(head), lines: None }.into_iter();
    }
    if let Some(kind) = block.kind {
        head.push_str(r#","event":"#);
        head.push_str(&quoted(kind));
    }
    head.push_str(r#","data":""#);
    Pieces { head: Some(head), lines: Some(block.data_lines()) }.into_iter()
}

struct Pieces<I> {
    head: Option<String>,
    lines: Option<I>,
}

impl<'a, I: Iterator<Item = &'a str>> Pieces<I> {
    fn into_iter(mut self) -> impl Iterator<Item = String> {
        let mut rest = self.lines.as_mut().and_then(Iterator::next);
        std::iter::from_fn(move || {
            let Some(lines) = &mut self.lines else { return self.head.take() };
            let head = self.head.take();
            let mut piece = head.or_else(|| rest.map(|_| String::new()))?;
            while let Some(text) = rest {
                if piece.len() >= PIECE_BYTES {
                    return Some(piece);
                }
                let (now, later) = text.split_at(text.floor_char_boundary(PIECE_BYTES));
                let now = quoted(now);
                piece.push_str(&now[1..now.len() - 1]);
                rest = if later.is_empty() { lines.next() } else { Some(later) };
                match rest {
                    Some(_) if later.is_empty() => piece.push_str("\\n"),
                    Some(_) => {}
                    None => piece.push_str("\"}"),
                }
            }
            Some(piece)
        })
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse;
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
        let check = |after: &str, expected: [Asked; 2]| {
            let text = format!(r#"{{"type":"subscribe","ref":1,"channels":["b","a"]{after}}}"#);
            let frame = parse(&text).unwrap();
            let [b, a] = expected;
            let expected = Command::Subscribe(vec![(channel("b"), b), (channel("a"), a)]);
            assert_eq!(frame, Frame { reference: Some(Reference::Number(1)), command: expected });
        };
        let after = |ms| {
            let position = EventId { ms, seq: 0 };
            Asked::After(Cursor { positions: vec![position], mark: None })
        };
        let foreign = || Asked::Foreign("x".to_owned());
        check("", [Asked::Fresh, Asked::Fresh]);
        check(r#","after":"1-0_2-0""#, [after(1), after(2)]);
        check(r#","after":{"a":"2-0"}"#, [Asked::Fresh, after(2)]);
        check(r#","after":{"a":null,"b":"x"}"#, [foreign(), Asked::Fresh]);
        check(r#","after":"x""#, [foreign(), foreign()]);
        check(r#","after":"""#, [Asked::Fresh, Asked::Fresh]);
    }

    #[test]
    fn a_publish_is_read_as_a_line_of_a_batch_is() {
        let text = r#"{"type":"publish","channel":"a","data":{"x": 1.50},"event":"e","key":"k",
                       "echo":false,"idempotency_key":"i","ref":"r"}"#;
        let Frame { reference, command: Command::Publish(publish) } = parse(text).unwrap() else {
            panic!("no publish")
        };
        assert_eq!(reference, Some(Reference::Text("r".to_owned())));
        assert_eq!(publish.event, Event::stored(Some("e"), Some("k"), r#"{"x":1.50}"#));
        assert!(!publish.echo && publish.idempotency_key.as_deref() == Some("i"));
    }

    #[test]
    fn a_refusal_names_the_member() {
        let check = |text: &str, expected: &str| {
            let said = parse(text).expect_err(text);
            assert!(said.contains(expected), "{text}: {said} lacks {expected}");
        };
        check("", "EOF");
        check("[]", "not a frame of ours");
        check(r#"{"type":"dance"}"#, "\"type\"");
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
        check(r#"{"type":"ping","ref":{}}"#, "not a frame");
    }

    fn texts(event: &Event, id: Option<&str>) -> Vec<String> {
        let mut bytes = Vec::new();
        sse::event(&mut bytes, id, event);
        let channel = channel("a.b");
        let block = sse::blocks(&bytes).next().unwrap();
        pieces(&channel, &block).collect()
    }

    #[test]
    fn an_event_says_what_its_block_says() {
        let check = |event, id, expected: Value| {
            let text = texts(&event, id).concat();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected, "{text}");
        };
        let a = "a.b";
        let expected = json!({"type":"event","channel":a,"id":"1-0","event":"e\"","data":"x\n\ny"});
        check(Event::stored(Some("e\""), Some("k"), "x\r\n\ny"), Some("1-0"), expected);
        let expected = json!({"type":"event","channel":a,"data":""});
        check(Event::stored(None, None, ""), None, expected);
        let expected = json!({"type":"end","channel":a,"id":"1-0"});
        check(Event::end(), Some("1-0"), expected);
        let gap = json!({"type":"gap","channel":a,"id":"2-0","reason":"lost","requested":"1-0","oldest":null});
        check(Event::lost("1-0"), Some("2-0"), gap);
    }

    #[test]
    fn a_large_event_comes_in_small_pieces() {
        let all = texts(&Event::stored(None, None, &"é\u{1}\n".repeat(30_000)), Some("1-0"));
        assert!(all.len() > 5);
        assert!(all.iter().all(|piece| piece.len() <= 7 * PIECE_BYTES && !piece.is_empty()));
    }

    proptest! {
        #[test]
        fn any_data_comes_out_as_a_browser_would_see_it(data in "(\\PC|[\r\n\t\u{0}]){0,40}") {
            let text = texts(&Event::stored(None, None, &data), Some("1-0")).concat();
            let frame: Value = serde_json::from_str(&text).unwrap();
            let expected = data.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(&frame["data"], &Value::from(expected));
        }

        #[test]
        fn any_frame_is_read_or_refused(text in "\\PC{0,60}|\\{\"type\":\"(ping|publish|subscribe)\"(,\"[a-z]{2,8}\":[\\[\"a-z0-9\\]]{0,6}){0,3}\\}") {
            let _either_way = Frame::parse(&text, 20);
        }
    }
}
