//! A file of the log: the scan for its frames, the summary of the frames, and the index.

use super::record;
use crate::input::Input;
use headwater::store::local::fuzzing::{
    ChannelRecord, ChannelSummary, Checkpoint, Entries, Entry, File, Files, Kind, Memory, Scan,
    Summary, entries_at, read_entries, scan, summarize, write, write_id, write_name,
};
use std::sync::Arc;

pub const SEED: u64 = 7;
const KINDS: [Kind; 8] = [
    Kind::Events,
    Kind::End,
    Kind::Reopen,
    Kind::Checkpoint,
    Kind::Channel,
    Kind::Key,
    Kind::State,
    Kind::Beginning,
];

/// A frame as it was written: its place in the file, its commit and its body.
type Written = (usize, Kind, u64, Vec<u8>);

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_last = input.flag();
    let (mut file, written) = frames(&mut input);
    let whole = scan(&file, SEED, is_last);
    let found: Vec<Written> = whole.frames.iter().map(as_written).collect();
    assert_eq!(found, written, "the frames of a whole file");
    assert!(whole.damaged.is_empty() && whole.torn == 0 && whole.end == file.len());
    summary(&whole);
    damage(&mut input, &mut file);
    let damaged = scan(&file, SEED, is_last);
    check(&damaged, &written, file.len());
    if is_last {
        // Only at its end the last file of the log is read in another way.
        let all = scan(&file, SEED, false);
        let same = all.frames.iter().map(as_written).take(damaged.frames.len());
        assert!(same.eq(damaged.frames.iter().map(as_written)));
    }
    summary(&damaged);
}

/// Writes a file of frames. Their bodies are records, or any bytes.
pub fn frames(input: &mut Input<'_>) -> (Vec<u8>, Vec<Written>) {
    let (mut file, mut written, mut commit) = (Vec::new(), Vec::new(), 0_u64);
    for _ in 0..input.below(8) {
        let is_first = written.is_empty() || input.flag();
        commit += u64::from(is_first);
        let (kind, body) = body(input);
        written.push((file.len(), kind, commit, body.clone()));
        write(&mut file, SEED, (kind, commit, is_first), |out| out.extend_from_slice(&body));
    }
    if input.flag() {
        // A seal is the last frame of a file, and a commit of its own.
        written.push((file.len(), Kind::Seal, commit + 1, Vec::new()));
        write(&mut file, SEED, (Kind::Seal, commit + 1, true), |_| {});
    }
    (file, written)
}

fn body(input: &mut Input<'_>) -> (Kind, Vec<u8>) {
    let kind = KINDS[input.below(KINDS.len())];
    let mut body = Vec::new();
    match kind {
        _ if input.flag() => body.extend_from_slice(input.bytes()),
        Kind::Events | Kind::End | Kind::State => record::events(input).write(&mut body),
        Kind::Reopen => write_name(&mut body, &input.channel()),
        Kind::Checkpoint => {
            Checkpoint { newest: input.id(), ages: input.number() }.write(&mut body)
        }
        Kind::Channel => {
            let (channel, last) = (input.channel(), input.id());
            let (closed, low_watermark) = (input.id(), input.id());
            ChannelRecord { channel, last, closed, low_watermark }.write(&mut body);
        }
        Kind::Key | Kind::Beginning | Kind::Seal => write_id(&mut body, input.id()),
    }
    (kind, body)
}

/// Flips bits, writes zeros or another byte over parts, or cuts the file.
pub fn damage(input: &mut Input<'_>, file: &mut Vec<u8>) {
    while !input.is_empty() && !file.is_empty() {
        let at = input.number() as usize % file.len();
        match input.below(4) {
            0 => file[at] ^= 1 << input.below(8),
            1 => {
                let end = file.len().min(at + usize::from(input.byte()));
                file[at..end].fill(0);
            }
            2 => {
                let end = file.len().min(at + usize::from(input.byte()));
                file[at..end].fill(input.byte());
            }
            _ => file.truncate(at),
        }
    }
}

fn as_written(frame: &headwater::store::local::fuzzing::Frame<'_>) -> Written {
    (frame.offset, frame.kind, frame.commit, frame.body.to_vec())
}

/// Of a damaged file, only frames are found that were written, in their order, and what is missing is
/// in a range that is damaged or torn.
fn check(found: &Scan<'_>, written: &[Written], length: usize) {
    let mut end = 0;
    for frame in &found.frames {
        assert!(written.contains(&as_written(frame)), "{frame:?} was not written");
        assert!(frame.offset >= end);
        end = frame.offset + frame.length();
    }
    assert!(end <= found.end && found.end + found.torn <= length.max(found.end));
    assert!(found.damaged.is_sorted_by(|one, other| one.end <= other.start));
    assert!(found.damaged.iter().all(|range| range.start < range.end && range.end <= found.end));
    let is_found = |offset: usize| found.frames.iter().any(|frame| frame.offset == offset);
    for (offset, ..) in written.iter().filter(|(offset, ..)| *offset < found.end) {
        let is_announced = found.damaged.iter().any(|range| range.contains(offset));
        assert!(is_found(*offset) != is_announced, "the frame at {offset}");
    }
}

/// The summary of a file comes back from its index.
fn summary(scan: &Scan<'_>) {
    let summary = summarize(scan, 3);
    let index = Memory::default().create("index").expect("a file in memory");
    index.write_at(&summary.write_index(SEED), 0).expect("a file in memory");
    let again = Summary::read_index(&*index, SEED, 3).expect("it was written");
    let numbers = |one: &Summary| (one.beginning, one.newest, one.ages, one.commit);
    assert_eq!(numbers(&again), numbers(&summary));
    assert_eq!(again.keys, summary.keys);
    assert_eq!(again.channels.len(), summary.channels.len());
    for channel in &summary.channels {
        let found = again.channels.iter().find(|found| found.name == channel.name);
        same(channel, found.expect("each channel"), &index);
    }
}

fn same(one: &ChannelSummary, other: &ChannelSummary, index: &Arc<dyn File>) {
    assert_eq!(
        (one.is_first, one.previous, one.last),
        (other.is_first, other.previous, other.last)
    );
    assert_eq!((&one.carried, one.closed), (&other.carried, other.closed));
    assert_eq!(one.state, other.state);
    assert_eq!(one.blocks.len(), other.blocks.len());
    for (block, stored) in one.blocks.iter().zip(&other.blocks) {
        assert_eq!((block.first, block.last), (stored.first, stored.last));
        let counts = (stored.events, stored.bytes, stored.length);
        assert_eq!((block.events, block.bytes, block.length), counts);
        let Entries::Here(entries) = &block.entries else { panic!("a summary has its entries") };
        let (offset, length, checksum) = entries_at(&stored.entries).expect("entries of an index");
        let mut bytes = vec![0; length];
        index.read_at(&mut bytes, offset).expect("the index has them");
        let read: Vec<Entry> = read_entries(&bytes, checksum, SEED).expect("entries").into();
        assert!(read.iter().eq(entries));
    }
}
