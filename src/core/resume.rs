//! Decides where a stream begins, from what the client requested and what the log has.
//! `hub/join.rs` (`plan`) asks this module, except for a cursor whose positions are all in the tail
//! buffers, which is always honoured.
//!
//! A cursor that cannot be honoured never leads to an HTTP error, because any status other than 200
//! ends a native `EventSource` permanently. It is not ignored silently either: the client receives
//! a `gap` event, and the stream goes on. The reasons of a gap at the beginning of a stream are in
//! `core::sse::GapReason`. Two more reasons are in `core::event`: a store writes a `lost` gap into
//! the log, and returns a `damaged` gap in place of an event that it cannot read.

use crate::core::cursor::{Cursor, EventId};
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::core::segment::Arrival;
use crate::core::since::Since;
use crate::core::sse::{Gap, GapReason};

/// The cursor before the first event.
pub const BEGINNING: &str = "0-0";
/// Largest number of characters of a foreign cursor that a `gap` event repeats.
const REQUESTED_CHARS_MAX: usize = 200;

/// The start of a stream as the client requested it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResumeFrom {
    /// The request has no cursor: a fresh join.
    Now,
    /// A valid cursor with one position for each channel of the stream.
    After(Cursor),
    /// A text that is not a cursor of this stream.
    Foreign(String),
    /// An instant: the stream begins with the first event at or after it.
    Since(Since),
    /// The number of newest events of each channel with which the stream begins.
    Last(u64),
}

/// The start of one channel of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The channel begins after this position.
    After(EventId),
    /// The channel begins as a fresh join: with its state if it has one, otherwise at the start of
    /// the segment.
    Now,
}

/// How a stream begins: a [`Start`] for each channel, and the gaps that the client is informed of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPlan {
    /// The start of each channel, in the order of the channels.
    pub starts: Vec<Start>,
    /// The gaps at the beginning of the stream.
    pub gaps: Vec<Gap>,
}

impl ResumeFrom {
    /// Parses a cursor for a stream of `channels` channels, from the header or from a query
    /// parameter. No text is refused: a text that is not a cursor of this stream leads to a `gap`
    /// event. `0-0` is the beginning for any number of channels.
    pub fn cursor(raw: &[u8], channels: usize) -> Self {
        if raw.is_empty() {
            return Self::Now;
        }
        if raw == BEGINNING.as_bytes() {
            let positions = vec![EventId::START; channels];
            return Self::After(Cursor { positions, mark: None });
        }
        let ours = std::str::from_utf8(raw).ok().and_then(|text| Cursor::parse(text).ok());
        match ours.filter(|cursor| cursor.positions.len() == channels) {
            Some(cursor) => Self::After(cursor),
            None => {
                let text = String::from_utf8_lossy(raw);
                Self::Foreign(text.chars().take(REQUESTED_CHARS_MAX).collect())
            }
        }
    }

    /// Returns the [`Arrival`] of the request, which decides when its stream ends.
    pub fn arrival(&self) -> Arrival {
        match self {
            Self::After(Cursor { mark: None, .. }) => Arrival::Straggler,
            Self::After(Cursor { mark: Some(mark), .. }) => Arrival::Marked(*mark),
            Self::Now | Self::Foreign(_) | Self::Since(_) | Self::Last(_) => Arrival::New,
        }
    }

    /// Returns the least mark (ms) of the closing cursor of a response without events. It is later
    /// than the mark of the request.
    ///
    /// The clock of another origin that was ahead may have given the request a mark after the end of
    /// this response. If the marks went back without an event, a few responses could end with the
    /// cursors of each other's requests. A cache that keeps such responses too long would then
    /// answer each request of a client at once, and lead it in a circle.
    pub fn least_mark(&self) -> u64 {
        match self.arrival() {
            Arrival::Marked(mark) => mark.saturating_add(1),
            Arrival::New | Arrival::Straggler => 0,
        }
    }
}

impl StartPlan {
    /// Begins every channel as a fresh join.
    pub fn fresh(channels: usize) -> Self {
        Self { starts: vec![Start::Now; channels], gaps: Vec::new() }
    }

