//! Tests of reads: of the blocks that a page needs, of the bytes that are read together, and of files
//! that cannot be read.
#![cfg(test)]

use super::super::{Page, PageLimit, StoreFault, StoreMetrics};
use super::batch::Append;
use super::block::{Block, Entries, Entry};
use super::catalog::{Catalog, LogFile};
use super::faulty_files_tests::FaultyFile;
use super::files::{File, MemoryFile};
use super::frame::{self, Kind, scan};
use super::reading::{Plan, RecordReader, window_end};
use super::records::Events;
use super::summary::{Kept, summarize};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, StoredEvent};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEED: u64 = 7;
const MANY: PageLimit = PageLimit { events: 1_000, bytes: 1 << 20 };

fn name() -> ChannelName {
    ChannelName::parse("a").unwrap()
}

fn id(ms: u64) -> EventId {
    EventId { ms, seq: 0 }
}

const DAMAGE: [fn() -> io::Error; 3] = [
    || ErrorKind::UnexpectedEof.into(),
    || ErrorKind::NotFound.into(),
    || rustix::io::Errno::IO.into(),
];
const NO_DAMAGE: fn() -> io::Error = || ErrorKind::OutOfMemory.into();

fn reader() -> RecordReader {
    RecordReader::new(SEED, StoreMetrics::default())
}

/// A catalog with one channel, of which each block has 256 events of 10 bytes.
fn planned() -> Catalog {
    let file = LogFile::new(1, Arc::new(MemoryFile::default()), None, 1_000_000);
    let mut catalog = Catalog::default();
    catalog.log_files.insert(1, file);
    for ms in 1..=600 {
        let entry = Entry { first: id(ms), count: 1, offset: 0, length: 60, bytes: 10 };
        commit(&mut catalog, entry);
    }
    catalog
}

fn commit(catalog: &mut Catalog, entry: Entry) {
    let (previous, stored, state) = (EventId::START, Vec::new(), Vec::new());
    let channel = name();
    let append = Append {
        channel,
        previous,
        follows: previous,
        is_end: false,
        entry,
        stored,
        state,
        key: None,
    };
    catalog.commit(&append, 1);
}

#[test]
fn a_page_needs_the_first_block_and_as_many_others_as_its_limit() {
    let catalog = planned();
    let blocks = |(plan, _): (Plan, EventId)| {
        let count = plan.blocks.len();
        (count, plan.is_empty(), plan.into_page().complete)
    };
    let after = |ms, events, bytes| {
        blocks(Plan::after(&catalog, &name(), id(ms), PageLimit { events, bytes }))
    };
    let before = |ms, events, bytes| {
        blocks(Plan::before(&catalog, &name(), id(ms), PageLimit { events, bytes }))
    };
    for (events, bytes, expected) in [
        (0, 1_000_000, (0, true, false)),
        (1, 1_000_000, (2, false, false)),
        (256, 1_000_000, (2, false, false)),
        (257, 1_000_000, (3, false, true)),
        (600, 2_559, (2, false, false)),
        (600, 2_560, (3, false, true)),
    ] {
        assert_eq!(after(0, events, bytes), expected, "{events}, {bytes}");
    }
    // The newest block has 88 events, and is the first one of a page back.
    assert_eq!(before(601, 256, 1_000_000), (2, false, false));
    assert_eq!(before(601, 257, 1_000_000), (3, false, true));
    assert_eq!(before(601, 600, 2_559), (2, false, false));
    // A block belongs to the page with its last event after the position, or its first before it.
    assert_eq!(after(255, 600, 1_000_000), (3, false, true));
    assert_eq!(after(256, 600, 1_000_000), (2, false, true));
    assert_eq!(after(600, 600, 1_000_000), (0, true, true));
    assert_eq!(before(258, 600, 1_000_000), (2, false, true));
    assert_eq!(before(257, 600, 1_000_000), (1, false, true));
    assert_eq!(before(1, 600, 1_000_000), (0, true, true));
}

#[test]
fn records_are_read_together_while_they_are_near() {
    let entry = |offset: u64, length: u64| Entry {
        offset: offset as u32,
        length: length as u32,
        ..Entry::lost(id(1))
    };
    let end = |entries: &[Entry]| window_end(entries.iter());
    assert_eq!(end(&[]), 0);
    assert_eq!(end(&[entry(50, 60)]), 110);
    assert_eq!(end(&[entry(0, 60), Entry::lost(id(2)), entry(60, 40)]), 100);
    // 4 KiB between two records, and 256 KiB in all.
    assert_eq!(end(&[entry(0, 60), entry(60 + 4_096, 40)]), 60 + 4_096 + 40);
    assert_eq!(end(&[entry(0, 60), entry(60 + 4_097, 40)]), 60);
    assert_eq!(end(&[entry(9, 100), entry(109, 262_144 - 100)]), 9 + 262_144);
    assert_eq!(end(&[entry(9, 100), entry(109, 262_145 - 100)]), 109);
    // A record before the last one is read alone.
    assert_eq!(end(&[entry(200, 100), entry(290, 40)]), 300);
    assert_eq!(end(&[entry(200, 100), entry(0, 40), entry(300, 40)]), 300);
}

