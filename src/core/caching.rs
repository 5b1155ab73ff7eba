//! What a cache may do with an answer, and which ends of a body are whole.
//!
//! A contract file: the VCL and nginx files are written and tested against it. Headers are a pure
//! function of the kind of answer, the instant it ends, and now.

use std::fmt::Write;

/// How many more seconds a stream is true, to the millisecond: `3.412`. `max-age` gives away the
/// last second or two, which in short segments is much of them. Counts from when the origin
/// answered, so a cache may act on it only where no other has held the answer before (no `Age`).
pub const FRESH_HEADER: &str = "headwater-fresh";

/// Headers of every stream that arrives while it is made, and of no finished answer: nginx and
/// others that know `X-Accel-Buffering` do not buffer it, and `Incremental` (RFC 10036) asks the
/// same of every proxy. nginx does not cache an answer that has the former.
pub const STREAM_HEADERS: [(&str, &str); 2] = [("x-accel-buffering", "no"), ("incremental", "?1")];

/// How long an answer stays true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A stream that ends at this instant (ms): fresh until just before.
    Segment { ends_at: u64 },
    /// A finished answer that will be given again to everyone with this cursor.
    Forever,
    /// A full page of history: its events do not change while they are kept.
    FullPage,
    /// True now; a herd that asks within the second shares it.
    Second,
    /// Not for a shared cache.
    Never,
}

/// Why a response body stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Its segment, or its tick, is over.
    Boundary,
    /// It passed `--segment-bytes`.
    Full,
    /// Every channel of the stream has ended.
    ChannelEnd,
    /// The reader fell off the tail of what is kept.
    FellBehind,
    /// The store lost its place.
    StoreLost,
    /// The process had to stop before the boundary.
    Cut,
    /// The client went away.
    ClientGone,
}

impl Freshness {
    /// The value of `Cache-Control`.
    ///
    /// A segment is fresh for a second less than it lasts: no cache may still hand it out when it
    /// is over, and `max-age` has no finer unit. `no-transform` keeps proxies from compressing it,
    /// because what compresses a stream holds its bytes back.
    pub fn cache_control(self, now: u64) -> String {
        let mut value = String::from("public, max-age=");
        let written = match self {
            Self::Segment { ends_at } => {
                let seconds_left = ends_at.saturating_sub(now) / 1_000;
                write!(value, "{}, no-transform", seconds_left.saturating_sub(1).max(1))
            }
            Self::Forever => write!(value, "60"),
            Self::FullPage => write!(value, "3600, immutable"),
            Self::Second => write!(value, "1"),
            Self::Never => return "no-store".to_owned(),
        };
        debug_assert!(written.is_ok(), "a String takes all text");
        value
    }

    /// The value of [`FRESH_HEADER`], where the answer has an end.
    pub fn seconds_left(self, now: u64) -> Option<String> {
        let Self::Segment { ends_at } = self else { return None };
        let left_ms = ends_at.saturating_sub(now);
        Some(format!("{}.{:03}", left_ms / 1_000, left_ms % 1_000))
    }
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Boundary,
        Self::Full,
        Self::ChannelEnd,
        Self::FellBehind,
        Self::StoreLost,
        Self::Cut,
        Self::ClientGone,
    ];

    /// A body that is not whole must not look whole: a cache would keep it and hand the hole to
    /// everyone. `false` means: break the transfer off (no last chunk, RST_STREAM).
    pub fn is_whole(self) -> bool {
        match self {
            Self::Boundary | Self::Full | Self::ChannelEnd => true,
            Self::FellBehind | Self::StoreLost | Self::Cut | Self::ClientGone => false,
        }
    }

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boundary => "boundary",
            Self::Full => "full",
            Self::ChannelEnd => "channel_end",
            Self::FellBehind => "fell_behind",
            Self::StoreLost => "store_lost",
            Self::Cut => "cut",
            Self::ClientGone => "client_gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::segment::{Arrival, SEGMENT_MS, SegmentClock};
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_answer_says_how_long_it_is_true() {
        let check = |freshness: Freshness, value| assert_eq!(freshness.cache_control(0), value);
        check(Freshness::Segment { ends_at: 30_000 }, "public, max-age=29, no-transform");
        check(Freshness::Segment { ends_at: 29_999 }, "public, max-age=28, no-transform");
        check(Freshness::Segment { ends_at: 10 }, "public, max-age=1, no-transform");
        check(Freshness::Forever, "public, max-age=60");
        check(Freshness::FullPage, "public, max-age=3600, immutable");
        check(Freshness::Second, "public, max-age=1");
        check(Freshness::Never, "no-store");
        let left = |ends_at| Freshness::Segment { ends_at }.seconds_left(0).unwrap();
        assert_eq!(
            (left(30_000), left(2_007), left(9)),
            ("30.000".into(), "2.007".into(), "0.009".into())
        );
        assert_eq!(Freshness::Second.seconds_left(0), None);
    }

    proptest! {
        #[test]
        fn max_age_is_right_at_every_instant_of_a_segment(
            length_ms in SEGMENT_MS, lanes in 1u64..=8, tick in prop_oneof![Just(0u64), 500u64..5_000],
            now in 1_000_000u64..4_000_000_000_000, straggler: bool,
        ) {
            let clock = SegmentClock { length_ms, lanes, rejoin_tick_ms: tick };
            let arrival = if straggler { Arrival::Straggler } else { Arrival::New };
            let ends_at = clock.span(lanes - 1, now, arrival).ends_at;
            let value = Freshness::Segment { ends_at }.cache_control(now);
            let seconds = value.strip_prefix("public, max-age=").unwrap();
            let seconds: u64 = seconds.strip_suffix(", no-transform").unwrap().parse().unwrap();
            prop_assert_eq!(seconds, std::cmp::max(1, ((ends_at - now) / 1000).saturating_sub(1)));
            // Never fresh past its end, but for the second that max-age cannot go below.
            prop_assert!(seconds == 1 || now + seconds * 1000 < ends_at);
        }
    }
}
