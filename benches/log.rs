//! The hot path without sockets: appending to a tail buffer, reading its newest event, and catching
//! up with its last events.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, Event, StoredEvent};
use headwater::core::sse::{EventWriter, Format};
use headwater::core::tail_buffer::{Read, TailBuffer};
use std::hint::black_box;

const RUN_BYTES: usize = 4 * 1024 * 1024;

fn stored(n: u64) -> StoredEvent {
    let id = EventId { ms: n, seq: 0 };
    StoredEvent { id, event: Event::stored(None, None, &"x".repeat(200)) }
}

fn empty() -> TailBuffer {
    let channel = ChannelName::parse("bench").expect("a name");
    TailBuffer::new(EventWriter::new(channel, Format::Raw), RUN_BYTES)
}

fn filled(events: u64) -> TailBuffer {
    let mut log = empty();
    for n in 1..=events {
        log.append(EventId { ms: n - 1, seq: 0 }, &[stored(n)]);
    }
    log
}

fn log(criterion: &mut Criterion) {
    criterion.bench_function("append a 200-byte event", |bencher| {
        let mut log = empty();
        let mut n = 0;
        bencher.iter(|| {
            n += 1;
            log.append(EventId { ms: n - 1, seq: 0 }, &[stored(n)]);
        });
    });
    let log = filled(10_000);
    criterion.bench_function("read the newest event", |bencher| {
        bencher.iter(|| black_box(log.read(EventId { ms: 9_999, seq: 0 }, u64::MAX, 65_536)));
    });
    let mut group = criterion.benchmark_group("catch up");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 events", |bencher| {
        bencher.iter(|| {
            let mut position = EventId { ms: 9_000, seq: 0 };
            while let Read::Events(piece) = log.read(position, u64::MAX, 65_536) {
                position = piece.last;
                black_box(piece.bytes);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
