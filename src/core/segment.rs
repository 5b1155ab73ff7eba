//! Computes when each response ends and the next one begins.
//!
//! Every origin ends its responses at the same wall-clock instants, so that a cache in front of the
//! origins keeps one object per segment and serves it to every client. These instants depend on the
//! clock alone, not on the traffic. Clients therefore reconnect together. This is intended, and no
//! jitter may be added here. With lanes, several smaller groups of clients reconnect at different
//! instants. With rejoin ticks, the stream of a client that was disconnected ends at the next tick
//! and not at the boundary. All streams of one URL that end at one tick give their clients the same
//! cursor.
//!
//! Some responses end at other instants. `hub::event_stream` ends a stream early when the stream
//! has sent as many bytes of events as `--segment-bytes` allows, or when all channels of the stream
//! have ended. It ends a stream late, by about five seconds at most, if events of the segment still
//! have to be sent at the boundary. A stream that begins while the process drains does not run past
//! the next boundary (`span_in_drain`), and `Hub::end_streams` ends all streams early.
//! `http::long_poll` computes the `ends_at` of a long poll.
//!
//! All functions are pure: the caller passes `now`. Only `sync::clock` reads the wall clock.

/// Shortest and longest segment that a configuration may set, in ms. Below one second the
/// reconnects cost more than the cache saves; above ten minutes a drain takes too long.
pub const SEGMENT_MS: std::ops::RangeInclusive<u64> = 1_000..=600_000;
/// Largest number of lanes. With more lanes, each lane has too few clients for a cache to collapse.
pub const LANES_MAX: u64 = 64;
/// Minimum lifetime of a new response, in ms. If less time is left until the boundary, the response
/// runs on to the following boundary.
const LEAST_LEFT_MS: u64 = 2_000;

/// Computes the instants at which responses end.
#[derive(Clone, Copy, Debug)]
pub struct SegmentClock {
    /// Segment length T, in ms.
    pub length_ms: u64,
    /// Number of lanes L. The boundaries of lane j are shifted by `j*T/L`.
    pub lanes: u64,
    /// Interval of the rejoin ticks, in ms: streams of clients that were disconnected inside a
    /// segment end at the next tick. With 0 they end at the boundary.
    pub rejoin_tick_ms: u64,
}

/// The kind of cursor that a request has. It decides when the response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The request has no cursor, or a cursor that is not valid for the stream.
    New,
    /// The request has a cursor without a mark: its stream was disconnected inside a segment.
    Straggler,
    /// The request has the cursor of a response that ended as planned, at this instant (ms).
    Marked(u64),
}

/// One span of time, half open: `starts_at <= t < ends_at`, in ms since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of whole segments of the same lane before this one, since the Unix epoch.
    pub number: u64,
    /// First instant of the segment.
    pub starts_at: u64,
    /// First instant after the segment.
    pub ends_at: u64,
}

/// The lifetime of one response: the segment in which it begins, and the instant at which it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The segment that was running when the response began.
    pub segment: Segment,
    /// The instant at which the response ends, in ms. It lies in the following segment when too
    /// little time was left in this one.
    pub ends_at: u64,
    /// The number of the segment that runs from `ends_at` on.
    pub next_number: u64,
}

impl Default for SegmentClock {
    fn default() -> Self {
        Self { length_ms: 30_000, lanes: 1, rejoin_tick_ms: 0 }
    }
}

impl SegmentClock {
    /// Returns the segment of `lane` that contains the instant `now`.
    pub fn segment_at(&self, lane: u64, now: u64) -> Segment {
        let offset = lane * self.length_ms / self.lanes;
        let number = now.saturating_sub(offset) / self.length_ms;
        let starts_at = number * self.length_ms + offset;
        Segment { number, starts_at, ends_at: starts_at + self.length_ms }
    }

