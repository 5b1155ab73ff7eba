//! Tests of the summary of a file: of the channels that it finds in the records, and of the same
//! channels when they are read from an index.
#![cfg(test)]

use super::block::{Entries, Entry, read_entries};
use super::files::{File, MemoryFile};
use super::frame::{self, Kind, scan};
use super::records::{ChannelRecord, Events};
use super::summary::{ChannelSummary, Kept, Summary, entries_at, state_bytes, summarize};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, Field};

const SEED: u64 = 7;
const LOG_FILE: u32 = 3;

/// The bytes of a file.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn channel(mut self, last: u64, low_watermark: u64) -> Self {
        let (last, low_watermark) = (id(last), id(low_watermark));
        let record = ChannelRecord { channel: name(), last, closed: EventId::START, low_watermark };
        frame::write(&mut self.0, SEED, (Kind::Channel, 1, true), |out| record.write(out));
        self
    }

    fn events(mut self, is_first: bool, previous: u64, first: u64, events: Vec<Event>) -> Self {
        let (previous, first) = (id(previous), id(first));
        let events = Events { channel: name(), is_first, previous, first, key: None, events };
        frame::write(&mut self.0, SEED, (Kind::Events, 1, true), |out| events.write(out));
        self
    }

    fn summary(&self) -> Summary {
        summarize(&scan(&self.0, SEED, false), LOG_FILE)
    }

    /// The only channel of the file.
    fn summarized(&self) -> ChannelSummary {
        only(self.summary())
    }

    /// The only channel of the file, from its index, and the bytes of that index.
    fn indexed(&self) -> (ChannelSummary, Vec<u8>) {
        let (index, bytes) = (MemoryFile::default(), self.summary().write_index(SEED));
        index.write_at(&bytes, 0).unwrap();
        (only(Summary::read_index(&index, SEED, LOG_FILE).unwrap()), bytes)
    }
}

fn only(mut summary: Summary) -> ChannelSummary {
    assert_eq!(summary.channels.len(), 1);
    summary.channels.remove(0)
}

fn id(ms: u64) -> EventId {
    EventId { ms, seq: 0 }
}

fn name() -> ChannelName {
    ChannelName::parse("a").unwrap()
}

fn plain() -> Vec<Event> {
    vec![Event::stored(None, None, "x")]
}

fn keyed(key: &str, data: &str) -> Event {
    Event::stored(None, Some(key), data)
}

fn removal(key: &str) -> Event {
    Event::new(None, Some(Field::key(key).unwrap()), String::new(), true)
}

/// The entries of the channel in memory.
fn entries(channel: &ChannelSummary) -> Vec<Entry> {
    let blocks = channel.blocks.iter().map(|block| &block.entries);
    blocks
        .filter_map(|entries| if let Entries::Here(all) = entries { Some(all) } else { None })
        .flatten()
        .copied()
        .collect()
}

#[test]
fn a_channel_that_begins_again_keeps_only_what_a_compaction_has_made_of_it() {
    for (last, is_kept) in [(8, false), (9, true), (10, true)] {
        let records = Records::default().events(false, 1, 2, plain()).channel(last, 2);
        let channel = records.events(true, 5, 9, plain()).summarized();
        assert!(channel.is_first);
        assert_eq!(channel.carried.map(|record| record.last), is_kept.then_some(id(last)));
        assert_eq!((channel.name, channel.previous), (name(), Some(id(5))));
        let firsts: Vec<_> = channel.blocks.iter().map(|block| block.first).collect();
        assert_eq!(firsts, [id(9)], "earlier events of the file belong to the old channel");
    }
    let channel = Records::default().events(false, 1, 2, plain()).summarized();
    assert!(!channel.is_first);
}

#[test]
fn the_lost_end_of_a_compacted_file_is_an_entry() {
    for (last, low_watermark, is_lost) in [(9, 2, true), (5, 2, false), (9, 9, false)] {
        let records = Records::default().channel(last, low_watermark);
        let channel = records.events(false, 2, 5, plain()).summarized();
        let expected = if is_lost { id(last) } else { id(5) };
        assert_eq!(channel.last, expected);
        let last = *entries(&channel).last().unwrap();
        assert_eq!((last.last(), last.is_lost()), (expected, is_lost));
    }
}

#[test]
fn the_state_has_the_newest_event_of_each_key_and_its_share_of_the_record() {
    let events = vec![keyed("j", "old"), keyed("j", "new"), keyed("k", "x"), removal("k")];
    let records = Records::default().events(true, 0, 2, events);
    let length = records.0.len() as u32;
    let kept = Kept {
        id: EventId { ms: 2, seq: 1 },
        log_file: LOG_FILE,
        offset: 0,
        length,
        share: length / 4,
        bytes: state_bytes(&keyed("j", "new")),
    };
    let state = records.summarized().state;
    assert_eq!((state.len(), state["j"], state["k"]), (2, Some(kept), None));
}

#[test]
fn a_channel_is_read_from_an_index_as_it_was_written() {
    let first = Records::default().channel(4, 1);
    let events = vec![keyed("j", "x"), removal("k"), keyed("l", "")];
    let records = first.events(false, 4, 5, events).events(false, 9, 10, plain());
    let (written, (read, index)) = (records.summarized(), records.indexed());
    assert_eq!((read.name, read.is_first, read.last), (name(), false, id(10)));
    assert_eq!((read.previous, read.closed), (Some(id(4)), Some(EventId::START)));
    assert_eq!((&read.carried, &read.state), (&written.carried, &written.state));
    assert!(read.carried.is_some() && read.state["k"].is_none());
    let (block, before) = (&read.blocks[0], &written.blocks[0]);
    assert_eq!((read.blocks.len(), block.log_file), (1, LOG_FILE));
    assert_eq!((block.first, block.last), (before.first, before.last));
    assert_eq!((block.events, block.bytes), (before.events, before.bytes));
    assert_eq!(block.length, before.length);
    // The entries are found in the index. The event 9 is lost.
    let (offset, length, checksum) = entries_at(&block.entries).unwrap();
    let found = read_entries(&index[offset as usize..][..length], checksum, SEED).ok().unwrap();
    assert_eq!(found.iter().map(Entry::is_lost).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(Vec::from(found), entries(&written));
    let (read, _) = Records::default().events(true, 0, 2, plain()).indexed();
    assert!(read.is_first && read.carried.is_none() && read.closed.is_none());
}
