//! An index beside a file of the log. Its checksums are right, and everything else is any bytes.

use super::log_file::SEED;
use crate::input::Input;
use headwater::store::local::fuzzing::{
    Block, Entries, Entry, File, Files, Memory, Summary, checksum, entries_at, read_entries,
};
use std::sync::Arc;

const MAGIC: &[u8] = b"HWINDEX\x01";

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let entries = input.bytes();
    if let Ok(found) = read_entries(entries, checksum(entries, SEED), SEED) {
        assert_eq!(found.len() * 32, entries.len());
        found.iter().for_each(check);
    }
    let is_whole = input.flag();
    let directory = input.rest();
    let mut out = if is_whole { MAGIC.to_vec() } else { Vec::new() };
    out.extend_from_slice(entries);
    out.extend_from_slice(directory);
    if is_whole {
        out.extend_from_slice(&(directory.len() as u64).to_be_bytes());
        out.extend_from_slice(&checksum(directory, SEED).to_be_bytes());
    }
    let file = Memory::default().create("index").expect("a file in memory");
    file.write_at(&out, 0).expect("a file in memory");
    let Ok(summary) = Summary::read_index(&*file, SEED, 1) else { return };
    assert!(is_whole, "without a trailer nothing is an index");
    blocks(&summary, &file);
    assert!(summary.is_sealed && !summary.is_damaged);
}

/// The entries of each block can be read or are refused.
fn blocks(summary: &Summary, file: &Arc<dyn File>) {
    for block in summary.channels.iter().flat_map(|channel| &channel.blocks) {
        // The lost end of a compacted file is announced by an entry in memory.
        let Some((offset, length, checksum)) = entries_at(&block.entries) else {
            check_in_memory(block);
            continue;
        };
        let length = length.min(1 << 16);
        let mut bytes = vec![0; length];
        if file.read_at(&mut bytes, offset).is_ok()
            && let Ok(entries) = read_entries(&bytes, checksum, SEED)
        {
            entries.iter().for_each(check);
        }
    }
}

fn check_in_memory(block: &Block) {
    assert!(matches!(&block.entries, Entries::Here(entries) if entries.iter().all(Entry::is_lost)));
}

fn check(entry: &Entry) {
    assert!(entry.last() >= entry.first, "{entry:?}");
}
