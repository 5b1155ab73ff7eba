//! The parsers of the log's files, for `tools/fuzz`.

pub use super::block::{BLOCK_ENTRIES_MAX, Block, Entries, Entry, read_entries};
pub use super::files::{File, Files, Memory};
pub use super::frame::{Frame, Kind, Scan, scan, write};
pub use super::log_file::{LogIdentity, Opened, name, numbers, open};
pub use super::records::{
    ChannelRecord, Checkpoint, Events, KeyRecord, read_name, write_id, write_name,
};
pub use super::summary::{ChannelSummary, Summary, entries_at, summarize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The checksum of a frame, a directory or entries.
pub fn checksum(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}
