//! The commands of one commit. Each command is checked against the catalog and the commands before
//! it. It becomes a record, unless it is refused or changes nothing. The log and the catalog do not
//! change before the commit. A publish with an idempotency key that is known gets its first answer
//! again. The keys are in the files of the log, and `summary.rs` reads them at the start.

use super::super::{ChannelLimits, Idempotency, Limits, Publication, Published, Quota, StoreError};
use super::block::Entry;
use super::catalog::{Catalog, Channel};
use super::erasure::Erasure;
use super::frame::{self, Kind};
use super::records::{Events, KeyRecord, write_name};
use super::summary::{EVENT_OVERHEAD_BYTES, Kept, entry_of, keyed, state_bytes};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, StoredEvent};
use std::collections::HashMap;

/// The location of a commit's records in the log.
#[derive(Clone, Copy, Debug)]
pub struct WritePosition {
    /// The number of the file, and the offset in it.
    pub log_file: u32,
    pub offset: usize,
    /// The number of the commit, and the seed of its checksums.
    pub commit: u64,
    pub seed: u64,
}

/// The records that wait for their commit.
pub struct Batch<'c> {
    known: &'c Catalog,
    limits: &'c ChannelLimits,
    now: u64,
    write_position: WritePosition,
    channels: HashMap<ChannelName, ChannelTotals>,
    /// The effect of the batch on the state of each key: the bytes of the key's new event, or
    /// `None` if the key is removed.
    state: HashMap<(ChannelName, Box<str>), Option<u32>>,
    keys: HashMap<(ChannelName, Box<str>), KeyRecord>,
    newest: EventId,
    new_channels: u64,
    bytes: u64,
    staged: Staged,
}

/// The result of a batch.
#[derive(Default)]
pub struct Staged {
    /// The frames to write.
    pub bytes: Vec<u8>,
    pub changes: Vec<Change>,
}

/// A change to the catalog that a record causes once it is committed.
pub enum Change {
    Append(Box<Append>),
    Reopen(ChannelName),
    Erase(Erasure),
}

impl Change {
    /// The channel that changes.
    pub fn channel(&self) -> &ChannelName {
        match self {
            Self::Append(append) => &append.channel,
            Self::Reopen(channel) => channel,
            Self::Erase(erasure) => &erasure.channel,
        }
    }
}

/// A record of events and its changes to the catalog.
pub struct Append {
    pub channel: ChannelName,
    pub previous: EventId,
    /// The position of a reader that has read everything before this record.
    pub follows: EventId,
    pub is_end: bool,
    pub entry: Entry,
    pub stored: Vec<StoredEvent>,
    pub state: Vec<(Box<str>, Option<Kept>)>,
    pub key: Option<KeyRecord>,
}

/// The properties of a channel after the batch, as far as later commands depend on them.
#[derive(Clone, Copy, Debug)]
struct ChannelTotals {
    last: EventId,
    closed: EventId,
    is_new: bool,
    events: u64,
    bytes: u64,
    keys: u64,
    state_bytes: u64,
}

impl ChannelTotals {
    fn of(channel: &Channel) -> Self {
        Self {
            last: channel.last,
            closed: channel.closed,
            is_new: false,
            events: channel.events,
            bytes: channel.bytes,
            keys: channel.state.len() as u64,
            state_bytes: channel.state_bytes,
        }
    }
}

impl<'c> Batch<'c> {
    /// Creates an empty batch on top of the catalog `known`, at the instant `now` (ms).
    pub fn new(
        known: &'c Catalog,
        limits: &'c ChannelLimits,
        now: u64,
        write_position: WritePosition,
    ) -> Self {
        Self {
            known,
            limits,
            now,
            write_position,
            channels: HashMap::new(),
            state: HashMap::new(),
            keys: HashMap::new(),
            newest: known.newest,
            new_channels: 0,
            bytes: known.bytes,
            staged: Staged::default(),
        }
    }

    /// Returns the records to commit and their changes to the catalog.
    pub fn finish(self) -> Staged {
        self.staged
    }

    /// Adds a change whose records are written.
    pub fn stage(&mut self, change: Change) {
        self.staged.changes.push(change);
    }

    pub fn publish(&mut self, publication: Publication) -> Result<Published, StoreError> {
        let Publication { channel, events, idempotency } = publication;
        if let Some(idempotency) = &idempotency
            && let Some(first) = self.first_answer(&channel, idempotency)?
        {
            return Ok(first);
        }
        let head = match self.head(&channel) {
            Some(head) => head,
            None => self.new_channel()?,
        };
        if head.closed != EventId::START {
            return Err(StoreError::Closed);
        }
        let limits = self.limits.of(&channel);
        let after = self.after(&channel, head, &events, &limits);
        self.check_limits(&head, &after, &events, idempotency.is_some(), &limits)?;
        let ids = self.append(channel, head, after, events, idempotency, Kind::Events);
        Ok(Published { ids, repeated: false })
    }

