//! Tests of the files of the log: how they are created, and filled with zeros ahead of their records.
#![cfg(test)]

use super::FILE_BYTES;
use super::damage_tests::FileBytes;
use super::faulty_files_tests::{FaultyFile, FaultyFiles};
use super::files::{Directory, File, Files, Memory, MemoryFile};
use super::frame::{self, Kind, Scan, scan};
use super::log_file::{LastFile, LogIdentity, Opened, PAGE_BYTES, is_cut, name, open};
use super::records::Checkpoint;
use crate::core::cursor::EventId;
use std::io;
use std::sync::Arc;

const MIB: u64 = 1024 * 1024;

fn at(ms: u64) -> EventId {
    EventId { ms, seq: 0 }
}

#[test]
fn a_new_log_records_its_beginning_and_the_clock_for_ages() {
    let files = Memory::durable(FileBytes::new());
    for now in [5_000, 9_000] {
        let catalog = open(&files, at(now)).unwrap().catalog;
        assert_eq!(
            (catalog.beginning, catalog.newest, catalog.ages),
            (at(5_000), at(5_000), 5_000)
        );
    }
}

#[test]
fn a_head_that_cannot_be_opened_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let head = directory.path().join("log");
    std::os::unix::fs::symlink(&head, &head).unwrap();
    let files = Directory::open(directory.path()).unwrap();
    let error = open(&files, at(5_000)).err().expect("the head is no file");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()), "{error}");
    assert!(head.is_symlink());
}

#[test]
fn zeros_are_written_ahead_a_mebibyte_at_a_time() {
    let files = Memory::durable(FileBytes::new());
    let checkpoint = Checkpoint { newest: at(1), ages: 1 };
    let mut last = LastFile::create(&files, 1, (7, 1), checkpoint).unwrap();
    let size = |last: &LastFile| (last.allocated, last.file.length().unwrap());
    assert_eq!(size(&last), (MIB, MIB));
    // One byte behind the record is zero.
    last.write_ahead(MIB - last.end - 1).unwrap();
    assert_eq!(size(&last), (MIB, MIB));
    last.write_ahead(MIB - last.end).unwrap();
    assert_eq!(size(&last), (2 * MIB + PAGE_BYTES, 2 * MIB + PAGE_BYTES));
    let other = Memory::default();
    let last = LastFile::create(&other, 1, (7, 1), checkpoint).unwrap();
    assert_eq!(size(&last), (last.end, last.end), "no zeros in memory");
}

#[test]
fn a_truncated_file_gets_whole_pages_again() {
    for (end, allocated, completed) in
        [(100, 5_000, 8_192), (4_095, 4_096, 4_096), (4_096, 4_096, 8_192), (100, 100, 4_096)]
    {
        let file = Arc::new(MemoryFile::default());
        file.write_at(&vec![1; allocated as usize], 0).unwrap();
        let mut last = LastFile { number: 1, file: file.clone(), end, allocated };
        last.complete().unwrap();
        assert_eq!((last.allocated, file.length().unwrap()), (completed, completed), "{end}");
    }
}

#[test]
fn a_file_without_zeros_behind_its_records_was_cut() {
    let is_cut = |end, torn, size| {
        is_cut(&Scan { frames: Vec::new(), damaged: Vec::new(), end, torn }, size)
    };
    assert!(!is_cut(100, 0, 4_096) && !is_cut(100, 3_995, 4_096));
    assert!(is_cut(100, 3_996, 4_096), "the torn commit reaches the end");
    assert!(is_cut(4_096, 0, 4_096), "the records reach the end");
    assert!(is_cut(100, 0, 4_095) && is_cut(100, 0, 4_097), "no whole pages");
}

#[test]
fn of_two_files_with_the_same_records_the_longer_one_counts() {
    let files = Memory::durable(FileBytes::new());
    drop(open(&files, at(5_000)).unwrap());
    let mut bytes = files.bytes();
    let first = name(1, 1, "log");
    let longer = name(1, 3, "log");
    bytes.insert(longer.clone(), bytes[&first].clone());
    let files = Memory::durable(bytes);
    let opened = open(&files, at(9_000)).unwrap();
    assert_eq!(opened.last_file.number, 3);
    assert!(files.bytes().contains_key(&longer) && !files.bytes().contains_key(&first));
}

