//! Tests of logs with damaged files. Whichever byte, page or end of a file is damaged or missing,
//! the store serves no wrong event, announces every loss and does not panic.
#![cfg(test)]

use super::super::{EventSink, Idempotency, Limits, PageLimit, Publication, Store, StoreMetrics};
use super::compaction;
use super::files::{Files, Memory};
use super::frame::{self, Kind};
use super::log_file::{self, LogIdentity};
use super::reading::{Plan, RecordReader};
use super::records::Events;
use super::summary::summarize;
use super::{LocalConfig, LocalStore};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, StoredEvent};
use crate::core::log_state::Bounds;
use crate::sync::clock::Clock;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

pub const LIMITS: Limits = Limits {
    retain_age: Duration::from_secs(3600),
    retain_events: 100_000,
    retain_bytes: 1 << 30,
    channels: 1_000,
    channel_idle: Duration::from_secs(3600),
    keys: 1_000,
    state_bytes: 1 << 20,
    total_bytes: 1 << 30,
    idempotency_age: Duration::from_secs(600),
    idempotency_keys: 1_000,
};
const CONFIG: LocalConfig =
    LocalConfig { timeout: Duration::from_secs(60), reserve: 0, file_bytes: 8 * 1024 };
const ALL: PageLimit = PageLimit { events: 100_000, bytes: 1 << 30 };
const CHANNELS: [&str; 4] = ["often", "keyed", "early", "batches"];
/// The environment variable with the number of damaged copies in each test. The script for long
/// runs sets a higher number.
const RUNS_VARIABLE: &str = "TEST_DAMAGE_RUNS";

pub struct Deaf;

impl EventSink for Deaf {
    fn appended(&self, _: &ChannelName, _: EventId, _: &[StoredEvent]) {}
    fn lost_place(&self) {}
}

pub type FileBytes = HashMap<String, Vec<u8>>;
type Log = BTreeMap<&'static str, (Vec<StoredEvent>, Vec<StoredEvent>)>;

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

fn open(files: FileBytes) -> (Arc<Memory>, std::io::Result<LocalStore>) {
    let files = Arc::new(Memory::durable(files));
    let dynamic: Arc<dyn Files> = files.clone();
    let store =
        LocalStore::open_files(dynamic, CONFIG, LIMITS.into(), Clock::default(), Arc::new(Deaf));
    (files, store)
}

async fn publish(store: &LocalStore, channel: &str, key: Option<&str>, data: &[String]) {
    let events = data.iter().map(|data| Event::stored(None, key, data)).collect();
    let idempotency = Some(Idempotency { key: data[0].clone(), digest: 1 });
    let publication = Publication { channel: name(channel), events, idempotency };
    store.publish(publication).await.unwrap();
}

/// Writes a log of several files with every kind of content.
async fn write(store: &LocalStore) {
    for n in 0..400 {
        publish(store, "often", None, &[format!("often {n} {}", "x".repeat(n % 90))]).await;
        if n == 20 {
            publish(store, "early", None, &["early".to_owned()]).await;
        }
        if n % 4 == 0 {
            let (key, data) = (format!("key {}", n % 10), format!("keyed {n}"));
            publish(store, "keyed", Some(&key), &[data]).await;
        }
        if n % 50 == 0 {
            let batch: Vec<_> = (0..20).map(|m| format!("batch {n} {m}")).collect();
            publish(store, "batches", None, &batch).await;
        }
    }
    store.close(&name("batches")).await.unwrap();
}

async fn read(store: &LocalStore) -> Log {
    let mut log = Log::new();
    for channel in CHANNELS {
        let page = store.read(&name(channel), EventId::START, ALL).await.unwrap();
        assert!(page.complete);
        let back = store.read_back(&name(channel), EventId { ms: u64::MAX, seq: 0 }, ALL).await;
        assert_eq!(back.unwrap().events, page.events, "both directions");
        let state = store.state(&name(channel)).await.unwrap();
        log.insert(channel, (page.events, state.events));
    }
    log
}

fn is_gap(stored: &StoredEvent) -> bool {
    stored.event.as_control().is_some_and(|(kind, _)| kind == "gap")
}

