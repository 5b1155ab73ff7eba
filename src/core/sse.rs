//! Encodes events and control events as `text/event-stream`. All text of a stream is made here,
//! except the JSON object of an event (`event_json`).
//!
//! An SSE event ends with an empty line. Control events have data, because Firefox and WebKit drop
//! the id of an SSE event without data. They have a type of their own, so that `onmessage` does not
//! receive them. `retry` is long while a stream runs and as a rule short just before a planned end
//! (`Hub::retry_ms`), so a client backs off after a broken connection but not at a boundary.

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};
use crate::core::event_json::EventJson;
use bytes::Bytes;
use serde_json::json;

/// Reconnect delay after a broken stream, in ms.
pub const RETRY_BROKEN_MS: u64 = 3_000;
/// Reconnect delay after a planned end, in ms.
pub const RETRY_PLANNED_MS: u64 = 100;
/// Reconnect delay after a long poll whose response a cache may keep for one second only, in ms. It
/// prevents a client from repeating such a long poll in a tight loop.
pub const RETRY_EMPTY_LONG_POLL_MS: u64 = 1_000;
/// The comment that shows caches and clients that the stream is alive: one line, without an empty
/// line after it. A heartbeat may stand before any SSE event, and clients that take an empty line
/// for the end of an event would deliver an empty event to their users.
pub const HEARTBEAT: &[u8] = b":\n";

/// The encoding of published events in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The type is in `event:` and the text in `data:`.
    #[default]
    Raw,
    /// There is no `event:` line, and `data:` is a JSON object with the text, type, key and channel
    /// of the event, the same as in a WebSocket frame ([`EventJson`]).
    Json,
}

/// Encodes the events of one channel in one format.
#[derive(Clone, Debug)]
pub struct EventWriter {
    channel: ChannelName,
    format: Format,
}

/// The reason why a cursor could not be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Events after the cursor are no longer kept.
    Trimmed,
    /// The text is not a cursor, or it has the wrong number of positions.
    Unknown,
    /// The cursor lies after the newest event: the log has lost events, or it is another log.
    Ahead,
}

/// The content of a `gap` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The reason of the gap.
    pub reason: GapReason,
    /// The cursor, or the value of `since`, as the client sent it.
    pub requested: String,
    /// The id of the oldest event that is still kept.
    pub oldest: Option<EventId>,
    /// The channel in which events are missing.
    pub channel: ChannelName,
}

/// The reason why a request for a stream is shed: the response is a `shed` event that tells the
/// client to reconnect later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShedReason {
    /// The origin has reached its limit of connections.
    Connections,
    /// The client has reached its limit of connections.
    Client,
    /// The store does not answer.
    Store,
    /// Other responses leave no memory.
    Memory,
    /// The token of the client has expired.
    Token,
    /// The keys with which tokens are checked were never fetched.
    Keys,
}

impl ShedReason {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::Connections, Self::Client, Self::Store, Self::Memory, Self::Token, Self::Keys];

    /// Returns the name of the reason in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Client => "client",
            Self::Store => "store",
            Self::Memory => "memory",
            Self::Token => "token-expired",
            Self::Keys => "keys",
        }
    }
}

impl GapReason {
    /// All reasons of a gap at the beginning of a stream.
    pub const ALL: [Self; 3] = [Self::Trimmed, Self::Unknown, Self::Ahead];

    /// Returns the name of the reason in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Unknown => "unknown",
            Self::Ahead => "ahead",
        }
    }
}

