//! Tests of the compaction: the choice of files, and the records that are kept.
#![cfg(test)]

use super::super::{Idempotency, Limits};
use super::LocalConfig;
use super::catalog::{Catalog, LogFile};
use super::command::WriteCommand;
use super::compaction::{candidates, compact};
use super::damage_tests::LIMITS;
use super::files::{Files, MemoryFile, read_all};
use super::frame::{self, Kind};
use super::health::Ticket;
use super::stepped_log_tests::{SteppedLog, durable_files, name, publication};
use crate::core::event::Event;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

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

/// The size at which the files of a log are sealed in these tests, in bytes.
const SEALED_BYTES: usize = 4 * 1024;

/// A log whose channels keep no more than two events.
fn open() -> SteppedLog {
    let config = LocalConfig {
        timeout: Duration::from_secs(20),
        reserve: 0,
        file_bytes: SEALED_BYTES as u64,
    };
    SteppedLog::open(durable_files(), config, Limits { retain_events: 2, ..LIMITS })
}

/// Fills the last file with events of a channel of its own.
fn fill(log: &mut SteppedLog) {
    log.publish(publication("filling", &"x".repeat(SEALED_BYTES))).unwrap();
    log.maintain();
}

fn publish(log: &mut SteppedLog, texts: &[&str]) {
    for data in texts {
        log.publish(publication("a", data)).unwrap();
    }
}

/// Compacts these files, and returns the kinds of the records that are kept.
fn keep(log: &SteppedLog, numbers: RangeInclusive<u32>, now: u64) -> Vec<Kind> {
    let (files, catalog, head) = (&*log.files, &*log.writer.catalog, log.writer.head);
    let compacted = compact(files, catalog, head, numbers.clone(), now).unwrap();
    let Some((log_file, _)) = compacted else { return Vec::new() };
    assert_eq!(log_file.rests_until, now + 600_000);
    let bytes = read_all(&*log_file.log).unwrap();
    let mut catalog = catalog.write();
    catalog.log_files.retain(|number, _| !numbers.contains(number));
    catalog.log_files.insert(*numbers.end(), log_file);
    frame::scan(&bytes, head.seed, false).frames.iter().map(|frame| frame.kind).collect()
}

fn keyed(data: &str) -> Event {
    Event::stored(None, Some("k"), data)
}

#[test]
fn an_idempotency_key_is_kept_until_it_expires() {
    let mut log = open();
    let idempotency = Some(Idempotency { key: "once".to_owned(), digest: 1 });
    log.publish(super::Publication { idempotency, ..publication("a", "1") }).unwrap();
    fill(&mut log);
    publish(&mut log, &["2", "3"]);
    assert!(keep(&log, 1..=1, NOW).contains(&Kind::Key));
    assert!(keep(&log, 1..=1, NOW).contains(&Kind::Key), "also when it was compacted before");
    log.writer.catalog.write().keys.expire(u64::MAX);
    assert!(!keep(&log, 1..=1, NOW).contains(&Kind::Key));
}

#[test]
fn the_reopening_of_a_channel_is_kept_until_the_channel_is_forgotten() {
    let mut log = open();
    log.publish(publication("a", "1")).unwrap();
    log.write(|reply| WriteCommand::Close(name("a"), reply, Ticket::default())).unwrap();
    log.write(|reply| WriteCommand::Reopen(name("a"), reply, Ticket::default())).unwrap();
    fill(&mut log);
    assert!(keep(&log, 1..=1, NOW).contains(&Kind::Reopen));
    log.writer.catalog.write().forget(&name("a"));
    assert!(!keep(&log, 1..=1, NOW).contains(&Kind::Reopen));
}

#[test]
fn a_former_value_of_a_key_that_was_removed_is_not_kept() {
    let mut log = open();
    fill(&mut log);
    for event in [keyed("1"), keyed("2").removing_its_key()] {
        log.publish(super::Publication { events: vec![event], ..publication("a", "") }).unwrap();
    }
    publish(&mut log, &["3", "4"]);
    fill(&mut log);
    publish(&mut log, &["5", "6"]);
    fill(&mut log);
    let states = |kinds: Vec<Kind>| kinds.iter().filter(|kind| **kind == Kind::State).count();
    assert_eq!(states(keep(&log, 2..=2, NOW)), 1, "the removal, for the values in older files");
    assert_eq!(states(keep(&log, 1..=2, NOW)), 0, "there is no older file");
}

#[test]
fn the_file_after_an_oldest_file_that_goes_stands_for_it() {
    [true, false].into_iter().for_each(an_oldest_file_goes);
}

/// The file after it may have no index yet.
fn an_oldest_file_goes(has_index: bool) {
    let mut log = open();
    fill(&mut log);
    log.publish(publication("b", "kept")).unwrap();
    fill(&mut log);
    log.publish(publication("c", "last")).unwrap();
    let sealed = [super::log_file::name(1, 1, "log"), super::log_file::name(2, 2, "log")];
    assert_eq!(log.names(".log")[..2], sealed);
    log.writer.catalog.write().forget(&name("filling"));
    if !has_index {
        log.files.remove(&super::log_file::name(2, 2, "index")).unwrap();
    }
    assert_eq!(keep(&log, 1..=1, NOW), []);
    let extensions = ["log", "index"].map(|extension| super::log_file::name(1, 2, extension));
    assert_eq!(log.names(".log")[..1], extensions[..1]);
    assert_eq!(log.names(".index"), extensions[1..][..usize::from(has_index)]);
    assert_eq!(log.names(".log").len(), 2);
    log.files.open(&extensions[0]).unwrap();
}