/// Whether a client that has all events before `id` is informed that this event is missing: by a
/// later gap event, of which `gap` is the newest, or at its return, because its cursor is not one
/// of this log. `log` has the events that were written.
fn is_announced(id: EventId, gap: Option<EventId>, bounds: Bounds, log: &[StoredEvent]) -> bool {
    let before = log.iter().rev().find(|stored| stored.id < id);
    let is_refused = |before: EventId| bounds.misses(before) || before > bounds.last;
    gap.is_some_and(|gap| id <= gap)
        || is_refused(before.map_or(EventId::START, |stored| stored.id))
        || before.is_none() && id <= bounds.beginning
}

/// Compares the events of a channel of a damaged log with those that were written. Returns the id
/// of the newest gap event.
fn check_events(
    channel: &str,
    found: &[StoredEvent],
    bounds: Bounds,
    expected: &[StoredEvent],
    what: &str,
) -> Option<EventId> {
    assert!(found.is_sorted_by(|a, b| a.id < b.id), "{what}: {channel} is in order");
    for stored in found.iter().filter(|stored| !is_gap(stored)) {
        assert!(expected.contains(stored), "{what}: {channel} never had {stored:?}");
    }
    let gap = found.iter().rev().find(|stored| is_gap(stored)).map(|gap| gap.id);
    for missing in expected.iter().filter(|event| !found.contains(event)) {
        let is_announced = is_announced(missing.id, gap, bounds, expected);
        assert!(is_announced, "{what}: {channel} lost {missing:?} in silence");
    }
    gap
}

/// Compares the content of a damaged log with what was written.
async fn check(store: &LocalStore, whole: &Log, what: &str) {
    for (channel, (found, state)) in read(store).await {
        let bounds = store.log_state(&name(channel)).await.unwrap().bounds;
        let (expected, expected_state) = &whole[channel];
        let told_until = check_events(channel, &found, bounds, expected, what);
        let is_told = |id: EventId| is_announced(id, told_until, bounds, expected);
        for stored in state.iter().filter(|stored| !is_gap(stored)) {
            let is_right = expected_state.contains(stored) || is_told(stored.id);
            assert!(is_right, "{what}: {stored:?} is no state of {channel}");
        }
        let has_gap = state.iter().any(is_gap);
        for missing in expected_state.iter().filter(|event| !state.contains(event)) {
            assert!(has_gap || is_told(missing.id), "{what}: state lost {missing:?} in silence");
        }
    }
}

/// Writes and stops a log. Returns its files and its content.
async fn stopped_log() -> (FileBytes, Log) {
    let (files, store) = open(FileBytes::new());
    let store = store.unwrap();
    write(&store).await;
    let whole = read(&store).await;
    store.stop().await;
    assert!(files.list().unwrap().len() > 6, "several files: {:?}", files.list());
    (files.bytes(), whole)
}

/// A pseudorandom number less than `below`. It is the same whenever the tests run.
pub fn number(run: u64, of: &str, below: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    (run, of).hash(&mut hasher);
    (hasher.finish() % below as u64) as usize
}

fn runs(default: u64) -> u64 {
    std::env::var(RUNS_VARIABLE).map_or(default, |runs| runs.parse().expect("a number"))
}

/// Damages copies of a log with `act`, and checks what each of them serves, also after it was
/// opened a second time.
async fn damage(count: u64, act: impl Fn(u64, &str, &mut Vec<u8>) -> Option<String>) {
    let (files, whole) = stopped_log().await;
    let mut names: Vec<_> = files.keys().cloned().collect();
    names.sort();
    for run in 0..runs(count) {
        let name = &names[number(run, "file", names.len())];
        let mut files = files.clone();
        let Some(what) = act(run, name, files.get_mut(name).unwrap()) else { continue };
        let what = format!("run {run}: {name}: {what}");
        let (files, store) = open(files);
        let store = match store {
            Ok(store) => store,
            Err(refused) => {
                let refused = refused.to_string();
                assert!(refused.contains("is empty"), "{what}: {refused}");
                continue;
            }
        };
        check(&store, &whole, &what).await;
        publish(&store, "often", None, &["after".to_owned()]).await;
        let found = read(&store).await;
        store.stop().await;
        let (_, again) = open(files.bytes());
        let again = again.unwrap_or_else(|refused| panic!("{what}: {refused}"));
        assert!(read(&again).await == found, "{what}: not the same after a restart");
        again.stop().await;
    }
}

