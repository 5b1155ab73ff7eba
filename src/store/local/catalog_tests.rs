//! Tests of the catalog: that its numbers follow from its blocks and states, and what it does where
//! an index cannot be read or a part of a log is missing.
#![cfg(test)]

use super::batch::Append;
use super::block::{Block, Entries, Entry};
use super::catalog::{Catalog, Channel, LogFile};
use super::files::MemoryFile;
use super::records::ChannelRecord;
use super::summary::{ChannelSummary, Kept, Summary};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const LENGTH: u32 = 60;
const BYTES: u32 = 10;

/// Checks that all numbers of a catalog follow from its blocks and states, and that the ids are in
/// order.
pub fn verify(catalog: &Catalog, what: &str) {
    let mut files: BTreeMap<u32, (u64, u64)> =
        catalog.log_files.keys().map(|number| (*number, (0, 0))).collect();
    let mut bytes = 0;
    for (name, channel) in &catalog.channels {
        let sum = |value: fn(&Block) -> u64| channel.blocks.iter().map(value).sum::<u64>();
        let sums = (sum(|block| block.events), sum(|block| block.bytes));
        assert_eq!((channel.events, channel.bytes), sums, "{what}: {name}");
        let state_bytes: u64 = channel.state.values().map(|kept| u64::from(kept.bytes)).sum();
        assert_eq!(channel.state_bytes, state_bytes, "{what}: {name}");
        bytes += channel.bytes + state_bytes;
        for block in &channel.blocks {
            files.get_mut(&block.log_file).expect("its file").0 += block.length;
        }
        for kept in channel.state.values() {
            files.get_mut(&kept.log_file).expect("its file").1 += u64::from(kept.share);
        }
        verify_order(name, channel, catalog.newest, what);
    }
    assert_eq!(catalog.bytes, bytes, "{what}");
    for (number, log_file) in &catalog.log_files {
        let lengths = (log_file.events_length, log_file.state_length);
        assert_eq!(lengths, files[number], "{what}: file {number}");
        assert!(log_file.live() <= 2 * log_file.size, "{what}: file {number}");
    }
}