    pub fn close(&mut self, channel: &ChannelName) -> Result<EventId, StoreError> {
        let head = self.head(channel).ok_or(StoreError::NoChannel)?;
        if head.closed != EventId::START {
            return Ok(head.closed);
        }
        self.end(channel)
    }

    /// Appends an `end` event to a channel, also if it has ended before.
    pub fn end(&mut self, channel: &ChannelName) -> Result<EventId, StoreError> {
        let head = self.head(channel).ok_or(StoreError::NoChannel)?;
        let events = vec![Event::end()];
        let after = self.after(channel, head, &events, &self.limits.of(channel));
        let ids = self.append(channel.clone(), head, after, events, None, Kind::End);
        if let Some(head) = self.channels.get_mut(channel) {
            head.closed = ids[0];
        }
        Ok(ids[0])
    }

    pub fn reopen(&mut self, channel: &ChannelName) -> Result<(), StoreError> {
        let head = self.head(channel).ok_or(StoreError::NoChannel)?;
        if head.closed != EventId::START {
            let open = ChannelTotals { closed: EventId::START, ..head };
            self.channels.insert(channel.clone(), open);
            self.write(Kind::Reopen, |out| write_name(out, channel));
            self.staged.changes.push(Change::Reopen(channel.clone()));
        }
        Ok(())
    }

    /// Adds a `gap` event to a channel, some of whose events may be lost.
    pub fn announce_loss(&mut self, channel: &ChannelName) {
        let Some(head) = self.head(channel) else { return };
        let events = vec![Event::lost(&head.last.to_string())];
        let after = self.after(channel, head, &events, &self.limits.of(channel));
        self.append(channel.clone(), head, after, events, None, Kind::Events);
        if head.closed != EventId::START {
            self.channels.insert(channel.clone(), head);
        }
    }

    /// Returns the newest event of a channel, if the channel exists.
    pub fn last(&self, channel: &ChannelName) -> Option<EventId> {
        self.head(channel).map(|head| head.last)
    }

