//! What the reading scripts return, as pages. An entry of a log that is missing or cannot be read
//! becomes a `gap` event in its place: every entry names the one before it, and has a checksum.

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
struct Entry {
    id: EventId,
    /// The id before it, where it names one.
    before: Option<EventId>,
    /// `None`: it is damaged.
    event: Option<Event>,
}

impl RedisStore {
    /// The events after `position`.
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

    /// The newest events before `before`.
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

    /// The newest event of each key, and the place in the log at which this is so.
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

    /// What readers get in the place of events that are gone or cannot be read; `last`: the last of
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

/// From where to where a channel's log goes, as `channel.lua` says.
pub fn bounds(parts: &mut impl Iterator<Item = Value>) -> Result<Bounds, StoreError> {
    let (beginning, opened_at) = (id(next(parts)?)?, id(next(parts)?)?);
    let (low_watermark, last) = (id(next(parts)?)?, id(next(parts)?)?);
    Ok(Bounds { beginning, opened_at, low_watermark, last })
}

/// A page without its events.
fn head(parts: &mut impl Iterator<Item = Value>) -> Result<Page, StoreError> {
    let bounds = bounds(parts)?;
    let closed = id_if_any(next(parts)?)?.is_some();
    let complete = text(next(parts)?)? == "1";
    Ok(Page { events: Vec::new(), complete, bounds, closed })
}

fn entries(mut parts: impl Iterator<Item = Value>) -> Result<Vec<Entry>, StoreError> {
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

/// The id in a field that may be damaged.
fn place(value: Value) -> Result<Option<EventId>, StoreError> {
    let text = bytes(value)?;
    Ok(std::str::from_utf8(&text).ok().and_then(|text| EventId::parse(text).ok()))
}

/// Ends a page whose gaps made it too long.
fn cut(page: &mut Page, limit: PageLimit) {
    if page.events.len() > limit.events {
        page.events.truncate(limit.events);
        page.complete = false;
    }
}

/// A row of the state: `<id> <record>`.
fn stored_state(row: &[u8]) -> Option<StoredEvent> {
    let space = row.iter().position(|byte| *byte == b' ')?;
    let id = EventId::parse(std::str::from_utf8(&row[..space]).ok()?).ok()?;
    Some(StoredEvent { id, event: record::read_event(&row[space + 1..]).ok()? })
}
