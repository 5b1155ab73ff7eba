//! Tests of the tail buffer.
#![cfg(test)]

use super::*;
use crate::core::event::ChannelName;
use crate::core::event::Event;
use crate::core::sse::Format;
use proptest::prelude::*;

fn id(n: u64) -> EventId {
    EventId { ms: 100 + n, seq: n % 3 }
}

fn stored(n: u64, data: &str) -> StoredEvent {
    StoredEvent { id: id(n), event: Event::stored(None, None, data) }
}

fn writer() -> EventWriter {
    EventWriter::new(ChannelName::parse("a").unwrap(), Format::Raw)
}

fn text_of(event: &StoredEvent) -> Vec<u8> {
    let mut out = Vec::new();
    writer().block(&mut out, event.id, &event.event);
    out
}

#[test]
fn a_reader_before_the_run_is_sent_to_the_store() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    assert!(matches!(log.read(id(0), u64::MAX, 100), Read::BeforeTail));
    log.append(id(4), &[stored(5, "a")]);
    assert!(matches!(log.read(id(3), u64::MAX, 100), Read::BeforeTail));
    assert!(matches!(log.read(id(4), u64::MAX, 100), Read::Events(_)));
    assert!(matches!(log.read(id(5), u64::MAX, 100), Read::CaughtUp));
    assert!(matches!(log.read(id(9), u64::MAX, 100), Read::CaughtUp));
}

#[test]
fn events_of_a_joined_block_are_dropped_until_the_rest_fits() {
    let events: Vec<_> = (1..=100).map(|n| stored(n, &"x".repeat(400))).collect();
    let mut log = TailBuffer::new(writer(), 1 << 20);
    log.append(id(0), &events);
    assert_eq!(log.blocks.len(), 1);
    for bytes_max in [20_000, 5_000, 700, 1] {
        log.set_bytes_max(bytes_max);
        let count = log.entries.len();
        assert!(log.weight() <= bytes_max || count == 1, "{bytes_max}");
        let base = log.base().expect("it has begun");
        let Read::Events(chunk) = log.read(base, u64::MAX, 1 << 20) else { panic!("events") };
        let text: Vec<u8> = events[100 - count..].iter().flat_map(text_of).collect();
        assert_eq!((chunk.bytes, chunk.events), (text.into(), count as u64), "{bytes_max}");
    }
    assert_eq!(log.entries.len(), 1);
}

#[test]
fn a_break_in_the_chain_begins_the_run_anew() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    log.append(id(0), &[stored(1, "a"), stored(2, "b")]);
    log.append(id(3), &[stored(4, "d")]);
    assert!(!log.covers(id(2)));
    assert!(log.covers(id(3)));
}

#[test]
fn a_read_of_the_log_from_before_a_reset_does_not_begin_the_buffer() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    let before = log.generation();
    log.reset();
    log.begin_at(before, id(0), id(1));
    assert!(matches!(log.read(id(1), u64::MAX, 100), Read::BeforeTail));
    log.begin_at(log.generation(), id(0), id(2));
    assert!(matches!(log.read(id(1), u64::MAX, 100), Read::BeforeTail));
    assert!(matches!(log.read(id(2), u64::MAX, 100), Read::CaughtUp));
}

#[test]
fn nothing_is_read_behind_the_end_of_a_channel_until_asked_from_there() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    let end = StoredEvent { id: id(2), event: Event::end() };
    log.append(id(0), &[stored(1, "a"), end, stored(3, "reopened")]);
    let Read::Events(chunk) = log.read(id(0), u64::MAX, usize::MAX) else { panic!() };
    assert!(chunk.is_end && chunk.last == id(2) && chunk.events == 2);
    let Read::Events(chunk) = log.read(id(2), u64::MAX, usize::MAX) else { panic!() };
    assert!(!chunk.is_end && chunk.last == id(3));
}

#[test]
fn an_event_longer_than_the_run_is_still_given() {
    let mut log = TailBuffer::new(writer(), 1000);
    log.append(id(0), &[stored(1, "a"), stored(2, &"x".repeat(100_000))]);
    assert!(!log.covers(id(0)) && log.covers(id(1)));
    let Read::Events(chunk) = log.read(id(1), u64::MAX, 10) else { panic!() };
    assert_eq!(chunk.bytes, text_of(&stored(2, &"x".repeat(100_000))));
}

proptest! {
    /// For any batches of appends, a reader that starts at any position, reads chunks of any
    /// size and stops at any instant gets exactly the bytes of the events in between.
    #[test]
    fn any_reader_gets_the_plain_slice(
        sizes in prop::collection::vec(prop_oneof![8 => 0usize..300, 1 => 3000usize..40_000], 1..120),
        batch in 1usize..20, from in 0u64..120, until in 0u64..150, bytes_max in 1usize..70_000,
        window in prop_oneof![Just(1usize << 30), 20_000usize..100_000],
    ) {
        let events: Vec<_> = (1u64..).zip(&sizes)
            .map(|(n, size)| stored(n, &"x".repeat(*size))).collect();
        let mut log = TailBuffer::new(writer(), window);
        let mut previous = id(0);
        for batch in events.chunks(batch) {
            log.append(previous, batch);
            previous = batch[batch.len() - 1].id;
        }
        let until_ms = 100 + until;
        let from = id(from);
        prop_assert_eq!(log.last(), Some(previous));
        if !log.covers(from) {
            prop_assert!(matches!(log.read(from, until_ms, bytes_max), Read::BeforeTail));
            return Ok(());
        }
        let expected: Vec<_> = events.iter()
            .filter(|event| event.id > from && event.id.ms < until_ms).collect();
        let (mut position, mut got, mut count) = (from, Vec::new(), 0);
        while let Read::Events(chunk) = log.read(position, until_ms, bytes_max) {
            prop_assert!(chunk.events == 1 || chunk.bytes.len() <= bytes_max);
            position = chunk.last;
            count += chunk.events;
            got.extend_from_slice(&chunk.bytes);
        }
        prop_assert_eq!(count as usize, expected.len());
        prop_assert_eq!(&got, &expected.iter().flat_map(|e| text_of(e)).collect::<Vec<_>>());

        let (mut position, mut got) = (from, Vec::new());
        while let Ok(chunks) = log.read_each(position, until_ms, bytes_max) {
            for chunk in chunks {
                position = chunk.last;
                sse::id_line(&mut got, &chunk.last.to_string());
                got.extend_from_slice(&chunk.bytes);
            }
        }
        prop_assert_eq!(got, expected.iter().flat_map(|e| text_of(e)).collect::<Vec<_>>());
    }
}
