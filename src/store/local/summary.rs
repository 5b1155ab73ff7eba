//! The summary of one file of the log: which events of which channels it contains, their locations,
//! and its changes to the states of the channels. A summary results from a scan of the file. The
//! summary of a complete file is stored in an index beside it, so that opening the log does not
//! read the whole file again.

use super::super::record::{Reader, Unreadable};
use super::block::{self, Block, ENTRY_BYTES, Entries, Entry};
use super::files::File;
use super::frame::{Frame, Kind, Scan};
use super::records::{
    ChannelRecord, Checkpoint, Events, KeyRecord, read_name, write_id, write_name,
};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use std::collections::{HashMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The first bytes of an index, including the version of its format.
const INDEX_MAGIC: [u8; 8] = *b"HWINDEX\x01";
/// The length of an index's trailer in bytes: the length and the checksum of the directory.
const TRAILER_BYTES: usize = 16;
/// The bytes that an event counts for in addition to its text.
pub const EVENT_OVERHEAD_BYTES: usize = 5;

/// The summary of a file.
#[derive(Debug, Default)]
pub struct Summary {
    pub channels: Vec<ChannelSummary>,
    pub keys: Vec<(ChannelName, KeyRecord)>,
    /// The position of the newest [`Kind::Beginning`] record, or `0-0` if there is none.
    pub beginning: EventId,
    /// The newest known id of the log.
    pub newest: EventId,
    /// The instant against which the ages of events were measured, in ms.
    pub ages: u64,
    pub commit: u64,
    pub is_sealed: bool,
    /// Records are lost, and it cannot always be determined which channels they belonged to.
    pub is_damaged: bool,
}

/// The summary of one channel in one file.
#[derive(Debug)]
pub struct ChannelSummary {
    pub name: ChannelName,
    /// The [`Kind::Channel`] record, which replaces the records that a compaction dropped.
    pub carried: Option<ChannelRecord>,
    /// The first record of events in the file is the first one that the channel ever had.
    pub is_first: bool,
    /// The id of the event before the first event in this file.
    pub previous: Option<EventId>,
    /// The newest event in this file, or `0-0` if there is none.
    pub last: EventId,
    /// The id of its `end` event, or `0-0` if the channel was reopened. `None` means that the file
    /// does not change this.
    pub closed: Option<EventId>,
    pub blocks: VecDeque<Block>,
    /// The location of the newest event of each key in the file, or `None` if the key was removed.
    pub state: HashMap<Box<str>, Option<Kept>>,
    /// The channel may have had events in a damaged part of the file.
    pub is_suspect: bool,
}

/// The location of the newest event of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub id: EventId,
    pub log_file: u32,
    pub offset: u32,
    /// The length of its frame in bytes, and its share of that length.
    pub length: u32,
    pub share: u32,
    /// The bytes that the event counts for in the state.
    pub bytes: u32,
}

/// Summarizes the frames of the file `log_file`.
pub fn summarize(scan: &Scan<'_>, log_file: u32) -> Summary {
    let mut channels: HashMap<ChannelName, ChannelSummary> = HashMap::new();
    let mut summary = Summary::default();
    let mut damaged = scan.damaged.iter().peekable();
    for frame in &scan.frames {
        if damaged.next_if(|range| range.start < frame.offset).is_some() {
            summary.is_damaged = true;
            channels.values_mut().for_each(|channel| channel.is_suspect = true);
        }
        // A record with correct checksums that cannot be decoded was written by a later version.
        if summary.take(&mut channels, frame, log_file).is_err() {
            summary.is_damaged = true;
        }
    }
    channels.values_mut().for_each(|channel| channel.announce_lost_end(log_file));
    summary.channels = channels.into_values().collect();
    // In a fixed order, so that a simulated disk sees the same bytes in each run of a seed.
    summary.channels.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    summary
}

