//! The data of an event: the number of its publisher, its own number and the time of its sending,
//! in 200 bytes that every server passes on unchanged. Losses, duplicates and latencies are counted
//! from these bytes alone.

use memchr::memmem;

/// Bytes of one event's data.
pub const EVENT_BYTES: usize = 200;
/// The first bytes of the data. Only letters, digits and dots are in an event, so that it is the
/// same as plain text, inside a string of JSON and in a form.
const MARKER: &[u8; 8] = b"hwbench.";
/// Where the padding begins, behind the marker and the four numbers with their dots.
const PADDING_AT: usize = 42;
const PADDING: [u8; EVENT_BYTES - PADDING_AT] = [b'x'; EVENT_BYTES - PADDING_AT];

/// What the data of an event says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The measurement that sent the event. A server may replay events of an earlier one.
    pub run: u16,
    pub publisher: u8,
    /// The number of the event among those of its publisher, from 0.
    pub sequence: u32,
    /// Nanoseconds from the beginning of the client to the write of the request.
    pub sent: u64,
}

impl Stamp {
    pub fn data(&self) -> String {
        let Self { run, publisher, sequence, sent } = self;
        let mut data = format!("hwbench.{run:04x}.{publisher:02x}.{sequence:08x}.{sent:016x}.");
        data.extend(std::iter::repeat_n('x', EVENT_BYTES - PADDING_AT));
        data
    }

    /// Nothing where the bytes are not exactly what a publisher sent.
    fn parse(data: &[u8]) -> Option<Self> {
        let number = |from: usize, to: usize| {
            let digits = data.get(from..to)?;
            (data[to] == b'.').then_some(())?;
            digits.iter().try_fold(0_u64, |number, digit| {
                Some((number << 4) | u64::from(char::from(*digit).to_digit(16)?))
            })
        };
        (data.get(PADDING_AT..)? == PADDING).then_some(())?;
        Some(Self {
            run: number(8, 12)? as u16,
            publisher: number(13, 15)? as u8,
            sequence: number(16, 24)? as u32,
            sent: number(25, 41)?,
        })
    }
}

/// Finds events in the body of a stream, however it is cut into pieces and framed.
#[derive(Default)]
pub struct Scanner {
    /// The beginning of an event whose end has not arrived.
    partial: Vec<u8>,
}

impl Scanner {
    /// Calls `each` for every event that is complete with these bytes; without a stamp where its
    /// data is damaged.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Option<Stamp>)) {
        if self.partial.is_empty() {
            let used = scan(bytes, &mut each);
            self.partial.extend_from_slice(&bytes[used..]);
            return;
        }
        self.partial.extend_from_slice(bytes);
        let used = scan(&self.partial, &mut each);
        self.partial.drain(..used);
    }
}

/// How many bytes are done with: all but the beginning of an event at the end.
fn scan(bytes: &[u8], each: &mut impl FnMut(Option<Stamp>)) -> usize {
    let mut at = 0;
    loop {
        let Some(found) = memmem::find(&bytes[at..], MARKER) else {
            let rest = &bytes[at..];
            let most = rest.len().min(MARKER.len() - 1);
            let begun = (1..=most).rev().find(|length| rest.ends_with(&MARKER[..*length]));
            return bytes.len() - begun.unwrap_or(0);
        };
        at += found;
        let Some(data) = bytes.get(at..at + EVENT_BYTES) else {
            return at;
        };
        let stamp = Stamp::parse(data);
        at += if stamp.is_some() { EVENT_BYTES } else { MARKER.len() };
        each(stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 0xbeef, publisher: 3, sequence: 70_000, sent: 1 << 40 };

    fn found(pieces: &[&[u8]]) -> Vec<Option<Stamp>> {
        let (mut scanner, mut stamps) = (Scanner::default(), Vec::new());
        for piece in pieces {
            scanner.feed(piece, |stamp| stamps.push(stamp));
        }
        stamps
    }

    #[test]
    fn an_event_has_200_bytes_and_is_read_back() {
        assert_eq!(STAMP.data().len(), EVENT_BYTES);
        assert_eq!(found(&[STAMP.data().as_bytes()]), [Some(STAMP)]);
    }

    #[test]
    fn events_are_found_wherever_a_stream_is_cut() {
        let next = Stamp { sequence: STAMP.sequence + 1, ..STAMP };
        let text = format!("id: hwb\ndata: {}\n\ndata: \"{}\"\n\n", STAMP.data(), next.data());
        for cut in 0..=text.len() {
            let (left, right) = text.as_bytes().split_at(cut);
            assert_eq!(found(&[left, right]), [Some(STAMP), Some(next)], "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(found(&bytes), [Some(STAMP), Some(next)]);
    }

    #[test]
    fn a_damaged_event_is_no_delivery() {
        let damaged = STAMP.data().replacen("xx", "xy", 1);
        let text = format!("{damaged}\n{}\n", STAMP.data());
        assert_eq!(found(&[text.as_bytes()]), [None, Some(STAMP)]);
    }

    #[test]
    fn an_event_that_is_cut_short_damages_only_itself() {
        let text = format!("{}\n\ndata: {}\n\n", &STAMP.data()[..120], STAMP.data());
        assert_eq!(found(&[text.as_bytes()]), [None, Some(STAMP)]);
    }
}