fn verify_order(name: &ChannelName, channel: &Channel, newest: EventId, what: &str) {
    assert!(channel.opened_at <= channel.low_watermark, "{what}: {name}");
    assert!(channel.oldest().is_none_or(|oldest| oldest > channel.low_watermark), "{what}: {name}");
    let ids = channel.blocks.iter().flat_map(|block| [block.first, block.last]);
    assert!(ids.is_sorted(), "{what}: {name}");
    let last = channel.blocks.back().map_or(channel.low_watermark, |block| block.last);
    assert!(last <= channel.last && channel.last <= newest, "{what}: {name}");
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

fn id(ms: u64) -> EventId {
    EventId { ms, seq: 0 }
}

/// The entry of a record with one event, which has the id `ms`.
fn entry(ms: u64) -> Entry {
    Entry { first: id(ms), count: 1, offset: ms as u32 * LENGTH, length: LENGTH, bytes: BYTES }
}

fn log_file() -> LogFile {
    LogFile::new(1, Arc::new(MemoryFile::default()), None, 1_000_000)
}

fn catalog(files: &[u32]) -> Catalog {
    let log_files = files.iter().map(|number| (*number, log_file())).collect();
    Catalog { log_files, beginning: id(1), ..Catalog::default() }
}

fn append(entry: Entry, previous: u64) -> Append {
    let (previous, stored, state) = (id(previous), Vec::new(), Vec::new());
    let channel = name("a");
    Append { channel, previous, follows: previous, is_end: false, entry, stored, state, key: None }
}

/// A catalog with a channel of 600 events with the ids 101 to 700, in blocks of 256. The entries of
/// the first block are in an index.
fn with_index() -> Catalog {
    let mut catalog = catalog(&[1]);
    for ms in 101..=700 {
        catalog.commit(&append(entry(ms), ms - 1), 1);
    }
    let block = &mut catalog.channels.get_mut(&name("a")).unwrap().blocks[0];
    block.entries = Entries::Stored { offset: 0, count: 256, checksum: 0 };
    verify(&catalog, "committed");
    catalog
}

fn channel(catalog: &Catalog) -> &Channel {
    &catalog.channels[&name("a")]
}

#[test]
fn a_block_that_cannot_be_read_is_dropped_only_as_a_whole() {
    type IsOver = fn(&Channel, EventId) -> bool;
    let cases: [(IsOver, u64); 8] = [
        // 344 events are left without the first block.
        (|channel, _| channel.events > 344, 0),
        (|channel, _| channel.events > 343, 256),
        (|channel, _| channel.bytes > 3_440, 0),
        (|channel, _| channel.bytes > 3_439, 256),
        (|_, oldest| oldest <= id(355), 0),
        (|_, oldest| oldest <= id(356), 256),
        (|channel, oldest| oldest <= channel.low_watermark.max(id(355)), 0),
        (|_, _| false, 0),
    ];
    for (number, (is_over, expected)) in cases.into_iter().enumerate() {
        let mut catalog = with_index();
        let once = |channel: &Channel, oldest: EventId| {
            // The blocks that can be read are trimmed event by event.
            (channel.blocks.len() == 3 || channel.blocks.is_empty()) && is_over(channel, oldest)
        };
        let dropped = catalog.trim(&name("a"), u64::MAX, &|_, _| None, once);
        assert_eq!(dropped, expected, "case {number}");
        assert_eq!(channel(&catalog).events, 600 - expected, "case {number}");
        verify(&catalog, &format!("case {number}"));
    }
}

#[test]
fn the_low_watermark_counts_for_a_block_that_cannot_be_read() {
    for (low_watermark, expected) in [(355, 0), (356, 256)] {
        let mut catalog = with_index();
        catalog.channels.get_mut(&name("a")).unwrap().low_watermark = id(low_watermark);
        assert_eq!(catalog.untrimmed(), [name("a")]);
        let is_gone = |channel: &Channel, oldest| oldest <= channel.low_watermark;
        let dropped = catalog.trim(&name("a"), u64::MAX, &|_, _| None, is_gone);
        assert_eq!(dropped, expected, "{low_watermark}");
    }
}

#[test]
fn events_are_dropped_one_by_one_up_to_a_limit() {
    let mut catalog = catalog(&[1]);
    let batch = Entry { count: 3, length: 100, bytes: 31, ..entry(101) };
    catalog.commit(&append(batch, 100), 1);
    catalog.commit(&append(entry(102), 101), 1);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let dropped = catalog.trim(&name("a"), 1, &|_, _| None, |_, _| true);
        verify(&catalog, "trimmed");
        let channel = channel(&catalog);
        seen.push((
            dropped,
            channel.oldest(),
            channel.events,
            channel.bytes,
            catalog.log_files[&1].live(),
        ));
    }
    let third = |seq| Some(EventId { ms: 101, seq });
    assert_eq!(
        seen,
        [
            (1, third(1), 3, 31, 127),
            (1, third(2), 2, 21, 94),
            (1, Some(id(102)), 1, 10, 60),
            (1, None, 0, 0, 0),
            (0, None, 0, 0, 0),
        ]
    );
    assert_eq!(channel(&catalog).low_watermark, id(102));
    assert_eq!(catalog.untrimmed(), []);
}

#[test]
fn a_channel_starts_before_its_first_event_or_after_what_was_dropped() {
    for (beginning, low_watermark, start) in [(5, 7, 5), (9, 7, 7), (5, 8, 8), (9, 8, 8)] {
        let mut channel = Channel::new(id(7));
        channel.low_watermark = id(low_watermark);
        assert_eq!(channel.start(id(beginning)), id(start), "{beginning}, {low_watermark}");
    }
}