/// The bytes of a file with one record for each id, and the entries of the records.
fn written(ids: std::ops::RangeInclusive<u64>) -> (Vec<u8>, VecDeque<Entry>) {
    let mut bytes = Vec::new();
    for ms in ids {
        let events = vec![Event::stored(None, None, &format!("event {ms}"))];
        let (previous, first) = (id(ms - 1), id(ms));
        let events =
            Events { channel: name(), is_first: false, previous, first, key: None, events };
        frame::write(&mut bytes, SEED, (Kind::Events, 1, true), |out| events.write(out));
    }
    let mut summary = summarize(&scan(&bytes, SEED, false), 1);
    let Entries::Here(entries) = summary.channels.remove(0).blocks.remove(0).unwrap().entries
    else {
        panic!("they are in memory")
    };
    (bytes, entries)
}

fn file(bytes: &[u8]) -> Arc<dyn File> {
    let file = MemoryFile::default();
    file.write_at(bytes, 0).unwrap();
    Arc::new(file)
}

/// A block with these first and last ids, whose entries are in an index.
fn indexed(first: u64, last: u64) -> Block {
    let entries = Entries::Stored { offset: 0, count: 1, checksum: 0 };
    Block::stored(1, (id(first), id(last)), (1, 1, 1), entries)
}

fn ids(entries: &VecDeque<Entry>) -> Vec<(u64, bool)> {
    entries.iter().map(|entry| (entry.last().ms, entry.is_lost())).collect()
}

#[test]
fn the_log_has_the_entries_of_a_block_whose_index_is_gone() {
    let (mut bytes, entries) = written(101..=106);
    let log_file = |bytes: &[u8]| LogFile::new(1, file(bytes), None, bytes.len() as u64);
    let found =
        |bytes: &[u8], block| ids(&reader().entries(&name(), &log_file(bytes), &block).unwrap());
    assert_eq!(found(&bytes, indexed(103, 104)), [(103, false), (104, false)]);
    assert_eq!(found(&bytes, indexed(101, 106)).len(), 6);
    // The first and the last record of the file are damaged.
    for damaged in [0, 5] {
        let entry = entries[damaged];
        bytes[(entry.offset + entry.length / 2) as usize] ^= 1;
    }
    let all = [(101, true), (102, false), (103, false), (104, false), (105, false), (106, true)];
    assert_eq!(found(&bytes, indexed(101, 106)), all);
    assert_eq!(found(&bytes, indexed(102, 105)), all[1..5]);
    // The event before the first readable record belongs to another block.
    assert_eq!(found(&bytes, indexed(90, 101)), [(101, true)]);
    assert_eq!(found(&bytes, indexed(90, 100)), [(100, true)]);
    assert_eq!(found(&[], indexed(101, 106)), [(106, true)]);
}

#[test]
fn an_index_that_cannot_be_read_now_is_not_taken_for_damaged() {
    let (bytes, _) = written(101..=102);
    let entries = |error| {
        let index: Arc<dyn File> = Arc::new(FaultyFile::unreadable(error));
        let log_file = LogFile::new(1, file(&bytes), Some(index), bytes.len() as u64);
        reader().entries(&name(), &log_file, &indexed(101, 102))
    };
    for error in DAMAGE {
        assert_eq!(ids(&entries(error).unwrap()), [(101, false), (102, false)]);
    }
    assert_eq!(entries(NO_DAMAGE).unwrap_err().kind(), ErrorKind::OutOfMemory);
}

#[test]
fn a_record_that_cannot_be_read_now_is_not_taken_for_damaged() {
    let entry = Entry { first: id(101), count: 2, offset: 0, length: 60, bytes: 10 };
    let kept = Kept { id: id(101), log_file: 1, offset: 0, length: 60, share: 60, bytes: 10 };
    let log_file = |error| LogFile::new(1, Arc::new(FaultyFile::unreadable(error)), None, 1_000);
    for error in DAMAGE {
        let reader = reader();
        let page = page(&reader, log_file(error), [entry]).unwrap();
        assert_eq!(gaps(&page.events), [entry.last()]);
        let state = reader.state(&name(), id(102), vec![(log_file(error), kept)]).unwrap();
        assert_eq!((gaps(&state.events), state.position), (vec![kept.id], id(102)));
        assert_eq!(reader.metrics.faults(StoreFault::Damaged), 2);
    }
    let is_temporary = |error: io::Error| error.kind() == ErrorKind::OutOfMemory;
    assert!(is_temporary(page(&reader(), log_file(NO_DAMAGE), [entry]).unwrap_err()));
    let state = reader().state(&name(), id(102), vec![(log_file(NO_DAMAGE), kept)]);
    assert!(is_temporary(state.unwrap_err()));
}

