//! Events and control blocks as `text/event-stream` bytes: every byte of a stream is made here.
//!
//! A block ends with an empty line. Control blocks carry data and a type of their own, because
//! Firefox and WebKit drop the id of a block without data; `onmessage` never sees them.
//! `retry` is long while a stream runs and short only just before a planned end, so a broken
//! connection backs off and a boundary does not.

use crate::cursor::EventId;
use crate::event::{ChannelName, Event};
use serde_json::json;

/// Wait before a reconnect when a stream broke, in ms.
pub const RETRY_BROKEN_MS: u64 = 3_000;
/// Wait before a reconnect after a planned end, in ms.
pub const RETRY_PLANNED_MS: u64 = 100;
/// Wait after a hold answer that moved nobody on, in ms: nobody may spin on one.
pub const RETRY_EMPTY_HOLD_MS: u64 = 1_000;
/// The comment that shows caches and clients that the stream lives.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Why a cursor could not be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Events after it are no longer kept.
    Trimmed,
    /// It is not one of ours.
    Unknown,
    /// It lies after the newest event: the log lost events, or it is another log.
    Ahead,
}

/// What a `gap` event tells the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The cursor as the client sent it.
    pub requested: String,
    /// The oldest event still kept.
    pub oldest: Option<EventId>,
    /// Which channel it is about, in a stream of several.
    pub channel: Option<ChannelName>,
}

impl GapReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Unknown => "unknown",
            Self::Ahead => "ahead",
        }
    }
}