#[test]
fn the_status_of_a_channel_is_that_of_its_last_changes() {
    let mut catalog = catalog(&[1]);
    let unknown = LogState { bounds: catalog.no_bounds(), ..LogState::default() };
    assert_eq!(catalog.log_state(&name("a")), unknown);
    let kept = Kept { id: id(101), log_file: 1, offset: 0, length: LENGTH, share: 30, bytes: 8 };
    let first = Append { state: vec![("k".into(), Some(kept))], ..append(entry(101), 100) };
    catalog.commit(&first, 1);
    verify(&catalog, "with state");
    let state = catalog.log_state(&name("a"));
    assert_eq!((state.keyed, state.closed, state.oldest), (true, false, Some(id(101))));
    assert_eq!((state.bounds.last, state.bounds.opened_at), (id(101), id(100)));
    assert_eq!(catalog.log_files[&1].live(), u64::from(LENGTH) + 30);
    let end = Append { is_end: true, state: vec![("k".into(), None)], ..append(entry(102), 101) };
    catalog.commit(&end, 1);
    verify(&catalog, "ended");
    let state = catalog.log_state(&name("a"));
    assert_eq!((state.keyed, state.closed), (false, true));
    catalog.reopen(&name("a"));
    assert!(!catalog.log_state(&name("a")).closed);
    catalog.forget(&name("a"));
    verify(&catalog, "forgotten");
    assert_eq!(catalog.bytes, 0);
}

/// The summary of one file, in which the channel has the events of these entries.
fn summary(is_first: bool, previous: Option<u64>, entries: &[Entry]) -> Summary {
    let mut blocks = VecDeque::new();
    entries.iter().for_each(|entry| super::block::push(&mut blocks, 2, *entry));
    let last = entries.last().map_or(EventId::START, Entry::last);
    let previous = previous.map(id);
    let channel =
        ChannelSummary { is_first, previous, last, blocks, ..ChannelSummary::new(name("a")) };
    Summary { channels: vec![channel], newest: last, ..Summary::default() }
}

#[test]
fn a_channel_that_begins_in_a_file_has_no_event_before() {
    let mut catalog = catalog(&[1, 2]);
    catalog.fold(summary(true, Some(100), &[entry(101), entry(102)]));
    verify(&catalog, "new");
    let bounds = channel(&catalog).bounds(id(1));
    assert_eq!((bounds.opened_at, bounds.low_watermark, bounds.last), (id(100), id(100), id(102)));
    // The channel was forgotten, and begins again.
    catalog.fold(summary(true, Some(200), &[entry(201)]));
    verify(&catalog, "again");
    let again = channel(&catalog);
    assert_eq!((again.events, again.opened_at, again.oldest()), (1, id(200), Some(id(201))));
}

#[test]
fn a_channel_whose_first_file_is_gone_begins_after_a_gap() {
    let mut catalog = catalog(&[1, 2]);
    catalog.fold(summary(false, Some(100), &[entry(101)]));
    verify(&catalog, "without its first file");
    let channel = channel(&catalog);
    assert_eq!((channel.events, channel.opened_at), (1, EventId::START));
    assert_eq!((channel.low_watermark, channel.oldest()), (id(100), Some(id(101))));
}

#[test]
fn events_that_are_missing_between_two_files_count_as_one_lost_event() {
    let mut catalog = catalog(&[1, 2]);
    catalog.fold(summary(true, Some(100), &[entry(101)]));
    catalog.fold(summary(false, Some(105), &[entry(106)]));
    verify(&catalog, "with a hole");
    let channel = channel(&catalog);
    assert_eq!((channel.events, channel.last), (3, id(106)));
    let Entries::Here(entries) = &channel.blocks[0].entries else { panic!("in memory") };
    assert_eq!(entries.get(1), Some(&Entry::lost(id(105))));
    // Events that follow directly leave no hole.
    catalog.fold(summary(false, Some(106), &[entry(107)]));
    assert_eq!(super::catalog_tests::channel(&catalog).events, 4);
}