#[tokio::test]
async fn a_whole_log_is_read_as_it_was_written() {
    let (files, whole) = stopped_log().await;
    let (_, store) = open(files);
    let store = store.unwrap();
    assert_eq!(read(&store).await, whole);
    assert!(whole.values().all(|(events, _)| !events.iter().any(is_gap)));
    let again = Publication {
        channel: name("early"),
        events: vec![Event::stored(None, None, "early")],
        idempotency: Some(Idempotency { key: "early".into(), digest: 1 }),
    };
    assert!(store.publish(again).await.unwrap().repeated);
    store.stop().await;
}

#[tokio::test]
async fn a_flipped_bit_is_never_served_and_always_announced() {
    damage(600, |run, _, bytes| {
        let (at, bit) = (number(run, "at", bytes.len()), number(run, "bit", 8));
        bytes[at] ^= 1 << bit;
        Some(format!("bit {bit} of byte {at}"))
    })
    .await;
}

/// The entries of an index are read from its log file when they are damaged, and that file may be
/// damaged too.
#[tokio::test]
async fn a_flipped_bit_in_a_file_without_a_good_index_is_announced() {
    let (whole_files, whole) = stopped_log().await;
    let mut indexes: Vec<_> = whole_files.keys().filter(|name| name.ends_with("index")).collect();
    indexes.sort();
    for run in 0..runs(300) {
        let mut files = whole_files.clone();
        let index = indexes[number(run, "file", indexes.len())].clone();
        let bytes = files.get_mut(&index).unwrap();
        // The trailer begins with the length of the directory, which follows the entries.
        let trailer = bytes.len() - 16;
        let directory = u64::from_be_bytes(bytes[trailer..trailer + 8].try_into().unwrap());
        bytes[8..trailer - directory as usize].fill(0);
        let log = index.replace("index", "log");
        let bytes = files.get_mut(&log).unwrap();
        let at = number(run, "at", bytes.len());
        bytes[at] ^= 1;
        let (_, store) = open(files);
        check(&store.unwrap(), &whole, &format!("run {run}: byte {at} of {log}")).await;
    }
}

/// Replaces the files from `first` on, but the last two, by one, as a compaction does. Compares
/// what is read without a restart with what was written.
fn compact_and_check(bytes: FileBytes, first: u32, whole: &Log, what: &str) -> FileBytes {
    let files = Memory::durable(bytes);
    let opened = log_file::open(&files, EventId::START).unwrap();
    let (head, catalog) = (opened.head, RwLock::new(opened.catalog));
    let newest = *catalog.read().log_files.keys().rev().nth(2).unwrap();
    let with = compaction::compact(&files, &catalog, head, first..=newest, 0).unwrap();
    catalog.write().replaced(first..=newest, with);
    let reader = RecordReader::new(head.seed, StoreMetrics::default());
    for channel in CHANNELS {
        let catalog = catalog.read();
        let (plan, position) = Plan::after(&catalog, &name(channel), EventId::START, ALL);
        let found = reader.page(plan, position, ALL).unwrap().events;
        let bounds = catalog.log_state(&name(channel)).bounds;
        check_events(channel, &found, bounds, &whole[channel].0, what);
    }
    files.bytes()
}

#[tokio::test]
async fn damage_that_a_compaction_meets_is_announced() {
    let (whole_files, whole) = stopped_log().await;
    let mut logs: Vec<_> = whole_files.keys().filter(|name| name.ends_with(".log")).collect();
    logs.sort();
    logs.truncate(logs.len() - 2);
    for run in 0..runs(300) {
        let mut files = whole_files.clone();
        let log = logs[number(run, "file", logs.len())].clone();
        let bytes = files.get_mut(&log).unwrap();
        let at = number(run, "at", bytes.len());
        bytes[at] ^= 1;
        let what = format!("run {run}: byte {at} of {log}");
        let (_, store) = open(compact_and_check(files, 1 + run as u32 % 2, &whole, &what));
        check(&store.unwrap(), &whole, &what).await;
    }
}

