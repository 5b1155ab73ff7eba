//! What is said to clients over a WebSocket: a JSON object in a text frame.
//!
//! Made of the same blocks that streams are made of, so a client is told the same whichever way it
//! listens. An event's text is made piece by piece: a slow client of a large event holds one piece,
//! and not all of it.

use super::Reference;
use crate::cursor::EventId;
use crate::event::ChannelName;
use crate::sse::Block;
use serde_json::{Value, json};

/// About how long a piece of an event's text is, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

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
    use crate::event::Event;
    use crate::sse;
    use proptest::prelude::*;

    fn channel(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
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
    }
}
