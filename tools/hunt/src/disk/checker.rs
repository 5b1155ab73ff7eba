//! The promise of the store on disk, compared with what it serves.
//!
//! - Nothing that was acknowledged, or shown to a reader, is gone after a crash.
//! - Nothing is served that was never published, or whose publish was refused.
//! - A publish is stored as a whole or not at all, and a repeated one only once.
//! - No id is given twice, and ids only grow.
//! - The state and the idempotency keys are those of the log.
//! - What was deleted never comes back, unless the record of the deletion is damaged.
//! - A loss that the disk causes is announced by a `gap` event.

use headwater::core::cursor::EventId;
use headwater::core::event::{Event, StoredEvent};
use headwater::core::log_state::LogState;
use std::collections::{BTreeMap, BTreeSet};

/// The channels of a run.
pub const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];

/// What the store serves of one channel.
#[derive(Clone, Debug, Default)]
pub struct Served {
    pub events: Vec<StoredEvent>,
    pub state: Vec<StoredEvent>,
    pub log_state: LogState,
}

/// A write whose outcome is not known: it may be stored, as a whole.
#[derive(Clone, Debug)]
pub struct Unclear {
    pub channel: &'static str,
    pub events: Vec<Event>,
    pub key: Option<String>,
    /// Whether it opens the channel again; then it has no events.
    pub reopens: bool,
    /// Whether it deletes everything before its event, which is an end.
    pub erases: bool,
}

/// One channel as it has to be.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// All events that were ever stored and not deleted, also those that are no longer kept.
    pub log: Vec<StoredEvent>,
    pub is_closed: bool,
    pub exists: bool,
    /// The ids that belong to each idempotency key.
    pub keys: BTreeMap<String, Vec<EventId>>,
    /// Everything before this end was deleted.
    pub erased: EventId,
    /// The deleted events.
    deleted: Vec<StoredEvent>,
    /// The events of writes whose outcome was not known when the channel was deleted: such an event
    /// may have been stored, and may then have been deleted.
    maybe_deleted: Vec<Event>,
}

