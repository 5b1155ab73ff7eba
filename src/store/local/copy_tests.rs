//! Tests of checks, copies and restores, on directories of the file system.
#![cfg(test)]

use super::super::{PageLimit, Publication, Store};
use super::copy::{Damage, Report, backup, check, restore};
use super::damage_tests::{Deaf, LIMITS};
use super::log_file;
use super::{Backing, LocalConfig, LocalStore};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};
use crate::sync::clock::Clock;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const CONFIG: LocalConfig =
    LocalConfig { timeout: Duration::from_secs(20), reserve: 0, file_bytes: 8 * 1024 };
const ALL: PageLimit = PageLimit { events: 1_000, bytes: 1 << 20 };
/// The events of the channel `a`; the channel `b` has one.
const EVENTS: u64 = 50;

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

fn open(path: &Path) -> LocalStore {
    let backing = Backing::Directory(path.to_owned());
    LocalStore::open(backing, CONFIG, LIMITS, Clock::default(), std::sync::Arc::new(Deaf)).unwrap()
}

async fn publish(store: &LocalStore, channel: &str, data: &str) {
    let events = vec![Event::stored(None, None, data)];
    store.publish(Publication { channel: name(channel), events, idempotency: None }).await.unwrap();
}

/// Makes a log of several files, which no process uses any more.
async fn write_log() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let store = open(&path);
    publish(&store, "b", "first").await;
    for number in 0..EVENTS {
        publish(&store, "a", &format!("{number} {}", "x".repeat(800))).await;
    }
    store.stop().await;
    (directory, path)
}

/// The kinds and data of the events of a channel, and the newest id.
async fn read(path: &Path, channel: &str) -> (Vec<(Option<String>, String)>, EventId) {
    let store = open(path);
    let page = store.read(&name(channel), EventId::START, ALL).await.unwrap();
    store.stop().await;
    let kind = |event: &Event| event.kind.as_ref().map(|kind| kind.as_str().to_owned());
    let events = page.events.iter();
    let events = events.map(|stored| (kind(&stored.event), stored.event.data.to_string()));
    (events.collect(), page.bounds.last)
}

/// The files of the log with their numbers, the oldest first.
fn log_files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension() == Some("log".as_ref())).collect();
    files.sort();
    files
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_check_counts_what_is_in_a_log() {
    let (_directory, path) = write_log().await;
    let (_, newest) = read(&path, "a").await;
    let report = check(&path).unwrap();
    let files = log_files(&path);
    assert!(files.len() > 4, "{files:?}");
    let bytes = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let expected = Report {
        files: files.len(),
        bytes,
        events: EVENTS + 1,
        channels: 2,
        newest,
        damage: Vec::new(),
    };
    assert_eq!(report, expected);
    let mib = bytes as f64 / 1024.0 / 1024.0;
    assert_eq!(
        report.to_string(),
        format!(
            "51 events of 2 channels in {} files ({mib:.1} MiB), the newest is {newest}\n",
            files.len()
        )
    );
}

#[tokio::test]
async fn a_check_needs_a_log_that_no_process_uses() {
    let (directory, path) = write_log().await;
    let store = open(&path);
    assert_eq!(check(&path).unwrap_err().kind(), ErrorKind::ResourceBusy);
    store.stop().await;
    drop(store);
    let nothing = directory.path().join("nothing");
    assert_eq!(check(&nothing).unwrap_err().kind(), ErrorKind::NotFound);
    fs::create_dir(&nothing).unwrap();
    assert!(check(&nothing).unwrap_err().to_string().contains("there is no log here"));
    fs::remove_file(path.join("log")).unwrap();
    assert!(check(&path).unwrap_err().to_string().contains("the copy is not complete"));
    fs::create_dir(path.join("log")).unwrap();
    assert_eq!(check(&path).unwrap_err().kind(), ErrorKind::IsADirectory);
}

