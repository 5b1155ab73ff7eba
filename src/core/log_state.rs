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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    /// A channel whose first event came after the position 5 of a log that began at 3.
    const WHOLE: Bounds = Bounds {
        beginning: EventId { ms: 3, seq: 0 },
        opened_at: EventId { ms: 5, seq: 0 },
        low_watermark: EventId { ms: 5, seq: 0 },
        last: EventId { ms: 9, seq: 0 },
    };

    #[test]
    fn a_log_with_all_of_its_events_begins_at_zero() {
        assert_eq!(WHOLE.start(), EventId::START);
        assert_eq!(Bounds { low_watermark: id(7), ..WHOLE }.start(), id(7));
    }

    #[test]
    fn a_channel_that_is_older_than_the_log_begins_before_it() {
        assert_eq!(WHOLE.first(), id(3));
        assert_eq!(Bounds { opened_at: id(2), ..WHOLE }.first(), id(2));
    }

    #[test]
    fn a_position_misses_events_when_it_lies_before_those_that_are_kept() {
        let missing = |bounds: Bounds| (0..=9).filter(|ms| bounds.misses(id(*ms))).collect();
        let missing: [Vec<u64>; 2] =
            [missing(WHOLE), missing(Bounds { low_watermark: id(7), ..WHOLE })];
        // The positions 0 and 3 both stand before the first event. The others before 5 are
        // no positions of this channel.
        assert_eq!(missing, [vec![1, 2, 4], vec![0, 1, 2, 3, 4, 5, 6]]);
    }

    #[test]
    fn an_instant_is_trimmed_when_an_event_from_then_on_is_gone() {
        let trimmed = Bounds { low_watermark: id(7), ..WHOLE };
        assert_eq!([6, 7, 8].map(|ms| trimmed.is_trimmed_since(ms)), [true, true, false]);
        assert!(!WHOLE.is_trimmed_since(0));
    }
}
