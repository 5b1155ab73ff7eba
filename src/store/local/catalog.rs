//! The part of the log that is in memory: the channels, the locations of their events, the newest
//! event of each key, and the idempotency keys. All of it is derived from the files, in their
//! order.
//!
//! This module does no I/O. Where it needs the entries of an index, the caller passes a function
//! that reads them.

use super::super::StoreMetrics;
use super::batch::Append;
use super::block::{self, Block, Entries, Entry};
use super::files::File;
pub use super::keys::Keys;
use super::summary::{ChannelSummary, Kept, Summary};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::core::log_state::{Bounds, LogState};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Reads the entries of a block from an index. Returns `None` when they cannot be read.
pub type Load<'a> = &'a dyn Fn(&LogFile, &Block) -> Option<VecDeque<Entry>>;

/// The content of the log.
#[derive(Default)]
pub struct Catalog {
    /// The position before the first event of every channel.
    pub beginning: EventId,
    /// The newest id in any channel. The ids of a log order the events of all channels.
    pub newest: EventId,
    /// The instant against which the ages of events were measured when the log was last written, in
    /// ms.
    pub ages: u64,
    pub channels: HashMap<ChannelName, Channel>,
    pub keys: Keys,
    pub log_files: BTreeMap<u32, LogFile>,
    /// Bytes of all events and states.
    pub bytes: u64,
}

/// A channel.
#[derive(Debug, Default)]
pub struct Channel {
    pub last: EventId,
    pub low_watermark: EventId,
    /// The position before its first event, or `0-0` if the record of that event was gone before
    /// the log was opened.
    pub opened_at: EventId,
    /// The id of its `end` event, or `0-0` while the channel is open.
    pub closed: EventId,
    /// The instant of its last publish, in ms.
    pub used_at: u64,
    /// The number of events that are kept, and their bytes as they count against the limits.
    pub events: u64,
    pub bytes: u64,
    pub blocks: VecDeque<Block>,
    /// The number of events of the first record that are no longer kept.
    skipped: u32,
    pub state: HashMap<Box<str>, Kept>,
    pub state_bytes: u64,
    /// Events of the channel may have been lost.
    pub is_suspect: bool,
}

/// A file of the log.
#[derive(Clone)]
pub struct LogFile {
    /// The number of the first file whose records this file holds. The last one is its own number.
    pub first: u32,
    pub log: Arc<dyn File>,
    pub index: Option<Arc<dyn File>>,
    pub size: u64,
    /// Bytes of the records whose events are kept, and of the records that hold the state of a key.
    pub events_length: u64,
    pub state_length: u64,
    /// The instant until which the file is not compacted, in ms.
    pub rests_until: u64,
}

impl Channel {
    /// Creates a channel without events. Its first event will follow `opened_at`.
    pub fn new(opened_at: EventId) -> Self {
        Self { last: opened_at, low_watermark: opened_at, opened_at, ..Self::default() }
    }

    pub fn bounds(&self, beginning: EventId) -> Bounds {
        let Self { last, low_watermark, opened_at, .. } = *self;
        Bounds { beginning, opened_at, low_watermark, last }
    }

    /// The id of the oldest event that is kept.
    pub fn oldest(&self) -> Option<EventId> {
        let first = self.blocks.front()?.first;
        Some(EventId { ms: first.ms, seq: first.seq + u64::from(self.skipped) })
    }

    /// Whether `is_over` is true for all events of the first block.
    fn may_lose_first(&self, is_over: impl Fn(&Self, EventId) -> bool) -> bool {
        let Some(first) = self.blocks.front() else { return false };
        let events = self.events.saturating_sub(first.events);
        let bytes = self.bytes.saturating_sub(first.bytes);
        let low_watermark = self.low_watermark;
        is_over(&Self { events, bytes, low_watermark, ..Self::default() }, first.last)
    }

