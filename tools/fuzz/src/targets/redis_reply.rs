//! Replies of Redis: any values, and replies of the scripts as they are made of events.

use crate::input::Input;
use headwater::core::cursor::EventId;
use headwater::core::event::Event;
use headwater::store::Limits;
use headwater::store::fuzzing::write_event;
use headwater::store::redis::fuzzing::{
    ScriptReply, Value, checksum, entries, firehose_entries, head, script_reply, stored_batch,
    stored_state,
};

const DEPTH_MAX: usize = 5;
/// The number of events in the publish that a reply answers.
const SENT: usize = 2;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 => any(value(&mut input, 0)),
        1 => page(&mut input),
        2 => firehose(&mut input),
        _ => {
            let bytes = input.bytes();
            if let Some(stored) = stored_state(bytes) {
                let row =
                    [stored.id.to_string().as_bytes(), b" ", &write_event(&stored.event)].concat();
                assert_eq!(stored_state(&row), Some(stored));
            }
            if let Ok(events) = stored_batch(input.id(), input.bytes()) {
                let ids: Vec<EventId> = events.iter().map(|stored| stored.id).collect();
                assert!(ids.is_sorted_by(|one, other| one < other));
            }
        }
    }
}

/// A value of RESP. Words that the parsers know occur often.
fn value(input: &mut Input<'_>, depth: usize) -> Value {
    const WORDS: [&str; 16] = [
        "stored", "repeated", "closed", "unknown", "shards", "reused", "keys", "state", "late",
        "1", "", "q", "c", "p", "i", "b",
    ];
    match input.below(10) {
        0 if depth < DEPTH_MAX => array(input, depth),
        1 => Value::Bytes(input.bytes().to_vec().into()),
        2 => Value::from(input.text()),
        3 => Value::Integer(input.number() as i64),
        4 => Value::from(input.id().to_string()),
        5 => Value::from(WORDS[input.below(WORDS.len())]),
        6 => Value::Double(f64::from_bits(input.number())),
        7 => Value::Boolean(input.flag()),
        8 => Value::from(input.number().to_string()),
        _ if depth == 0 => array(input, depth),
        _ => Value::Null,
    }
}

fn array(input: &mut Input<'_>, depth: usize) -> Value {
    Value::Array((0..input.below(12)).map(|_| value(input, depth + 1)).collect())
}

fn any(value: Value) {
    if let Ok(reply) = script_reply(value.clone(), SENT, &Limits::default()) {
        if let ScriptReply::Stored { first, count, .. } = reply {
            assert!(
                count == SENT as u64 && first.seq.checked_add(count).is_some(),
                "{count} from {first}"
            );
        }
    }
    if let Value::Array(parts) = value.clone() {
        let mut parts = parts.into_iter();
        let _either = head(&mut parts).and_then(|_| entries(parts));
    }
    let _either = firehose_entries(value);
}

fn text(text: impl ToString) -> Value {
    Value::from(text.to_string())
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec().into())
}

/// A page of a log comes back as the script made it, and a damaged event is recognized.
fn page(input: &mut Input<'_>) {
    let ids = [input.id(), input.id(), input.id(), input.id()];
    let (closed, is_complete) = (input.flag(), input.flag());
    let mut parts: Vec<Value> = ids.map(text).into();
    parts.push(text(if closed { ids[3].to_string() } else { String::new() }));
    parts.push(text(if is_complete { "1" } else { "" }));
    let mut expected = Vec::new();
    for _ in 0..input.below(5) {
        let (id, before, event) = (input.id(), input.id(), input.event_of_log());
        let mut record = write_event(&event);
        let sum = checksum(&record);
        let at = input.number() as usize % record.len();
        let is_damaged = input.flag();
        if is_damaged {
            record[at] ^= 1 << input.below(8);
        }
        parts.extend([text(id), text(before), bytes(&record), bytes(&sum)]);
        expected.push((id, Some(before), Some(event).filter(|_| !is_damaged)));
    }
    let mut parts = parts.into_iter();
    let page = head(&mut parts).expect("a head");
    let bounds = page.bounds;
    assert_eq!([bounds.beginning, bounds.opened_at, bounds.low_watermark, bounds.last], ids);
    assert_eq!((page.closed, page.complete), (closed, is_complete));
    let found = entries(parts).expect("entries").into_iter();
    let found: Vec<_> = found.map(|entry| (entry.id, entry.before, entry.event)).collect();
    assert_eq!(found, expected);
}

/// An entry of the firehose comes back as the script made it.
fn firehose(input: &mut Input<'_>) {
    let (id, before, previous) = (input.id(), input.id(), input.id());
    let channel = input.channel();
    let events: Vec<Event> = (0..input.below(5)).map(|_| input.event_of_log()).collect();
    let mut first = input.id();
    first.seq = first.seq.min(u64::MAX - events.len() as u64);
    let mut blob = Vec::new();
    for event in &events {
        let record = write_event(event);
        blob.extend_from_slice(&(record.len() as u32).to_be_bytes());
        blob.extend_from_slice(&record);
    }
    let fields = [
        text("q"),
        text(before),
        text("c"),
        text(&channel),
        text("p"),
        text(previous),
        text("i"),
        text(first),
        text("b"),
        bytes(&blob),
    ];
    let entry = Value::Array(vec![text(id), Value::Array(fields.into())]);
    let stream = Value::Array(vec![text("hose"), Value::Array(vec![entry])]);
    let mut found = firehose_entries(Value::Array(vec![stream])).expect("entries");
    let entry = found.pop().expect("one entry");
    let news = entry.news.expect("a whole entry");
    assert!(found.is_empty() && entry.id == id);
    assert_eq!((news.before, news.channel, news.previous), (before, channel, previous));
    let stored = news.events.iter().map(|stored| &stored.event);
    assert!(stored.eq(&events));
    let ids = (0..).map(|at| EventId { ms: first.ms, seq: first.seq + at });
    assert!(news.events.iter().map(|stored| stored.id).eq(ids.take(events.len())));
}
