//! The tables of the local store, and what is read from one snapshot of them.
//!
//! Every key begins with the channel's number, so a channel's events lie next to each other in the
//! order of their ids.

use super::super::record::{self, ChannelRecord, Unreadable};
use super::super::{Page, PageLimit, Standing, State, StoreError};
use crate::cursor::EventId;
use crate::event::ChannelName;
use crate::event_log::StoredEvent;
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition};
use std::ops::RangeInclusive;

/// Channel number, ms, seq.
pub type EventKey = (u32, u64, u64);

pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub const CHANNELS: TableDefinition<&str, &[u8]> = TableDefinition::new("channels");
pub const EVENTS: TableDefinition<EventKey, &[u8]> = TableDefinition::new("events");
pub const STATE: TableDefinition<(u32, &str), &[u8]> = TableDefinition::new("state");
pub const IDEMPOTENCY: TableDefinition<(u32, &str), &[u8]> = TableDefinition::new("idempotency");
/// `(expires_at, channel number, idempotency key)`, so that the oldest go first.
pub const EXPIRY: TableDefinition<(u64, u32, &str), ()> =
    TableDefinition::new("idempotency_expiry");

/// Rows of [`META`].
pub const META_FORMAT: &str = "format";
pub const META_LAST_ID: &str = "last_id";
pub const META_NEXT_CHANNEL: &str = "next_channel";
/// The layout of these tables. A reader of another number refuses the file.
pub const FORMAT: u8 = 1;

/// One state of the whole store; later writes do not show.
pub struct Snapshot(ReadTransaction);

impl Snapshot {
    pub fn take(database: &Database) -> Result<Self, StoreError> {
        Ok(Self(database.begin_read().map_err(down)?))
    }

    pub fn channel(&self, name: &ChannelName) -> Result<Option<ChannelRecord>, StoreError> {
        let table = self.0.open_table(CHANNELS).map_err(down)?;
        let row = table.get(name.as_str()).map_err(down)?;
        row.map(|row| ChannelRecord::read(row.value()).map_err(unreadable)).transpose()
    }

    pub fn standing(&self, name: &ChannelName) -> Result<Standing, StoreError> {
        let Some(channel) = self.channel(name)? else {
            return Ok(Standing::default());
        };
        Ok(Standing {
            last: channel.last,
            oldest: Some(channel.oldest).filter(|oldest| *oldest != EventId::START),
            trimmed_to: channel.trimmed_to,
            closed: channel.closed != EventId::START,
            keyed: channel.keys > 0,
        })
    }

    /// The last place before `ms`; of an ended channel one before its `end` event at the latest,
    /// so that whoever begins there hears of the end.
    pub fn position_before(&self, name: &ChannelName, ms: u64) -> Result<EventId, StoreError> {
        match self.channel(name)? {
            Some(channel) => self.place_before(&channel, EventId { ms, seq: 0 }),
            None => Ok(EventId::START),
        }
    }

    fn place_before(&self, channel: &ChannelRecord, id: EventId) -> Result<EventId, StoreError> {
        let is_open = channel.closed == EventId::START;
        let bound = if is_open { id } else { id.min(channel.closed) };
        let table = self.0.open_table(EVENTS).map_err(down)?;
        let before = (channel.number, 0, 0)..(channel.number, bound.ms, bound.seq);
        match table.range(before).map_err(down)?.next_back() {
            Some(row) => Ok(id_of(row.map_err(down)?.0.value())),
            None => Ok(channel.trimmed_to),
        }
    }

    pub fn read(
        &self,
        name: &ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let Some(channel) = self.channel(name)? else {
            return Ok(Page { complete: true, ..Page::default() });
        };
        let table = self.0.open_table(EVENTS).map_err(down)?;
        let ChannelRecord { trimmed_to, last, .. } = channel;
        let closed = channel.closed != EventId::START;
        let mut page = Page { trimmed_to, last, closed, complete: true, ..Page::default() };
        let mut bytes = 0;
        for row in table.range(after(channel.number, position)).map_err(down)? {
            let (key, value) = row.map_err(down)?;
            bytes += value.value().len();
            let is_full = page.events.len() == limit.events || bytes > limit.bytes;
            if is_full && !page.events.is_empty() {
                page.complete = false;
                break;
            }
            let event = record::read_event(value.value()).map_err(unreadable)?;
            page.events.push(StoredEvent { id: id_of(key.value()), event });
        }
        Ok(page)
    }