#[test]
fn losses_are_suspected_until_they_are_announced() {
    let mut catalog = catalog(&[1, 2]);
    let is_suspect = |catalog: &Catalog| channel(catalog).is_suspect;
    catalog.fold(summary(true, Some(100), &[entry(101)]));
    assert!(!is_suspect(&catalog));
    catalog.fold(Summary { is_damaged: true, ..Summary::default() });
    assert!(is_suspect(&catalog));
    catalog.fold(Summary::default());
    assert!(is_suspect(&catalog), "nothing was announced");
    catalog.fold(Summary { beginning: id(150), ..Summary::default() });
    assert_eq!((is_suspect(&catalog), catalog.beginning), (false, id(150)));
    // A channel with events in a later file has lost none before them.
    catalog.fold(Summary { is_damaged: true, ..Summary::default() });
    let mut nothing = summary(false, None, &[]);
    catalog.fold(summary(false, None, &[]));
    assert!(is_suspect(&catalog), "the file has no event of the channel");
    catalog.fold(summary(false, Some(101), &[entry(102)]));
    assert!(!is_suspect(&catalog));
    nothing.channels[0].is_suspect = true;
    catalog.fold(nothing);
    assert!(is_suspect(&catalog), "the file itself is damaged");
}

#[test]
fn what_a_compaction_dropped_is_dropped_in_earlier_files_too() {
    let mut catalog = catalog(&[1, 2]);
    catalog.fold(summary(true, Some(100), &[entry(101), entry(102)]));
    let mut later = summary(false, Some(103), &[entry(104)]);
    let (last, low_watermark) = (id(103), id(103));
    let record = ChannelRecord { channel: name("a"), last, closed: EventId::START, low_watermark };
    later.channels[0].carried = Some(record);
    catalog.fold(later);
    verify(&catalog, "carried");
    let channel = channel(&catalog);
    assert_eq!((channel.events, channel.low_watermark), (1, id(103)));
    assert_eq!((channel.oldest(), channel.last), (Some(id(104)), id(104)));
}

#[test]
fn only_the_blocks_of_a_sealed_file_are_in_its_index() {
    for number in 1..=4 {
        let mut catalog = four_files();
        let ms = 100 + u64::from(number);
        let mut sealed = summary(false, Some(ms - 1), &[entry(ms)]);
        let stored = Entries::Stored { offset: 0, count: 1, checksum: 7 };
        sealed.channels[0].blocks[0].entries = stored;
        catalog.sealed(number, Some(Arc::new(MemoryFile::default())), &sealed);
        let is_stored = |block: &Block| matches!(block.entries, Entries::Stored { .. });
        let found: Vec<_> = channel(&catalog).blocks.iter().map(is_stored).collect();
        assert_eq!(found, (1..=4).map(|file| file == number).collect::<Vec<_>>());
        let has_index = catalog.log_files.values().map(|log_file| log_file.index.is_some());
        assert_eq!(has_index.collect::<Vec<_>>(), found);
        verify(&catalog, "sealed");
    }
}

/// A catalog with a channel that has an event in each of the files 1 to 4, and with state in the
/// files 2 and 3.
fn four_files() -> Catalog {
    let mut catalog = catalog(&[1, 2, 3, 4]);
    for number in 1..=4 {
        let ms = 100 + u64::from(number);
        let kept =
            Kept { id: id(ms), log_file: number, offset: 0, length: 60, share: 30, bytes: 8 };
        let key = format!("key {number}").into();
        let state = if (2..=3).contains(&number) { vec![(key, Some(kept))] } else { Vec::new() };
        catalog.commit(&Append { state, ..append(entry(ms), ms - 1) }, number);
    }
    verify(&catalog, "four files");
    catalog
}

/// The summary of the file that replaces the files 2 and 3.
fn compacted(previous: u64, entries: &[Entry]) -> Summary {
    let mut summary = summary(false, Some(previous), entries);
    let mut blocks = VecDeque::new();
    entries.iter().for_each(|entry| super::block::push(&mut blocks, 3, *entry));
    summary.channels[0].blocks = blocks;
    for number in 2..=3 {
        let id = id(100 + number);
        let kept = Kept { id, log_file: 3, offset: 9, length: 50, share: 20, bytes: 8 };
        summary.channels[0].state.insert(format!("key {number}").into(), Some(kept));
    }
    summary
}

