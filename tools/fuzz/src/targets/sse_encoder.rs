//! The text of a stream as Headwater writes it, read by its own client, by the text of the standard, and
//! by three parsers of other people.

use crate::input::Input;
use crate::stream_model as model;
use bytes::Bytes;
use headwater::core::cursor::{Cursor, EventId};
use headwater::core::event::{ChannelName, Event, Field};
use headwater::core::sse::{self, EventWriter, Format, ShedReason};
use model::Message;
use serde_json::{Value, json};

/// What was written, and what a client has to receive.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    last_event_id: String,
    expected: Vec<Expected>,
}

/// A message: its type, the last id, and its data as text or as JSON.
type Expected = (String, String, Data);

#[derive(Debug)]
enum Data {
    Text(String),
    Json(Value),
}

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut cuts = Input::new(input.bytes());
    let format = if input.flag() { Format::Json } else { Format::Raw };
    let mut stream = Stream::default();
    while !input.is_empty() {
        stream.write(&mut input, format);
    }
    let chunks = cuts.chunks(&stream.bytes);
    let (ours, is_whole) = model::by_our_client(&chunks);
    assert!(is_whole);
    stream.check(&ours);
    let text = std::str::from_utf8(&stream.bytes).expect("a stream is text");
    assert_eq!(model::messages(text), ours, "the standard");
    assert_eq!(model::by_sse_parse(&chunks), ours, "sse-parse");
    assert_eq!(model::by_eventsource_stream(&chunks), ours, "eventsource-stream");
    assert_eq!(model::by_sseer(&chunks), ours, "sseer");
}

impl Stream {
    fn write(&mut self, input: &mut Input<'_>, format: Format) {
        if input.flag() {
            self.bytes.extend_from_slice(sse::HEARTBEAT);
        }
        let positions = (0..1 + input.below(3)).map(|_| input.id()).collect();
        let cursor = Cursor { positions, mark: input.flag().then(|| input.number()) }.to_string();
        let (segment, until) = (input.number(), input.number());
        match input.below(8) {
            0 => {
                let cursor = input.flag().then_some(cursor);
                sse::opening(&mut self.bytes, cursor.as_deref(), segment, until);
                self.expect("segment", cursor, json!({ "segment": segment, "ends_at": until }));
            }
            1 => {
                sse::state_closing(&mut self.bytes, &cursor, segment, until);
                let data = json!({ "segment": segment, "ends_at": until, "state": 1 });
                self.expect("segment", Some(cursor), data);
            }
            2 => {
                sse::closing(&mut self.bytes, &cursor, segment, until);
                self.expect("segment", Some(cursor), json!({ "segment": segment }));
            }
            3 => {
                let (gap, cursor) = (input.gap(), input.flag().then_some(cursor));
                sse::gap(&mut self.bytes, &gap, cursor.as_deref());
                let data = json!({
                    "type": "gap", "channel": gap.channel.as_str(), "reason": gap.reason.as_str(),
                    "requested": gap.requested, "oldest": gap.oldest.map(|id| id.to_string()),
                });
                self.expect("gap", cursor, data);
            }
            4 => {
                let reason = ShedReason::ALL[input.below(ShedReason::ALL.len())].as_str();
                self.bytes.extend_from_slice(&sse::shed(until, reason));
                self.expect("shed", None, json!({ "reason": reason, "retry_ms": until }));
            }
            5 => {
                // A stream of several channels: the cursor, then the event.
                let (channel, id) = (input.channel(), input.id());
                sse::id_line(&mut self.bytes, &cursor);
                self.last_event_id = cursor;
                self.event(&channel, format, Some(id), &input.event_of_log());
            }
            6 => self.event(&input.channel(), format, None, &input.event()),
            _ => {
                let (channel, id, event) = (input.channel(), input.id(), input.event_of_log());
                self.last_event_id = id.to_string();
                let writer = EventWriter::new(channel.clone(), format);
                let mut block = Vec::new();
                writer.block(&mut block, id, &event);
                split(&block, id, &event, format);
                self.bytes.extend_from_slice(&block);
                self.expect_event(&channel, format, Some(id), &event);
            }
        }
    }

    fn expect(&mut self, kind: &str, cursor: Option<String>, data: Value) {
        if let Some(cursor) = cursor {
            self.last_event_id = cursor;
        }
        self.expected.push((kind.to_owned(), self.last_event_id.clone(), Data::Json(data)));
    }

    fn event(&mut self, channel: &ChannelName, format: Format, id: Option<EventId>, event: &Event) {
        EventWriter::new(channel.clone(), format).after_id(&mut self.bytes, id, event);
        self.expect_event(channel, format, id, event);
    }

    fn expect_event(
        &mut self,
        channel: &ChannelName,
        format: Format,
        id: Option<EventId>,
        event: &Event,
    ) {
        let kind = event.kind.as_ref().map_or("message", Field::as_str);
        let id = id.map(|id| id.to_string());
        if event.as_control().is_some() {
            let mut data = json!({ "type": kind, "channel": channel.as_str() });
            let members = serde_json::from_str::<Value>(&event.data).expect("control data is JSON");
            let members = members.as_object().expect("an object").clone();
            data.as_object_mut().expect("an object").extend(members);
            if let Some(id) = id {
                data["id"] = id.into();
            }
            return self.expect(kind, None, data);
        }
        if format == Format::Raw {
            let text = event.data.replace("\r\n", "\n").replace('\r', "\n");
            let expected = (kind.to_owned(), self.last_event_id.clone(), Data::Text(text));
            return self.expected.push(expected);
        }
        let mut data = json!({ "type": "event", "channel": channel.as_str(), "data": *event.data });
        let fields = [("event", &event.kind), ("key", &event.key)];
        for (name, field) in fields {
            if let Some(field) = field {
                data[name] = field.as_str().into();
            }
        }
        if let Some(id) = id {
            data["id"] = id.into();
        }
        if event.removes_key() {
            data["removed"] = true.into();
        }
        self.expect("message", None, data);
    }

    fn check(&self, found: &[Message]) {
        assert_eq!(found.len(), self.expected.len(), "{found:?}");
        for (message, (kind, id, data)) in found.iter().zip(&self.expected) {
            assert_eq!((&message.kind, &message.last_event_id), (kind, id));
            match data {
                Data::Text(text) => assert_eq!(&message.data, text),
                Data::Json(value) => {
                    let found: Value = serde_json::from_str(&message.data).expect("JSON");
                    assert_eq!(&found, value);
                    assert!(!message.data.contains('\n'));
                }
            }
        }
    }
}

/// A WebSocket takes its messages out of the text of a stream.
fn split(block: &[u8], id: EventId, event: &Event, format: Format) {
    if format == Format::Raw {
        return;
    }
    let twice = [block, block].concat();
    let found: Vec<_> = sse::json_events(&Bytes::from(twice)).collect();
    assert_eq!(found.len(), 2);
    for one in found {
        assert_eq!(one.id, Some(id));
        let data: Value = serde_json::from_slice(&one.data).expect("JSON");
        assert_eq!(data["id"], id.to_string());
        assert!(event.as_control().is_some() || data["data"] == *event.data);
    }
}