const SEED: u64 = 7;

/// The bytes of a file with one checkpoint of this commit, with a seal, or with zeros up to a whole
/// page.
fn file(commit: u64, is_sealed: bool) -> Vec<u8> {
    let (mut bytes, checkpoint) = (Vec::new(), Checkpoint { newest: at(1), ages: 1 });
    let head = (Kind::Checkpoint, commit, true);
    frame::write(&mut bytes, SEED, head, |out| checkpoint.write(out));
    match is_sealed {
        true => frame::write(&mut bytes, SEED, (Kind::Seal, commit + 1, true), |_| {}),
        false => bytes.resize(PAGE_BYTES as usize, 0),
    }
    bytes
}

/// The files of a log with these numbers and bytes.
fn log(files: Vec<(u32, Vec<u8>)>) -> Memory {
    let memory = Memory::default();
    LogIdentity { seed: SEED, beginning: at(1) }.store(&memory).unwrap();
    let mut bytes = memory.bytes();
    bytes.extend(files.into_iter().map(|(number, bytes)| (name(number, number, "log"), bytes)));
    Memory::durable(bytes)
}

fn opened(files: &dyn Files) -> Opened {
    open(files, at(9)).unwrap()
}

#[test]
fn a_file_follows_when_the_last_one_is_sealed() {
    assert_eq!(FILE_BYTES, 16 * MIB);
    let files = log(vec![(1, file(5, true))]);
    let opened = opened(&files);
    assert_eq!((opened.last_file.number, opened.commit, opened.is_damaged), (2, 7, false));
    let bytes = &files.bytes()[&name(2, 2, "log")];
    assert_eq!(scan(bytes, SEED, true).frames[0].commit, 7);
    assert_eq!(opened.catalog.log_files.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn leftovers_are_removed_when_a_log_is_opened() {
    let files = log(vec![(1, file(5, true)), (2, file(7, false))]);
    drop(opened(&files));
    let mut bytes = files.bytes();
    assert!(bytes.contains_key(&name(1, 1, "index")), "an index is made of a sealed file");
    let before = bytes.clone();
    for leftover in [name(4, 4, "index"), name(1, 2, "index"), "other.tmp".into()] {
        bytes.insert(leftover, vec![1]);
    }
    bytes.insert("notes.txt".into(), vec![1]);
    let files = Memory::durable(bytes);
    drop(opened(&files));
    let mut left: Vec<String> = files.bytes().into_keys().collect();
    let mut expected: Vec<String> = before.into_keys().chain(["notes.txt".to_owned()]).collect();
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn a_file_without_its_end_makes_the_log_suspect() {
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    let cases = [
        (vec![(1, file(5, true)), (2, file(7, false))], false),
        (vec![(1, file(5, true)), (2, cut(file(7, false)))], true),
        // Only the last file may be without a seal.
        (vec![(1, file(5, false)), (2, file(7, false))], true),
        (vec![(1, file(5, true)), (3, file(7, false))], true),
    ];
    for (number, (files, is_damaged)) in cases.into_iter().enumerate() {
        assert_eq!(opened(&log(files)).is_damaged, is_damaged, "case {number}");
    }
}

/// Makes the file with the number 1 one that cannot be written.
fn seal_first(file: &str, opened: Arc<dyn File>) -> Arc<dyn File> {
    if file != name(1, 1, "log") {
        return opened;
    }
    let write = || Err(io::ErrorKind::ReadOnlyFilesystem.into());
    Arc::new(FaultyFile { write: Box::new(write), ..FaultyFile::new(opened) })
}

#[test]
fn only_the_last_file_is_written_when_a_log_is_opened() {
    let sealed = |log| FaultyFiles { open: seal_first, ..FaultyFiles::new(log) };
    let files = sealed(log(vec![(1, file(5, true)), (2, file(7, false))]));
    assert_eq!(opened(&files).last_file.number, 2);
    let files = sealed(log(vec![(1, file(5, false))]));
    let error = open(&files, at(9)).err().expect("the last file is written again");
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
}