    /// Whether its blocks begin with events that are no longer kept.
    fn is_untrimmed(&self) -> bool {
        self.oldest().is_some_and(|oldest| oldest <= self.low_watermark)
    }

    /// The position before the oldest event that is kept.
    pub fn start(&self, beginning: EventId) -> EventId {
        if self.low_watermark == self.opened_at {
            beginning.min(self.opened_at)
        } else {
            self.low_watermark
        }
    }
}

impl LogFile {
    /// Creates a file whose records are not counted yet.
    pub fn new(first: u32, log: Arc<dyn File>, index: Option<Arc<dyn File>>, size: u64) -> Self {
        Self { first, log, index, size, events_length: 0, state_length: 0, rests_until: 0 }
    }

    /// The bytes of records that a compaction would keep.
    pub fn live(&self) -> u64 {
        self.events_length + self.state_length
    }
}

impl Catalog {
    pub fn log_state(&self, name: &ChannelName) -> LogState {
        let Some(channel) = self.channels.get(name) else {
            return LogState { bounds: self.no_bounds(), ..LogState::default() };
        };
        LogState {
            bounds: channel.bounds(self.beginning),
            oldest: channel.oldest(),
            closed: channel.closed != EventId::START,
            keyed: !channel.state.is_empty(),
        }
    }

    /// Sets the gauges of what is stored. `total_bytes`: the limit of the events and states.
    pub fn measure(&self, metrics: &StoreMetrics, total_bytes: u64) {
        let events: u64 = self.channels.values().map(|channel| channel.events).sum();
        let files: u64 = self.log_files.values().map(|log_file| log_file.size).sum();
        metrics.bytes.set(self.bytes as i64);
        metrics.events.set(events as i64);
        metrics.fill.set(self.bytes as f64 / total_bytes.max(1) as f64);
        metrics.file_bytes.set(files as i64);
    }

    /// The bounds of a channel without events.
    pub fn no_bounds(&self) -> Bounds {
        let beginning = self.beginning;
        Bounds { beginning, opened_at: beginning, low_watermark: beginning, last: beginning }
    }

    /// Adds the summary of the next file. The file must be in `log_files` already.
    pub fn fold(&mut self, summary: Summary) {
        self.newest = self.newest.max(summary.newest);
        self.ages = self.ages.max(summary.ages);
        if summary.beginning != EventId::START {
            self.beginning = self.beginning.max(summary.beginning);
            self.channels.values_mut().for_each(|channel| channel.is_suspect = false);
        }
        if summary.is_damaged {
            self.channels.values_mut().for_each(|channel| channel.is_suspect = true);
        }
        for channel in summary.channels {
            self.fold_channel(channel);
        }
        summary.keys.into_iter().for_each(|(channel, key)| self.keys.insert(channel, key));
    }

    fn fold_channel(&mut self, summary: ChannelSummary) {
        let ChannelSummary { name, carried, is_first, previous, last, closed, .. } = summary;
        if is_first {
            self.forget(&name);
        }
        let opened_at = if is_first { previous.unwrap_or_default() } else { EventId::START };
        let is_known = self.channels.contains_key(&name);
        let channel = self.channels.entry(name).or_insert_with(|| Channel::new(opened_at));
        if let Some(carried) = &carried {
            // Events up to the low watermark are dropped, also those in earlier files.
            Self::drop_until(&mut self.log_files, &mut self.bytes, channel, carried.low_watermark);
            channel.low_watermark = channel.low_watermark.max(carried.low_watermark);
            channel.last = channel.last.max(carried.low_watermark);
        }
        if let Some(previous) = previous {
            if !is_known && !is_first && carried.is_none() {
                channel.low_watermark = previous;
            } else if previous > channel.last {
                let lost = Entry::lost(previous);
                if let Some(log_file) = summary.blocks.front().map(|block| block.log_file) {
                    block::push(&mut channel.blocks, log_file, lost);
                    channel.events += 1;
                }
            }
            channel.closed = EventId::START;
        }
        channel.last = channel.last.max(last).max(carried.map_or(last, |record| record.last));
        channel.used_at = channel.used_at.max(channel.last.ms);
        channel.closed = closed.unwrap_or(channel.closed);
        channel.is_suspect = summary.is_suspect || (channel.is_suspect && previous.is_none());
        for block in summary.blocks {
            channel.events += block.events;
            channel.bytes += block.bytes;
            self.bytes += block.bytes;
            if let Some(log_file) = self.log_files.get_mut(&block.log_file) {
                log_file.events_length += block.length;
            }
            channel.blocks.push_back(block);
        }
        for (key, kept) in summary.state {
            Self::set_state(&mut self.log_files, &mut self.bytes, channel, key, kept);
        }
    }

