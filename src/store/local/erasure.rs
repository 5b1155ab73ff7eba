//! Deletes the events and the state of a channel, and ends the channel. Only the channel itself and
//! its `end` event are kept.
//!
//! A deletion writes an `end` event. Then it writes a channel record like that of a compaction,
//! which says that everything before the `end` event is dropped. Last, it writes the removal of
//! every key. Earlier versions understand all of these records. The bytes of the events leave the
//! disk with the next compaction.

use super::super::StoreError;
use super::batch::{Batch, Change};
use super::catalog::{Catalog, Load};
use super::frame::Kind;
use super::records::{ChannelRecord, Events};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, Field};

/// Most keys that one record removes.
const KEYS_OF_RECORD_MAX: usize = 1_000;

/// An erased channel.
pub struct Erasure {
    pub channel: ChannelName,
    /// The position up to which events are dropped.
    low_watermark: EventId,
}

impl Batch<'_> {
    /// Ends a channel, and drops its events before that end and its state.
    pub fn erase(&mut self, channel: &ChannelName) -> Result<EventId, StoreError> {
        let low_watermark = self.last(channel).ok_or(StoreError::NoChannel)?;
        let keys = self.keys_of(channel);
        let end = self.end(channel)?;
        let (name, last, closed) = (channel.clone(), end, end);
        let record = ChannelRecord { channel: name, last, closed, low_watermark };
        self.write(Kind::Channel, |out| record.write(out));
        for keys in keys.chunks(KEYS_OF_RECORD_MAX) {
            let removal = removal_of(channel, keys);
            self.write(Kind::State, |out| removal.write(out));
        }
        self.note_erased(channel, &keys);
        let erasure = Erasure { channel: channel.clone(), low_watermark };
        self.stage(Change::Erase(erasure));
        Ok(end)
    }
}

/// Returns the record that removes keys from the state of a channel. Its ids are not those of any
/// event.
fn removal_of(channel: &ChannelName, keys: &[Box<str>]) -> Events {
    let keys = keys.iter().filter_map(|key| Field::key(key).ok());
    let events = keys.map(|key| Event::new(None, Some(key), String::new(), true)).collect();
    let (channel, previous, first) = (channel.clone(), EventId::START, EventId::START);
    Events { channel, is_first: false, previous, first, key: None, events }
}

impl Catalog {
    /// Applies a committed erasure. The `end` event is in the catalog already.
    pub fn erase(&mut self, erasure: &Erasure, load: Load<'_>) {
        let Erasure { channel: name, low_watermark } = erasure;
        self.trim(name, u64::MAX, load, |_, oldest| oldest <= *low_watermark);
        let Self { channels, log_files, bytes, .. } = self;
        let Some(channel) = channels.get_mut(name) else { return };
        channel.low_watermark = channel.low_watermark.max(*low_watermark);
        let keys: Vec<_> = channel.state.keys().cloned().collect();
        for key in keys {
            Self::set_state(log_files, bytes, channel, key, None);
        }
    }
}
