//! The framing of records in a file of the log. Each frame has the length and the checksums of its
//! record.
//!
//! ```text
//! offset  bytes
//!      0      2  "HW"
//!      2      1  version of the frame, 1
//!      3      1  kind of record; the highest bit says that the frame is the first of its commit
//!      4      4  length of the body
//!      8      8  number of the commit that wrote it
//!     16      8  checksum of the body
//!     24      8  checksum of the 24 bytes before
//!     32         the body, then zeros up to a multiple of 8
//! ```
//!
//! Numbers are big-endian. The checksums are XXH3 with a secret seed of the log, so that a
//! publisher cannot craft event data that passes for a frame when the real frame is damaged.
//!
//! A commit is one write and one sync, and the next commit begins only after that. So if a frame of
//! a later commit exists, all earlier commits were on the disk, and invalid bytes before such a
//! frame are damage. Invalid bytes at the very end of the log, in contrast, belong to a commit that
//! a crash interrupted and that was never acknowledged.

use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 2] = *b"HW";
const VERSION: u8 = 1;
const FIRST_OF_COMMIT: u8 = 0x80;
const ALIGNMENT: usize = 8;

/// The kind of record in a frame. The numbers are stored on disk and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The events of one publish.
    Events = 1,
    /// The event that ends a channel.
    End = 2,
    /// An ended channel was reopened.
    Reopen = 3,
    /// Everything before the checkpoint is durable. A checkpoint is written without a sync while
    /// the log is idle.
    Checkpoint = 4,
    /// The last frame of a file. Nothing is written after it.
    Seal = 5,
    /// The properties of a channel, after the records that defined them were dropped.
    Channel = 6,
    /// The meaning of an idempotency key, after the record of its publish was dropped.
    Key = 7,
    /// Events that are no longer kept in the log but are still the state of their keys.
    State = 8,
    /// The new beginning of the log after a loss: cursors before this position no longer count.
    Beginning = 9,
}

/// A frame whose checksums are correct.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub commit: u64,
    pub is_first: bool,
    /// The offset of the frame in its file.
    pub offset: usize,
    pub body: &'a [u8],
}

/// The result of scanning a file for frames.
#[derive(Debug, Default)]
pub struct Scan<'a> {
    pub frames: Vec<Frame<'a>>,
    /// The damaged byte ranges, between frames or before the first one.
    pub damaged: Vec<Range<usize>>,
    /// The offset at which the next frame can be written.
    pub end: usize,
    /// The number of bytes from `end` on that belong to an interrupted commit.
    pub torn: usize,
}

impl Kind {
    fn read(byte: u8) -> Option<Self> {
        use Kind::{Beginning, Channel, Checkpoint, End, Events, Key, Reopen, Seal, State};
        let all = [Events, End, Reopen, Checkpoint, Seal, Channel, Key, State, Beginning];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl Frame<'_> {
    /// The bytes that the frame takes in the file.
    pub fn length(&self) -> usize {
        length(self.body.len())
    }
}

/// The bytes that a frame with a body of `body` bytes takes in a file.
pub fn length(body: usize) -> usize {
    (HEADER_BYTES + body).next_multiple_of(ALIGNMENT)
}

/// Appends a frame to `out`. The function `body` appends its body.
pub fn write(
    out: &mut Vec<u8>,
    seed: u64,
    (kind, commit, is_first): (Kind, u64, bool),
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    body(out);
    let (_, written) = out.split_at_mut(start);
    let (header, body) = written.split_at_mut(HEADER_BYTES);
    header[..2].copy_from_slice(&MAGIC);
    header[2] = VERSION;
    header[3] = kind as u8 | if is_first { FIRST_OF_COMMIT } else { 0 };
    header[4..8].copy_from_slice(&(body.len() as u32).to_be_bytes());
    header[8..16].copy_from_slice(&commit.to_be_bytes());
    header[16..24].copy_from_slice(&xxh3_64_with_seed(body, seed).to_be_bytes());
    let checksum = xxh3_64_with_seed(&header[..24], seed);
    header[24..].copy_from_slice(&checksum.to_be_bytes());
    out.resize(start + length(out.len() - start - HEADER_BYTES), 0);
}

/// Reads the frame at `offset`.
///
/// # Errors
/// Fails when there is no valid frame. The value is the length of the frame if only its body is
/// damaged, otherwise 0.
pub fn read(bytes: &[u8], offset: usize, seed: u64) -> Result<Frame<'_>, usize> {
    let (header, rest) = bytes
        .get(offset..)
        .and_then(|bytes| bytes.split_first_chunk::<HEADER_BYTES>())
        .ok_or(0_usize)?;
    let number = |range: Range<usize>| {
        header[range].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let is_header = header[..2] == MAGIC
        && header[2] == VERSION
        && number(24..32) == xxh3_64_with_seed(&header[..24], seed);
    let kind = Kind::read(header[3] & !FIRST_OF_COMMIT).filter(|_| is_header).ok_or(0_usize)?;
    let body = rest.get(..number(4..8) as usize).ok_or(0_usize)?;
    if number(16..24) != xxh3_64_with_seed(body, seed) {
        return Err(length(body.len()));
    }
    let is_first = header[3] & FIRST_OF_COMMIT != 0;
    Ok(Frame { kind, commit: number(8..16), is_first, offset, body })
}

/// Scans a file for frames. `is_last` says that it is the last file of the log, whose last commit
/// may be incomplete.
pub fn scan(bytes: &[u8], seed: u64, is_last: bool) -> Scan<'_> {
    let mut scan = Scan::default();
    let mut at = 0;
    while at < bytes.len() {
        match read(bytes, at, seed) {
            Ok(frame) => {
                at += frame.length();
                scan.frames.push(frame);
                scan.end = at;
            }
            Err(length) => {
                let start = at;
                at += length.max(ALIGNMENT);
                while at < bytes.len() && read(bytes, at, seed).is_err_and(|length| length == 0) {
                    at += ALIGNMENT;
                }
                scan.damaged.push(start..at.min(bytes.len()));
            }
        }
    }
    scan.settle_end(bytes, is_last);
    scan
}

