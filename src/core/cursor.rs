//! Event ids, and the cursors that are made of them. The grammar is in docs/protocol.md, section
//! 3.1. A text that is no cursor leads to a gap event (`core::resume`).
//!
//! A cursor travels in `Last-Event-ID`. Wherever possible its text has at most 128 bytes of
//! `[0-9._-]`, so that browsers send it without a CORS preflight. Each cursor has exactly one text,
//! because the text is part of every cache's key. A cursor is only a position to look up: it gives
//! no rights.

use std::fmt;

/// Longest cursor, in bytes, that a browser sends to another origin without a preflight request
/// (the Fetch standard's "CORS-safelisted request-header").
pub const CURSOR_BYTES_MAX: usize = 128;
/// Longest text that [`Cursor`] writes, in bytes, and so the longest one that is parsed: the newest
/// instant, its own position, seven positions far before it, and a mark.
const CURSOR_BYTES_READ_MAX: usize = 359;
/// Largest number of channels in one stream.
pub const CHANNELS_PER_STREAM_MAX: usize = 8;

/// A position in a channel's log, and the id of the event there: `<ms>-<seq>`, as in Redis Streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Milliseconds since the Unix epoch, by the store's clock.
    pub ms: u64,
    /// Distinguishes events of the same millisecond.
    pub seq: u64,
}

/// The positions up to which a client has received all events: one for each channel, in the order
/// of the URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// One position for each channel of the stream.
    pub positions: Vec<EventId>,
    /// The instant (ms) at which the response that carried the cursor was to end. It changes no
    /// position.
    pub mark: Option<u64>,
}

/// Error: the text is not an event id or not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotACursor;

impl EventId {
    /// The position before the first event.
    pub const START: Self = Self { ms: 0, seq: 0 };

    /// Returns the next id of a store whose clock shows `now` (ms). Ids never go back, even if the
    /// clock does.
    #[must_use]
    pub fn next(self, now: u64) -> Self {
        if now > self.ms {
            return Self { ms: now, seq: 0 };
        }
        match self.seq.checked_add(1) {
            Some(seq) => Self { ms: self.ms, seq },
            // The largest id of all has no next one, and must not be followed by the smallest.
            None => self.ms.checked_add(1).map_or(self, |ms| Self { ms, seq: 0 }),
        }
    }

    /// Parses `<ms>-<seq>`.
    ///
    /// # Errors
    /// Fails for any other text, including numbers with a leading zero.
    pub fn parse(text: &str) -> Result<Self, NotACursor> {
        let (ms, seq) = text.split_once('-').ok_or(NotACursor)?;
        Ok(Self { ms: number(ms)?, seq: number(seq)? })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl Cursor {
    /// Parses the text that the `Display` implementation of [`Cursor`] writes.
    ///
    /// # Errors
    /// Fails for any other text.
    pub fn parse(text: &str) -> Result<Self, NotACursor> {
        if text.len() > CURSOR_BYTES_READ_MAX {
            return Err(NotACursor);
        }
        let cursor = match text.strip_prefix('.') {
            Some(short) => Self::parse_short(short)?,
            None => Self::parse_plain(text)?,
        };
        let count = cursor.positions.len();
        if count > CHANNELS_PER_STREAM_MAX || cursor.to_string() != text {
            return Err(NotACursor);
        }
        Ok(cursor)
    }

    fn parse_plain(text: &str) -> Result<Self, NotACursor> {
        let (positions, mark) = split_mark(text)?;
        let positions = positions.split('_').map(EventId::parse).collect::<Result<_, _>>()?;
        Ok(Self { positions, mark })
    }

    fn parse_short(text: &str) -> Result<Self, NotACursor> {
        let (positions, mark) = split_mark(text)?;
        let mut parts = positions.split('_');
        let newest = number(parts.next().ok_or(NotACursor)?)?;
        let positions = parts.map(|part| short_position(newest, part)).collect::<Result<_, _>>()?;
        Ok(Self { positions, mark })
    }

    fn plain(&self) -> String {
        let positions: Vec<String> = self.positions.iter().map(EventId::to_string).collect();
        positions.join("_")
    }

    /// Writes `.<newest ms>` and then each position as its distance from that instant: `_` alone
    /// for the position before the first event, `_<ms back>` or `_<ms back>-<seq>` for any other
    /// position.
    fn short(&self) -> String {
        let newest = self.positions.iter().map(|position| position.ms).max().unwrap_or(0);
        let mut text = format!(".{newest}");
        for position in &self.positions {
            text.push('_');
            if *position == EventId::START {
                continue;
            }
            text.push_str(&(newest - position.ms).to_string());
            if position.seq > 0 {
                text.push_str(&format!("-{}", position.seq));
            }
        }
        text
    }
}

/// Writes the plain form if it has at most [`CURSOR_BYTES_MAX`] bytes, otherwise the short form.
/// The short form exists because eight positions and a mark have 141 bytes. Eight channels that
/// were all active within the last eleven days fit into it; if even the short form is longer, the
/// only cost is one preflight for each reconnect to another origin.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = self.mark.map(|mark| format!(".{mark}")).unwrap_or_default();
        let plain = self.plain();
        if plain.len() + mark.len() <= CURSOR_BYTES_MAX {
            return write!(f, "{plain}{mark}");
        }
        write!(f, "{}{mark}", self.short())
    }
}

fn split_mark(text: &str) -> Result<(&str, Option<u64>), NotACursor> {
    match text.split_once('.') {
        None => Ok((text, None)),
        Some((positions, mark)) => Ok((positions, Some(number(mark)?))),
    }
}

