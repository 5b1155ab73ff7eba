//! A model of the store in Redis: logs with ids, limits and states, a firehose that each origin
//! follows, connections that break, a server that pauses, and a failover that loses what its
//! replica does not have.

use super::clock::VirtualTime;
use crate::checker::{Log, Logs};
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, Event, StoredEvent};
use headwater::core::log_state::{Bounds, LogState};
use headwater::store::{Idempotency, Page, PageLimit, Published, State, StoreError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;

/// The most publishes that the firehose keeps.
const FIREHOSE_MAX: usize = 12;

/// The server, shared by all origins.
pub struct Redis {
    server: Mutex<Server>,
    pub changed: Notify,
    time: Arc<VirtualTime>,
}

#[derive(Default)]
struct Server {
    channels: BTreeMap<ChannelName, Channel>,
    keys: HashMap<(ChannelName, String), (u128, Published)>,
    firehose: BTreeMap<u64, Entry>,
    next_entry: u64,
    /// The number of failovers.
    epoch: u64,
    retain: usize,
    /// The position before the first event of every channel, in a log that is not in Redis.
    own_first: Option<EventId>,
    /// No command is answered before this instant (ms).
    paused_until: u64,
    /// Every command fails before this instant (ms).
    down_until: u64,
}

/// A publish in the firehose.
#[derive(Clone)]
pub struct Entry {
    pub channel: ChannelName,
    pub previous: EventId,
    pub events: Vec<StoredEvent>,
}

/// An event with its fate.
#[derive(Clone)]
pub struct Archived {
    pub stored: StoredEvent,
    /// When it was accepted, in ms.
    pub at: u64,
    /// Whether a failover lost it.
    pub is_lost: bool,
}

/// A channel, with everything that it ever had.
#[derive(Clone, Default)]
pub struct Channel {
    pub archive: Vec<Archived>,
    /// The number of events at the start of the archive that are no longer kept.
    trimmed: usize,
    /// The position before the first event: the newest id of the server at that time.
    opened_at: Option<EventId>,
}

/// The next step of an origin that follows the firehose.
pub enum Next {
    /// The next publish.
    Entry(u64, Entry),
    /// Publishes were missed; the origin continues at this place.
    Lost(u64, u64),
    /// Nothing is there yet.
    Wait,
}

/// The position before the first event of every channel.
const FIRST: EventId = EventId { ms: crate::time::BEGINNING_MS - 1, seq: 0 };

/// A channel, and whether its state is that of its log. A failover may lose a part of either.
struct Checked<'a> {
    channel: &'a Channel,
    has_failed_over: bool,
}

impl Log for Checked<'_> {
    fn has(&self, id: EventId, text: Option<&str>) -> bool {
        let known = self.channel.archive.iter().find(|event| event.stored.id == id);
        known.is_some_and(|event| text.is_none_or(|text| *event.stored.event.data == *text))
    }

    fn first_within(&self, after: EventId, until: EventId) -> Option<EventId> {
        let present = self.channel.archive.iter().filter(|event| !event.is_lost);
        present.map(|event| event.stored.id).find(|id| *id > after && *id <= until)
    }

    fn lost(&self) -> Vec<EventId> {
        let lost = self.channel.archive.iter().filter(|event| event.is_lost);
        lost.map(|event| event.stored.id).collect()
    }

    fn state_at(&self, position: EventId) -> Option<Vec<String>> {
        let state = self.channel.state_at(position);
        let texts = state.iter().map(|stored| stored.event.data.to_string());
        (!self.has_failed_over).then(|| texts.collect())
    }
}

impl Logs for Redis {
    fn first(&self) -> EventId {
        self.server.lock().own_first.unwrap_or(FIRST)
    }

    fn look(&self, name: &ChannelName, look: &mut dyn FnMut(&dyn Log)) {
        let has_failed_over = self.end_of_firehose().1 > 0;
        self.with(name, |channel| look(&Checked { channel, has_failed_over }));
    }
}

impl Channel {
    fn kept(&self) -> impl DoubleEndedIterator<Item = &StoredEvent> {
        let kept = self.archive[self.trimmed..].iter().filter(|event| !event.is_lost);
        kept.map(|event| &event.stored)
    }