impl Scan<'_> {
    /// Decides whether invalid bytes were damaged or belong to an interrupted commit.
    fn settle_end(&mut self, bytes: &[u8], is_last: bool) {
        let written = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let end = self.end;
        self.damaged.retain(|range| range.start < end);
        self.torn = written.saturating_sub(end);
        let Some(last) = self.frames.last().filter(|_| is_last) else { return };
        let newest = (last.commit, last.kind);
        // The disk may have written any parts of the interrupted commit. A damaged range belongs to
        // it if only ranges of this commit follow, and no valid frame shows that the commit began
        // after the range.
        while let Some(range) = self.damaged.last().cloned() {
            let after = self.frames.partition_point(|frame| frame.offset < range.end);
            let next = self.frames.get(after);
            let is_of_last_commit =
                next.is_none_or(|next| next.commit == newest.0 && !next.is_first);
            let is_continued = after > 0 && self.frames[after - 1].commit == newest.0;
            let is_interrupted = is_of_last_commit || is_continued && newest.1 != Kind::Checkpoint;
            if !is_interrupted {
                return;
            }
            self.frames.truncate(after);
            self.damaged.pop();
            self.end = range.start;
            self.torn = written.saturating_sub(range.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: u64 = 7;

    fn log(commits: &[&[&str]]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, commit) in commits.iter().enumerate() {
            for (index, body) in commit.iter().enumerate() {
                let kind = if *body == "checkpoint" { Kind::Checkpoint } else { Kind::Events };
                let head = (kind, number as u64, index == 0);
                write(&mut out, SEED, head, |out| out.extend_from_slice(body.as_bytes()));
            }
        }
        out
    }

    fn bodies<'a>(scan: &Scan<'a>) -> Vec<&'a str> {
        scan.frames.iter().map(|frame| std::str::from_utf8(frame.body).unwrap()).collect()
    }

    fn places(scan: &Scan<'_>) -> Vec<(usize, usize)> {
        scan.damaged.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn frames_come_back_as_they_were_written() {
        let mut bytes = log(&[&["a", "bb"], &[], &["", "cccccccc"]]);
        let end = bytes.len();
        bytes.resize(end + 100, 0);
        let scan = scan(&bytes, SEED, true);
        assert_eq!(bodies(&scan), ["a", "bb", "", "cccccccc"]);
        assert!(scan.damaged.is_empty() && scan.end == end && scan.torn == 0);
        assert!(super::scan(&bytes, SEED + 1, true).frames.is_empty(), "of another log");
    }

    /// The literal bytes of the first format. A change that makes old files unreadable fails here.
    #[test]
    fn the_first_format_stays_readable() {
        let mut bytes = vec![0; 8];
        write(&mut bytes, SEED, (Kind::State, 0x0102_0304, true), |out| out.extend(b"hello"));
        let mut expected = b"\0\0\0\0\0\0\0\0HW\x01\x88\0\0\0\x05\0\0\0\0\x01\x02\x03\x04".to_vec();
        expected.extend(xxh3_64_with_seed(b"hello", SEED).to_be_bytes());
        expected.extend(xxh3_64_with_seed(&expected[8..], SEED).to_be_bytes());
        expected.extend(b"hello\0\0\0");
        assert_eq!(bytes, expected);
        for number in 1..=9 {
            let kind = Kind::read(number).unwrap();
            let mut bytes = Vec::new();
            write(&mut bytes, SEED, (kind, u64::MAX, false), |_| {});
            let frame = read(&bytes, 0, SEED).unwrap();
            assert_eq!((frame.kind, frame.kind as u8), (kind, number));
            assert_eq!((frame.commit, frame.is_first, frame.length()), (u64::MAX, false, 32));
        }
        assert_eq!((Kind::read(0), Kind::read(10)), (None, None));
    }

    #[test]
    fn a_frame_of_another_format_is_not_read() {
        let bytes = log(&[&["a"]]);
        assert!(read(&bytes, 0, SEED).unwrap().is_first);
        for (at, value) in [(0, b'h'), (1, b'v'), (2, 2), (3, 0x80), (3, 0x8a)] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let checksum = xxh3_64_with_seed(&bytes[..24], SEED);
            bytes[24..32].copy_from_slice(&checksum.to_be_bytes());
            assert_eq!(read(&bytes, 0, SEED).err(), Some(0), "{value} at {at}");
        }
    }

    #[test]
    fn what_follows_a_damaged_frame_is_found() {
        let mut bytes = log(&[&["a"], &["b"], &["c"]]);
        bytes[40 + 35] ^= 1;
        bytes[40 + 32] ^= 1;
        let damaged = scan(&bytes, SEED, true);
        assert_eq!((bodies(&damaged), places(&damaged)), (vec!["a", "c"], vec![(40, 80)]));
        // The frame is also skipped when its length is damaged.
        bytes[40 + 4] ^= 1;
        let damaged = scan(&bytes, SEED, true);
        assert_eq!((bodies(&damaged), places(&damaged)), (vec!["a", "c"], vec![(40, 80)]));
    }

    #[test]
    fn a_commit_that_was_cut_off_is_no_damage() {
        let whole = log(&[&["a"], &["b", "c"]]);
        for length in 0..whole.len() - 8 {
            let scan = scan(&whole[..length], SEED, true);
            assert!(scan.damaged.is_empty(), "{length}");
            // The last frame is still valid when the seven zeros after its body are missing.
            assert_eq!(scan.frames.len(), (length + 7) / 40);
        }
        // The end of the commit was written, but its middle was not.
        let mut bytes = log(&[&["a"], &["b", "c"]]);
        bytes[45..75].fill(0);
        let torn = scan(&bytes, SEED, true);
        assert_eq!((bodies(&torn), torn.end, torn.torn), (vec!["a"], 40, 73));
        // Several parts in the middle were not written.
        let mut bytes = log(&[&["a"], &["b", "c", "d", "e"]]);
        let whole = bytes.clone();
        for holes in [&[45, 130][..], &[75, 85, 130], &[80, 120], &[40, 80, 120]] {
            bytes.clone_from(&whole);
            holes.iter().for_each(|at| bytes[*at..at + 20].fill(0));
            let torn = scan(&bytes, SEED, true);
            assert!(torn.damaged.is_empty(), "{holes:?}: {:?}", torn.damaged);
            assert!(bodies(&torn).len() < 3 && torn.end == torn.frames.len() * 40, "{holes:?}");
        }
        // A later commit proves that the whole commit was written.
        let mut bytes = log(&[&["a"], &["b", "c"], &["checkpoint"]]);
        bytes[45..75].fill(0);
        let damaged = scan(&bytes, SEED, true);
        assert_eq!(
            (bodies(&damaged), places(&damaged)),
            (vec!["a", "c", "checkpoint"], vec![(40, 80)])
        );
    }

    #[test]
    fn a_hole_inside_the_last_commit_is_no_damage_and_one_before_a_mark_is() {
        let scanned = |last: Kind| {
            let mut bytes = Vec::new();
            for (kind, body) in [(Kind::Events, b"a"), (Kind::Events, b"b"), (last, b"c")] {
                write(&mut bytes, SEED, (kind, 1, true), |out| out.extend_from_slice(body));
            }
            bytes[45..75].fill(0);
            let scan = scan(&bytes, SEED, true);
            (bodies(&scan).concat(), places(&scan), scan.end)
        };
        // Frames of the commit before and after the hole show that it lies inside the commit.
        assert_eq!(scanned(Kind::Events), ("a".to_owned(), vec![], 40));
        // Everything before a checkpoint is durable.
        assert_eq!(scanned(Kind::Checkpoint), ("ac".to_owned(), vec![(40, 80)], 120));
    }

    proptest! {
        #[test]
        fn no_bytes_lead_astray(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let scan = scan(&bytes, SEED, true);
            prop_assert!(scan.frames.is_empty());
        }

        /// One flipped bit makes exactly the frame that contains it invalid.
        #[test]
        fn a_flipped_bit_is_found_and_named(at in 0usize..(10 * 40), bit in 0u32..8) {
            let texts: Vec<[String; 1]> = (0..10).map(|n| [format!("{n}-------")]).collect();
            let commits: Vec<Vec<&str>> = texts.iter().map(|t| vec![t[0].as_str()]).collect();
            let commits: Vec<&[&str]> = commits.iter().map(Vec::as_slice).collect();
            let mut bytes = log(&commits);
            let checkpoint = (Kind::Checkpoint, 10, true);
            write(&mut bytes, SEED, checkpoint, |_| {});
            bytes[at] ^= 1 << bit;
            let scan = scan(&bytes, SEED, true);
            prop_assert_eq!(scan.frames.len(), 10);
            prop_assert_eq!(places(&scan), vec![(at / 40 * 40, at / 40 * 40 + 40)]);
        }
    }
}
