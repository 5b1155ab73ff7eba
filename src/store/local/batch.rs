//! One transaction being filled: what each command does to the tables.
//!
//! A command is checked before it changes anything, so one that is refused leaves the others of
//! its batch alone; a fault of the disk ends the whole batch, and nothing of it is kept.

use super::super::record::{self, ChannelRecord, IdempotencyRecord};
use super::super::{Idempotency, Limits, Publication, Published, StoreError};
use super::tables::{
    CHANNELS, EVENTS, EXPIRY, EventKey, IDEMPOTENCY, META, META_LAST_ID, META_NEXT_CHANNEL, STATE,
    after, down, id_of, unreadable,
};
use super::writer::{Catalog, Totals};
use super::{Command, Reply};
use crate::cursor::EventId;
use crate::event::{ChannelName, Event};
use crate::event_log::StoredEvent;
use redb::{ReadableTable, Table, WriteTransaction};
use std::collections::HashMap;

/// Most events that one sweep drops, so that publishes do not wait long behind it.
const SWEEP_EVENTS_MAX: u64 = 20_000;
/// Bytes of a row beside the event's own: see `record.rs`.
const EVENT_ROW_OVERHEAD: usize = 5;
const STATE_ROW_OVERHEAD: usize = EVENT_ROW_OVERHEAD + 16;

/// A transaction being filled: the tables, and what will be known once it is committed.
pub struct Batch<'t> {
    now: u64,
    limits: Limits,
    known: &'t Catalog,
    touched: HashMap<ChannelName, Option<ChannelRecord>>,
    totals: Totals,
    appended: Vec<(ChannelName, EventId, Vec<StoredEvent>)>,
    /// Something beside a channel's row was changed.
    is_changed: bool,
    tables: Tables<'t>,
}

pub struct Tables<'t> {
    pub meta: Table<'t, &'static str, &'static [u8]>,
    channels: Table<'t, &'static str, &'static [u8]>,
    events: Table<'t, EventKey, &'static [u8]>,
    state: Table<'t, (u32, &'static str), &'static [u8]>,
    idempotency: Table<'t, (u32, &'static str), &'static [u8]>,
    expiry: Table<'t, (u64, u32, &'static str), ()>,
}

/// The changed rows of a committed batch.
pub struct Committed {
    /// `None`: forgotten.
    pub touched: HashMap<ChannelName, Option<ChannelRecord>>,
    pub totals: Totals,
    /// Channel, the id before the first event, the events.
    pub appended: Vec<(ChannelName, EventId, Vec<StoredEvent>)>,
}

/// What one publish does to a channel's state, worked out before anything is written.
struct StateChange {
    /// Where in the publish the last event of each key stands.
    newest: Vec<usize>,
    keys: i64,
    bytes: i64,
}

/// A fault of the disk ends the batch; a refusal only its own command.
enum Failure {
    Refused(StoreError),
    Fault(StoreError),
}

/// An answer that waits for the commit.
pub type Pending = Box<dyn FnOnce(Result<(), StoreError>)>;

