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

#[test]
fn the_position_before_an_instant_is_known_as_far_back_as_the_buffer_reaches() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    assert_eq!(log.position_before(u64::MAX), None);
    log.append(id(2), &[stored(4, "a"), stored(6, "b")]);
    let befores = [102, 103, 104, 105, 106, 107].map(|ms| log.position_before(ms));
    assert_eq!(befores, [None, Some(id(2)), Some(id(2)), Some(id(4)), Some(id(4)), Some(id(6))]);
}

#[test]
fn a_channel_is_unused_until_its_first_event() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    assert!(log.is_unused());
    log.begin_at(log.generation(), id(1), id(1));
    assert!(log.is_unused() && log.base() == Some(id(1)));
    log.append(id(1), &[stored(2, "a")]);
    assert!(!log.is_unused() && log.base() == Some(id(1)));

    let mut log = TailBuffer::new(writer(), 1 << 20);
    log.begin_at(log.generation(), id(1), id(2));
    assert!(!log.is_unused());
}

#[test]
fn a_channel_has_ended_until_it_is_opened_again() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    assert!(!log.is_ended());
    log.append(id(0), &[stored(1, "a")]);
    assert!(!log.is_ended());
    log.append(id(1), &[StoredEvent { id: id(2), event: Event::end() }]);
    assert!(log.is_ended());
    log.append(id(2), &[stored(3, "reopened")]);
    assert!(!log.is_ended());
}

#[test]
fn every_reset_has_a_generation_of_its_own() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    let mut seen = vec![log.generation()];
    for _ in 0..4 {
        log.reset();
        seen.push(log.generation());
    }
    assert!(seen.is_sorted_by(|earlier, later| earlier < later), "{seen:?}");
    log.append(id(0), &[stored(1, "a")]);
    let began = log.generation();
    log.append(id(1), &[stored(2, "b")]);
    assert_eq!(log.generation(), began);
}

#[test]
fn single_events_are_read_within_the_limit_and_up_to_the_end_of_the_channel() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    let end = StoredEvent { id: id(4), event: Event::end() };
    let events = [stored(1, "aaaa"), stored(2, "b"), stored(3, "c"), end, stored(5, "reopened")];
    log.append(id(0), &events);
    let read = |from, bytes_max| {
        let chunks = log.read_each(id(from), u64::MAX, bytes_max).unwrap();
        chunks.iter().map(|chunk| (chunk.last, chunk.events, chunk.is_end)).collect::<Vec<_>>()
    };
    let texts = ["data: aaaa\n\n", "data: b\n\n", "data: c\n\n"].map(str::len);
    let [first, second, third] = [(id(1), 1, false), (id(2), 1, false), (id(3), 1, false)];
    assert_eq!(read(0, 1), [first]);
    assert_eq!(read(0, texts[0] + texts[1] - 1), [first]);
    assert_eq!(read(0, texts[0] + texts[1]), [first, second]);
    assert_eq!(read(0, texts.iter().sum()), [first, second, third]);
    assert_eq!(read(0, usize::MAX), [first, second, third, (id(4), 1, true)]);
    assert_eq!(read(4, usize::MAX), [(id(5), 1, false)]);
}

/// An event whose text has `bytes` bytes in a stream.
fn of_bytes(n: u64, bytes: usize) -> StoredEvent {
    let data = "x".repeat(bytes - text_of(&stored(n, "")).len() - 1);
    let event = stored(n, &data);
    assert_eq!(text_of(&event).len(), bytes);
    event
}

fn block_sizes(log: &TailBuffer) -> Vec<usize> {
    log.blocks.iter().map(|block| block.bytes.len()).collect()
}

#[test]
fn small_events_are_joined_once_they_fill_a_chunk_and_large_ones_stay_as_they_are() {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    let mut previous = id(0);
    let mut append = |log: &mut TailBuffer, bytes: usize| {
        let event = of_bytes(previous.ms - 99, bytes);
        log.append(previous, std::slice::from_ref(&event));
        previous = event.id;
        block_sizes(log)
    };
    assert_eq!(append(&mut log, CHUNK_BYTES / 4), [4096]);
    for count in 1..=15 {
        let mut sizes = vec![4096];
        sizes.resize(count + 1, 1024);
        assert_eq!(append(&mut log, 1024), sizes);
    }
    assert_eq!(append(&mut log, 1023), [[4096].as_slice(), &[1024; 15], &[1023]].concat());
    assert_eq!(append(&mut log, 100), [4096, 16 * 1024 + 99]);
    assert_eq!(append(&mut log, 4095), [4096, 16 * 1024 + 99, 4095]);
    assert_eq!(append(&mut log, 50_000), [4096, 16 * 1024 + 99, 4095, 50_000]);
    for _ in 0..3 {
        append(&mut log, 4095);
    }
    assert_eq!(append(&mut log, 4095)[4..], [4095; 4]);
    assert_eq!(append(&mut log, 40)[4..], [4 * 4095 + 40]);
}

/// A buffer of events with these numbers of bytes, whose ids count from 1.
fn log_of(sizes: &[usize]) -> TailBuffer {
    let mut log = TailBuffer::new(writer(), 1 << 20);
    for (n, bytes) in (1..).zip(sizes) {
        log.append(id(n - 1), &[of_bytes(n, *bytes)]);
    }
    log
}