impl Summary {
    fn take(
        &mut self,
        channels: &mut HashMap<ChannelName, ChannelSummary>,
        frame: &Frame<'_>,
        log_file: u32,
    ) -> Result<(), Unreadable> {
        self.commit = self.commit.max(frame.commit);
        match frame.kind {
            Kind::Events | Kind::End => {
                let events = Events::read(frame.body)?;
                let channel = known(channels, &events.channel);
                channel.append(&events, frame, log_file);
                if frame.kind == Kind::End {
                    channel.closed = Some(channel.last);
                }
                self.newest = self.newest.max(channel.last);
                if let Some(key) = events.key {
                    self.keys.push((events.channel, key));
                }
            }
            Kind::State => {
                let events = Events::read(frame.body)?;
                known(channels, &events.channel).take_state(&events, frame, log_file);
            }
            Kind::Reopen => {
                known(channels, &read_name(&mut Reader::new(frame.body))?).closed =
                    Some(EventId::START);
            }
            Kind::Channel => {
                let record = ChannelRecord::read(frame.body)?;
                self.newest = self.newest.max(record.last);
                let channel = known(channels, &record.channel);
                channel.closed = Some(record.closed);
                channel.carried = Some(record);
            }
            Kind::Key => self.keys.push(KeyRecord::read(frame.body)?),
            Kind::Checkpoint => {
                let checkpoint = Checkpoint::read(frame.body)?;
                self.newest = self.newest.max(checkpoint.newest);
                self.ages = self.ages.max(checkpoint.ages);
            }
            Kind::Seal => self.is_sealed = true,
            Kind::Beginning => {
                self.beginning = Reader::new(frame.body).id()?;
                self.newest = self.newest.max(self.beginning);
                // This record is written after all losses before it were announced.
                self.is_damaged = false;
                channels.values_mut().for_each(|channel| channel.is_suspect = false);
            }
        }
        Ok(())
    }

    /// Encodes the index of the file: the entries of its blocks, then the directory with the rest.
    pub fn write_index(&self, seed: u64) -> Vec<u8> {
        let mut out = INDEX_MAGIC.to_vec();
        let mut directory = Vec::new();
        write_id(&mut directory, self.beginning);
        write_id(&mut directory, self.newest);
        directory.extend_from_slice(&self.ages.to_be_bytes());
        directory.extend_from_slice(&self.commit.to_be_bytes());
        directory.extend_from_slice(&(self.channels.len() as u32).to_be_bytes());
        for channel in &self.channels {
            channel.write(&mut directory, &mut out, seed);
        }
        for (channel, key) in &self.keys {
            let mut record = Vec::new();
            key.write(channel, &mut record);
            directory.extend_from_slice(&(record.len() as u32).to_be_bytes());
            directory.extend_from_slice(&record);
        }
        out.extend_from_slice(&directory);
        out.extend_from_slice(&(directory.len() as u64).to_be_bytes());
        out.extend_from_slice(&xxh3_64_with_seed(&directory, seed).to_be_bytes());
        out
    }

    /// Reads the directory of an index of the file `log_file`. The entries are not read.
    pub fn read_index(index: &dyn File, seed: u64, log_file: u32) -> Result<Self, Unreadable> {
        let part = |offset: u64, length: usize| {
            let mut bytes = vec![0; length];
            index.read_at(&mut bytes, offset).map_err(|_| Unreadable).map(|()| bytes)
        };
        if part(0, INDEX_MAGIC.len())? != INDEX_MAGIC {
            return Err(Unreadable);
        }
        let end = index.length().map_err(|_| Unreadable)?;
        let end = end.checked_sub(TRAILER_BYTES as u64).ok_or(Unreadable)?;
        let trailer = part(end, TRAILER_BYTES)?;
        let mut trailer = Reader::new(&trailer);
        let (length, checksum) = (trailer.u64()?, trailer.u64()?);
        let start = end.checked_sub(length).ok_or(Unreadable)?;
        let directory = part(start, usize::try_from(length).map_err(|_| Unreadable)?)?;
        if xxh3_64_with_seed(&directory, seed) != checksum {
            return Err(Unreadable);
        }
        let mut reader = Reader::new(&directory);
        let (beginning, newest) = (reader.id()?, reader.id()?);
        let (ages, commit) = (reader.u64()?, reader.u64()?);
        let count = reader.u32()?;
        let channels = (0..count).map(|_| ChannelSummary::read(&mut reader, log_file));
        let mut channels = channels.collect::<Result<Vec<_>, _>>()?;
        channels.iter_mut().for_each(|channel| channel.announce_lost_end(log_file));
        let mut keys = Vec::new();
        while !reader.is_empty() {
            let length = reader.u32()? as usize;
            keys.push(KeyRecord::read(reader.take(length)?)?);
        }
        let (is_sealed, is_damaged) = (true, false);
        Ok(Self { channels, keys, beginning, newest, ages, commit, is_sealed, is_damaged })
    }
}