    fn last(&self) -> EventId {
        let present = self.archive.iter().rev().find(|event| !event.is_lost);
        present.map_or_else(|| self.opened_at(), |event| event.stored.id)
    }

    fn opened_at(&self) -> EventId {
        self.opened_at.unwrap_or(FIRST)
    }

    /// Returns the position before the oldest event that is kept.
    fn start(&self) -> EventId {
        let low_watermark = self.low_watermark();
        if low_watermark == self.opened_at() { FIRST } else { low_watermark }
    }

    fn low_watermark(&self) -> EventId {
        let gone = self.archive[..self.trimmed].iter().rev().find(|event| !event.is_lost);
        gone.map_or_else(|| self.opened_at(), |event| event.stored.id)
    }

    /// Whether the newest event ends the channel.
    pub fn is_closed(&self) -> bool {
        self.archive
            .iter()
            .rev()
            .find(|event| !event.is_lost)
            .is_some_and(|e| e.stored.event.is_end())
    }

    /// Returns the newest event of each key up to a position, oldest first.
    pub fn state_at(&self, position: EventId) -> Vec<StoredEvent> {
        let mut state: BTreeMap<&str, &StoredEvent> = BTreeMap::new();
        let present = self.archive.iter().filter(|event| !event.is_lost).map(|event| &event.stored);
        for stored in present.filter(|stored| stored.id <= position) {
            let Some(key) = stored.event.key.as_ref() else { continue };
            match stored.event.removes_key() {
                true => state.remove(key.as_str()),
                false => state.insert(key.as_str(), stored),
            };
        }
        let mut state: Vec<StoredEvent> = state.into_values().cloned().collect();
        state.sort_by_key(|stored| stored.id);
        state
    }

    fn log_state(&self) -> LogState {
        let low_watermark = self.low_watermark();
        let (opened_at, last) = (self.opened_at(), self.last());
        let bounds = Bounds { beginning: FIRST, opened_at, low_watermark, last };
        LogState {
            bounds,
            oldest: self.kept().next().map(|stored| stored.id),
            closed: self.is_closed(),
            keyed: !self.state_at(bounds.last).is_empty(),
        }
    }

    fn before(&self, id: EventId) -> EventId {
        let earlier = self.kept().rev().find(|stored| stored.id < id && !stored.event.is_end());
        earlier.map_or_else(|| self.start(), |stored| stored.id)
    }
}

impl Server {
    fn trim(&mut self, name: &ChannelName) {
        let retain = self.retain;
        let Some(channel) = self.channels.get_mut(name) else { return };
        while channel.kept().count() > retain {
            channel.trimmed += 1;
        }
    }

    fn append(&mut self, name: &ChannelName, events: Vec<Event>, now: u64) -> Vec<EventId> {
        let newest = self.channels.values().map(Channel::last).max();
        let channel = self.channels.entry(name.clone()).or_default();
        channel.opened_at.get_or_insert(newest.unwrap_or(FIRST));
        let previous = channel.last();
        let mut next = previous;
        let mut stored = Vec::new();
        for event in events {
            next = next.next(now);
            stored.push(StoredEvent { id: next, event });
        }
        let archived =
            |stored: &StoredEvent| Archived { stored: stored.clone(), at: now, is_lost: false };
        channel.archive.extend(stored.iter().map(archived));
        let ids = stored.iter().map(|stored| stored.id).collect();
        let entry = Entry { channel: name.clone(), previous, events: stored };
        self.firehose.insert(self.next_entry, entry);
        self.next_entry += 1;
        while self.firehose.len() > FIREHOSE_MAX {
            self.firehose.pop_first();
        }
        self.trim(name);
        ids
    }
}

impl Redis {
    /// Returns an empty server that keeps `retain` events in each channel.
    pub fn new(time: Arc<VirtualTime>, retain: usize) -> Self {
        let server = Server { retain, ..Server::default() };
        Self { server: Mutex::new(server), changed: Notify::new(), time }
    }

    /// Returns the time of the server, in ms.
    pub fn now(&self) -> u64 {
        self.time.true_ms()
    }