/// The number of events and bytes of the next chunk, and whether it shares the memory of a block.
fn chunk_after(log: &TailBuffer, n: u64, until: u64, bytes_max: usize) -> (u64, usize, bool) {
    let Read::Events(chunk) = log.read(id(n), 100 + until, bytes_max) else { panic!("events") };
    let is_shared = log.blocks.iter().any(|block| {
        block.bytes.as_ptr_range().contains(&chunk.bytes.as_ptr()) || chunk.bytes.is_empty()
    });
    (chunk.events, chunk.bytes.len(), is_shared)
}

#[test]
fn a_chunk_is_the_rest_of_a_block_or_small_blocks_joined() {
    // The first 17 events are joined.
    let mut sizes = vec![1024; 16];
    sizes[15] = 1000;
    sizes.extend([64, 3112]);
    let joined = 16 * 1024 + 40;
    sizes.extend([1000; 3]);
    let log = log_of(&sizes);
    assert_eq!(block_sizes(&log), [joined, 3112, 1000, 1000, 1000]);
    // A quarter of a chunk and more is not copied.
    let rest = |n: usize| sizes[n..17].iter().sum::<usize>();
    assert_eq!((rest(12), rest(13)), (4 * 1024 + 40, 3 * 1024 + 40));
    assert_eq!(chunk_after(&log, 0, 999, usize::MAX), (17, joined, true));
    assert_eq!(chunk_after(&log, 12, 999, usize::MAX), (5, rest(12), true));
    assert_eq!(chunk_after(&log, 13, 999, usize::MAX), (8, rest(13) + 3112 + 3000, false));
    // Nothing is copied for a reader that needs only this block.
    assert_eq!(chunk_after(&log, 13, 18, usize::MAX), (4, rest(13), true));
    assert_eq!(chunk_after(&log, 13, 999, rest(13)), (4, rest(13), true));
    assert_eq!(chunk_after(&log, 13, 999, rest(13) - 1), (3, rest(13) - 64, true));
    assert_eq!(chunk_after(&log, 13, 999, 1), (1, 1024, true));
    assert_eq!(chunk_after(&log, 13, 999, 1024), (1, 1024, true));
    // Whole blocks are joined, within the limit and before the instant.
    assert_eq!(chunk_after(&log, 13, 999, rest(13) + 3111), (4, rest(13), false));
    assert_eq!(chunk_after(&log, 13, 999, rest(13) + 3112), (5, rest(13) + 3112, false));
    assert_eq!(chunk_after(&log, 13, 20, usize::MAX), (6, rest(13) + 4112, false));
}

#[test]
fn a_joined_chunk_is_never_longer_than_a_chunk() {
    let log = log_of(&[1000, CHUNK_BYTES - 1000]);
    assert_eq!(block_sizes(&log), [1000, CHUNK_BYTES - 1000]);
    assert_eq!(chunk_after(&log, 0, 999, usize::MAX), (2, CHUNK_BYTES, false));
    let log = log_of(&[1000, CHUNK_BYTES - 999]);
    assert_eq!(chunk_after(&log, 0, 999, usize::MAX), (1, 1000, false));
    // The rest of a block stays as it is from a quarter of a chunk on.
    let log = log_of(&[CHUNK_BYTES / 4, 1000]);
    assert_eq!(chunk_after(&log, 0, 999, usize::MAX), (1, CHUNK_BYTES / 4, true));
    let log = log_of(&[CHUNK_BYTES / 4 - 1, 1000]);
    assert_eq!(chunk_after(&log, 0, 999, usize::MAX), (2, CHUNK_BYTES / 4 + 999, false));
}

#[test]
fn the_oldest_events_are_dropped_only_when_the_limit_is_exceeded() {
    // Three events, each in a block of its own.
    let mut log = log_of(&[5000; 3]);
    let weight = 3 * (5000 + EVENT_OVERHEAD_BYTES);
    assert_eq!(log.weight(), weight);
    log.set_bytes_max(weight);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(0)), vec![5000; 3]));
    log.set_bytes_max(weight - 1);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(1)), vec![5000; 2]));
    log.set_bytes_max(0);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(2)), vec![5000]));

    // Sixteen events in one block.
    let each = 1024 + EVENT_OVERHEAD_BYTES;
    let mut log = log_of(&[1024; 16]);
    assert_eq!(block_sizes(&log), [16 * 1024]);
    log.set_bytes_max(16 * each);
    assert_eq!(log.base(), Some(id(0)));
    log.set_bytes_max(16 * each - 1);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(1)), vec![15 * 1024]));
    log.set_bytes_max(9 * each);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(7)), vec![9 * 1024]));
    log.set_bytes_max(2 * each);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(14)), vec![2 * 1024]));
    log.set_bytes_max(2 * each - 1);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(15)), vec![1024]));
    // The newest event stays, however small the limit is.
    let mut log = log_of(&[1024; 16]);
    log.set_bytes_max(0);
    assert_eq!((log.base(), block_sizes(&log)), (Some(id(15)), vec![1024]));
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