fn short_position(newest: u64, part: &str) -> Result<EventId, NotACursor> {
    if part.is_empty() {
        return Ok(EventId::START);
    }
    let (back, seq) = part.split_once('-').unwrap_or((part, "0"));
    let ms = newest.checked_sub(number(back)?).ok_or(NotACursor)?;
    Ok(EventId { ms, seq: number(seq)? })
}

/// Parses digits without a sign and without leading zeros, so that each number has exactly one
/// text.
fn number(text: &str) -> Result<u64, NotACursor> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotACursor);
    }
    text.parse().map_err(|_| NotACursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(ms: u64, seq: u64) -> EventId {
        EventId { ms, seq }
    }

    #[test]
    fn ids_go_up_whatever_the_clock_does() {
        assert_eq!(id(10, 3).next(11), id(11, 0));
        assert_eq!(id(10, 3).next(10), id(10, 4));
        assert_eq!(id(10, 3).next(2), id(10, 4));
        assert_eq!(id(10, u64::MAX).next(2), id(11, 0));
        assert_eq!(id(u64::MAX, u64::MAX).next(2), id(u64::MAX, u64::MAX));
    }

    #[test]
    fn a_cursor_reads_as_the_contract_writes_it() {
        let cursor = Cursor::parse("1795278400710-0").unwrap();
        assert_eq!(cursor, Cursor { positions: vec![id(1795278400710, 0)], mark: None });
        let cursor = Cursor::parse("1795278400710-2_0-0.1795278420000").unwrap();
        assert_eq!(cursor.positions, [id(1795278400710, 2), id(0, 0)]);
        assert_eq!(cursor.mark, Some(1795278420000));
    }

    #[test]
    fn other_texts_are_not_cursors() {
        let nine = ["1-0"; 9].join("_");
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-0.",
            "1-0_",
            "_1-0",
            "01-0",
            "1-00",
            "+1-0",
            " 1-0",
            "1-0 ",
            "1-0.1.2",
            "1-0.x",
            "1-0\u{661}",
            "18446744073709551616-0",
            ".",
            "._",
            ".5_",
            ".5_0",
            ".5_6-0",
            &nine,
            &"1".repeat(500),
            "unknown",
            "urn:uuid:1",
        ] {
            assert_eq!(Cursor::parse(text), Err(NotACursor), "{text:?}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(EventId::parse("10-2"), Ok(id(10, 2)));
        assert_eq!(EventId::parse("0-0"), Ok(EventId::START));
        for text in ["01-0", "1-00", "+1-0", "1-+0", "1", "1-", "-1", "1-0.5", "1-0_1-0"] {
            assert_eq!(EventId::parse(text), Err(NotACursor), "{text:?}");
        }
    }

    #[test]
    fn eight_live_channels_and_a_mark_cost_no_preflight() {
        let now = 1_795_278_420_000;
        let positions: Vec<_> = (0..8).map(|n| id(now - n * 86_400_000, n * 10)).collect();
        for mark in [Some(now), None] {
            let text = Cursor { positions: positions.clone(), mark }.to_string();
            assert!(text.len() <= CURSOR_BYTES_MAX, "{} bytes: {text}", text.len());
        }
    }

    #[test]
    fn a_cursor_is_shortened_only_when_it_would_be_too_long() {
        let now = 1_795_278_420_000;
        let positions = vec![id(now, 10_000_000), EventId::START, id(now - 5, 0)];
        let mut cursor = Cursor { positions, mark: Some(now) };
        assert_eq!(cursor.to_string(), "1795278420000-10000000_0-0_1795278419995-0.1795278420000");
        cursor.positions.extend([id(now, 3); 4]);
        let longest = cursor.to_string();
        assert!(!longest.starts_with('.'), "{longest}");
        assert_eq!(longest.len(), CURSOR_BYTES_MAX - 8);
        cursor.positions[2].seq = 100_000_000;
        assert_eq!(cursor.to_string().len(), CURSOR_BYTES_MAX);
        cursor.positions[2].seq = 1_000_000_000;
        assert_eq!(
            cursor.to_string(),
            ".1795278420000_0-10000000__5-1000000000_0-3_0-3_0-3_0-3.1795278420000"
        );
        cursor.positions[0].seq = 0;
        cursor.positions.push(id(now, 0));
        assert_eq!(
            cursor.to_string(),
            ".1795278420000_0__5-1000000000_0-3_0-3_0-3_0-3_0.1795278420000"
        );
    }

    #[test]
    fn the_longest_cursor_is_read() {
        let mut positions = vec![id(1, u64::MAX); CHANNELS_PER_STREAM_MAX];
        positions[3].ms = u64::MAX;
        let cursor = Cursor { positions, mark: Some(u64::MAX) };
        let text = cursor.to_string();
        assert_eq!(text.len(), CURSOR_BYTES_READ_MAX);
        assert_eq!(Cursor::parse(&text), Ok(cursor));
    }

    fn any_id() -> impl Strategy<Value = EventId> {
        prop_oneof![
            Just(EventId::START),
            (1_700_000_000_000..1_900_000_000_000u64, 0..2000u64).prop_map(|(m, s)| id(m, s)),
            (any::<u64>(), any::<u64>()).prop_map(|(m, s)| id(m, s)),
        ]
    }

    proptest! {
        // protocol §3.4
        #[test]
        fn every_cursor_comes_back_as_it_was(
            positions in prop::collection::vec(any_id(), 1..=8),
            mark in prop::option::of(any::<u64>()),
        ) {
            let cursor = Cursor { positions, mark };
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_digit() || b"._-".contains(&b)));
            prop_assert_eq!(Cursor::parse(&text), Ok(cursor));
        }

        #[test]
        fn any_text_is_read_or_refused_and_has_one_spelling(text in "[0-9._-]{0,140}|\\PC{0,40}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
