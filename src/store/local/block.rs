//! The locations of a channel's events. Each record of events has an entry, and entries are grouped
//! in blocks.
//!
//! The blocks of the file that is being written are in memory with their entries. For all other
//! files the entries are in the index beside the file, and memory holds only what is needed to find
//! them. Ten million events therefore cost a few megabytes of memory.

use super::super::record::{Reader, Unreadable};
use super::records::write_id;
use crate::core::cursor::EventId;
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Maximum number of entries in a block. A block is read and checked as a whole to find an event.
pub const BLOCK_ENTRIES_MAX: usize = 256;
/// Bytes of an entry in an index.
pub const ENTRY_BYTES: usize = 32;

/// The location of one record of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The id of its first event. The ids of the other events follow without a gap.
    pub first: EventId,
    /// The number of its events.
    pub count: u32,
    /// The offset of its frame in the file.
    pub offset: u32,
    /// The length of its frame in bytes. 0 means that the record is lost and that `first` is the id
    /// of its last event.
    pub length: u32,
    /// The bytes of its events, as they count against the limits.
    pub bytes: u32,
}

/// Consecutive entries of one channel in one file.
#[derive(Clone, Debug)]
pub struct Block {
    /// The number of the file.
    pub log_file: u32,
    pub first: EventId,
    pub last: EventId,
    /// The number of events that are still kept, and their bytes as they count against the limits.
    pub events: u64,
    pub bytes: u64,
    /// The bytes of their frames in the file.
    pub length: u64,
    pub entries: Entries,
    /// The number of entries that were added, including those that were dropped since.
    pushed: usize,
}

/// The entries of a block.
#[derive(Clone, Debug)]
pub enum Entries {
    Here(VecDeque<Entry>),
    /// The entries are in the index of the file, at `offset`.
    Stored {
        offset: u32,
        count: u32,
        checksum: u64,
    },
}

impl Entry {
    /// Returns the entry that stands for lost events up to the id `last`.
    pub fn lost(last: EventId) -> Self {
        Self { first: last, count: 1, offset: 0, length: 0, bytes: 0 }
    }

    pub fn is_lost(&self) -> bool {
        self.length == 0
    }

    /// The id of its last event.
    pub fn last(&self) -> EventId {
        EventId { ms: self.first.ms, seq: self.first.seq + (u64::from(self.count) - 1) }
    }
}

impl Block {
    /// Creates a block with one entry.
    pub fn of(log_file: u32, entry: Entry) -> Self {
        let mut block = Self {
            log_file,
            first: entry.first,
            last: entry.last(),
            events: 0,
            bytes: 0,
            length: 0,
            entries: Entries::Here(VecDeque::new()),
            pushed: 0,
        };
        block.push(entry);
        block
    }

    /// Whether an entry of the file `log_file` can be added.
    pub fn has_room(&self, log_file: u32) -> bool {
        let is_here = matches!(self.entries, Entries::Here(_));
        is_here && self.pushed < BLOCK_ENTRIES_MAX && self.log_file == log_file
    }

    /// Adds an entry to a block that has room.
    pub fn push(&mut self, entry: Entry) {
        self.last = entry.last();
        self.events += u64::from(entry.count);
        self.bytes += u64::from(entry.bytes);
        self.length += u64::from(entry.length);
        self.pushed += 1;
        if let Entries::Here(entries) = &mut self.entries {
            entries.push_back(entry);
        }
    }
}

impl Block {
    /// Creates a block whose entries are in an index.
    pub fn stored(
        log_file: u32,
        (first, last): (EventId, EventId),
        (events, bytes, length): (u64, u64, u64),
        entries: Entries,
    ) -> Self {
        Self { log_file, first, last, events, bytes, length, entries, pushed: BLOCK_ENTRIES_MAX }
    }
}

/// Adds an entry to the blocks of a channel, in a new block if the last one has no room.
pub fn push(blocks: &mut VecDeque<Block>, log_file: u32, entry: Entry) {
    match blocks.back_mut().filter(|block| block.has_room(log_file)) {
        Some(block) => block.push(entry),
        None => blocks.push_back(Block::of(log_file, entry)),
    }
}

