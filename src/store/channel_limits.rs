//! The limits of each channel. They come in three layers, and a later layer overrides an earlier
//! one: the general limits, the settings of the most precise configured pattern that matches the
//! channel, and the settings that an operator has given to this one channel.
//!
//! The settings of single channels are stored as the state of a reserved channel
//! ([`settings_channel`]). Each key is the name of the channel that the settings are for. They are
//! therefore as durable as events, and every origin on one Redis learns of a change.

use super::{Limits, State};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, Field, FieldError, StoredEvent};
use crate::core::pattern::Pattern;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The type of an event that says that everything of a channel was deleted.
const DELETED: &str = "deleted";

/// Returns the channel whose state is the settings of single channels.
pub fn settings_channel() -> ChannelName {
    ChannelName::reserved("channels")
}

/// Settings of a channel. An absent one is that of the next less precise settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelSettings {
    /// Events that are older than this are dropped, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_age_ms: Option<u64>,
    /// Maximum number of events that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_events: Option<u64>,
    /// Maximum bytes of events that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_bytes: Option<u64>,
    /// The time after which the channel is forgotten, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_idle_ms: Option<u64>,
    /// Maximum number of keys in the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u64>,
    /// Maximum bytes of the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_state_bytes: Option<u64>,
}

/// The limits of the channels of a store.
#[derive(Debug)]
pub struct ChannelLimits {
    general: Limits,
    /// The settings of patterns, the most precise pattern first.
    patterns: Vec<(Pattern, ChannelSettings)>,
    own: RwLock<OwnSettings>,
    /// Whether the general limits apply to every channel.
    is_uniform: AtomicBool,
}

/// The settings of single channels.
#[derive(Debug, Default)]
struct OwnSettings {
    of: HashMap<ChannelName, ChannelSettings>,
    /// The newest change that is known.
    position: EventId,
    /// Whether all settings up to `position` are known.
    is_complete: bool,
}

impl ChannelSettings {
    /// Whether no setting is present.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns settings that have every limit of a channel.
    pub fn of(limits: &Limits) -> Self {
        Self {
            retain_age_ms: Some(limits.retain_age.as_millis() as u64),
            retain_events: Some(limits.retain_events),
            retain_bytes: Some(limits.retain_bytes),
            channel_idle_ms: Some(limits.channel_idle.as_millis() as u64),
            max_keys: Some(limits.keys),
            max_state_bytes: Some(limits.state_bytes),
        }
    }

    fn apply(&self, limits: &mut Limits) {
        let set = |limit: &mut u64, setting: Option<u64>| *limit = setting.unwrap_or(*limit);
        let set_time = |limit: &mut Duration, setting: Option<u64>| {
            *limit = setting.map_or(*limit, Duration::from_millis);
        };
        set_time(&mut limits.retain_age, self.retain_age_ms);
        set(&mut limits.retain_events, self.retain_events);
        set(&mut limits.retain_bytes, self.retain_bytes);
        set_time(&mut limits.channel_idle, self.channel_idle_ms);
        set(&mut limits.keys, self.max_keys);
        set(&mut limits.state_bytes, self.max_state_bytes);
    }

    /// Returns the event that stores these settings of a channel.
    ///
    /// # Errors
    /// Fails when the name of the channel is no key. Every name is one.
    pub fn event_for(&self, channel: &ChannelName) -> Result<Event, FieldError> {
        let data = serde_json::to_string(self).unwrap_or_default();
        Ok(Event::new(None, Some(Field::key(channel.as_str())?), data, self.is_empty()))
    }

    /// Returns the event that says that everything of a channel was deleted, with its settings.
    ///
    /// # Errors
    /// Fails when the name of the channel is no key. Every name is one.
    pub fn deletion_of(channel: &ChannelName) -> Result<Event, FieldError> {
        let (kind, key) = (Field::kind(DELETED)?, Field::key(channel.as_str())?);
        Ok(Event::new(Some(kind), Some(key), String::new(), true))
    }
}

/// Returns the channel that was deleted, if an event of the settings channel says so.
pub fn deleted_channel(event: &Event) -> Option<ChannelName> {
    let is_deletion = event.kind.as_ref().is_some_and(|kind| kind.as_str() == DELETED);
    ChannelName::parse(event.key.as_ref().filter(|_| is_deletion)?.as_str()).ok()
}

impl ChannelLimits {
    /// Returns the limits of channels with these patterns, and no settings of single channels yet.
    pub fn new(general: Limits, mut patterns: Vec<(Pattern, ChannelSettings)>) -> Self {
        patterns.sort_by_key(|(pattern, _)| Reverse(pattern.precision()));
        let is_uniform = AtomicBool::new(patterns.is_empty());
        Self { general, patterns, own: RwLock::default(), is_uniform }
    }

    /// Returns the limits of a channel that has no settings.
    pub fn general(&self) -> &Limits {
        &self.general
    }