impl<'t> Batch<'t> {
    /// An empty batch on what is `known`, at the instant `now` (ms).
    pub fn new(
        transaction: &'t WriteTransaction,
        known: &'t Catalog,
        limits: Limits,
        now: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            now,
            limits,
            known,
            touched: HashMap::new(),
            totals: known.totals,
            appended: Vec::new(),
            is_changed: false,
            tables: Tables::open(transaction)?,
        })
    }

    /// Applies a command; its answer goes to `pending`, to be given after the commit.
    pub fn command(
        &mut self,
        command: Command,
        pending: &mut Vec<Pending>,
    ) -> Result<(), StoreError> {
        match command {
            Command::Publish(publication, reply) => {
                let result = self.publish(publication);
                answer_later(reply, result, pending)
            }
            Command::Close(channel, reply) => {
                let result = self.close(&channel);
                answer_later(reply, result, pending)
            }
            Command::Reopen(channel, reply) => {
                let result = self.reopen(channel);
                answer_later(reply, result, pending)
            }
            Command::Settle(reply) => {
                pending.push(Box::new(|_| reply.send(()).unwrap_or_default()));
                Ok(())
            }
            Command::Sweep => self.sweep(),
            Command::Stop => Ok(()),
        }
    }

    fn publish(&mut self, publication: Publication) -> Result<Published, Failure> {
        let Publication { channel, events, idempotency } = publication;
        let known = self.record(&channel);
        if let (Some(record), Some(idempotency)) = (&known, &idempotency)
            && let Some(first) = self.first_answer(record.number, idempotency)?
        {
            return Ok(first);
        }
        let record = self.known_or_new(known)?;
        if record.closed != EventId::START {
            return Err(Failure::Refused(StoreError::Closed));
        }
        let change = self.state_change(record.number, &events)?;
        self.check_limits(&record, &events, &change, idempotency.is_some())?;
        let ids = self.append(channel, record, events, change)?;
        if let Some(idempotency) = idempotency {
            self.remember(record.number, idempotency, &ids)?;
        }
        Ok(Published { ids, repeated: false })
    }

    fn close(&mut self, channel: &ChannelName) -> Result<EventId, Failure> {
        let record = self.record(channel).ok_or(Failure::Refused(StoreError::NoChannel))?;
        if record.closed != EventId::START {
            return Ok(record.closed);
        }
        let no_state = StateChange { newest: Vec::new(), keys: 0, bytes: 0 };
        let ids = self.append(channel.clone(), record, vec![Event::end()], no_state)?;
        if let Some(Some(record)) = self.touched.get_mut(channel) {
            record.closed = ids[0];
        }
        Ok(ids[0])
    }

    fn reopen(&mut self, channel: ChannelName) -> Result<(), Failure> {
        let mut record = self.record(&channel).ok_or(Failure::Refused(StoreError::NoChannel))?;
        record.closed = EventId::START;
        self.touched.insert(channel, Some(record));
        Ok(())
    }

    fn record(&self, channel: &ChannelName) -> Option<ChannelRecord> {
        match self.touched.get(channel) {
            Some(record) => *record,
            None => self.known.channels.get(channel).copied(),
        }
    }

    fn known_or_new(&mut self, known: Option<ChannelRecord>) -> Result<ChannelRecord, Failure> {
        if let Some(record) = known {
            return Ok(record);
        }
        // Counts a channel twice that this batch both forgot and knew; only until the next batch.
        let count = self.known.channels.len() as u64
            + (self.totals.next_channel - self.known.totals.next_channel) as u64;
        within(count + 1, self.limits.channels, "too many channels", "--max-channels")?;
        let record = ChannelRecord { number: self.totals.next_channel, ..ChannelRecord::default() };
        self.totals.next_channel += 1;
        Ok(record)
    }

    fn first_answer(
        &mut self,
        channel: u32,
        asked: &Idempotency,
    ) -> Result<Option<Published>, Failure> {
        let row = self.tables.idempotency.get((channel, asked.key.as_str())).map_err(fault)?;
        let Some(row) = row else { return Ok(None) };
        let first =
            IdempotencyRecord::read(row.value()).map_err(unreadable).map_err(Failure::Fault)?;
        if first.expires_at <= self.now {
            return Ok(None);
        }
        match first.digest == asked.digest {
            true => Ok(Some(first.answer())),
            false => Err(Failure::Refused(StoreError::KeyReused)),
        }
    }

    fn remember(
        &mut self,
        channel: u32,
        idempotency: Idempotency,
        ids: &[EventId],
    ) -> Result<(), Failure> {
        let key = idempotency.key.as_str();
        let record = IdempotencyRecord {
            digest: idempotency.digest,
            first: ids[0],
            count: ids.len() as u64,
            expires_at: self.now + self.limits.idempotency_age.as_millis() as u64,
        };
        let row = record.write();
        let before =
            self.tables.idempotency.insert((channel, key), row.as_slice()).map_err(fault)?;
        if before.is_none() {
            self.totals.idempotency_keys += 1;
        }
        drop(before);
        self.tables.expiry.insert((record.expires_at, channel, key), ()).map_err(fault)?;
        Ok(())
    }

    fn state_change(&self, channel: u32, events: &[Event]) -> Result<StateChange, Failure> {
        let keyed = events.iter().enumerate();
        let keyed = keyed.filter_map(|(index, event)| Some((event.key.as_ref()?.as_str(), index)));
        let newest: HashMap<&str, usize> = keyed.collect();
        let mut change = StateChange { newest: Vec::new(), keys: 0, bytes: 0 };
        for (key, index) in newest {
            let before = self.tables.state.get((channel, key)).map_err(fault)?;
            if let Some(before) = before {
                change.keys -= 1;
                change.bytes -= before.value().len() as i64;
            }
            if !events[index].removes_key() {
                change.keys += 1;
                change.bytes += (STATE_ROW_OVERHEAD + events[index].weight()) as i64;
            }
            change.newest.push(index);
        }
        Ok(change)
    }

    fn check_limits(
        &self,
        record: &ChannelRecord,
        events: &[Event],
        change: &StateChange,
        with_idempotency: bool,
    ) -> Result<(), Failure> {
        let limits = &self.limits;
        let bytes: usize = events.iter().map(|event| EVENT_ROW_OVERHEAD + event.weight()).sum();
        let total = (self.totals.bytes + bytes as u64).saturating_add_signed(change.bytes);
        within(total, limits.total_bytes, "the store is full, in bytes", "--max-store-bytes")?;
        if change.keys > 0 {
            let keys = record.keys.saturating_add_signed(change.keys);
            within(keys, limits.keys, "too many keys in the channel", "--max-keys")?;
        }
        if change.bytes > 0 {
            let bytes = record.state_bytes.saturating_add_signed(change.bytes);
            within(
                bytes,
                limits.state_bytes,
                "the channel's state, in bytes",
                "--max-state-bytes",
            )?;
        }
        if with_idempotency {
            let keys = self.totals.idempotency_keys + 1;
            let flag = "--max-idempotency-keys";
            within(keys, limits.idempotency_keys, "too many idempotency keys", flag)?;
        }
        Ok(())
    }

    fn append(
        &mut self,
        channel: ChannelName,
        mut record: ChannelRecord,
        events: Vec<Event>,
        change: StateChange,
    ) -> Result<Vec<EventId>, Failure> {
        let previous = record.last;
        let bytes_before = record.bytes + record.state_bytes;
        let mut ids = Vec::with_capacity(events.len());
        for event in &events {
            let now = if ids.is_empty() { self.now } else { 0 };
            let id = self.totals.last.next(now);
            self.totals.last = id;
            ids.push(id);
            let row = record::write_event(event);
            let key = (record.number, id.ms, id.seq);
            self.tables.events.insert(key, row.as_slice()).map_err(fault)?;
            record.events += 1;
            record.bytes += row.len() as u64;
        }
        for index in change.newest {
            let Some(key) = &events[index].key else {
                continue;
            };
            let key = (record.number, key.as_str());
            if events[index].removes_key() {
                self.tables.state.remove(key).map_err(fault)?;
            } else {
                let row = record::write_state(ids[index], &events[index]);
                self.tables.state.insert(key, row.as_slice()).map_err(fault)?;
            }
        }
        record.keys = record.keys.saturating_add_signed(change.keys);
        record.state_bytes = record.state_bytes.saturating_add_signed(change.bytes);
        record.last = self.totals.last;
        record.used_at = self.now;
        if record.oldest == EventId::START {
            record.oldest = ids[0];
        }
        self.totals.bytes += record.bytes + record.state_bytes;
        self.totals.bytes = self.totals.bytes.saturating_sub(bytes_before);
        let (events_max, bytes_max) = (self.limits.retain_events, self.limits.retain_bytes);
        self.trim(&mut record, u64::MAX, |record, _| {
            record.events > 1 && (record.events > events_max || record.bytes > bytes_max)
        })?;
        self.touched.insert(channel.clone(), Some(record));
        let stored = ids.iter().zip(events).map(|(id, event)| StoredEvent { id: *id, event });
        self.appended.push((channel, previous, stored.collect()));
        Ok(ids)
    }

    /// Drops the oldest events while `is_over` says so of the record and the oldest id, at most
    /// `events_max` of them. Returns how many went.
    fn trim(
        &mut self,
        record: &mut ChannelRecord,
        events_max: u64,
        is_over: impl Fn(&ChannelRecord, EventId) -> bool,
    ) -> Result<u64, Failure> {
        if !is_over(record, record.oldest) {
            return Ok(0);
        }
        let mut dropped = Vec::new();
        record.oldest = EventId::START;
        let all = after(record.number, EventId::START);
        for row in self.tables.events.range(all).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            let id = id_of(key.value());
            if dropped.len() as u64 == events_max || !is_over(record, id) {
                record.oldest = id;
                break;
            }
            dropped.push(id);
            record.events -= 1;
            record.bytes -= value.value().len() as u64;
            self.totals.bytes -= value.value().len() as u64;
            record.trimmed_to = id;
        }
        for id in &dropped {
            let key = (record.number, id.ms, id.seq);
            self.tables.events.remove(key).map_err(fault)?;
        }
        Ok(dropped.len() as u64)
    }

    /// Drops what is too old: events, idempotency keys, and channels that nobody uses.
    fn sweep(&mut self) -> Result<(), StoreError> {
        let age = self.limits.retain_age.as_millis() as u64;
        let idle = self.limits.channel_idle.as_millis() as u64;
        let (events_before, unused_since) =
            (self.now.saturating_sub(age), self.now.saturating_sub(idle));
        let known = self.known;
        let mut left = SWEEP_EVENTS_MAX;
        for (channel, record) in &known.channels {
            let mut record = self.touched.get(channel).copied().flatten().unwrap_or(*record);
            if record.events > 0 && record.oldest.ms < events_before && left > 0 {
                let is_old = |_: &ChannelRecord, id: EventId| id.ms < events_before;
                left -= self.trim(&mut record, left, is_old).map_err(Failure::into_error)?;
                self.touched.insert(channel.clone(), Some(record));
            }
            if record.events == 0 && record.keys == 0 && record.used_at < unused_since {
                self.touched.insert(channel.clone(), None);
            }
        }
        self.forget_idempotency_keys()
    }

    fn forget_idempotency_keys(&mut self) -> Result<(), StoreError> {
        let mut expired = Vec::new();
        for row in self.tables.expiry.range(..(self.now, 0, "")).map_err(down)? {
            let (row, ()) = row.map_err(down).map(|(key, _)| (key, ()))?;
            let (expires_at, channel, key) = row.value();
            expired.push((expires_at, channel, key.to_owned()));
            if expired.len() as u64 == SWEEP_EVENTS_MAX {
                break;
            }
        }
        for (expires_at, channel, key) in &expired {
            self.tables.expiry.remove((*expires_at, *channel, key.as_str())).map_err(down)?;
            let row = self.tables.idempotency.get((*channel, key.as_str())).map_err(down)?;
            let row = row.map(|row| IdempotencyRecord::read(row.value()).map_err(unreadable));
            // A key that was used again after it expired has a later row of its own.
            if row.transpose()?.is_some_and(|row| row.expires_at == *expires_at) {
                self.tables.idempotency.remove((*channel, key.as_str())).map_err(down)?;
                self.totals.idempotency_keys -= 1;
            }
        }
        self.is_changed |= !expired.is_empty();
        Ok(())
    }

    /// What is to be known once the transaction is committed; `None` when nothing was changed.
    pub fn finish(mut self) -> Result<Option<Committed>, StoreError> {
        if self.touched.is_empty() && !self.is_changed {
            return Ok(None);
        }
        for (name, record) in &self.touched {
            let channels = &mut self.tables.channels;
            match record {
                Some(record) => channels.insert(name.as_str(), record.write().as_slice()),
                None => channels.remove(name.as_str()),
            }
            .map_err(down)?;
        }
        let EventId { ms, seq } = self.totals.last;
        let last = [ms.to_be_bytes(), seq.to_be_bytes()].concat();
        self.tables.meta.insert(META_LAST_ID, last.as_slice()).map_err(down)?;
        let next = self.totals.next_channel.to_be_bytes();
        self.tables.meta.insert(META_NEXT_CHANNEL, next.as_slice()).map_err(down)?;
        let Self { touched, totals, appended, .. } = self;
        Ok(Some(Committed { touched, totals, appended }))
    }
}