impl ChannelSummary {
    pub fn new(name: ChannelName) -> Self {
        Self {
            name,
            carried: None,
            is_first: false,
            previous: None,
            last: EventId::START,
            closed: None,
            blocks: VecDeque::new(),
            state: HashMap::new(),
            is_suspect: false,
        }
    }

    fn append(&mut self, events: &Events, frame: &Frame<'_>, log_file: u32) {
        self.is_suspect = false;
        let entry = entry_of(events, frame.offset, frame.length());
        if events.is_first {
            // The channel was forgotten before this record, so its earlier content is dropped. A
            // record that a compaction has made of this or later events stays.
            let carried = self.carried.take().filter(|record| record.last >= entry.last());
            *self = Self { is_first: true, carried, ..Self::new(self.name.clone()) };
            self.previous = Some(events.previous);
        } else if self.previous.is_none() {
            self.previous = Some(events.previous);
        } else if events.previous > self.last {
            // Every record contains the id of the event before it, which reveals a lost record.
            block::push(&mut self.blocks, log_file, Entry::lost(events.previous));
        }
        self.last = entry.last();
        self.closed = self.closed.and(Some(EventId::START));
        block::push(&mut self.blocks, log_file, entry);
        self.take_state(events, frame, log_file);
    }

    /// Adds an entry for lost events at the end of a file that a compaction has made. No later
    /// record reveals that loss, because the record of the channel in this file counts as its last
    /// event.
    fn announce_lost_end(&mut self, log_file: u32) {
        let Some(carried) = &self.carried else { return };
        if carried.last > self.last.max(carried.low_watermark) {
            self.last = carried.last;
            block::push(&mut self.blocks, log_file, Entry::lost(carried.last));
        }
    }

    fn take_state(&mut self, events: &Events, frame: &Frame<'_>, log_file: u32) {
        self.state.extend(keyed(events, log_file, frame.offset, frame.length()));
    }