/// Appends entries to an index and returns their location in it.
pub fn write_entries(out: &mut Vec<u8>, entries: &VecDeque<Entry>, seed: u64) -> Entries {
    let start = out.len();
    for entry in entries {
        write_id(out, entry.first);
        for number in [entry.count, entry.offset, entry.length, entry.bytes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
    let checksum = xxh3_64_with_seed(&out[start..], seed);
    Entries::Stored { offset: start as u32, count: entries.len() as u32, checksum }
}

/// Decodes entries from the bytes of an index. Fails when the checksum does not match, or when the
/// ids of an entry are impossible.
pub fn read_entries(bytes: &[u8], checksum: u64, seed: u64) -> Result<VecDeque<Entry>, Unreadable> {
    if xxh3_64_with_seed(bytes, seed) != checksum {
        return Err(Unreadable);
    }
    let mut reader = Reader::new(bytes);
    let mut entries = VecDeque::with_capacity(bytes.len() / ENTRY_BYTES);
    while !reader.is_empty() {
        let first = reader.id()?;
        let (count, offset) = (reader.u32()?, reader.u32()?);
        let (length, bytes) = (reader.u32()?, reader.u32()?);
        let after_first = u64::from(count).checked_sub(1).ok_or(Unreadable)?;
        first.seq.checked_add(after_first).ok_or(Unreadable)?;
        entries.push_back(Entry { first, count, offset, length, bytes });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    fn read_back(entry: Entry) -> Option<Entry> {
        let mut out = Vec::new();
        let stored = write_entries(&mut out, &VecDeque::from([entry]), SEED);
        let Entries::Stored { checksum, .. } = stored else { panic!("they were written") };
        read_entries(&out, checksum, SEED).ok()?.pop_front()
    }

    fn entry(n: u32) -> Entry {
        let first = EventId { ms: u64::from(n), seq: 5 };
        Entry { first, count: 3, offset: n * 64, length: 64, bytes: 10 }
    }

    #[test]
    fn a_block_counts_what_was_added() {
        let mut block = Block::of(7, entry(1));
        block.push(entry(2));
        block.push(Entry::lost(EventId { ms: 9, seq: 1 }));
        assert_eq!((block.log_file, block.first), (7, EventId { ms: 1, seq: 5 }));
        assert_eq!(block.last, EventId { ms: 9, seq: 1 });
        assert_eq!((block.events, block.bytes, block.length), (3 + 3 + 1, 20, 128));
        let Entries::Here(entries) = &block.entries else { panic!("they are in memory") };
        assert_eq!(entries.iter().map(Entry::is_lost).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(entries[1].last(), EventId { ms: 2, seq: 7 });
    }

    #[test]
    fn a_block_is_full_at_its_limit_and_has_entries_of_one_file() {
        let mut blocks = VecDeque::new();
        for n in 0..=BLOCK_ENTRIES_MAX as u32 {
            push(&mut blocks, 7, entry(n));
        }
        let counts = |blocks: &VecDeque<Block>| {
            blocks.iter().map(|block| (block.log_file, block.events / 3)).collect::<Vec<_>>()
        };
        assert_eq!(counts(&blocks), [(7, BLOCK_ENTRIES_MAX as u64), (7, 1)]);
        push(&mut blocks, 8, entry(1000));
        push(&mut blocks, 8, entry(1001));
        assert_eq!(counts(&blocks), [(7, BLOCK_ENTRIES_MAX as u64), (7, 1), (8, 2)]);
        // A block whose entries are in an index takes no more of them.
        blocks[2].entries = Entries::Stored { offset: 0, count: 2, checksum: 0 };
        push(&mut blocks, 8, entry(1002));
        let ids = (EventId::START, EventId::START);
        blocks.push_back(Block::stored(8, ids, (3, 10, 64), Entries::Here(VecDeque::new())));
        push(&mut blocks, 8, entry(1003));
        assert_eq!(counts(&blocks)[2..], [(8, 2), (8, 1), (8, 1), (8, 1)]);
    }

    #[test]
    fn entries_are_found_where_they_were_written() {
        let mut out = vec![0; 100];
        let entries: VecDeque<Entry> = (1..=3).map(entry).collect();
        let stored = write_entries(&mut out, &entries, SEED);
        let Entries::Stored { offset, count, checksum } = stored else { panic!("stored") };
        assert_eq!((offset, count, out.len()), (100, 3, 100 + 3 * ENTRY_BYTES));
        assert_eq!(read_entries(&out[100..], checksum, SEED).ok(), Some(entries));
        assert!(read_entries(&out[100..], checksum, SEED + 1).is_err());
        out[140] ^= 1;
        assert!(read_entries(&out[100..], checksum, SEED).is_err());
    }

    #[test]
    fn the_last_id_of_an_entry_never_overflows() {
        let largest = EventId { ms: 1, seq: u64::MAX };
        let lost = Entry::lost(largest);
        assert_eq!(lost.last(), largest);
        assert_eq!(read_back(lost), Some(lost));
        let entry = Entry { first: EventId { ms: 1, seq: 2 }, count: 3, length: 8, ..lost };
        assert_eq!(read_back(entry), Some(entry));
        assert_eq!(read_back(Entry { count: 0, ..entry }), None);
        assert_eq!(read_back(Entry { count: 3, ..lost }), None);
    }
}
