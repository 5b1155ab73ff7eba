//! Parses an event stream as the standard describes it, step by step (WHATWG HTML, section 9.2.6),
//! and by three parsers of other people.

use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures_util::{FutureExt, StreamExt, stream};
use std::convert::Infallible;

/// An event that was dispatched: its type, its data, and the last id that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: String,
    pub data: String,
    pub last_event_id: String,
}

/// The messages of a response by the text of the standard. The bytes are valid UTF-8.
pub fn messages(text: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    let (mut data, mut kind, mut id) = (String::new(), String::new(), String::new());
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A line that has no end is not processed: the block that it belongs to is incomplete.
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + width..];
        if line.is_empty() {
            let (text, of) = (std::mem::take(&mut data), std::mem::take(&mut kind));
            if let Some(text) = text.strip_suffix('\n') {
                let kind = if of.is_empty() { "message".to_owned() } else { of };
                let data = text.to_owned();
                messages.push(Message { kind, data, last_event_id: id.clone() });
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut kind),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            _ => {}
        }
    }
    messages
}

/// The messages that a client of Headwater receives, and whether the whole text could be parsed.
pub fn by_our_client(chunks: &[Vec<u8>]) -> (Vec<Message>, bool) {
    let chunks = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
    let (messages, is_whole) = headwater::client::messages_of(chunks);
    let message = |one: headwater::client::Message| Message {
        kind: one.kind,
        data: one.data,
        last_event_id: one.last_event_id,
    };
    (messages.into_iter().map(message).collect(), is_whole)
}

pub fn by_sse_parse(chunks: &[Vec<u8>]) -> Vec<Message> {
    let mut parser = sse_parse::SseParser::new();
    chunks.iter().for_each(|chunk| parser.feed(chunk));
    let messages = std::iter::from_fn(|| parser.next_event());
    messages.map(|one| Message { kind: one.event, data: one.data, last_event_id: one.id }).collect()
}

pub fn by_eventsource_stream(chunks: &[Vec<u8>]) -> Vec<Message> {
    let chunks = chunks.iter().cloned().map(Ok::<_, Infallible>);
    let messages = stream::iter(chunks).eventsource().map(|one| {
        let one = one.expect("the stream is valid");
        Message { kind: one.event, data: one.data, last_event_id: one.id }
    });
    messages.collect().now_or_never().expect("no poll has to wait")
}

pub fn by_sseer(chunks: &[Vec<u8>]) -> Vec<Message> {
    let chunks = chunks.iter().cloned().map(Bytes::from).map(Ok::<_, Infallible>);
    let messages = sseer::EventStreamBytes::new(stream::iter(chunks));
    let messages = messages.map(|one| {
        let one = one.expect("the stream is valid");
        let text = |text: &str| text.to_owned();
        Message { kind: text(&one.event), data: text(&one.data), last_event_id: text(&one.id) }
    });
    messages.collect().now_or_never().expect("no poll has to wait")
}