    /// Reopens a channel whose reopening is committed.
    pub fn reopen(&mut self, name: &ChannelName) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.closed = EventId::START;
        }
    }

    /// Adds a committed record of events, which is in the file `log_file`.
    pub fn commit(&mut self, append: &Append, log_file: u32) {
        let Append { channel: name, previous, is_end, entry, .. } = append;
        let channel = self.channels.entry(name.clone()).or_insert_with(|| Channel::new(*previous));
        channel.last = entry.last();
        channel.used_at = channel.last.ms;
        channel.events += u64::from(entry.count);
        channel.bytes += u64::from(entry.bytes);
        channel.closed = if *is_end { channel.last } else { channel.closed };
        block::push(&mut channel.blocks, log_file, *entry);
        self.newest = channel.last;
        self.bytes += u64::from(entry.bytes);
        if let Some(log_file) = self.log_files.get_mut(&log_file) {
            log_file.events_length += u64::from(entry.length);
        }
        for (key, kept) in &append.state {
            Self::set_state(&mut self.log_files, &mut self.bytes, channel, key.clone(), *kept);
        }
        if let Some(key) = &append.key {
            self.keys.insert(name.clone(), key.clone());
        }
    }

    /// Makes an event the state of its key, or removes the key.
    pub fn set_state(
        log_files: &mut BTreeMap<u32, LogFile>,
        bytes: &mut u64,
        channel: &mut Channel,
        key: Box<str>,
        kept: Option<Kept>,
    ) {
        let before = match kept {
            Some(kept) => channel.state.insert(key, kept),
            None => channel.state.remove(&key),
        };
        let mut count = |kept: Option<Kept>, is_added: bool| {
            let Some(Kept { log_file, share, bytes: weight, .. }) = kept else { return };
            let (share, weight) = (u64::from(share), u64::from(weight));
            let change = |number: &mut u64, by: u64| {
                *number = if is_added { *number + by } else { number.saturating_sub(by) };
            };
            change(&mut channel.state_bytes, weight);
            change(bytes, weight);
            if let Some(log_file) = log_files.get_mut(&log_file) {
                change(&mut log_file.state_length, share);
            }
        };
        count(before, false);
        count(kept, true);
    }

    /// Notes that the entries of a sealed file are now in its index.
    pub fn sealed(&mut self, number: u32, index: Option<Arc<dyn File>>, summary: &Summary) {
        let Some(log_file) = self.log_files.get_mut(&number) else { return };
        log_file.index = index;
        for sealed in &summary.channels {
            let Some(channel) = self.channels.get_mut(&sealed.name) else { continue };
            let from = channel.blocks.partition_point(|block| block.log_file < number);
            for block in channel.blocks.range_mut(from..) {
                let places =
                    |other: &&Block| (other.first, other.last) == (block.first, block.last);
                if let Some(stored) = sealed.blocks.iter().find(places) {
                    block.entries = stored.entries.clone();
                }
            }
        }
    }

    /// Replaces several files by one that has only the records worth keeping. If no record was
    /// worth keeping, the next file also stands for the removed ones. Returns the old files. The
    /// system may take milliseconds to close each of them, so the caller drops them after it has
    /// released the lock.
    pub fn replaced(
        &mut self,
        numbers: RangeInclusive<u32>,
        with: Option<(LogFile, Summary)>,
    ) -> Vec<LogFile> {
        let (oldest, newest) = (*numbers.start(), *numbers.end());
        let first = self.log_files.get(&oldest).map(|log_file| log_file.first);
        let gone = self.log_files.extract_if(numbers, |_, _| true).map(|(_, log_file)| log_file);
        let gone = gone.collect();
        if with.is_none()
            && let Some((_, next)) = self.log_files.range_mut(newest..).next()
        {
            next.first = first.unwrap_or(next.first);
        }
        let mut found = HashMap::new();
        if let Some((log_file, summary)) = with {
            self.log_files.insert(newest, log_file);
            found.extend(
                summary.channels.into_iter().map(|channel| (channel.name.clone(), channel)),
            );
        }
        for (name, channel) in &mut self.channels {
            let from = channel.blocks.partition_point(|block| block.log_file < oldest);
            let until = channel.blocks.partition_point(|block| block.log_file <= newest);
            let later = channel.blocks.split_off(until);
            if from == 0 && until > 0 {
                // The first record is now counted with its dropped events, which are dropped again
                // later.
                channel.skipped = 0;
            }
            let count = |blocks: &VecDeque<Block>, from: usize| {
                let counts = blocks.range(from..).map(|block| (block.events, block.bytes));
                counts.fold((0, 0), |sum, (events, bytes)| (sum.0 + events, sum.1 + bytes))
            };
            let before = count(&channel.blocks, from);
            channel.blocks.truncate(from);
            let (mut events_length, mut state_length) = (0, 0);
            if let Some(mut summary) = found.remove(name) {
                // Blocks that were dropped during the compaction stay dropped.
                summary.blocks.retain(|block| block.last > channel.low_watermark);
                let before =
                    channel.blocks.back().map_or(channel.low_watermark, |block| block.last);
                if let Some(previous) = summary.previous.filter(|previous| *previous > before) {
                    // The compaction could not read the records between the two.
                    channel.blocks.push_back(Block::of(newest, Entry::lost(previous)));
                }
                events_length = summary.blocks.iter().map(|block| block.length).sum();
                channel.blocks.extend(summary.blocks);
                for (key, kept) in summary.state {
                    let current = channel.state.get_mut(&key);
                    let Some((current, kept)) = current.zip(kept) else { continue };
                    if current.id == kept.id {
                        *current = kept;
                        state_length += u64::from(kept.share);
                    }
                }
            }
            let after = count(&channel.blocks, from);
            channel.events = (channel.events + after.0).saturating_sub(before.0);
            channel.bytes = (channel.bytes + after.1).saturating_sub(before.1);
            self.bytes = (self.bytes + after.1).saturating_sub(before.1);
            channel.blocks.extend(later);
            if let Some(log_file) = self.log_files.get_mut(&newest) {
                log_file.events_length += events_length;
                log_file.state_length += state_length;
            }
        }
        gone
    }

    /// Returns the channels whose blocks begin with events that are no longer kept. Opening or
    /// compacting the log can cause this.
    pub fn untrimmed(&self) -> Vec<ChannelName> {
        self.names_where(Channel::is_untrimmed)
    }

    /// Returns the names of some channels in their order. The map has another order in each process.
    pub fn names_where(&self, is_one: impl Fn(&Channel) -> bool) -> Vec<ChannelName> {
        let channels = self.channels.iter().filter(|(_, channel)| is_one(channel));
        let mut names: Vec<ChannelName> = channels.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Removes a channel with its events and its state.
    pub fn forget(&mut self, name: &ChannelName) {
        let Some(channel) = self.channels.remove(name) else { return };
        self.bytes = self.bytes.saturating_sub(channel.bytes + channel.state_bytes);
        for block in &channel.blocks {
            if let Some(log_file) = self.log_files.get_mut(&block.log_file) {
                log_file.events_length = log_file.events_length.saturating_sub(block.length);
            }
        }
        for kept in channel.state.values() {
            if let Some(log_file) = self.log_files.get_mut(&kept.log_file) {
                log_file.state_length = log_file.state_length.saturating_sub(u64::from(kept.share));
            }
        }
    }

    /// Drops whole blocks up to a position.
    fn drop_until(
        log_files: &mut BTreeMap<u32, LogFile>,
        bytes: &mut u64,
        channel: &mut Channel,
        place: EventId,
    ) {
        while let Some(block) = channel.blocks.pop_front_if(|block| block.last <= place) {
            channel.events = channel.events.saturating_sub(block.events);
            channel.bytes = channel.bytes.saturating_sub(block.bytes);
            *bytes = bytes.saturating_sub(block.bytes);
            if let Some(log_file) = log_files.get_mut(&block.log_file) {
                log_file.events_length = log_file.events_length.saturating_sub(block.length);
            }
            channel.low_watermark = channel.low_watermark.max(block.last);
            channel.skipped = 0;
        }
    }

    /// Drops the oldest events of a channel, at most `events_max`, while `is_over` returns true for
    /// the channel and its oldest event. Returns the number of dropped events.
    pub fn trim(
        &mut self,
        name: &ChannelName,
        events_max: u64,
        load: Load<'_>,
        is_over: impl Fn(&Channel, EventId) -> bool,
    ) -> u64 {
        let Self { channels, log_files, bytes, .. } = self;
        let Some(channel) = channels.get_mut(name) else { return 0 };
        let mut dropped = 0;
        while dropped < events_max
            && let Some(oldest) = channel.oldest()
            && is_over(channel, oldest)
        {
            let Some(block) = channel.blocks.front_mut() else { break };
            let Some(log_file) = log_files.get_mut(&block.log_file) else { break };
            if let Entries::Stored { .. } = block.entries {
                let (events, last) = (block.events, block.last);
                match load(log_file, block) {
                    Some(entries) => block.entries = Entries::Here(entries),
                    // Some of its events have to stay, and it is not known where they are. The
                    // block is trimmed when it can be read again.
                    None if !channel.may_lose_first(&is_over) => break,
                    None => {
                        dropped += events;
                        Self::drop_until(log_files, bytes, channel, last);
                        continue;
                    }
                }
            }
            let Entries::Here(entries) = &mut block.entries else { break };
            let Some(entry) = entries.front().copied() else {
                // The log has no record of these events, so the whole block is dropped.
                dropped += block.events;
                let last = block.last;
                Self::drop_until(log_files, bytes, channel, last);
                continue;
            };
            let share = |all: u32| {
                let each = all / entry.count;
                u64::from(if channel.skipped + 1 == entry.count {
                    all - each * (entry.count - 1)
                } else {
                    each
                })
            };
            let (length, weight) = (share(entry.length), share(entry.bytes));
            block.events = block.events.saturating_sub(1);
            block.bytes = block.bytes.saturating_sub(weight);
            block.length = block.length.saturating_sub(length);
            log_file.events_length = log_file.events_length.saturating_sub(length);
            *bytes = bytes.saturating_sub(weight);
            channel.events = channel.events.saturating_sub(1);
            channel.bytes = channel.bytes.saturating_sub(weight);
            channel.low_watermark = channel.low_watermark.max(oldest);
            channel.skipped += 1;
            dropped += 1;
            if channel.skipped == entry.count {
                channel.skipped = 0;
                entries.pop_front();
                match entries.front() {
                    Some(next) => block.first = next.first,
                    None => drop(channel.blocks.pop_front()),
                }
            }
        }
        dropped
    }
}