impl Tables<'_> {
    pub fn open(transaction: &WriteTransaction) -> Result<Tables<'_>, StoreError> {
        Ok(Tables {
            meta: transaction.open_table(META).map_err(down)?,
            channels: transaction.open_table(CHANNELS).map_err(down)?,
            events: transaction.open_table(EVENTS).map_err(down)?,
            state: transaction.open_table(STATE).map_err(down)?,
            idempotency: transaction.open_table(IDEMPOTENCY).map_err(down)?,
            expiry: transaction.open_table(EXPIRY).map_err(down)?,
        })
    }
}

impl Failure {
    fn into_error(self) -> StoreError {
        match self {
            Self::Refused(error) | Self::Fault(error) => error,
        }
    }
}

fn fault(error: impl Into<redb::Error>) -> Failure {
    Failure::Fault(down(error))
}

fn within(value: u64, limit: u64, what: &'static str, flag: &'static str) -> Result<(), Failure> {
    if value <= limit {
        return Ok(());
    }
    Err(Failure::Refused(StoreError::Limit { what, limit, flag }))
}

/// The command's answer goes out after the commit. A fault ends the batch.
fn answer_later<T: 'static>(
    reply: Reply<T>,
    result: Result<T, Failure>,
    pending: &mut Vec<Pending>,
) -> Result<(), StoreError> {
    let (result, fault) = match result {
        Ok(done) => (Ok(done), Ok(())),
        Err(Failure::Refused(error)) => (Err(error), Ok(())),
        Err(Failure::Fault(error)) => (Err(error.clone()), Err(error)),
    };
    pending.push(Box::new(move |committed: Result<(), StoreError>| {
        // A publisher that went away does not hear of it.
        drop(reply.send(committed.and(result)));
    }));
    fault
}