    /// Returns the limits of a channel.
    pub fn of(&self, channel: &ChannelName) -> Limits {
        let mut limits = self.general;
        if self.is_uniform.load(Ordering::Acquire) || channel.is_reserved() {
            return limits;
        }
        if let Some((_, settings)) = self.patterns.iter().find(|(one, _)| one.matches(channel)) {
            settings.apply(&mut limits);
        }
        if let Some(settings) = self.own.read().of.get(channel) {
            settings.apply(&mut limits);
        }
        limits
    }

    /// Returns the shortest times after which any channel loses events, and is forgotten.
    pub fn shortest_times(&self) -> (Duration, Duration) {
        let (mut age, mut idle) = (self.general.retain_age, self.general.channel_idle);
        let own = self.own.read();
        for settings in self.patterns.iter().map(|(_, settings)| settings).chain(own.of.values()) {
            age = age.min(settings.retain_age_ms.map_or(age, Duration::from_millis));
            idle = idle.min(settings.channel_idle_ms.map_or(idle, Duration::from_millis));
        }
        (age, idle)
    }

    /// Returns the settings that an operator has given to this channel.
    pub fn own_settings(&self, channel: &ChannelName) -> ChannelSettings {
        self.own.read().of.get(channel).copied().unwrap_or_default()
    }

    /// Applies events of the settings channel. Events of other channels change nothing.
    pub fn note(&self, channel: &ChannelName, events: &[StoredEvent]) {
        if !channel.is_reserved() || *channel != settings_channel() {
            return;
        }
        let mut own = self.own.write();
        for StoredEvent { id, event } in events {
            if *id > own.position {
                own.position = *id;
                own.take(event);
            }
        }
        self.is_uniform.store(self.patterns.is_empty() && own.of.is_empty(), Ordering::Release);
    }

    /// Whether all settings of single channels are known.
    pub fn is_complete(&self) -> bool {
        self.own.read().is_complete
    }

    /// Notes that changes may have been missed. The known settings stay in force until the state of
    /// the settings channel has been read again.
    pub fn mark_incomplete(&self) {
        self.own.write().is_complete = false;
    }

    /// Returns the newest change that is known.
    pub fn position(&self) -> EventId {
        self.own.read().position
    }

    /// Replaces the settings of single channels by the state of the settings channel. `known` is
    /// [`ChannelLimits::position`] before the state was read: a state that is older than a change
    /// that has arrived since then is not used. A state may be older than `known`, because Redis can
    /// lose changes, and forgets a settings channel that is empty.
    pub fn load(&self, known: EventId, state: &State) {
        let mut own = self.own.write();
        if own.position != known && state.position < own.position {
            return;
        }
        *own = OwnSettings { position: state.position, is_complete: true, ..Default::default() };
        state.events.iter().for_each(|stored| own.take(&stored.event));
        self.is_uniform.store(self.patterns.is_empty() && own.of.is_empty(), Ordering::Release);
    }
}

impl OwnSettings {
    fn take(&mut self, event: &Event) {
        let Some(key) = &event.key else { return };
        let Ok(channel) = ChannelName::parse(key.as_str()) else { return };
        if event.removes_key() {
            self.of.remove(&channel);
            return;
        }
        match serde_json::from_str(&event.data) {
            Ok(settings) => drop(self.of.insert(channel, settings)),
            Err(error) => tracing::error!(
                %channel, %error, "the settings of this channel cannot be read; they are not used"
            ),
        }
    }
}

impl From<Limits> for Arc<ChannelLimits> {
    fn from(general: Limits) -> Self {
        Arc::new(ChannelLimits::new(general, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    fn change(ms: u64, max_keys: Option<u64>) -> StoredEvent {
        let settings = ChannelSettings { max_keys, ..Default::default() };
        let event = settings.event_for(&name("a")).unwrap();
        StoredEvent { id: EventId { ms, seq: 0 }, event }
    }

    fn state(ms: u64, events: Vec<StoredEvent>) -> State {
        State { position: EventId { ms, seq: 0 }, events }
    }

    fn limits() -> ChannelLimits {
        ChannelLimits::new(Limits::default(), Vec::new())
    }

    #[test]
    fn a_change_that_arrives_while_the_state_is_read_is_kept() {
        let limits = limits();
        let known = limits.position();
        limits.note(&settings_channel(), &[change(20, Some(2))]);
        limits.load(known, &state(10, vec![change(10, Some(1))]));
        assert_eq!((limits.of(&name("a")).keys, limits.is_complete()), (2, false));
        limits.load(limits.position(), &state(20, vec![change(20, Some(2))]));
        assert_eq!((limits.of(&name("a")).keys, limits.is_complete()), (2, true));
    }

    #[test]
    fn a_state_that_has_lost_changes_is_used() {
        let limits = limits();
        limits.note(&settings_channel(), &[change(20, Some(2))]);
        limits.mark_incomplete();
        limits.load(limits.position(), &state(10, Vec::new()));
        assert_eq!(limits.of(&name("a")).keys, Limits::default().keys);
        assert!(limits.is_complete());
    }
}