    /// Begins after a cursor without checking it against the log.
    pub fn after(cursor: &Cursor) -> Self {
        Self::at(&cursor.positions)
    }

    /// Begins each channel after its position.
    pub fn at(positions: &[EventId]) -> Self {
        let starts = positions.iter().map(|position| Start::After(*position)).collect();
        Self { starts, gaps: Vec::new() }
    }

    /// Begins every channel as a fresh join with a gap, because the client sent a text that is not
    /// a cursor of this stream.
    pub fn foreign(requested: &str, names: &[ChannelName], log_states: &[LogState]) -> Self {
        let gaps = names.iter().zip(log_states).map(|(name, log_state)| Gap {
            reason: GapReason::Unknown,
            requested: requested.to_owned(),
            oldest: log_state.oldest,
            channel: name.clone(),
        });
        Self { starts: vec![Start::Now; names.len()], gaps: gaps.collect() }
    }

    /// Begins at the instant `since_ms`. `befores` has the last position of each channel before
    /// that instant. A channel has a gap if it no longer keeps all events from that instant on.
    pub fn since(
        since: &Since,
        since_ms: u64,
        names: &[ChannelName],
        befores: &[EventId],
        log_states: &[LogState],
    ) -> Self {
        let mut beginning = Self { starts: Vec::new(), gaps: Vec::new() };
        for ((before, name), log_state) in befores.iter().zip(names).zip(log_states) {
            let is_trimmed = log_state.bounds.is_trimmed_since(since_ms);
            beginning.starts.push(match is_trimmed && log_state.keyed {
                true => Start::Now,
                false => Start::After(*before),
            });
            beginning.gaps.extend(is_trimmed.then(|| Gap {
                reason: GapReason::Trimmed,
                requested: since.to_string(),
                oldest: log_state.oldest,
                channel: name.clone(),
            }));
        }
        beginning
    }

    /// Begins after a cursor. Each of its positions is checked against the log of its channel.
    pub fn decide(cursor: &Cursor, names: &[ChannelName], log_states: &[LogState]) -> Self {
        let mut beginning = Self { starts: Vec::new(), gaps: Vec::new() };
        for ((position, name), log_state) in cursor.positions.iter().zip(names).zip(log_states) {
            let (start, reason) = place(*position, log_state);
            beginning.starts.push(start);
            beginning.gaps.extend(reason.map(|reason| Gap {
                reason,
                requested: cursor.to_string(),
                oldest: log_state.oldest,
                channel: name.clone(),
            }));
        }
        beginning
    }
}

