//! How far a channel's log reaches, and which cursors it can still serve.

use crate::core::cursor::EventId;

/// From where to where a channel's log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The place before the first event of every channel of this log. A cursor before it is of
    /// another log, for example of a memory store before the process started again.
    pub beginning: EventId,
    /// The place before the first event that the channel had, while that is kept.
    pub opened_at: EventId,
    /// The newest event that is no longer kept; [`Bounds::opened_at`] while all are.
    pub low_watermark: EventId,
    /// The newest id given, also when its event is no longer kept.
    pub last: EventId,
}

/// What a channel's log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// From where to where it goes.
    pub bounds: Bounds,
    /// The oldest event still kept.
    pub oldest: Option<EventId>,
    /// Whether the channel has ended.
    pub closed: bool,
    /// Whether it has state.
    pub keyed: bool,
}

impl Bounds {
    /// Where the log of one channel begins, as clients write it: `0-0` while all is kept.
    pub fn start(&self) -> EventId {
        if self.low_watermark == self.opened_at { EventId::START } else { self.low_watermark }
    }

    /// The place before the first event that the channel had: the same for all channels, unless
    /// this one is older than the place that is now the beginning.
    pub fn first(&self) -> EventId {
        self.beginning.min(self.opened_at)
    }

    /// Whether events after a place are no longer kept. `0-0`, and the place before every event,
    /// stand for the first place of the channel.
    pub fn misses(&self, position: EventId) -> bool {
        let is_first = position == EventId::START || position == self.first();
        let is_whole = self.low_watermark == self.opened_at;
        !(is_first && is_whole) && position < self.low_watermark
    }

    /// Whether events of an instant (ms) or later are no longer kept.
    pub fn is_trimmed_since(&self, ms: u64) -> bool {
        self.low_watermark != self.opened_at && self.low_watermark.ms >= ms
    }
}