#[tokio::test]
async fn a_check_names_every_damage() {
    let (_directory, path) = write_log().await;
    let files = log_files(&path);
    let mut flipped = fs::read(&files[0]).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&files[0], &flipped).unwrap();
    let mut cut = fs::read(&files[1]).unwrap();
    cut.truncate(cut.len() - 1);
    fs::write(&files[1], cut).unwrap();
    fs::remove_file(&files[3]).unwrap();
    let report = check(&path).unwrap();
    let flipped = report.damage.iter().any(|damage| {
        let Damage::Bytes { file, range } = damage else { return false };
        let text = format!("{file}: bytes {} to {} are no records", range.start, range.end);
        assert_eq!(damage.to_string(), text);
        *file == file_name(&files[0]) && range.contains(&middle)
    });
    assert!(flipped, "{report}");
    let (cut, missing) =
        (Damage::Cut { file: file_name(&files[1]) }, Damage::Missing { first: 4, last: 4 });
    assert!(report.damage.contains(&cut) && report.damage.contains(&missing), "{report}");
    let text = report.to_string();
    assert!(text.contains("DAMAGED: the files 4 to 4 are missing\n"), "{text}");
    assert!(text.contains(&format!("DAMAGED: {}: its end is missing\n", file_name(&files[1]))));
    // Three places are damaged. The end of the second file may count as two.
    assert!((3..=4).contains(&report.damage.len()), "{report}");
}

#[tokio::test]
async fn the_end_of_the_newest_file_is_missed_too() {
    let (_directory, path) = write_log().await;
    let newest = log_files(&path).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    // Behind the records are zeros up to the end of a page.
    bytes.truncate(bytes.len() - 1);
    fs::write(&newest, bytes).unwrap();
    let report = check(&path).unwrap();
    assert_eq!(report.damage, [Damage::Cut { file: file_name(&newest) }]);
}

#[tokio::test]
async fn a_backup_is_a_log_with_the_same_events() {
    let (directory, path) = write_log().await;
    let copy = directory.path().join("copy");
    // The log is in use meanwhile.
    let store = open(&path);
    let report = backup(&path, &copy).unwrap();
    let again = backup(&path, &copy).unwrap_err();
    assert!(again.to_string().contains("is not empty"), "{again}");
    store.stop().await;
    drop(store);
    assert_eq!((report.events, &report.damage), (EVENTS + 1, &Vec::new()));
    let checked = check(&copy).unwrap();
    assert_eq!((checked.events, &checked.damage), (EVENTS + 1, &Vec::new()));
    for channel in ["a", "b"] {
        assert_eq!(read(&copy, channel).await, read(&path, channel).await);
    }
    assert!(backup(&directory.path().join("nothing"), &copy).is_err());
}

#[tokio::test]
async fn a_backup_keeps_damage() {
    let (directory, path) = write_log().await;
    let first = &log_files(&path)[0];
    let mut bytes = fs::read(first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(first, bytes).unwrap();
    let copy = directory.path().join("copy");
    let report = backup(&path, &copy).unwrap();
    assert!(!report.damage.is_empty());
    assert_eq!(check(&copy).unwrap().damage, report.damage);
}

#[tokio::test]
async fn a_backup_begins_again_only_when_a_file_has_gone() {
    let (directory, path) = write_log().await;
    // The name stays, and the file is not there whenever it is opened.
    let next = path.join(log_file::name(900, 900, "log"));
    std::os::unix::fs::symlink("nowhere", &next).unwrap();
    let copy = |name: &str| backup(&path, &directory.path().join(name)).unwrap_err();
    let gone = copy("one");
    assert!(gone.to_string().contains("changes too fast"), "{gone}");
    fs::remove_file(&next).unwrap();
    fs::create_dir(&next).unwrap();
    assert_eq!(copy("two").kind(), ErrorKind::IsADirectory);
}

#[tokio::test]
async fn a_restore_ends_every_channel_with_a_gap() {
    let (directory, path) = write_log().await;
    let (copy, restored) = (directory.path().join("copy"), directory.path().join("restored"));
    backup(&path, &copy).unwrap();
    let report = restore(&copy, &restored).unwrap();
    assert_eq!(report.events, EVENTS + 1);
    for channel in ["a", "b"] {
        let ((before, last), (mut after, _)) =
            (read(&path, channel).await, read(&restored, channel).await);
        let (kind, data) = after.pop().unwrap();
        assert_eq!(kind.as_deref(), Some("gap"));
        assert!(data.contains(&last.to_string()), "{data}");
        assert_eq!(after, before);
    }
}