    fn write(&self, directory: &mut Vec<u8>, out: &mut Vec<u8>, seed: u64) {
        write_name(directory, &self.name);
        directory.push(u8::from(self.is_first));
        write_id(directory, self.last);
        for optional in [self.previous, self.closed] {
            directory.push(u8::from(optional.is_some()));
            write_id(directory, optional.unwrap_or_default());
        }
        directory.push(u8::from(self.carried.is_some()));
        if let Some(carried) = &self.carried {
            carried.write(directory);
        }
        directory.extend_from_slice(&(self.blocks.len() as u32).to_be_bytes());
        for block in &self.blocks {
            let Entries::Here(entries) = &block.entries else { continue };
            let stored = block::write_entries(out, entries, seed);
            let Entries::Stored { offset, count, checksum } = stored else { continue };
            write_id(directory, block.first);
            write_id(directory, block.last);
            for number in [block.events, block.bytes, block.length, checksum] {
                directory.extend_from_slice(&number.to_be_bytes());
            }
            directory.extend_from_slice(&offset.to_be_bytes());
            directory.extend_from_slice(&count.to_be_bytes());
        }
        directory.extend_from_slice(&(self.state.len() as u32).to_be_bytes());
        let mut state: Vec<_> = self.state.iter().collect();
        state.sort_unstable_by_key(|(key, _)| *key);
        for (key, kept) in state {
            directory.extend_from_slice(&(key.len() as u16).to_be_bytes());
            directory.extend_from_slice(key.as_bytes());
            directory.push(u8::from(kept.is_some()));
            if let Some(kept) = kept {
                write_id(directory, kept.id);
                for number in [kept.offset, kept.length, kept.share, kept.bytes] {
                    directory.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
    }

    fn read(reader: &mut Reader<'_>, log_file: u32) -> Result<Self, Unreadable> {
        let mut channel = Self::new(read_name(reader)?);
        channel.is_first = flag(reader)?;
        channel.last = reader.id()?;
        let mut optional = || Ok((flag(reader)?, reader.id()?));
        let (previous, closed) = (optional()?, optional()?);
        channel.previous = previous.0.then_some(previous.1);
        channel.closed = closed.0.then_some(closed.1);
        if flag(reader)? {
            let record = ChannelRecord {
                channel: read_name(reader)?,
                last: reader.id()?,
                closed: reader.id()?,
                low_watermark: reader.id()?,
            };
            channel.carried = Some(record);
        }
        for _ in 0..reader.u32()? {
            let (first, last) = (reader.id()?, reader.id()?);
            let (events, bytes) = (reader.u64()?, reader.u64()?);
            let (length, checksum) = (reader.u64()?, reader.u64()?);
            let (offset, count) = (reader.u32()?, reader.u32()?);
            let entries = Entries::Stored { offset, count, checksum };
            let counts = (events, bytes, length);
            channel.blocks.push_back(Block::stored(log_file, (first, last), counts, entries));
        }
        for _ in 0..reader.u32()? {
            let length = usize::from(u16::from_be_bytes(reader.array()?));
            let key = reader.text(length)?.into();
            let mut kept = None;
            if flag(reader)? {
                let id = reader.id()?;
                let (offset, length) = (reader.u32()?, reader.u32()?);
                let (share, bytes) = (reader.u32()?, reader.u32()?);
                kept = Some(Kept { id, log_file, offset, length, share, bytes });
            }
            channel.state.insert(key, kept);
        }
        Ok(channel)
    }
}

fn known<'c>(
    channels: &'c mut HashMap<ChannelName, ChannelSummary>,
    name: &ChannelName,
) -> &'c mut ChannelSummary {
    channels.entry(name.clone()).or_insert_with(|| ChannelSummary::new(name.clone()))
}

/// The bytes that an event counts for in a state: those of the event and of its id.
pub fn state_bytes(event: &crate::core::event::Event) -> u32 {
    (EVENT_OVERHEAD_BYTES + 16 + event.weight()) as u32
}

/// Returns the entry of a record whose frame is at `offset` and has `length` bytes.
pub fn entry_of(events: &Events, offset: usize, length: usize) -> Entry {
    let bytes = events.events.iter().map(|event| EVENT_OVERHEAD_BYTES + event.weight());
    Entry {
        first: events.first,
        count: events.events.len() as u32,
        offset: offset as u32,
        length: length as u32,
        bytes: bytes.sum::<usize>() as u32,
    }
}

/// Returns the location of the newest event of each key in a record of events, or `None` for a
/// removed key.
pub fn keyed(
    events: &Events,
    log_file: u32,
    offset: usize,
    length: usize,
) -> HashMap<Box<str>, Option<Kept>> {
    let (offset, length) = (offset as u32, length as u32);
    let share = length / events.events.len().max(1) as u32;
    let mut newest = HashMap::new();
    for (index, event) in events.events.iter().enumerate() {
        let Some(key) = &event.key else { continue };
        let (id, bytes) = (events.id(index), state_bytes(event));
        let kept = Kept { id, log_file, offset, length, share, bytes };
        newest.insert(key.as_str().into(), Some(kept).filter(|_| !event.removes_key()));
    }
    newest
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Unreadable> {
    let [byte] = reader.array()?;
    Ok(byte != 0)
}

/// Returns the offset, the length in bytes and the checksum of entries that are in an index.
pub fn entries_at(entries: &Entries) -> Option<(u64, usize, u64)> {
    match entries {
        Entries::Here(_) => None,
        Entries::Stored { offset, count, checksum } => {
            Some((u64::from(*offset), *count as usize * ENTRY_BYTES, *checksum))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::MemoryFile;
    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written_and_only_where_it_is_whole() {
        let id = |ms| EventId { ms, seq: 1 };
        let key = KeyRecord { key: "k".into(), digest: 1, first: id(3), count: 2, expires_at: 9 };
        let keys = vec![(ChannelName::parse("a").unwrap(), key)];
        let (beginning, newest, ages, commit) = (id(2), id(4), 5, 6);
        let summary = Summary { keys, beginning, newest, ages, commit, ..Summary::default() };
        let bytes = summary.write_index(7);
        let read = |bytes: &[u8], seed| {
            let file = MemoryFile::default();
            file.write_at(bytes, 0).unwrap();
            Summary::read_index(&file, seed, 1)
        };
        let found = read(&bytes, 7).unwrap();
        assert_eq!(found.keys, summary.keys);
        assert_eq!((found.beginning, found.newest), (id(2), id(4)));
        assert_eq!((found.ages, found.commit, found.is_sealed), (5, 6, true));
        assert!(read(&bytes, 8).is_err(), "the index of another log");
        assert!(read(&bytes[..10], 7).is_err());
        // The magic bytes, the directory, and its checksum.
        for at in [0, INDEX_MAGIC.len(), bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged, 7).is_err(), "byte {at}");
        }
    }
}
