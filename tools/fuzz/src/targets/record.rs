//! The encoding of events on disk and in Redis, and the bodies of the log's frames.

use crate::input::Input;
use headwater::core::cursor::EventId;
use headwater::core::event::Event;
use headwater::store::fuzzing::{read_event, write_event};
use headwater::store::local::fuzzing::{
    ChannelRecord, Checkpoint, Events, KeyRecord, LogIdentity, name, numbers,
};

pub fn run(bytes: &[u8]) {
    read(bytes);
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 => {
            let event = input.event_of_log();
            assert_eq!(read_event(&write_event(&event)).expect("it was written"), event);
        }
        1 => {
            let mut out = Vec::new();
            let events = events(&mut input);
            events.write(&mut out);
            assert_eq!(Events::read(&out).expect("it was written"), events);
            for length in 0..out.len().min(300) {
                assert!(Events::read(&out[..length]).is_err(), "cut to {length}");
            }
        }
        2 => {
            let key = key(&mut input, EventId { ms: 1, seq: 2 }, 3);
            let (channel, mut out) = (input.channel(), Vec::new());
            key.write(&channel, &mut out);
            assert_eq!(KeyRecord::read(&out).expect("it was written"), (channel, key));
        }
        _ => {
            let (first, until) = (input.number() as u32, input.number() as u32);
            let written = name(first, until, "log");
            assert!(numbers(&written).is_none_or(|found| found == (first, until)));
            // The first file has the number 1, and another file must be able to follow.
            if let Some((first, until)) = numbers(&input.text()) {
                assert!(1 <= first && first <= until && until < u32::MAX, "{first}-{until}");
            }
        }
    }
}

/// Events as a publish writes them: there is at least one, and the ids do not overflow.
pub fn events(input: &mut Input<'_>) -> Events {
    let (channel, is_first) = (input.channel(), input.flag());
    let (previous, mut first) = (input.id(), input.id());
    let events: Vec<Event> = (0..1 + input.below(4)).map(|_| input.event_of_log()).collect();
    first.seq = first.seq.min(u64::MAX - events.len() as u64);
    let key = input.flag().then(|| key(input, first, events.len() as u32));
    Events { channel, is_first, previous, first, key, events }
}

fn key(input: &mut Input<'_>, first: EventId, count: u32) -> KeyRecord {
    let digest = u128::from(input.number()) << 64 | u128::from(input.number());
    KeyRecord { key: input.text().into(), digest, first, count, expires_at: input.number() }
}

/// What can be read from any bytes is written and read back.
fn read(bytes: &[u8]) {
    if let Ok(event) = read_event(bytes) {
        assert_eq!(read_event(&write_event(&event)).expect("it was written"), event);
        assert!(event.weight() <= bytes.len());
    }
    let mut out = Vec::new();
    if let Ok(events) = Events::read(bytes) {
        events.write(&mut out);
        assert_eq!(Events::read(&out).expect("it was written"), events);
        let last = events.id(events.events.len() - 1);
        assert!(last >= events.first && last.ms == events.first.ms);
    }
    if let Ok((channel, key)) = KeyRecord::read(bytes) {
        out.clear();
        key.write(&channel, &mut out);
        assert_eq!(out, bytes);
    }
    if let Ok(record) = ChannelRecord::read(bytes) {
        out.clear();
        record.write(&mut out);
        assert!(bytes.starts_with(&out));
    }
    if let Ok(mark) = Checkpoint::read(bytes) {
        out.clear();
        mark.write(&mut out);
        assert!(bytes.starts_with(&out));
    }
    let _either = LogIdentity::read(bytes);
}