/// The store as it has to be.
#[derive(Debug, Default)]
pub struct Model {
    pub channels: BTreeMap<&'static str, Channel>,
    pub unclear: Vec<Unclear>,
    /// The most events that a channel keeps.
    pub retain: usize,
    /// The highest id that was given to anybody.
    newest: EventId,
    /// Events that a reader has been shown.
    seen: BTreeMap<(&'static str, EventId), Event>,
}

type Checked = Result<(), String>;

impl Channel {
    /// Returns the newest event of each key, oldest first.
    fn state(&self) -> Vec<StoredEvent> {
        let mut state: BTreeMap<&str, &StoredEvent> = BTreeMap::new();
        for stored in &self.log {
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

    fn add(&mut self, ids: &[EventId], events: Vec<Event>) {
        self.exists = true;
        self.is_closed |= events.iter().any(Event::is_end);
        let stored = ids.iter().zip(events).map(|(id, event)| StoredEvent { id: *id, event });
        self.log.extend(stored);
    }

    fn erase(&mut self, end: EventId) {
        self.erased = end;
        let (kept, deleted) = self.log.drain(..).partition(|stored| stored.id >= end);
        self.log = kept;
        self.deleted.extend::<Vec<_>>(deleted);
    }
}

impl Model {
    /// Returns an empty store whose channels keep `retain` events.
    pub fn new(retain: usize) -> Self {
        Self { retain, ..Self::default() }
    }

    /// Notes an acknowledged write.
    pub fn acknowledged(&mut self, write: Unclear, ids: &[EventId], repeated: bool) -> Checked {
        let Unclear { channel: name, events, key, erases, .. } = write;
        let channel = self.channels.entry(name).or_default();
        let known = key.as_ref().and_then(|key| channel.keys.get(key));
        if repeated || known.is_some() {
            let is_same = repeated && known.is_some_and(|known| known == ids);
            let found = format!("{ids:?}, repeated: {repeated}");
            return is_same.then_some(()).ok_or(format!(
                "the repeated key {key:?} in {name} was answered with {found}; first {known:?}"
            ));
        }
        if ids.len() != events.len() || !ids.is_sorted_by(|a, b| a < b) {
            return Err(format!("{} events of {name} got the ids {ids:?}", events.len()));
        }
        if let Some(reused) = ids.iter().find(|id| **id <= self.newest) {
            let newest = self.newest;
            return Err(format!("the id {reused} was given after {newest}, which is not lower"));
        }
        self.newest = ids.last().copied().unwrap_or(self.newest);
        channel.keys.extend(key.map(|key| (key, ids.to_vec())));
        channel.add(ids, events);
        if erases {
            channel.erase(ids[0]);
            self.seen.retain(|(of, id), _| *of != name || *id >= ids[0]);
        }
        Ok(())
    }

    /// Notes that a channel is deleted again. The outcome of its unclear writes cannot be seen any
    /// more.
    pub fn forget_unclear(&mut self, name: &'static str) {
        let (of_channel, others) =
            std::mem::take(&mut self.unclear).into_iter().partition(|write| write.channel == name);
        self.unclear = others;
        let events = Vec::into_iter(of_channel).flat_map(|write| write.events);
        self.channels.entry(name).or_default().maybe_deleted.extend(events);
    }

    /// Whether the end of a channel is among the unclear writes.
    pub fn may_end(&self, name: &str) -> bool {
        let of = self.unclear.iter().filter(|write| write.channel == name);
        of.flat_map(|write| &write.events).any(Event::is_end)
    }

    /// Notes what the sink was given.
    pub fn showed(&mut self, name: &'static str, events: &[StoredEvent]) {
        let erased = self.channels.get(name).map_or(EventId::START, |channel| channel.erased);
        let shown = events.iter().filter(|stored| stored.id >= erased);
        self.seen.extend(shown.map(|stored| ((name, stored.id), stored.event.clone())));
        self.newest = self.newest.max(events.last().map_or(EventId::START, |stored| stored.id));
    }

    /// Compares what is served while the store runs. Nothing unclear may be there.
    pub fn check(&self, served: &BTreeMap<&'static str, Served>) -> Checked {
        for (name, served) in served {
            let none = Channel::default();
            let channel = self.channels.get(name).unwrap_or(&none);
            self.check_log(name, &channel.log, &served.events)?;
            self.check_rest(name, channel, served)?;
        }
        Ok(())
    }

    /// Compares what is served after the store was opened again, and takes over which of the unclear
    /// writes were stored.
    pub fn reopened(&mut self, served: &BTreeMap<&'static str, Served>) -> Checked {
        let unclear = std::mem::take(&mut self.unclear);
        for (name, served) in served {
            let mut channel = self.channels.get(name).cloned().unwrap_or_default();
            let known: BTreeSet<EventId> = channel.log.iter().map(|stored| stored.id).collect();
            let writes: Vec<&Unclear> = unclear.iter().filter(|of| of.channel == *name).collect();
            let new: Vec<&StoredEvent> =
                served.events.iter().filter(|stored| !known.contains(&stored.id)).collect();
            let mut at = 0;
            while at < new.len() {
                let rest = &new[at..];
                let is_it = |write: &&&Unclear| {
                    let events = write.events.iter();
                    !write.events.is_empty()
                        && rest.len() >= write.events.len()
                        && events.zip(rest).all(|(event, stored)| *event == stored.event)
                };
                let Some(write) = writes.iter().find(is_it) else {
                    let what = describe(rest[0]);
                    return Err(format!("{name} serves {what}, which was never stored"));
                };
                let ids: Vec<EventId> =
                    rest.iter().take(write.events.len()).map(|stored| stored.id).collect();
                at += write.events.len();
                if let Some(key) = &write.key
                    && channel.keys.insert(key.clone(), ids.clone()).is_some()
                {
                    return Err(format!("the publish with the key {key:?} is twice in {name}"));
                }
                channel.add(&ids, write.events.clone());
                self.newest = self.newest.max(ids[ids.len() - 1]);
            }
            channel.log.sort_by_key(|stored| stored.id);
            let may_be_open = writes.iter().any(|write| write.reopens);
            if may_be_open || writes.iter().any(|write| write.events.iter().any(Event::is_end)) {
                channel.is_closed = served.log_state.closed;
            }
            self.check_log(name, &channel.log, &served.events)?;
            self.check_rest(name, &channel, served)?;
            self.channels.insert(name, channel);
        }
        for ((name, id), event) in &self.seen {
            let channel = self.channels.get(name);
            let is_there = channel.is_some_and(|channel| {
                channel.log.iter().any(|stored| stored.id == *id && stored.event == *event)
            });
            if !is_there {
                return Err(format!("{name}: {id} was shown to a reader, and is gone"));
            }
        }
        Ok(())
    }

    fn check_log(&self, name: &str, log: &[StoredEvent], found: &[StoredEvent]) -> Checked {
        if !found.is_sorted_by(|a, b| a.id < b.id) {
            return Err(format!("{name} is not in order"));
        }
        // Events that were dropped may come back when the log is opened, until the next sweep.
        let least = log.len().min(self.retain);
        let missing = || {
            let newest = &log[log.len() - least..];
            let missing = newest.iter().find(|stored| !found.contains(stored));
            missing.map_or_else(|| "an event".to_owned(), describe)
        };
        if found.len() < least {
            return Err(format!("{name} has lost {}, which was acknowledged", missing()));
        }
        if found.len() > log.len() || found != &log[log.len() - found.len()..] {
            let odd = found.iter().find(|stored| !log.contains(stored));
            return Err(match odd {
                Some(odd) => format!("{name} serves {}, which it should not have", describe(odd)),
                None => format!("{name} has lost {}, which was acknowledged", missing()),
            });
        }
        Ok(())
    }

    fn check_rest(&self, name: &str, channel: &Channel, served: &Served) -> Checked {
        let expected = channel.state();
        if served.state != expected {
            let ids = |state: &[StoredEvent]| {
                state.iter().map(|stored| stored.id.to_string()).collect::<Vec<_>>().join(" ")
            };
            let (found, expected) = (ids(&served.state), ids(&expected));
            return Err(format!("the state of {name} is [{found}], by its log [{expected}]"));
        }
        if served.log_state.closed != channel.is_closed {
            let (found, expected) = (served.log_state.closed, channel.is_closed);
            return Err(format!("{name}: ended is {found}, and has to be {expected}"));
        }
        Ok(())
    }

    /// Compares what is served after the disk was damaged: nothing wrong, and every loss told.
    /// `may_lose` means that the disk lied, so that nobody can know of a loss.
    pub fn damaged(&self, served: &BTreeMap<&'static str, Served>, may_lose: bool) -> Checked {
        for (name, served) in served {
            let none = Channel::default();
            let channel = self.channels.get(name).unwrap_or(&none);
            let unclear = self.unclear.iter().filter(|of| of.channel == *name);
            let unclear: Vec<&Event> = unclear.flat_map(|of| &of.events).collect();
            if !served.events.is_sorted_by(|a, b| a.id < b.id) {
                return Err(format!("{name} is not in order"));
            }
            let is_true = |stored: &StoredEvent| {
                // The record of a deletion may be what is damaged.
                is_gap(stored)
                    || channel.log.contains(stored)
                    || channel.deleted.contains(stored)
                    || stored.id < channel.erased && channel.maybe_deleted.contains(&stored.event)
                    || unclear.contains(&&stored.event)
            };
            let all = served.events.iter().chain(&served.state);
            if let Some(wrong) = all.into_iter().find(|stored| !is_true(stored)) {
                return Err(format!("{name} serves {}, which is wrong", describe(wrong)));
            }
            if may_lose {
                continue;
            }
            let bounds = served.log_state.bounds;
            let told = served.events.iter().rev().find(|stored| is_gap(stored));
            let told = told.map_or(EventId::START, |gap| gap.id);
            // A client that has everything before the event is informed by a gap in the log, or at its
            // return, because its cursor is not one of this log.
            let is_told = |id: EventId| {
                let before = channel.log.iter().rev().find(|stored| stored.id < id);
                let is_refused = |before: EventId| bounds.misses(before) || before > bounds.last;
                id <= told || before.map_or(id <= bounds.beginning, |stored| is_refused(stored.id))
            };
            let least = channel.log.len().min(self.retain);
            let kept = &channel.log[channel.log.len() - least..];
            let lost =
                |stored: &&StoredEvent| !served.events.contains(stored) && !is_told(stored.id);
            if let Some(lost) = kept.iter().find(lost) {
                return Err(format!("{name} has lost {} in silence", describe(lost)));
            }
            let has_gap = served.state.iter().any(is_gap);
            let expected = channel.state();
            let lost = |stored: &&StoredEvent| {
                !served.state.contains(stored) && !has_gap && !is_told(stored.id)
            };
            if let Some(lost) = expected.iter().find(lost) {
                return Err(format!("the state of {name} lacks {} in silence", describe(lost)));
            }
            let stale = |stored: &&StoredEvent| {
                !is_gap(stored) && !expected.contains(stored) && !is_told(stored.id)
            };
            if let Some(stale) = served.state.iter().find(stale) {
                return Err(format!("the state of {name} has {}, which is old", describe(stale)));
            }
        }
        Ok(())
    }
}

/// Whether an event says that events are missing.
pub fn is_gap(stored: &StoredEvent) -> bool {
    stored.event.as_control().is_some_and(|(kind, _)| kind == "gap")
}

/// Returns an event as text for people.
pub fn describe(stored: &StoredEvent) -> String {
    let StoredEvent { id, event } = stored;
    match event.as_control() {
        Some((kind, _)) => format!("the {kind} event {id}"),
        None => format!("the event {id} ({:.20})", event.data),
    }
}