/// Reads all events of a channel with these entries.
fn page(
    reader: &RecordReader,
    log_file: LogFile,
    entries: impl IntoIterator<Item = Entry>,
) -> io::Result<Page> {
    let mut catalog = Catalog::default();
    catalog.log_files.insert(1, log_file);
    entries.into_iter().for_each(|entry| commit(&mut catalog, entry));
    let (plan, position) = Plan::after(&catalog, &name(), EventId::START, MANY);
    reader.page(plan, position, MANY)
}

/// The ids of these events, which are gap events.
fn gaps(events: &[StoredEvent]) -> Vec<EventId> {
    let is_gap = |event: &Event| event.as_control().is_some_and(|(kind, _)| kind == "gap");
    assert!(events.iter().all(|stored| is_gap(&stored.event)), "{events:?}");
    events.iter().map(|stored| stored.id).collect()
}

#[test]
fn a_record_that_is_not_the_one_of_its_entry_counts_as_damaged() {
    let (bytes, entries) = written(101..=101);
    let right = entries[0];
    let log_file = || LogFile::new(1, file(&bytes), None, bytes.len() as u64);
    let events = |entry| page(&reader(), log_file(), [entry]).unwrap().events;
    assert_eq!(&*events(right)[0].event.data, "event 101");
    for wrong in [Entry { first: id(100), ..right }, Entry { count: 2, ..right }] {
        assert_eq!(gaps(&events(wrong)), [wrong.last()]);
    }
    // The record of another channel, with the same ids.
    let (mut catalog, other) = (Catalog::default(), ChannelName::parse("b").unwrap());
    catalog.log_files.insert(1, log_file());
    commit(&mut catalog, right);
    let channel = catalog.channels.remove(&name()).unwrap();
    catalog.channels.insert(other.clone(), channel);
    let (plan, position) = Plan::after(&catalog, &other, EventId::START, MANY);
    assert_eq!(gaps(&reader().page(plan, position, MANY).unwrap().events), [right.last()]);
}

#[test]
fn records_that_are_near_cost_one_read() {
    let (bytes, entries) = written(101..=150);
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let read = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let counted = FaultyFile { read: Box::new(read), ..FaultyFile::new(file(&bytes)) };
    let log_file = LogFile::new(1, Arc::new(counted), None, bytes.len() as u64);
    let page = page(&reader(), log_file, entries).unwrap();
    assert_eq!((page.events.len(), reads.load(Ordering::Relaxed)), (50, 1));
}

#[test]
fn a_page_of_exactly_the_limit_has_all_events() {
    let (bytes, entries) = written(101..=104);
    let mut catalog = Catalog::default();
    let log_file = LogFile::new(1, file(&bytes), None, bytes.len() as u64);
    catalog.log_files.insert(1, log_file);
    entries.into_iter().for_each(|entry| commit(&mut catalog, entry));
    let weight = Event::stored(None, None, "event 101").weight();
    for (bytes, count) in [(4 * weight, 4), (4 * weight - 1, 3), (2 * weight, 2), (1, 1), (0, 1)] {
        let limit = PageLimit { events: 10, bytes };
        let (plan, position) = Plan::after(&catalog, &name(), EventId::START, limit);
        let page = reader().page(plan, position, limit).unwrap();
        assert_eq!((page.events.len(), page.complete), (count, count == 4), "{bytes} bytes");
        let (plan, position) = Plan::before(&catalog, &name(), id(105), limit);
        let page = reader().page_back(plan, (position, id(105)), limit).unwrap();
        assert_eq!((page.events.len(), page.complete), (count, count == 4), "{bytes} bytes back");
        assert_eq!(page.events.last().unwrap().id, id(104));
    }
    for (events, count) in [(4, 4), (3, 3), (1, 1), (0, 0)] {
        let limit = PageLimit { events, ..MANY };
        let (plan, position) = Plan::after(&catalog, &name(), EventId::START, limit);
        let page = reader().page(plan, position, limit).unwrap();
        assert_eq!((page.events.len(), page.complete), (count, count == 4), "{events} events");
    }
}