    /// Waits until the server answers.
    ///
    /// # Errors
    /// Fails while the connections to it fail.
    pub async fn reach(&self) -> Result<(), StoreError> {
        loop {
            let (paused_until, down_until) = {
                let server = self.server.lock();
                (server.paused_until, server.down_until)
            };
            let now = self.now();
            if now < down_until {
                return Err(StoreError::Down("the connection is refused".to_owned()));
            }
            if now >= paused_until {
                return Ok(());
            }
            self.time.sleep(paused_until - now).await;
        }
    }

    /// Answers no command for this time.
    pub fn pause(&self, ms: u64) {
        self.server.lock().paused_until = self.now() + ms;
    }

    /// Refuses every command for this time.
    pub fn fail(&self, ms: u64) {
        self.server.lock().down_until = self.now() + ms;
    }

    /// Whether the server answered all the time since `since` (ms).
    pub fn was_well_since(&self, since: u64) -> bool {
        let server = self.server.lock();
        server.paused_until < since && server.down_until < since
    }

    /// Replaces the server by its replica, which lacks the last `lag_ms`. Each channel that has lost
    /// events gets a `gap` event. Returns the number of lost events.
    pub fn fail_over(&self, lag_ms: u64) -> usize {
        let now = self.now();
        let mut server = self.server.lock();
        let mut lost = Vec::new();
        let mut count = 0;
        for (name, channel) in &mut server.channels {
            let before = channel.last();
            let late = channel.archive.iter_mut().filter(|e| e.at + lag_ms >= now && !e.is_lost);
            let mut is_hit = false;
            for event in late {
                event.is_lost = true;
                is_hit = true;
                count += 1;
            }
            if is_hit {
                lost.push((name.clone(), before));
            }
        }
        let gone: Vec<EventId> = {
            let all = server.channels.values().flat_map(|channel| &channel.archive);
            all.filter(|event| event.is_lost).map(|event| event.stored.id).collect()
        };
        server.keys.retain(|_, (_, published)| !published.ids.iter().any(|id| gone.contains(id)));
        server.firehose.clear();
        server.epoch += 1;
        for (name, last) in lost {
            let closed = server.channels.get(&name).is_some_and(Channel::is_closed);
            if !closed {
                server.append(&name, vec![Event::lost(&last.to_string())], now + 1);
            }
        }
        drop(server);
        self.changed.notify_waiters();
        count
    }

    /// Stores the events of a publish.
    ///
    /// # Errors
    /// Fails when the channel has ended, or when the key was used for another publish.
    pub fn publish(
        &self,
        name: &ChannelName,
        events: Vec<Event>,
        key: Option<Idempotency>,
    ) -> Result<Published, StoreError> {
        let now = self.now();
        let mut server = self.server.lock();
        let key = key.map(|Idempotency { key, digest }| ((name.clone(), key), digest));
        let known = key.as_ref().and_then(|(key, digest)| Some((server.keys.get(key)?, digest)));
        match known {
            Some(((of_first, _), digest)) if of_first != digest => {
                return Err(StoreError::KeyReused);
            }
            Some(((_, first), _)) => return Ok(Published { repeated: true, ..first.clone() }),
            None => {}
        }
        if server.channels.get(name).is_some_and(Channel::is_closed) {
            return Err(StoreError::Closed);
        }
        let ids = server.append(name, events, now);
        let published = Published { ids, repeated: false };
        server.keys.extend(key.map(|(key, digest)| (key, (digest, published.clone()))));
        drop(server);
        self.changed.notify_waiters();
        Ok(published)
    }

    /// Ends a channel, if it has not ended. Returns the id of its `end` event.
    ///
    /// # Errors
    /// Fails when there is no such channel.
    pub fn close(&self, name: &ChannelName) -> Result<EventId, StoreError> {
        if self.with(name, |channel| channel.archive.is_empty()) {
            return Err(StoreError::NoChannel);
        }
        if self.with(name, Channel::is_closed) {
            return Ok(self.with(name, Channel::last));
        }
        let published = self.publish(name, vec![Event::end()], None)?;
        published.ids.first().copied().ok_or(StoreError::NoChannel)
    }