/// The first block of a stream. `cursor` is `None` where state follows: state is not a place to
/// come back to, so a client that breaks off half-way gets the whole of it again.
pub fn opening(out: &mut Vec<u8>, cursor: Option<&str>, segment: u64, ends_at: u64) {
    retry(out, RETRY_BROKEN_MS);
    let data = format!(r#"{{"segment":{segment},"ends_at":{ends_at}}}"#);
    control(out, "segment", cursor, &data);
}

/// Tells the client that something is missing.
pub fn gap(out: &mut Vec<u8>, gap: &Gap) {
    let reason = gap.reason.as_str();
    let requested = json!(gap.requested);
    let oldest = gap.oldest.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
    let channel =
        gap.channel.as_ref().map(|name| format!(r#","channel":"{name}""#)).unwrap_or_default();
    let data =
        format!(r#"{{"reason":"{reason}","requested":{requested},"oldest":{oldest}{channel}}}"#);
    control(out, "gap", None, &data);
}

/// Closes the state: from here on the client has a place to come back to.
pub fn state_closing(out: &mut Vec<u8>, cursor: &str, segment: u64, ends_at: u64) {
    let data = format!(r#"{{"segment":{segment},"ends_at":{ends_at},"state":1}}"#);
    control(out, "segment", Some(cursor), &data);
}

/// The last block of a planned end; the body ends cleanly after it.
pub fn closing(out: &mut Vec<u8>, cursor: &str, next_segment: u64, retry_ms: u64) {
    retry(out, retry_ms);
    control(out, "segment", Some(cursor), &format!(r#"{{"segment":{next_segment}}}"#));
}

/// The whole body of an answer that sends the client away for a while.
pub fn shed(retry_ms: u64, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    retry(&mut out, retry_ms);
    out.extend_from_slice(format!(": {reason}\n\n").as_bytes());
    out
}

/// An event's block; `id` is `None` for state.
pub fn event(out: &mut Vec<u8>, id: Option<&str>, event: &Event) {
    if let Some(id) = id {
        id_line(out, id);
    }
    event_after_id(out, event);
}

/// The `id:` line alone: a stream of several channels puts its joined cursor before the rest.
pub fn id_line(out: &mut Vec<u8>, id: &str) {
    line(out, "id", id);
}

/// An event's block without its `id:` line.
pub fn event_after_id(out: &mut Vec<u8>, event: &Event) {
    if let Some(kind) = &event.kind {
        line(out, "event", kind.as_str());
    }
    for text in lines(&event.data) {
        line(out, "data", text);
    }
    out.push(b'\n');
}

/// A block that was written here.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its `id`.
    pub id: Option<&'a str>,
    /// Its `event`.
    pub kind: Option<&'a str>,
    lines: &'a str,
}

/// Reads blocks that were written here, for those who listen in another format.
pub fn blocks(bytes: &[u8]) -> impl Iterator<Item = Block<'_>> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.split_terminator("\n\n").map(|block| {
        let mut block = Block { id: None, kind: None, lines: block };
        block.id = block.take("id: ");
        block.kind = block.take("event: ");
        block
    })
}

impl<'a> Block<'a> {
    fn take(&mut self, name: &str) -> Option<&'a str> {
        let rest = self.lines.strip_prefix(name)?;
        let (value, lines) = rest.split_once('\n').unwrap_or((rest, ""));
        self.lines = lines;
        Some(value)
    }

    /// The lines of its data.
    pub fn data_lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = |line: &'a str| line.strip_prefix("data: ").or(line.strip_prefix("data:"));
        self.lines.split('\n').filter_map(value)
    }

    /// Its data in one text.
    pub fn data(&self) -> String {
        self.data_lines().collect::<Vec<_>>().join("\n")
    }
}

fn control(out: &mut Vec<u8>, kind: &str, cursor: Option<&str>, data: &str) {
    line(out, "event", kind);
    if let Some(cursor) = cursor {
        line(out, "id", cursor);
    }
    line(out, "data", data);
    out.push(b'\n');
}

fn retry(out: &mut Vec<u8>, ms: u64) {
    line(out, "retry", &ms.to_string());
}

/// `name: value`, and `name:` for an empty value, which means the same and carries no stray space.
fn line(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    if !value.is_empty() {
        out.push(b' ');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'\n');
}

/// Splits at CRLF, LF and CR, the three line ends of the event stream format.
fn lines(data: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: Event, id: Option<&str>, expected: &str) {
        let mut out = Vec::new();
        super::event(&mut out, id, &event);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn events_are_written_as_the_contract_shows_them() {
        let price = Event::stored(Some("price"), Some("EURUSD"), r#"{"bid":1.0712}"#);
        let block = "id: 1795278400710-0\nevent: price\ndata: {\"bid\":1.0712}\n\n";
        check(price.clone(), Some("1795278400710-0"), block);
        check(price, None, "event: price\ndata: {\"bid\":1.0712}\n\n");
        check(Event::stored(None, None, "x"), Some("1-0"), "id: 1-0\ndata: x\n\n");
        check(Event::end(), Some("1-0"), "id: 1-0\nevent: end\ndata: {}\n\n");
    }

    #[test]
    fn every_kind_of_line_break_starts_a_data_line() {
        let data = |text| Event::stored(None, None, text);
        check(data("a\nb"), None, "data: a\ndata: b\n\n");
        check(data("a\rb"), None, "data: a\ndata: b\n\n");
        check(data("a\r\nb"), None, "data: a\ndata: b\n\n");
        check(data("a\n\rb"), None, "data: a\ndata:\ndata: b\n\n");
        check(data("a\r\n"), None, "data: a\ndata:\n\n");
        check(data(""), None, "data:\n\n");
        check(data(" a"), None, "data:  a\n\n");
        check(data("id: 7\n\nevent: x"), None, "data: id: 7\ndata:\ndata: event: x\n\n");
    }

    #[test]
    fn control_blocks_are_written_as_the_contract_shows_them() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(&|out| opening(out, Some("1795278400710-0"), 59842613, 1795278420000)),
            "retry: 3000\nevent: segment\nid: 1795278400710-0\n\
             data: {\"segment\":59842613,\"ends_at\":1795278420000}\n\n"
        );
        assert_eq!(
            text(&|out| opening(out, None, 59842613, 1795278420000)),
            "retry: 3000\nevent: segment\ndata: {\"segment\":59842613,\"ends_at\":1795278420000}\n\n"
        );
        assert_eq!(
            text(&|out| state_closing(out, "5-0", 59842613, 1795278420000)),
            "event: segment\nid: 5-0\n\
             data: {\"segment\":59842613,\"ends_at\":1795278420000,\"state\":1}\n\n"
        );
        assert_eq!(
            text(&|out| closing(out, "5-0.1795278420000", 59842614, RETRY_PLANNED_MS)),
            "retry: 100\nevent: segment\nid: 5-0.1795278420000\ndata: {\"segment\":59842614}\n\n"
        );
        let mut lost = Gap {
            reason: GapReason::Unknown,
            requested: "\"\n".into(),
            oldest: None,
            channel: None,
        };
        assert_eq!(
            text(&|out| gap(out, &lost)),
            "event: gap\ndata: {\"reason\":\"unknown\",\"requested\":\"\\\"\\n\",\"oldest\":null}\n\n"
        );
        lost.oldest = Some(EventId { ms: 7, seq: 1 });
        lost.reason = GapReason::Trimmed;
        assert_eq!(
            text(&|out| gap(out, &lost)),
            "event: gap\ndata: {\"reason\":\"trimmed\",\"requested\":\"\\\"\\n\",\"oldest\":\"7-1\"}\n\n"
        );
        assert_eq!(shed(5000, "store"), b"retry: 5000\n: store\n\n");
        assert_eq!(HEARTBEAT, b":\n\n");
    }
}