/// Writes the first SSE event of a stream. `cursor` is `None` when the state follows: the state is
/// not a position to resume from, so a client that is disconnected within it receives all of it
/// again.
pub fn opening(out: &mut Vec<u8>, cursor: Option<&str>, segment: u64, ends_at: u64) {
    retry(out, RETRY_BROKEN_MS);
    let data = format!(r#"{{"segment":{segment},"ends_at":{ends_at}}}"#);
    control(out, "segment", cursor, &data);
}

/// Writes a `gap` event. `cursor` is its id: the cursor after all gaps.
pub fn gap(out: &mut Vec<u8>, gap: &Gap, cursor: Option<&str>) {
    let reason = gap.reason.as_str();
    let requested = json!(gap.requested);
    let oldest = gap.oldest.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
    let members = format!(r#""reason":"{reason}","requested":{requested},"oldest":{oldest}"#);
    control(out, "gap", cursor, &channel_control("gap", &gap.channel, None, &members));
}

/// Writes the SSE event that closes the state. Its id is a cursor from which the client can resume.
pub fn state_closing(out: &mut Vec<u8>, cursor: &str, segment: u64, ends_at: u64) {
    let data = format!(r#"{{"segment":{segment},"ends_at":{ends_at},"state":1}}"#);
    control(out, "segment", Some(cursor), &data);
}

/// Writes the last SSE event before a planned end. The body ends cleanly after it.
pub fn closing(out: &mut Vec<u8>, cursor: &str, next_segment: u64, retry_ms: u64) {
    retry(out, retry_ms);
    control(out, "segment", Some(cursor), &format!(r#"{{"segment":{next_segment}}}"#));
}

/// Returns the whole body of a shed response. Its SSE event has a type and data, because some
/// clients deliver an SSE event without data to their users as an empty event.
pub fn shed(retry_ms: u64, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    retry(&mut out, retry_ms);
    let data = format!(r#"{{"reason":"{reason}","retry_ms":{retry_ms}}}"#);
    control(&mut out, "shed", None, &data);
    out
}

/// Writes only an `id:` line. A stream of several channels writes its joined cursor in this way,
/// before the rest of the event.
pub fn id_line(out: &mut Vec<u8>, id: &str) {
    line(out, "id", id);
}

impl EventWriter {
    /// Returns a writer for the events of `channel`.
    pub fn new(channel: ChannelName, format: Format) -> Self {
        Self { channel, format }
    }

    /// Writes an event, beginning with its `id:` line.
    pub fn block(&self, out: &mut Vec<u8>, id: EventId, event: &Event) {
        id_line(out, &id.to_string());
        self.after_id(out, Some(id), event);
    }

    /// Writes an event without its `id:` line. `id` is `None` for an event of the state, which has
    /// no position in the log.
    pub fn after_id(&self, out: &mut Vec<u8>, id: Option<EventId>, event: &Event) {
        if let Some((kind, members)) = event.as_control() {
            control(out, kind, None, &channel_control(kind, &self.channel, id, members));
            return;
        }
        match self.format {
            Format::Raw => raw(out, event),
            Format::Json => {
                out.extend_from_slice(b"data: ");
                EventJson::new(&self.channel, id, event).write(out);
                out.extend_from_slice(b"\n\n");
            }
        }
    }
}

/// An SSE event that was written in [`Format::Json`].
#[derive(Clone, Debug)]
pub struct JsonEvent {
    /// The id of the event.
    pub id: Option<EventId>,
    /// The data of the event: one JSON object.
    pub data: Bytes,
}

/// Splits bytes that were written in [`Format::Json`] into SSE events. The data is not copied.
pub fn json_events(bytes: &Bytes) -> impl Iterator<Item = JsonEvent> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|pair| pair == b"\n\n").unwrap_or(rest.len());
        let block = rest.split_to((end + 2).min(rest.len())).slice(..end);
        Some(JsonEvent::of(&block))
    })
}

impl JsonEvent {
    fn of(block: &Bytes) -> Self {
        let mut found = Self { id: None, data: Bytes::new() };
        for line in block.split(|byte| *byte == b'\n') {
            if let Some(id) = line.strip_prefix(b"id: ") {
                found.id = std::str::from_utf8(id).ok().and_then(|id| EventId::parse(id).ok());
            } else if let Some(data) = line.strip_prefix(b"data: ") {
                found.data = block.slice_ref(data);
            }
        }
        found
    }
}

fn raw(out: &mut Vec<u8>, event: &Event) {
    if let Some(kind) = &event.kind {
        line(out, "event", kind.as_str());
    }
    for text in lines(&event.data) {
        line(out, "data", text);
    }
    out.push(b'\n');
}

/// Returns the data of a control event that concerns one channel. A WebSocket frame of the event
/// has the same JSON object.
fn channel_control(
    kind: &str,
    channel: &ChannelName,
    id: Option<EventId>,
    members: &str,
) -> String {
    let id = id.map(|id| format!(r#","id":"{id}""#)).unwrap_or_default();
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#"{{"type":"{kind}","channel":"{channel}"{id}{comma}{members}}}"#)
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

/// Writes `name: value`. An empty value becomes `name:`, which means the same and has no stray
/// space.
fn line(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    if !value.is_empty() {
        out.push(b' ');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'\n');
}

/// Splits a text at CRLF, LF and CR, the three line ends of the event stream format.
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

    fn channel() -> ChannelName {
        ChannelName::parse("a").unwrap()
    }

    fn written(format: Format, event: &Event, id: Option<EventId>) -> String {
        let mut out = Vec::new();
        let writer = EventWriter::new(channel(), format);
        match id {
            Some(id) => writer.block(&mut out, id, event),
            None => writer.after_id(&mut out, None, event),
        }
        String::from_utf8(out).unwrap()
    }

    const ID: EventId = EventId { ms: 1795278400710, seq: 0 };

    #[test]
    fn raw_events_are_written_as_the_protocol_shows_them() {
        let check = |event: &Event, id, expected: &str| {
            assert_eq!(written(Format::Raw, event, id), expected);
        };
        let price = Event::stored(Some("price"), Some("EURUSD"), r#"{"bid":1.0712}"#);
        let block = "id: 1795278400710-0\nevent: price\ndata: {\"bid\":1.0712}\n\n";
        check(&price, Some(ID), block);
        check(&price, None, "event: price\ndata: {\"bid\":1.0712}\n\n");
        check(&Event::stored(None, None, "x"), Some(ID), "id: 1795278400710-0\ndata: x\n\n");
    }

    #[test]
    fn the_end_and_a_loss_name_their_channel_in_both_formats() {
        for format in [Format::Raw, Format::Json] {
            assert_eq!(
                written(format, &Event::end(), Some(ID)),
                "id: 1795278400710-0\nevent: end\n\
                 data: {\"type\":\"end\",\"channel\":\"a\",\"id\":\"1795278400710-0\"}\n\n"
            );
            assert_eq!(
                written(format, &Event::lost("5-0"), Some(ID)),
                "id: 1795278400710-0\nevent: gap\n\
                 data: {\"type\":\"gap\",\"channel\":\"a\",\"id\":\"1795278400710-0\",\
                 \"reason\":\"lost\",\"requested\":\"5-0\",\"oldest\":null}\n\n"
            );
        }
    }

    #[test]
    fn json_events_have_no_type_and_one_object_with_all_that_is_stored() {
        let price = Event::stored(Some("price"), Some("EURUSD"), "a\r\n\"b\"");
        assert_eq!(
            written(Format::Json, &price, Some(ID)),
            "id: 1795278400710-0\ndata: {\"type\":\"event\",\"channel\":\"a\",\
             \"id\":\"1795278400710-0\",\"event\":\"price\",\"key\":\"EURUSD\",\
             \"data\":\"a\\r\\n\\\"b\\\"\"}\n\n"
        );
        let removal = Event::stored(None, Some("EURUSD"), "");
        assert_eq!(
            written(Format::Json, &removal, None),
            "data: {\"type\":\"event\",\"channel\":\"a\",\"key\":\"EURUSD\",\"data\":\"\",\
             \"removed\":true}\n\n"
        );
    }

    #[test]
    fn json_blocks_read_back_what_was_written() {
        let writer = EventWriter::new(channel(), Format::Json);
        let events = [Event::stored(None, None, "a\n\nb\r"), Event::end(), Event::lost("1-0")];
        let mut out = Vec::new();
        for event in &events {
            writer.block(&mut out, ID, event);
            writer.after_id(&mut out, None, event);
        }
        let blocks: Vec<JsonEvent> = json_events(&out.into()).collect();
        assert_eq!(blocks.len(), 6);
        for (index, block) in blocks.iter().enumerate() {
            assert_eq!(block.id, (index % 2 == 0).then_some(ID));
            let object: serde_json::Value = serde_json::from_slice(&block.data).unwrap();
            assert_eq!(object["type"], ["event", "end", "gap"][index / 2]);
        }
    }

    #[test]
    fn every_kind_of_line_break_starts_a_data_line() {
        let check = |text, expected: &str| {
            assert_eq!(written(Format::Raw, &Event::stored(None, None, text), None), expected);
        };
        check("a\nb", "data: a\ndata: b\n\n");
        check("a\rb", "data: a\ndata: b\n\n");
        check("a\r\nb", "data: a\ndata: b\n\n");
        check("a\n\rb", "data: a\ndata:\ndata: b\n\n");
        check("a\r\n", "data: a\ndata:\n\n");
        check("", "data:\n\n");
        check(" a", "data:  a\n\n");
        check("id: 7\n\nevent: x", "data: id: 7\ndata:\ndata: event: x\n\n");
    }

    #[test]
    fn each_reason_has_the_name_of_the_protocol() {
        assert_eq!(
            ShedReason::ALL.map(ShedReason::as_str),
            ["connections", "client", "store", "memory", "token-expired", "keys"]
        );
        assert_eq!(GapReason::ALL.map(GapReason::as_str), ["trimmed", "unknown", "ahead"]);
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
            channel: channel(),
        };
        assert_eq!(
            text(&|out| gap(out, &lost, None)),
            "event: gap\ndata: {\"type\":\"gap\",\"channel\":\"a\",\"reason\":\"unknown\",\
             \"requested\":\"\\\"\\n\",\"oldest\":null}\n\n"
        );
        lost.oldest = Some(EventId { ms: 7, seq: 1 });
        lost.reason = GapReason::Trimmed;
        assert_eq!(
            text(&|out| gap(out, &lost, None)),
            "event: gap\ndata: {\"type\":\"gap\",\"channel\":\"a\",\"reason\":\"trimmed\",\
             \"requested\":\"\\\"\\n\",\"oldest\":\"7-1\"}\n\n"
        );
        assert_eq!(
            String::from_utf8(shed(5000, "store")).unwrap(),
            "retry: 5000\nevent: shed\ndata: {\"reason\":\"store\",\"retry_ms\":5000}\n\n"
        );
        assert_eq!(HEARTBEAT, b":\n");
    }
}
