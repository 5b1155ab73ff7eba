//! The headers that say how long a cache may keep a response, and which endings of a response allow
//! a cache to keep it.
//!
//! The files for Varnish, Fastly and nginx rely on these headers, and tests compare the files with
//! them. The headers are pure functions of the kind of response, the instant at which it ends, and
//! the current time.

use std::fmt::Write;

/// Name of the header that says for how many more seconds a stream stays valid, with three
/// decimals: `3.412`. `max-age` gives away the last second or two, which is a large part of a short
/// segment. The value counts from the instant at which the origin responded, so a cache may use it
/// only if no other cache held the response before (it has no `Age` header).
pub const FRESH_HEADER: &str = "headwater-fresh";

/// Headers of every streamed response; a finished response has none of them. `X-Accel-Buffering`
/// keeps nginx and other proxies that support it from buffering the stream, and `Incremental` (RFC
/// 10036) requests the same of every proxy. nginx does not cache a response that has the former
/// header.
pub const STREAM_HEADERS: [(&str, &str); 2] = [("x-accel-buffering", "no"), ("incremental", "?1")];

/// How long a response may be served from a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A stream that ends at this instant (ms). It is fresh until shortly before that instant.
    Segment { ends_at: u64 },
    /// A finished response that is the same for every client with this cursor.
    SameForCursor,
    /// A full page of the history. Its events do not change while they are kept.
    FullPage,
    /// A file of the program, which may be another one after an upgrade.
    File,
    /// A file whose path names its content.
    Unchanging,
    /// A response that is valid only now. Clients that request it within the same second share it.
    Second,
    /// A response that no cache may store.
    Never,
}

/// The reason why a response body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The stream reached its boundary or its rejoin tick.
    Boundary,
    /// The stream passed `--segment-bytes`.
    Full,
    /// Every channel of the stream has ended.
    ChannelEnd,
    /// The next event of the reader is no longer kept.
    FellBehind,
    /// The store failed, or no longer has events that were already sent.
    StoreFailed,
    /// The process had to stop before the boundary.
    Cut,
    /// The client disconnected.
    ClientGone,
}

impl Freshness {
    /// Returns the value of `Cache-Control`.
    ///
    /// A stream is fresh for one second less than it lasts: no cache may serve it after its end,
    /// and `max-age` has no finer unit. `no-transform` keeps proxies from compressing the stream,
    /// because a compressor holds bytes back.
    pub fn cache_control(self, now: u64) -> String {
        let mut value = String::from("public, max-age=");
        let written = match self {
            Self::Segment { ends_at } => {
                let seconds_left = ends_at.saturating_sub(now) / 1_000;
                write!(value, "{}, no-transform", seconds_left.saturating_sub(1).max(1))
            }
            Self::SameForCursor => write!(value, "60"),
            Self::FullPage => write!(value, "3600, immutable"),
            Self::File => write!(value, "60"),
            Self::Unchanging => write!(value, "31536000, immutable"),
            Self::Second => write!(value, "1"),
            Self::Never => return "no-store".to_owned(),
        };
        debug_assert!(written.is_ok(), "a String takes all text");
        value
    }

    /// Returns the value of [`FRESH_HEADER`], or `None` if the response is not a stream.
    pub fn seconds_left(self, now: u64) -> Option<String> {
        let Self::Segment { ends_at } = self else { return None };
        let left_ms = ends_at.saturating_sub(now);
        Some(format!("{}.{:03}", left_ms / 1_000, left_ms % 1_000))
    }
}

impl Ending {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Boundary,
        Self::Full,
        Self::ChannelEnd,
        Self::FellBehind,
        Self::StoreFailed,
        Self::Cut,
        Self::ClientGone,
    ];

    /// Whether the body ends cleanly. `false` means that the transfer must be aborted (no last
    /// chunk, `RST_STREAM`): a cache would keep an incomplete body that ends cleanly, and serve it
    /// to every client.
    pub fn is_whole(self) -> bool {
        match self {
            Self::Boundary | Self::Full | Self::ChannelEnd => true,
            Self::FellBehind | Self::StoreFailed | Self::Cut | Self::ClientGone => false,
        }
    }

    /// Returns the name that metrics and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boundary => "boundary",
            Self::Full => "full",
            Self::ChannelEnd => "channel_end",
            Self::FellBehind => "fell_behind",
            // The label of the metric keeps its first name.
            Self::StoreFailed => "store_lost",
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
        check(Freshness::SameForCursor, "public, max-age=60");
        check(Freshness::FullPage, "public, max-age=3600, immutable");
        check(Freshness::File, "public, max-age=60");
        check(Freshness::Unchanging, "public, max-age=31536000, immutable");
        check(Freshness::Second, "public, max-age=1");
        check(Freshness::Never, "no-store");
        let left = |ends_at| Freshness::Segment { ends_at }.seconds_left(0).unwrap();
        assert_eq!(
            (left(30_000), left(2_007), left(9)),
            ("30.000".into(), "2.007".into(), "0.009".into())
        );
        assert_eq!(Freshness::Second.seconds_left(0), None);
    }

    #[test]
    fn only_a_body_with_all_of_its_events_ends_cleanly() {
        let whole = Ending::ALL.into_iter().filter(|ending| ending.is_whole());
        assert_eq!(whole.collect::<Vec<_>>(), [Ending::Boundary, Ending::Full, Ending::ChannelEnd]);
        assert_eq!(
            Ending::ALL.map(Ending::as_str),
            ["boundary", "full", "channel_end", "fell_behind", "store_lost", "cut", "client_gone"]
        );
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
            // The stream is never fresh after its end, except that `max-age` is at least one
            // second.
            prop_assert!(seconds == 1 || now + seconds * 1000 < ends_at);
        }
    }
}