    /// Returns the lifetime of a response that begins at `now`.
    ///
    /// A stream that is opened with the mark of a tick of the running segment ends at the boundary
    /// of this segment, however little time is left. If it ran on, the responses of the last ticks
    /// would exist beside all responses of the next segment.
    ///
    /// A stream that is opened with the mark of an earlier segment ends at the next tick, like a
    /// stream without a mark. After an outage, or after sleep on an idle channel, clients arrive
    /// with the marks of many segments, and each mark would otherwise need a response of its own
    /// until the boundary.
    ///
    /// A mark at the end of the response or after it comes from an origin whose clock is ahead. It
    /// does not change the end of the response, only its closing cursor
    /// (`core::resume::ResumeFrom::least_mark`).
    pub fn span(&self, lane: u64, now: u64, arrival: Arrival) -> Span {
        let segment = self.segment_at(lane, now);
        let left = segment.ends_at - now.max(segment.starts_at);
        let from_tick = match arrival {
            Arrival::Marked(mark) => segment.starts_at < mark && mark < segment.ends_at,
            Arrival::New | Arrival::Straggler => false,
        };
        let least_left = LEAST_LEFT_MS.min(self.length_ms / 2);
        let run_on = left < least_left && !from_tick;
        let boundary = segment.ends_at + if run_on { self.length_ms } else { 0 };
        let is_straggler = match arrival {
            Arrival::Marked(mark) => mark < segment.starts_at,
            Arrival::Straggler => true,
            Arrival::New => false,
        };
        let ends_at = match self.rejoin_tick_ms {
            tick if tick > 0 && is_straggler => boundary.min((now / tick + 1) * tick),
            _ => boundary,
        };
        self.span_until(lane, now, ends_at)
    }

    /// Returns the lifetime of a response that begins at `now` while the origin drains. It ends at the
    /// next boundary at the latest.
    pub fn span_in_drain(&self, lane: u64, now: u64, arrival: Arrival) -> Span {
        let span = self.span(lane, now, arrival);
        self.span_until(lane, now, span.ends_at.min(span.segment.ends_at))
    }

    /// Returns the lifetime of a response that begins at `now` and ends at `ends_at`, which may lie
    /// in any segment.
    pub fn span_until(&self, lane: u64, now: u64, ends_at: u64) -> Span {
        let next_number = self.segment_at(lane, ends_at).number;
        Span { segment: self.segment_at(lane, now), ends_at, next_number }
    }

    /// Returns the instant by which every lane has had a boundary after `now`.
    pub fn next_boundaries(&self, now: u64) -> u64 {
        (0..self.lanes).map(|lane| self.segment_at(lane, now).ends_at).max().unwrap_or(now)
    }