fn place(position: EventId, log_state: &LogState) -> (Start, Option<GapReason>) {
    let bounds = log_state.bounds;
    if position > bounds.last {
        return (Start::Now, Some(GapReason::Ahead));
    }
    if !bounds.misses(position) {
        // A position that other logs also have, such as `0-0`, would hide that the log was lost in
        // the meantime. So it is raised to the first position of this log.
        return (Start::After(position.max(bounds.first())), None);
    }
    // The stream goes on with the events that are kept, or with the state if the channel has one,
    // because the state replaces the missing events.
    let start = if log_state.keyed { Start::Now } else { Start::After(bounds.low_watermark) };
    (start, Some(GapReason::Trimmed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::log_state::Bounds;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn log_state(keyed: bool) -> LogState {
        let bounds = Bounds { low_watermark: id(4), last: id(9), ..Bounds::default() };
        LogState { bounds, oldest: Some(id(5)), closed: false, keyed }
    }

    #[test]
    fn a_position_is_honoured_trimmed_or_ahead() {
        let check = |position, keyed, expected| {
            assert_eq!(place(position, &log_state(keyed)), expected, "{position}");
        };
        check(id(9), false, (Start::After(id(9)), None));
        check(id(4), false, (Start::After(id(4)), None));
        check(id(3), false, (Start::After(id(4)), Some(GapReason::Trimmed)));
        check(id(3), true, (Start::Now, Some(GapReason::Trimmed)));
        check(EventId::START, false, (Start::After(id(4)), Some(GapReason::Trimmed)));
        check(id(10), true, (Start::Now, Some(GapReason::Ahead)));
        let empty = LogState::default();
        assert_eq!(place(EventId::START, &empty), (Start::After(EventId::START), None));
        assert_eq!(place(id(1), &empty), (Start::Now, Some(GapReason::Ahead)));
    }

    #[test]
    fn the_least_mark_is_later_than_the_mark_of_the_request() {
        let after = |mark| ResumeFrom::After(Cursor { positions: vec![id(5)], mark });
        assert_eq!(after(Some(30_000)).least_mark(), 30_001);
        assert_eq!(after(Some(u64::MAX)).least_mark(), u64::MAX);
        assert_eq!(after(None).least_mark(), 0);
        assert_eq!(ResumeFrom::Now.least_mark(), 0);
    }

    #[test]
    fn a_last_event_id_of_another_server_or_another_stream_is_not_ours() {
        let foreign = |raw: &[u8], channels| {
            assert!(matches!(ResumeFrom::cursor(raw, channels), ResumeFrom::Foreign(_)));
        };
        foreign(b"urn:uuid:5e94c686-2c0b-4f9b-958c-92ccc3bbb4eb", 1);
        foreign(b"1-0_2-0", 1);
        foreign(b"1-0", 2);
        foreign(b"\xff\xfe", 1);
        foreign(b"0-0_0-0", 1);
        foreign(b"abc", 1);
        assert_eq!(ResumeFrom::cursor(b"", 1), ResumeFrom::Now);
        let beginning = |channels| {
            ResumeFrom::After(Cursor { positions: vec![EventId::START; channels], mark: None })
        };
        assert_eq!(ResumeFrom::cursor(b"0-0", 1), beginning(1));
        assert_eq!(ResumeFrom::cursor(b"0-0", 3), beginning(3));
        assert_eq!(ResumeFrom::cursor(b"0-0_0-0", 2), beginning(2));
        let arrival = |raw: &[u8]| ResumeFrom::cursor(raw, 1).arrival();
        assert_eq!(arrival(b"1-0"), Arrival::Straggler);
        assert_eq!(arrival(b"1-0.5"), Arrival::Marked(5));
        assert_eq!(arrival(b"x"), Arrival::New);
    }

    #[test]
    fn each_channel_of_a_stream_is_held_against_its_own_log() {
        let names = ["a", "b"].map(|name| ChannelName::parse(name).unwrap());
        let cursor = Cursor { positions: vec![id(9), id(3)], mark: Some(7) };
        let beginning = StartPlan::decide(&cursor, &names, &[log_state(false), log_state(true)]);
        assert_eq!(beginning.starts, [Start::After(id(9)), Start::Now]);
        let [gap] = &beginning.gaps[..] else { panic!("one gap") };
        assert_eq!(gap.requested, "9-0_3-0.7");
        assert_eq!(gap.channel, names[1]);
        assert_eq!(gap.oldest, Some(id(5)));
    }
    #[test]
    fn an_instant_is_a_gap_where_events_from_then_on_are_gone() {
        let names = ["a", "b", "c"].map(|name| ChannelName::parse(name).unwrap());
        let log_states = [log_state(false), log_state(true), LogState::default()];
        let since: Since = "0".parse().unwrap();
        let befores = [id(4), id(4), EventId::START];
        let beginning = |ms| StartPlan::since(&since, ms, &names, &befores, &log_states);
        // The first two channels no longer keep the events up to 4.
        let early = beginning(4);
        let starts = [Start::After(id(4)), Start::Now, Start::After(EventId::START)];
        assert_eq!(early.starts, starts);
        assert_eq!(early.gaps.len(), 2);
        assert_eq!((early.gaps[0].reason, &*early.gaps[0].requested), (GapReason::Trimmed, "0"));
        let late = beginning(5);
        assert!(late.gaps.is_empty());
        assert_eq!(late.starts[1], Start::After(id(4)));
    }
}