    /// Returns the keys of a channel's state.
    pub fn keys_of(&self, channel: &ChannelName) -> Vec<Box<str>> {
        let known = self.known.channels.get(channel);
        let known = known.into_iter().flat_map(|channel| channel.state.keys());
        let staged = self.state.keys().filter(|(name, _)| name == channel).map(|(_, key)| key);
        let mut keys: Vec<_> = known.chain(staged).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.state_of(channel, key).is_some());
        keys
    }

    /// Notes that a channel has nothing but its `end` event, which was appended last, and that
    /// these keys of its state are removed.
    pub fn note_erased(&mut self, channel: &ChannelName, keys: &[Box<str>]) {
        let Some(before) = self.head(channel) else { return };
        let bytes = (EVENT_OVERHEAD_BYTES + Event::end().weight()) as u64;
        let after = ChannelTotals { events: 1, bytes, keys: 0, state_bytes: 0, ..before };
        self.bytes = self.total(&before, &after);
        self.channels.insert(channel.clone(), after);
        for key in keys {
            self.state.insert((channel.clone(), key.clone()), None);
        }
    }

    fn head(&self, channel: &ChannelName) -> Option<ChannelTotals> {
        let known = || self.known.channels.get(channel).map(ChannelTotals::of);
        self.channels.get(channel).copied().or_else(known)
    }

    fn new_channel(&mut self) -> Result<ChannelTotals, StoreError> {
        let count = self.known.channels.len() as u64 + self.new_channels + 1;
        self.limits.general().check(Quota::Channels, count)?;
        Ok(ChannelTotals {
            last: self.newest.max(self.known.beginning),
            closed: EventId::START,
            is_new: true,
            events: 0,
            bytes: 0,
            keys: 0,
            state_bytes: 0,
        })
    }

    fn first_answer(
        &self,
        channel: &ChannelName,
        asked: &Idempotency,
    ) -> Result<Option<Published>, StoreError> {
        let name = (channel.clone(), asked.key.as_str().into());
        let first = self.keys.get(&name).or_else(|| self.known.keys.get(channel, &asked.key));
        let Some(first) = first.filter(|first| first.expires_at > self.now) else {
            return Ok(None);
        };
        if first.digest != asked.digest {
            return Err(StoreError::KeyReused);
        }
        let EventId { ms, seq } = first.first;
        let ids = (0..u64::from(first.count)).map(|n| EventId { ms, seq: seq + n }).collect();
        Ok(Some(Published { ids, repeated: true }))
    }

    /// Returns the properties of the channel after the events are appended.
    fn after(
        &self,
        channel: &ChannelName,
        head: ChannelTotals,
        events: &[Event],
        limits: &Limits,
    ) -> ChannelTotals {
        let keyed = events.iter().filter_map(|event| Some((event.key.as_ref()?.as_str(), event)));
        let newest: HashMap<&str, &Event> = keyed.collect();
        let mut after = head;
        for (key, event) in newest {
            if let Some(bytes) = self.state_of(channel, key) {
                after.keys -= 1;
                after.state_bytes = after.state_bytes.saturating_sub(u64::from(bytes));
            }
            if !event.removes_key() {
                after.keys += 1;
                after.state_bytes += u64::from(state_bytes(event));
            }
        }
        let bytes: usize = events.iter().map(|event| EVENT_OVERHEAD_BYTES + event.weight()).sum();
        after.events += events.len() as u64;
        after.bytes += bytes as u64;
        // Events beyond the limits of the channel are dropped with the commit.
        let is_over = after.events.saturating_sub(limits.retain_events);
        let dropped = (after.bytes * is_over).checked_div(after.events).unwrap_or(0);
        after.bytes = (after.bytes - dropped).min(limits.retain_bytes.max(bytes as u64));
        after.events -= is_over;
        after
    }

    fn state_of(&self, channel: &ChannelName, key: &str) -> Option<u32> {
        match self.state.get(&(channel.clone(), key.into())) {
            Some(staged) => *staged,
            None => Some(self.known.channels.get(channel)?.state.get(key)?.bytes),
        }
    }

    fn check_limits(
        &self,
        before: &ChannelTotals,
        after: &ChannelTotals,
        events: &[Event],
        with_idempotency: bool,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let is_keyed = events.iter().any(|event| event.key.is_some());
        let total = self.total(before, after);
        if total > self.bytes {
            limits.check(Quota::TotalBytes, total)?;
        }
        if is_keyed && after.keys > before.keys {
            limits.check(Quota::Keys, after.keys)?;
        }
        if is_keyed && after.state_bytes > before.state_bytes {
            limits.check(Quota::StateBytes, after.state_bytes)?;
        }
        if with_idempotency {
            let keys = self.known.keys.len() + self.keys.len() as u64 + 1;
            limits.check(Quota::IdempotencyKeys, keys)?;
        }
        Ok(())
    }

    fn total(&self, before: &ChannelTotals, after: &ChannelTotals) -> u64 {
        (self.bytes + after.bytes + after.state_bytes)
            .saturating_sub(before.bytes + before.state_bytes)
    }

    fn append(
        &mut self,
        channel: ChannelName,
        head: ChannelTotals,
        after: ChannelTotals,
        events: Vec<Event>,
        idempotency: Option<Idempotency>,
        kind: Kind,
    ) -> Vec<EventId> {
        let first = self.newest.next(self.now);
        let count = events.len() as u32;
        let key = idempotency.map(|Idempotency { key, digest }| KeyRecord {
            key: key.into(),
            digest,
            first,
            count,
            expires_at: self.now + self.limits.general().idempotency_age.as_millis() as u64,
        });
        let (is_first, previous) = (head.is_new, head.last);
        let record = Events { channel, is_first, previous, first, key, events };
        let write_position = self.write(kind, |out| record.write(out));
        let mut append = Append::of(record, kind, self.write_position.log_file, write_position);
        if is_first {
            append.follows = self.known.beginning;
        }
        let last = append.entry.last();
        self.newest = last;
        self.new_channels += u64::from(head.is_new);
        self.bytes = self.total(&head, &after);
        self.channels
            .insert(append.channel.clone(), ChannelTotals { last, is_new: false, ..after });
        for (key, kept) in &append.state {
            let name = (append.channel.clone(), key.clone());
            self.state.insert(name, kept.map(|kept| kept.bytes));
        }
        if let Some(key) = &append.key {
            self.keys.insert((append.channel.clone(), key.key.clone()), key.clone());
        }
        let ids = append.stored.iter().map(|stored| stored.id).collect();
        self.staged.changes.push(Change::Append(Box::new(append)));
        ids
    }

    /// Appends a frame. Returns its offset in the file and its length.
    pub fn write(&mut self, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) -> (usize, usize) {
        let start = self.staged.bytes.len();
        let head = (kind, self.write_position.commit, start == 0);
        frame::write(&mut self.staged.bytes, self.write_position.seed, head, body);
        (self.write_position.offset + start, self.staged.bytes.len() - start)
    }
}

impl Append {
    /// Returns the changes by a record whose frame is at `offset` and has `length` bytes.
    fn of(record: Events, kind: Kind, log_file: u32, (offset, length): (usize, usize)) -> Self {
        let entry = entry_of(&record, offset, length);
        let state = keyed(&record, log_file, offset, length).into_iter().collect();
        let Events { channel, previous, first, key, events, .. } = record;
        let id = |index| EventId { ms: first.ms, seq: first.seq + index };
        let stored = (0..).zip(events).map(|(index, event)| StoredEvent { id: id(index), event });
        let (stored, is_end) = (stored.collect(), kind == Kind::End);
        Self { channel, previous, follows: previous, is_end, entry, stored, state, key }
    }
}
