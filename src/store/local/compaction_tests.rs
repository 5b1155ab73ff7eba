//! Tests of the choice of files that are compacted.
#![cfg(test)]

use super::catalog::{Catalog, LogFile};
use super::compaction::candidates;
use super::files::MemoryFile;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The full size of a file. A file of less than a fourth of it is small.
const FULL: u64 = 1_000;
const NOW: u64 = 50;

/// The files with the numbers from 1 on, each with its size, its bytes that are live, and the
/// instant until which it is not compacted.
fn choose(files: &[(u64, u64, u64)], last_file: u32) -> Option<RangeInclusive<u32>> {
    let mut catalog = Catalog::default();
    for (number, (size, live, rests_until)) in (1..).zip(files) {
        let mut log_file = LogFile::new(number, Arc::new(MemoryFile::default()), None, *size);
        (log_file.events_length, log_file.rests_until) = (*live, *rests_until);
        catalog.log_files.insert(number, log_file);
    }
    candidates(&catalog, last_file, FULL, NOW)
}

#[test]
fn a_file_of_which_less_than_half_is_live_is_compacted() {
    assert_eq!(choose(&[(1_000, 499, 0)], 9), Some(1..=1));
    assert_eq!(choose(&[(1_000, 500, 0)], 9), None);
    assert_eq!(choose(&[(1_000, 900, 0), (1_000, 100, 0), (1_000, 900, 0)], 9), Some(2..=2));
    // The file that is being written stays.
    assert_eq!(choose(&[(1_000, 900, 0), (1_000, 100, 0)], 2), None);
}

#[test]
fn a_file_rests_after_a_compaction() {
    assert_eq!(choose(&[(1_000, 100, NOW)], 9), Some(1..=1));
    assert_eq!(choose(&[(1_000, 100, NOW + 1)], 9), None);
    assert_eq!(choose(&[(1_000, 100, 0), (200, 150, NOW + 1)], 9), Some(1..=1));
}

#[test]
fn files_are_compacted_together_up_to_the_full_size() {
    assert_eq!(choose(&[(2_000, 400, 0), (2_000, 600, 0), (2_000, 1, 0)], 9), Some(1..=2));
    assert_eq!(choose(&[(2_000, 400, 0), (2_000, 601, 0)], 9), Some(1..=1));
    assert_eq!(choose(&[(2_000, 300, 0), (2_000, 300, 0), (2_000, 300, 0)], 9), Some(1..=3));
    // A small file is taken with a wasteful one, in either order.
    assert_eq!(choose(&[(200, 150, 0), (1_000, 100, 0)], 9), Some(1..=2));
    assert_eq!(choose(&[(1_000, 100, 0), (200, 150, 0)], 9), Some(1..=2));
    assert_eq!(choose(&[(1_000, 100, 0), (300, 250, 0), (1_000, 100, 0)], 9), Some(1..=1));
}

#[test]
fn eight_small_files_are_joined() {
    assert_eq!(choose(&[(249, 125, 0); 8], 9), Some(1..=8));
    assert_eq!(choose(&[(249, 125, 0); 7], 9), None);
    assert_eq!(choose(&[(250, 125, 0); 8], 9), None);
    assert_eq!(choose(&[(249, 125, 0); 8], 8), None);
    assert_eq!(choose(&[(249, 125, NOW + 1); 8], 9), None);
    assert_eq!(choose(&[(249, 125, NOW); 8], 9), Some(1..=8));
    // Nine of them have more than the full size.
    assert_eq!(choose(&[(249, 125, 0); 9], 10), Some(1..=8));
}