    /// Returns the place after the newest publish, and the number of failovers so far.
    pub fn end_of_firehose(&self) -> (u64, u64) {
        let server = self.server.lock();
        (server.next_entry, server.epoch)
    }

    /// Returns what an origin reads from the firehose at this place.
    pub fn next_entry(&self, place: u64, epoch: u64) -> Next {
        let server = self.server.lock();
        if epoch != server.epoch {
            return Next::Lost(server.next_entry, server.epoch);
        }
        match server.firehose.range(place..).next() {
            None if place < server.next_entry => Next::Lost(server.next_entry, server.epoch),
            None => Next::Wait,
            Some((number, _)) if *number > place => Next::Lost(server.next_entry, server.epoch),
            Some((number, entry)) => Next::Entry(*number, entry.clone()),
        }
    }

    /// Notes events that another store has stored.
    pub fn record(&self, name: &ChannelName, events: &[StoredEvent]) {
        let at = self.now();
        let archived =
            |stored: &StoredEvent| Archived { stored: stored.clone(), at, is_lost: false };
        let mut server = self.server.lock();
        let channel = server.channels.entry(name.clone()).or_default();
        channel.archive.extend(events.iter().map(archived));
    }

    /// Compares a channel of another store, which was opened again, with the events that it had
    /// stored, and notes those that it has in addition.
    pub fn recover(&self, name: &ChannelName, page: &Page) -> Result<(), String> {
        let has = |id| page.events.iter().any(|stored| stored.id == id);
        let (lost, newest) = self.with(name, |channel| {
            let mut ids = channel.archive.iter().map(|event| event.stored.id);
            let newest = ids.clone().next_back().unwrap_or(EventId::START);
            (ids.find(|id| *id > page.bounds.low_watermark && !has(*id)), newest)
        });
        if let Some(id) = lost {
            return Err(format!("the event {id} of {name} was passed on, and is lost"));
        }
        let found: Vec<StoredEvent> =
            page.events.iter().filter(|stored| stored.id > newest).cloned().collect();
        if found
            .iter()
            .any(|stored| stored.event.kind.as_ref().is_some_and(|k| k.as_str() == "gap"))
        {
            return Err(format!("{name} has a gap, and nothing of it is lost"));
        }
        self.record(name, &found);
        self.server.lock().own_first = Some(page.bounds.beginning);
        Ok(())
    }

    /// Calls `read` with a channel as it is now.
    pub fn with<T>(&self, name: &ChannelName, read: impl FnOnce(&Channel) -> T) -> T {
        let server = self.server.lock();
        read(server.channels.get(name).unwrap_or(&Channel::default()))
    }

    pub fn log_state(&self, name: &ChannelName) -> LogState {
        self.with(name, Channel::log_state)
    }

    pub fn position_before(&self, name: &ChannelName, ms: u64) -> EventId {
        self.with(name, |channel| channel.before(EventId { ms, seq: 0 }))
    }

    pub fn position_back(&self, name: &ChannelName, count: u64) -> EventId {
        self.with(name, |channel| {
            let events: Vec<_> = channel.kept().filter(|stored| !stored.event.is_end()).collect();
            match events.len().checked_sub(count as usize + 1) {
                Some(index) => events[index].id,
                None => channel.start(),
            }
        })
    }

    pub fn read(&self, name: &ChannelName, position: EventId, limit: PageLimit) -> Page {
        self.with(name, |channel| {
            let LogState { bounds, closed, .. } = channel.log_state();
            let mut events: Vec<StoredEvent> =
                channel.kept().filter(|stored| stored.id > position).cloned().collect();
            let complete = events.len() <= limit.events;
            events.truncate(limit.events);
            Page { events, complete, bounds, closed }
        })
    }

    pub fn state(&self, name: &ChannelName) -> State {
        self.with(name, |channel| {
            let latest = EventId { ms: u64::MAX, seq: 0 };
            let position =
                if channel.is_closed() { channel.before(latest) } else { channel.last() };
            State { position, events: channel.state_at(position) }
        })
    }
}