    pub fn read_back(
        &self,
        name: &ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let Some(channel) = self.channel(name)? else {
            return Ok(Page { complete: true, ..Page::default() });
        };
        let table = self.0.open_table(EVENTS).map_err(down)?;
        let ChannelRecord { trimmed_to, last, .. } = channel;
        let closed = channel.closed != EventId::START;
        let mut page = Page { trimmed_to, last, closed, complete: true, ..Page::default() };
        let mut bytes = 0;
        let range = (channel.number, 0, 0)..(channel.number, before.ms, before.seq);
        for row in table.range(range).map_err(down)?.rev() {
            let (key, value) = row.map_err(down)?;
            bytes += value.value().len();
            let is_full = page.events.len() == limit.events || bytes > limit.bytes;
            if is_full && !page.events.is_empty() {
                page.complete = false;
                break;
            }
            let event = record::read_event(value.value()).map_err(unreadable)?;
            page.events.push(StoredEvent { id: id_of(key.value()), event });
        }
        page.events.reverse();
        Ok(page)
    }

    pub fn position_back(&self, name: &ChannelName, count: u64) -> Result<EventId, StoreError> {
        let Some(channel) = self.channel(name)? else { return Ok(EventId::START) };
        // The end of a channel is no event of a publisher.
        let count = count + u64::from(channel.closed != EventId::START);
        let table = self.0.open_table(EVENTS).map_err(down)?;
        let mut rows = table.range(after(channel.number, EventId::START)).map_err(down)?.rev();
        match rows.nth(usize::try_from(count).unwrap_or(usize::MAX)) {
            Some(row) => Ok(id_of(row.map_err(down)?.0.value())),
            None => Ok(channel.trimmed_to),
        }
    }

    pub fn state(&self, name: &ChannelName) -> Result<State, StoreError> {
        let Some(channel) = self.channel(name)? else {
            return Ok(State::default());
        };
        let table = self.0.open_table(STATE).map_err(down)?;
        let mut events = Vec::with_capacity(channel.keys as usize);
        for row in table.range((channel.number, "")..(channel.number + 1, "")).map_err(down)? {
            let (_, value) = row.map_err(down)?;
            let (id, event) = record::read_state(value.value()).map_err(unreadable)?;
            events.push(StoredEvent { id, event });
        }
        events.sort_by_key(|stored| stored.id);
        let end_of_log = EventId { ms: u64::MAX, seq: 0 };
        let position = match channel.closed {
            EventId::START => channel.last,
            _ => self.place_before(&channel, end_of_log)?,
        };
        Ok(State { position, events })
    }

    /// Every channel, and the rows of [`META`].
    pub fn channels(&self) -> Result<Vec<(ChannelName, ChannelRecord)>, StoreError> {
        let table = self.0.open_table(CHANNELS).map_err(down)?;
        let rows = table.range::<&str>(..).map_err(down)?;
        rows.map(|row| {
            let (name, record) = row.map_err(down)?;
            let name = ChannelName::parse(name.value()).map_err(|error| {
                StoreError::Down(format!("a channel's name in the log {error}"))
            })?;
            Ok((name, ChannelRecord::read(record.value()).map_err(unreadable)?))
        })
        .collect()
    }

    pub fn meta(&self, row: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.0.open_table(META).map_err(down)?;
        Ok(table.get(row).map_err(down)?.map(|value| value.value().to_vec()))
    }

    pub fn idempotency_keys(&self) -> Result<u64, StoreError> {
        use redb::ReadableTableMetadata;
        self.0.open_table(IDEMPOTENCY).map_err(down)?.len().map_err(down)
    }
}

/// Keys of the events after a place.
pub fn after(channel: u32, position: EventId) -> RangeInclusive<EventKey> {
    let first = match position.seq.checked_add(1) {
        Some(seq) => (channel, position.ms, seq),
        None => (channel, position.ms.saturating_add(1), 0),
    };
    first..=(channel, u64::MAX, u64::MAX)
}

pub fn id_of((_, ms, seq): EventKey) -> EventId {
    EventId { ms, seq }
}

pub fn down(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Down(error.into().to_string())
}

pub fn unreadable(_: Unreadable) -> StoreError {
    StoreError::Down("a record of the log is of a newer version, or damaged".to_owned())
}