/// The record of a channel in a compacted file counts as the last event of that channel there.
#[tokio::test]
async fn a_damaged_compacted_file_without_an_index_is_announced() {
    let (whole_files, whole) = stopped_log().await;
    let compacted = compact_and_check(whole_files, 2, &whole, "whole");
    let mut logs: Vec<_> = compacted.keys().filter(|name| name.ends_with(".log")).collect();
    logs.sort();
    let log = logs[1].clone();
    for run in 0..runs(300) {
        let mut files = compacted.clone();
        files.remove(&log.replace("log", "index")).unwrap();
        let bytes = files.get_mut(&log).unwrap();
        let at = match run % 2 {
            0 => number(run, "at", bytes.len()),
            _ => bytes.len() - 1 - number(run, "at", 2_000),
        };
        bytes[at] ^= 1;
        let (_, store) = open(files);
        check(&store.unwrap(), &whole, &format!("run {run}: byte {at} of {log}")).await;
    }
}

#[tokio::test]
async fn a_damaged_page_is_never_served_and_always_announced() {
    damage(200, |run, _, bytes| {
        let start = number(run, "at", bytes.len()) / 4096 * 4096;
        let end = (start + 4096).min(bytes.len());
        let with = [0, 0xff, 0x48][number(run, "with", 3)];
        for (n, byte) in bytes[start..end].iter_mut().enumerate() {
            *byte = if with == 0xff { number(run, &n.to_string(), 256) as u8 } else { with };
        }
        Some(format!("bytes {start} to {end} are {with:x}"))
    })
    .await;
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_announced() {
    damage(300, |run, name, bytes| {
        if name == "log" {
            return None;
        }
        let length = number(run, "length", bytes.len());
        bytes.truncate(length);
        Some(format!("cut to {length} bytes"))
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_missing_is_announced() {
    let (files, whole) = stopped_log().await;
    for missing in files.keys().filter(|name| *name != "log") {
        let mut files = files.clone();
        files.remove(missing);
        let newest = files.keys().filter(|name| name.ends_with(".log")).max().cloned();
        let is_last = missing.ends_with(".log") && newest.is_some_and(|newest| newest < *missing);
        let (_, store) = open(files);
        if !is_last {
            check(&store.unwrap(), &whole, missing).await;
        }
    }
    // When all files are missing, no cursor of the old log counts.
    let only_head = files.iter().filter(|(name, _)| *name == "log");
    let only_head = only_head.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    let (_, store) = open(only_head);
    check(&store.unwrap(), &whole, "all files").await;
    let mut without_head = files;
    without_head.remove("log");
    let refused = open(without_head).1.err().unwrap().to_string();
    assert!(refused.contains("the copy is not complete"), "{refused}");
}

/// The newest file is lost, and the one before it, which has an index, is damaged.
#[test]
fn the_index_of_a_damaged_last_file_is_not_believed_later() {
    let (files, beginning) = (Memory::durable(FileBytes::new()), EventId { ms: 5, seq: 0 });
    LogIdentity { seed: 7, beginning }.store(&files).unwrap();
    let first = EventId { ms: 7, seq: 0 };
    let events = vec![Event::stored(None, None, "x")];
    let (channel, previous) = (name("a"), beginning);
    let events = Events { channel, is_first: true, previous, first, key: None, events };
    let mut log = Vec::new();
    frame::write(&mut log, 7, (Kind::Events, 1, true), |out| events.write(out));
    let middle = log.len() / 2;
    frame::write(&mut log, 7, (Kind::Seal, 2, true), |_| {});
    let index = summarize(&frame::scan(&log, 7, false), 1).write_index(7);
    let mut bytes = files.bytes();
    bytes.insert("0000000001-0000000001.index".to_owned(), index);
    log[middle] ^= 1;
    bytes.insert("0000000001-0000000001.log".to_owned(), log);
    let files = Memory::durable(bytes);
    for _ in 0..2 {
        let opened = log_file::open(&files, beginning).unwrap();
        assert!(opened.is_damaged && opened.catalog.channels.is_empty());
    }
}

#[test]
fn a_name_without_possible_numbers_is_no_file_of_the_log() {
    let numbers = |first, until| log_file::numbers(&log_file::name(first, until, "log"));
    assert_eq!(numbers(3, 4), Some((3, 4)));
    for (first, until) in [(0, 1), (4, 3), (1, u32::MAX)] {
        assert_eq!(numbers(first, until), None, "{first} {until}");
    }
}