#[test]
fn a_compacted_file_takes_the_place_of_several() {
    let mut catalog = four_files();
    let with = (log_file(), compacted(101, &[entry(102), entry(103)]));
    assert_eq!(catalog.replaced(2..=3, Some(with)).len(), 2);
    verify(&catalog, "compacted");
    assert_eq!(catalog.log_files.keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(catalog.log_files[&3].live(), 2 * u64::from(LENGTH) + 2 * 20);
    let blocks = channel(&catalog).blocks.iter().map(|block| (block.log_file, block.last));
    assert_eq!(blocks.collect::<Vec<_>>(), [(1, id(101)), (3, id(103)), (4, id(104))]);
}

#[test]
fn what_changed_during_a_compaction_stays_changed() {
    let mut catalog = four_files();
    // Meanwhile the events up to 102 were dropped, and a key has a newer event.
    let load = |_: &LogFile, _: &Block| None;
    assert_eq!(catalog.trim(&name("a"), 9, &load, |_, oldest| oldest <= id(102)), 2);
    let kept = Kept { id: id(105), log_file: 4, offset: 0, length: 60, share: 30, bytes: 9 };
    let newer = vec![("key 3".into(), Some(kept))];
    catalog.commit(&Append { state: newer, ..append(entry(105), 104) }, 4);
    let mut summary = compacted(101, &[entry(102), entry(103)]);
    // The compaction has put each event into a block of its own.
    let blocks = [entry(102), entry(103)].map(|entry| Block::of(3, entry));
    summary.channels[0].blocks = blocks.into();
    catalog.replaced(2..=3, Some((log_file(), summary)));
    verify(&catalog, "changed");
    assert_eq!(channel(&catalog).oldest(), Some(id(103)));
    assert_eq!(channel(&catalog).state["key 3"].id, id(105));
    assert_eq!(channel(&catalog).state["key 2"].offset, 9);
}

#[test]
fn what_a_compaction_could_not_read_becomes_a_lost_event() {
    let mut catalog = four_files();
    catalog.replaced(2..=3, Some((log_file(), compacted(102, &[entry(103)]))));
    verify(&catalog, "lost");
    assert_eq!(channel(&catalog).blocks[1].last, id(102));
    let Entries::Here(entries) = &channel(&catalog).blocks[1].entries else { panic!("in memory") };
    assert!(entries[0].is_lost());
    assert_eq!(channel(&catalog).events, 4);
}

#[test]
fn a_file_stands_for_those_before_it_of_which_nothing_is_left() {
    let mut catalog = four_files();
    let load = |_: &LogFile, _: &Block| None;
    catalog.trim(&name("a"), 9, &load, |_, oldest| oldest <= id(103));
    for key in ["key 2", "key 3"] {
        let Catalog { channels, log_files, bytes, .. } = &mut catalog;
        let channel = channels.get_mut(&name("a")).unwrap();
        Catalog::set_state(log_files, bytes, channel, key.into(), None);
    }
    catalog.log_files.get_mut(&2).unwrap().first = 2;
    assert_eq!(catalog.replaced(2..=3, None).len(), 2);
    verify(&catalog, "nothing left");
    assert_eq!(catalog.log_files[&4].first, 2);
    assert_eq!(catalog.log_files[&1].first, 1);
}

#[test]
fn nothing_of_a_forgotten_channel_is_counted() {
    let mut catalog = four_files();
    catalog.forget(&name("a"));
    verify(&catalog, "forgotten");
    assert_eq!((catalog.bytes, catalog.channels.len()), (0, 0));
}

#[test]
fn a_block_without_entries_is_dropped_as_a_whole() {
    let mut catalog = with_index();
    catalog.channels.get_mut(&name("a")).unwrap().blocks[0].entries =
        Entries::Here(VecDeque::new());
    let dropped = catalog.trim(&name("a"), 1, &|_, _| None, |_, _| true);
    assert_eq!((dropped, channel(&catalog).events), (256, 344));
    verify(&catalog, "without entries");
}