    /// Returns the longest lifetime of any response, in ms. A drain has to wait for this time.
    pub fn longest_ms(&self) -> u64 {
        self.length_ms + LEAST_LEFT_MS.min(self.length_ms / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLOCK: SegmentClock = SegmentClock { length_ms: 30_000, lanes: 1, rejoin_tick_ms: 0 };

    #[test]
    fn a_boundary_belongs_to_the_segment_it_opens() {
        let check = |now, number, starts_at, ends_at| {
            assert_eq!(CLOCK.segment_at(0, now), Segment { number, starts_at, ends_at });
        };
        check(29_999, 0, 0, 30_000);
        check(30_000, 1, 30_000, 60_000);
        check(1_795_278_400_710, 59_842_613, 1_795_278_390_000, 1_795_278_420_000);
    }

    #[test]
    fn the_last_lane_has_its_boundary_last() {
        assert_eq!(CLOCK.next_boundaries(29_999), 30_000);
        let lanes = SegmentClock { lanes: 3, ..CLOCK };
        assert_eq!(lanes.next_boundaries(30_000), 60_000);
        assert_eq!(lanes.next_boundaries(35_000), 60_000);
        assert_eq!(lanes.next_boundaries(45_000), 70_000);
    }

    #[test]
    fn with_too_little_left_a_response_runs_on() {
        assert_eq!(CLOCK.span(0, 28_000, Arrival::New).ends_at, 30_000);
        assert_eq!(CLOCK.span(0, 28_001, Arrival::New).ends_at, 60_000);
        assert_eq!(CLOCK.span(0, 28_001, Arrival::Marked(0)).next_number, 2);
        let short = SegmentClock { length_ms: 2_000, ..CLOCK };
        assert_eq!(short.span(0, 1_000, Arrival::New).ends_at, 2_000);
        assert_eq!(short.span(0, 1_001, Arrival::New).ends_at, 4_000);
        assert_eq!((CLOCK.longest_ms(), short.longest_ms()), (32_000, 3_000));
    }

    #[test]
    fn a_straggler_rejoins_at_the_next_tick_and_at_the_boundary_at_the_latest() {
        let clock = SegmentClock { rejoin_tick_ms: 1_000, ..CLOCK };
        assert_eq!(clock.span(0, 3_200, Arrival::Straggler).ends_at, 4_000);
        assert_eq!(clock.span(0, 3_200, Arrival::Straggler).next_number, 0);
        assert_eq!(clock.span(0, 3_000, Arrival::Straggler).ends_at, 4_000);
        assert_eq!(clock.span(0, 29_500, Arrival::Straggler).ends_at, 30_000);
        assert_eq!(clock.span(0, 3_200, Arrival::New).ends_at, 30_000);
    }

    #[test]
    fn who_comes_from_a_tick_leaves_with_the_crowd_of_its_segment() {
        let clock = SegmentClock { rejoin_tick_ms: 1_000, ..CLOCK };
        assert_eq!(clock.span(0, 29_100, Arrival::Marked(29_000)).ends_at, 30_000);
        assert_eq!(clock.span(0, 30_100, Arrival::Marked(30_000)).ends_at, 60_000);
        // The boundaries on both sides of the segment are no ticks of it.
        assert_eq!(clock.span(0, 59_100, Arrival::Marked(30_000)).ends_at, 90_000);
        assert_eq!(clock.span(0, 59_100, Arrival::Marked(60_000)).ends_at, 90_000);
        // The cohort of an earlier segment no longer exists.
        assert_eq!(clock.span(0, 59_100, Arrival::Marked(29_000)).ends_at, 60_000);
        assert_eq!(clock.span(0, 61_100, Arrival::Marked(30_000)).ends_at, 62_000);
        assert_eq!(CLOCK.span(0, 61_100, Arrival::Marked(30_000)).ends_at, 90_000);
    }

    #[test]
    fn a_mark_from_a_clock_that_is_ahead_changes_no_end() {
        for mark in [30_000, 30_001, 60_000, 90_000] {
            assert_eq!(CLOCK.span(0, 25_000, Arrival::Marked(mark)).ends_at, 30_000);
            assert_eq!(CLOCK.span(0, 29_000, Arrival::Marked(mark)).ends_at, 60_000);
            assert_eq!(CLOCK.span_in_drain(0, 29_000, Arrival::Marked(mark)).ends_at, 30_000);
        }
        assert_eq!(CLOCK.span_in_drain(0, 29_000, Arrival::New).ends_at, 30_000);
    }

    #[test]
    fn lanes_split_the_wave_evenly() {
        let clock = SegmentClock { lanes: 3, ..CLOCK };
        let ends: Vec<u64> = (0..3).map(|lane| clock.segment_at(lane, 45_000).ends_at).collect();
        assert_eq!(ends, [60_000, 70_000, 50_000]);
    }

    /// An arrival whose mark, if it has one, is given by an instant near a boundary: a number of
    /// boundaries after the running segment, and a distance from that boundary, in ms.
    fn any_arrival() -> impl Strategy<Value = Option<Option<(i64, i64)>>> {
        let near = prop_oneof![Just(0), -1..=1i64, 900..1_100i64, 1_900..2_100i64];
        let mark = (-2..=3i64, near).prop_map(|mark| Some(Some(mark)));
        prop_oneof![Just(None), Just(Some(None)), mark]
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_one_segment_and_no_response_outlives_its_bound(
            length_ms in SEGMENT_MS, lanes in 1..=LANES_MAX, tick in 0u64..10_000,
            lane in 0..LANES_MAX, now in 1_000_000u64..4_000_000_000_000, arrival in any_arrival(),
        ) {
            let clock = SegmentClock { length_ms, lanes, rejoin_tick_ms: tick };
            let lane = lane % lanes;
            let segment = clock.segment_at(lane, now);
            let arrival = match arrival {
                None => Arrival::New,
                Some(None) => Arrival::Straggler,
                Some(Some((boundaries, off))) => {
                    let mark = segment.starts_at as i64 + boundaries * length_ms as i64 + off;
                    Arrival::Marked(mark.max(0) as u64)
                }
            };
            prop_assert!(segment.starts_at <= now && now < segment.ends_at);
            prop_assert_eq!(clock.segment_at(lane, segment.ends_at).number, segment.number + 1);
            let span = clock.span(lane, now, arrival);
            prop_assert!(span.ends_at > now);
            prop_assert!(span.ends_at - now <= clock.longest_ms());
            let last = clock.span_in_drain(lane, now, arrival);
            prop_assert!(now < last.ends_at && last.ends_at <= segment.ends_at);
        }
    }
}
