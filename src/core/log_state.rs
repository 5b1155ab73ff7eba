//! The extent of a channel's log, which decides which cursors the log can still serve.

use crate::core::cursor::EventId;

/// The positions between which a channel's log extends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The position before the first event of every channel of this log. A cursor before it comes
    /// from another log, for example from a memory store before the process restarted.
    pub beginning: EventId,
    /// The position before the channel's first event, while that event is kept.
    pub opened_at: EventId,
    /// The id of the newest event that is no longer kept. It equals [`Bounds::opened_at`] while all
    /// events are kept.
    pub low_watermark: EventId,
    /// The newest id that the channel has given to an event, even if that event is no longer kept.
    pub last: EventId,
}

/// The state of a channel's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The extent of the log.
    pub bounds: Bounds,
    /// The id of the oldest event that is still kept.
    pub oldest: Option<EventId>,
    /// Whether the channel has ended.
    pub closed: bool,
    /// Whether the channel has state.
    pub keyed: bool,
}

impl Bounds {
    /// Returns the position at which the channel's log begins, as clients write it: `0-0` while all
    /// events are kept.
    pub fn start(&self) -> EventId {
        if self.low_watermark == self.opened_at { EventId::START } else { self.low_watermark }
    }

    /// Returns the position before the channel's first event. It is the same for all channels,
    /// except for a channel that is older than the current beginning of the log.
    pub fn first(&self) -> EventId {
        self.beginning.min(self.opened_at)
    }

    /// Whether events after `position` are no longer kept. `0-0` and [`Bounds::first`] both stand
    /// for the position before the channel's first event.
    pub fn misses(&self, position: EventId) -> bool {
        let is_first = position == EventId::START || position == self.first();
        let is_whole = self.low_watermark == self.opened_at;
        !(is_first && is_whole) && position < self.low_watermark
    }

    /// Whether events with ids from the instant `ms` on are no longer kept.
    pub fn is_trimmed_since(&self, ms: u64) -> bool {
        self.low_watermark != self.opened_at && self.low_watermark.ms >= ms
    }
}
