//! Converts the results of the reading scripts into pages. Every entry of a log contains the id of
//! the entry before it and a checksum. An entry that is missing or unreadable is replaced by a
//! `gap` event.

use super::RedisStore;
use super::connection::Script;
use super::publish::checksum;
use super::reply::{array, bytes, id, id_if_any, next, text};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, StoredEvent};
use crate::core::log_state::Bounds;
use crate::store::{Page, PageLimit, State, StoreError, StoreFault, record};
use bytes::Bytes;
use fred::types::Value;

/// An entry of a log.
pub struct Entry {
    pub id: EventId,
    /// The id of the entry before it, if the entry contains one.
    pub before: Option<EventId>,
    /// The event, or `None` if it is damaged.
    pub event: Option<Event>,
}

impl RedisStore {
    /// Reads the events after `position`.
    pub async fn page_after(
        &self,
        channel: &ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let answer = self.page(&self.scripts.read, channel, position, limit).await?;
        let mut parts = array(answer)?.into_iter();
        let mut page = head(&mut parts)?;
        let mut newest = position.max(page.bounds.low_watermark);
        for entry in entries(parts)? {
            if let Some(before) = entry.before.filter(|before| *before > newest) {
                page.events.push(self.damaged(channel, before));
            }
            newest = entry.id;
            page.events.push(self.stored(channel, entry));
        }
        let last = page.bounds.last;
        if page.complete && newest < last && limit.events > 0 {
            page.events.push(self.damaged(channel, last));
        }
        cut(&mut page, limit);
        Ok(page)
    }

    /// Reads the newest events before `before`.
    pub async fn page_before(
        &self,
        channel: &ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let answer = self.page(&self.scripts.read_back, channel, before, limit).await?;
        let mut parts = array(answer)?.into_iter();
        let mut page = head(&mut parts)?;
        let following = parts.next().map(place).transpose()?.flatten();
        let mut oldest = following.filter(|following| *following < before);
        for entry in entries(parts)? {
            if let Some(oldest) = oldest.filter(|oldest| *oldest > entry.id) {
                page.events.push(self.damaged(channel, oldest));
            }
            oldest = entry.before;
            page.events.push(self.stored(channel, entry));
        }
        cut(&mut page, limit);
        page.events.reverse();
        Ok(page)
    }

    /// Reads the newest event of each key, and the position in the log at which the state was
    /// taken.
    pub async fn current_state(&self, channel: &ChannelName) -> Result<State, StoreError> {
        let state = &self.scripts.state;
        let keys = self.keys.of_state(channel);
        let mut parts = array(self.script(state, channel, &keys, &[]).await?)?.into_iter();
        let position = id(next(&mut parts)?)?;
        let is_lost = text(next(&mut parts)?)? == "1";
        let mut events: Vec<_> =
            is_lost.then(|| self.damaged(channel, position)).into_iter().collect();
        while parts.next().is_some() {
            let row = bytes(next(&mut parts)?)?;
            events.push(stored_state(&row).unwrap_or_else(|| self.damaged(channel, position)));
        }
        events.sort_by_key(|stored| stored.id);
        Ok(State { position, events })
    }

    async fn page(
        &self,
        script: &Script,
        channel: &ChannelName,
        place: EventId,
        limit: PageLimit,
    ) -> Result<Value, StoreError> {
        let numbers = [place.to_string(), limit.events.to_string(), limit.bytes.to_string()];
        let keys = self.keys.of_log(channel);
        self.script(script, channel, &keys, &numbers.map(Bytes::from)).await
    }

    fn stored(&self, channel: &ChannelName, Entry { id, event, .. }: Entry) -> StoredEvent {
        match event {
            Some(event) => StoredEvent { id, event },
            None => self.damaged(channel, id),
        }
    }

    /// Returns the `gap` event for events that are missing or unreadable. `last` is the last of
    /// them.
    fn damaged(&self, channel: &ChannelName, last: EventId) -> StoredEvent {
        self.metrics.fault(StoreFault::Damaged);
        tracing::error!(
            %channel, event = %last,
            "an event in redis is damaged or gone; its readers get a gap event, and what follows it"
        );
        StoredEvent { id: last, event: Event::damaged(&last.to_string()) }
    }
}

/// Reads the bounds of a channel's log, as `channel.lua` returns them.
pub fn bounds(parts: &mut impl Iterator<Item = Value>) -> Result<Bounds, StoreError> {
    let (beginning, opened_at) = (id(next(parts)?)?, id(next(parts)?)?);
    let (low_watermark, last) = (id(next(parts)?)?, id(next(parts)?)?);
    Ok(Bounds { beginning, opened_at, low_watermark, last })
}

/// Reads the part of a page before its events.
pub fn head(parts: &mut impl Iterator<Item = Value>) -> Result<Page, StoreError> {
    let bounds = bounds(parts)?;
    let closed = id_if_any(next(parts)?)?.is_some();
    let complete = text(next(parts)?)? == "1";
    Ok(Page { events: Vec::new(), complete, bounds, closed })
}

/// Reads the entries of a page.
pub fn entries(mut parts: impl Iterator<Item = Value>) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    while let Some(entry_id) = parts.next() {
        let (entry_id, before) = (id(entry_id)?, place(next(&mut parts)?)?);
        let (event, sum) = (bytes(next(&mut parts)?)?, bytes(next(&mut parts)?)?);
        // Earlier versions stored no checksum.
        let is_whole = sum.is_empty() || *sum == checksum(&event);
        let event = record::read_event(&event).ok().filter(|_| is_whole);
        entries.push(Entry { id: entry_id, before, event });
    }
    Ok(entries)
}

/// Reads an id from a field that may be damaged.
fn place(value: Value) -> Result<Option<EventId>, StoreError> {
    let text = bytes(value)?;
    Ok(std::str::from_utf8(&text).ok().and_then(|text| EventId::parse(text).ok()))
}

/// Shortens a page that has too many events because `gap` events were added.
fn cut(page: &mut Page, limit: PageLimit) {
    if page.events.len() > limit.events {
        page.events.truncate(limit.events);
        page.complete = false;
    }
}

/// Decodes a row of the state: `<id> <record>`.
pub fn stored_state(row: &[u8]) -> Option<StoredEvent> {
    let space = row.iter().position(|byte| *byte == b' ')?;
    let id = EventId::parse(std::str::from_utf8(&row[..space]).ok()?).ok()?;
    Some(StoredEvent { id, event: record::read_event(&row[space + 1..]).ok()? })
}
