//! Tests of the log against a model. After any sequence of publishes, drops, compactions and
//! restarts, the content of the log must equal that of the model.
#![cfg(test)]

use super::super::{
    ChannelFilter, ChannelSettings, EventSink, Idempotency, Limits, Page, PageLimit, Publication,
    Store, StoreError, settings_channel,
};
use super::catalog_tests::verify;
use super::damage_tests::{self, Deaf, FileBytes, number};
use super::files::{Files, Memory};
use super::{Backing, FILE_BYTES, LocalConfig, LocalStore};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, Field, StoredEvent};
use crate::sync::clock::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const LIMITS: Limits =
    Limits { retain_events: 60, idempotency_keys: 100_000, ..damage_tests::LIMITS };
const CONFIG: LocalConfig =
    LocalConfig { timeout: Duration::from_secs(60), reserve: 0, file_bytes: 4 * 1024 };
const ALL: PageLimit = PageLimit { events: 100_000, bytes: 1 << 30 };
const CHANNELS: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Default)]
struct Model {
    events: Vec<StoredEvent>,
    state: BTreeMap<String, StoredEvent>,
    end: Option<EventId>,
    /// Everything before this end was deleted.
    erased: EventId,
    is_used: bool,
}

impl Model {
    /// Whether the store knows the channel.
    fn is_known(&self) -> bool {
        self.is_used || self.end.is_some()
    }

    fn add(&mut self, ids: Vec<EventId>, events: Vec<Event>) {
        self.is_used = true;
        for (id, event) in ids.into_iter().zip(events) {
            let stored = StoredEvent { id, event };
            if let Some(key) = stored.event.key.as_ref().map(|key| key.as_str().to_owned()) {
                match stored.event.removes_key() {
                    true => drop(self.state.remove(&key)),
                    false => drop(self.state.insert(key, stored.clone())),
                }
            }
            self.events.push(stored);
        }
        let excess = self.events.len().saturating_sub(LIMITS.retain_events as usize);
        self.events.drain(..excess);
    }
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

fn open(files: FileBytes) -> (Arc<Memory>, LocalStore) {
    let files = Arc::new(Memory::durable(files));
    let dynamic: Arc<dyn Files> = files.clone();
    let store =
        LocalStore::open_files(dynamic, CONFIG, LIMITS.into(), Clock::default(), Arc::new(Deaf));
    (files, store.unwrap())
}

async fn check(store: &LocalStore, models: &BTreeMap<&str, Model>, what: &str) {
    for (channel, model) in models {
        let page = store.read(&name(channel), EventId::START, ALL).await.unwrap();
        // Dropped events may come back after a restart, until they are dropped again.
        let found = &page.events[page.events.len().saturating_sub(model.events.len())..];
        assert_eq!(found, model.events, "{what}: {channel}");
        let oldest = page.events.first().map_or(model.erased, |stored| stored.id);
        assert!(oldest >= model.erased, "{what}: {oldest} of {channel} was deleted");
        let state = store.state(&name(channel)).await.unwrap();
        let mut expected: Vec<_> = model.state.values().cloned().collect();
        expected.sort_by_key(|stored| stored.id);
        assert_eq!(state.events, expected, "{what}: the state of {channel}");
        let log_state = store.log_state(&name(channel)).await.unwrap();
        assert_eq!(log_state.closed, model.end.is_some(), "{what}: {channel}");
        for count in [0, 1, 7, 59] {
            let place = store.position_back(&name(channel), count).await.unwrap();
            let after = store.read(&name(channel), place, ALL).await.unwrap();
            let ends = usize::from(model.end.is_some() && !model.events.is_empty());
            let expected = (count as usize + ends).min(model.events.len());
            assert_eq!(after.events.len(), expected, "{what}: {channel} back {count}");
        }
        check_parts(store, &name(channel), &page.events, model.end, what).await;
    }
    verify(&store.catalog(), what);
    check_sizes(store, models, what).await;
}

/// Every request for a part of a channel gets that part of its events.
async fn check_parts(
    store: &LocalStore,
    channel: &ChannelName,
    all: &[StoredEvent],
    end: Option<EventId>,
    what: &str,
) {
    let Some(middle) = all.get(all.len() / 2).map(|stored| stored.id) else { return };
    let (before, after) = all.split_at(all.len() / 2);
    for events in [1, 5, 1_000] {
        for bytes in [1, 400, 1 << 20] {
            let limit = PageLimit { events, bytes };
            let what = format!("{what}: {channel}, {limit:?}");
            let page = store.read(channel, middle, limit).await.unwrap();
            assert!(after[1..].starts_with(&page.events), "{what}");
            check_page(&page, &after[1..], limit, &what);
            let page = store.read_back(channel, middle, limit).await.unwrap();
            assert!(before.ends_with(&page.events), "{what}");
            check_page(&page, before, limit, &what);
        }
    }
    for ms in [middle.ms, middle.ms + 1] {
        let place = store.position_before(channel, ms).await.unwrap();
        let found = store.read(channel, place, ALL).await.unwrap().events;
        // In an ended channel the position is before the `end` event.
        let from = end.map_or(EventId { ms, seq: 0 }, |end| end.min(EventId { ms, seq: 0 }));
        let first = all.partition_point(|stored| stored.id < from);
        assert_eq!(found, all[first..], "{what}: {channel} from {ms}");
        assert!(all.first().is_some_and(|stored| place < stored.id) || place == all[first - 1].id);
    }
}

/// A page has as many events as its limit allows, and says whether others follow.
fn check_page(page: &Page, all: &[StoredEvent], limit: PageLimit, what: &str) {
    let length = |stored: &StoredEvent| stored.event.data.len();
    let bytes: usize = page.events.iter().map(length).sum();
    assert!(page.events.len() <= limit.events, "{what}");
    assert!(bytes <= limit.bytes || page.events.len() == 1, "{what}: {bytes} bytes");
    assert!(!page.events.is_empty() || all.is_empty(), "{what}: an empty page");
    assert_eq!(page.complete, page.events.len() == all.len(), "{what}");
    // The text of an event has less than 150 bytes beside the data.
    let has_room = bytes + (page.events.len() + 1) * 300 < limit.bytes;
    assert!(page.complete || page.events.len() == limit.events || !has_room, "{what}");
}

/// Sizes, metrics and names are those of the channels.
async fn check_sizes(store: &LocalStore, models: &BTreeMap<&str, Model>, what: &str) {
    let filter = |prefix: &str, limit| ChannelFilter { prefix: prefix.into(), after: None, limit };
    let known: Vec<_> = models.iter().filter(|(_, model)| model.is_known()).collect();
    let names: Vec<_> = known.iter().map(|(channel, _)| name(channel)).collect();
    assert_eq!(store.names(&filter("", 10)).await.unwrap(), names, "{what}");
    assert_eq!(store.names(&filter("x", 10)).await.unwrap(), [], "{what}");
    let (mut events, mut bytes) = (0, 0);
    for channel in &names {
        let size = store.size(channel).await.unwrap();
        let page = store.read(channel, EventId::START, ALL).await.unwrap();
        let state = store.state(channel).await.unwrap();
        let counts = (size.events as usize, size.keys as usize);
        assert_eq!(counts, (page.events.len(), state.events.len()), "{what}: {channel}");
        let (log_bytes, state_bytes) = (text_bytes(&page.events), text_bytes(&state.events));
        let is_about = |bytes: u64, text: usize| (text / 2..=3 * text).contains(&(bytes as usize));
        assert!(is_about(size.bytes, log_bytes), "{what}: {channel} has {size:?}, {log_bytes}");
        assert!(is_about(size.state_bytes, state_bytes), "{what}: {channel} has {size:?}");
        (events, bytes) = (events + size.events, bytes + size.bytes + size.state_bytes);
    }
    let metrics = store.metrics();
    assert_eq!(
        (metrics.events.get(), metrics.bytes.get()),
        (events as i64, bytes as i64),
        "{what}"
    );
    assert_eq!(metrics.fill.get(), bytes as f64 / LIMITS.total_bytes as f64, "{what}");
    assert!(metrics.file_bytes.get() >= metrics.bytes.get() / 3, "{what}");
}

/// The bytes of data and keys, and 4 for the rest of each event.
fn text_bytes(events: &[StoredEvent]) -> usize {
    let key = |event: &Event| event.key.as_ref().map_or(0, |key| key.as_str().len());
    events.iter().map(|stored| stored.event.data.len() + key(&stored.event) + 4).sum()
}

fn events(run: u64, of: &str) -> Vec<Event> {
    let count = if number(run, &format!("batch {of}"), 6) == 0 { 30 } else { 1 };
    let event = |n: usize| {
        let of = format!("{of} {n}");
        let key = match number(run, &format!("key {of}"), 40) {
            key @ 0..20 => Some(Field::key(&format!("key {key}")).unwrap()),
            _ => None,
        };
        let removes = number(run, &format!("removes {of}"), 5) == 0;
        let data = "x".repeat(number(run, &format!("size {of}"), 120));
        Event::new(None, key, format!("{of} {data}"), removes)
    };
    (0..count).map(event).collect()
}

async fn step(store: &LocalStore, model: &mut Model, channel: &str, run: u64, of: &str) {
    let channel = name(channel);
    match number(run, &format!("what {of}"), 30) {
        0 if model.is_used => {
            let end = store.close(&channel).await.unwrap();
            if model.end.is_none() {
                model.add(vec![end], vec![Event::end()]);
            }
            assert_eq!(*model.end.get_or_insert(end), end);
        }
        1..4 if model.is_used => {
            store.reopen(&channel).await.unwrap();
            model.end = None;
        }
        4 if model.is_used && number(run, &format!("erases {of}"), 3) == 0 => {
            model.erased = store.erase(&channel).await.unwrap();
            *model = Model { erased: model.erased, end: Some(model.erased), ..Model::default() };
            model.add(vec![model.erased], vec![Event::end()]);
        }
        _ => {
            let events = events(run, of);
            let key = Idempotency { key: of.to_owned(), digest: 7 };
            let publication =
                Publication { channel, events: events.clone(), idempotency: Some(key) };
            match store.publish(publication.clone()).await {
                Ok(published) => {
                    assert!(!published.repeated);
                    model.add(published.ids.clone(), events);
                    let again = store.publish(publication).await.unwrap();
                    assert!(again.repeated && again.ids == published.ids);
                }
                Err(error) => assert!(error == StoreError::Closed && model.end.is_some()),
            }
        }
    }
}

#[tokio::test]
async fn the_log_is_what_the_model_says_through_compaction_and_restarts() {
    for run in 0..12 {
        let (mut files, mut store) = open(FileBytes::new());
        let mut models: BTreeMap<_, _> =
            CHANNELS.into_iter().map(|channel| (channel, Model::default())).collect();
        for round in 0..40 {
            for n in 0..25 {
                let of = format!("{round} {n}");
                // The fifth channel is used only in the first rounds. Its content must stay.
                let count = if round < 5 { 5 } else { 4 };
                let channel = CHANNELS[number(run, &format!("channel {of}"), count)];
                step(&store, models.get_mut(channel).unwrap(), channel, run, &of).await;
            }
            store.sweep().await;
            store.settle(0).await;
            check(&store, &models, &format!("run {run}, round {round}")).await;
            if number(run, &format!("restart {round}"), 4) == 0 {
                store.stop().await;
                (files, store) = open(files.bytes());
                check(&store, &models, &format!("run {run}, round {round}, restarted")).await;
            }
        }
        store.stop().await;
        let bytes: usize = files.bytes().values().map(Vec::len).sum();
        assert!(bytes < 3 << 20, "space is given back: {bytes} bytes are left");
    }
}

/// A sink that panics in the writer's thread, because no input makes the writer fail.
struct Faulty;

impl EventSink for Faulty {
    fn appended(&self, _: &ChannelName, _: EventId, _: &[StoredEvent]) {
        panic!("the writer's thread dies here, on purpose");
    }

    fn lost_place(&self) {}
}

#[tokio::test]
async fn a_writer_that_dies_is_noticed_and_loses_nothing() {
    let files = Arc::new(Memory::durable(FileBytes::new()));
    let dynamic: Arc<dyn Files> = files.clone();
    let store =
        LocalStore::open_files(dynamic, CONFIG, LIMITS.into(), Clock::default(), Arc::new(Faulty));
    let store = store.unwrap();
    store.ready().await.unwrap();
    let events = vec![Event::stored(None, None, "x")];
    let publication = Publication { channel: name("a"), events, idempotency: None };
    let outcome = store.publish(publication.clone()).await;
    assert!(matches!(outcome, Err(StoreError::Unclear(_))), "{outcome:?}");
    assert!(store.failed().await.contains("has died"));
    assert!(store.ready().await.is_err());
    assert!(matches!(store.publish(publication).await, Err(StoreError::Down(_))));
    let (_, again) = open(files.bytes());
    assert_eq!(again.read(&name("a"), EventId::START, ALL).await.unwrap().events.len(), 1);
    again.stop().await;
}

/// In memory the publisher's task commits, so the panic is in that task.
#[tokio::test]
async fn a_commit_that_panics_in_the_task_of_its_publisher_is_noticed() {
    let clock = Clock::default();
    let store = LocalStore::open(Backing::Memory, CONFIG, LIMITS, clock, Arc::new(Faulty)).unwrap();
    let store = Arc::new(store);
    let events = vec![Event::stored(None, None, "x")];
    let publication = Publication { channel: name("a"), events, idempotency: None };
    let publisher = (store.clone(), publication.clone());
    let publisher = async move { publisher.0.publish(publisher.1).await };
    assert!(tokio::spawn(publisher).await.unwrap_err().is_panic());
    assert!(store.failed().await.contains("has died"));
    assert!(store.ready().await.is_err());
    assert!(matches!(store.publish(publication).await, Err(StoreError::Down(_))));
}

/// Small publishes are committed by their tasks or by the thread, large ones by the thread. Each is
/// answered, and the publishes of one publisher keep their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishers_that_commit_by_themselves_leave_no_command_behind() {
    const PUBLISHES: usize = 2_000;
    let clock = Clock::default();
    let config = LocalConfig { file_bytes: FILE_BYTES, ..CONFIG };
    let store = LocalStore::open(Backing::Memory, config, LIMITS, clock, Arc::new(Deaf)).unwrap();
    let store = Arc::new(store);
    let publisher = async |store: Arc<LocalStore>, channel: ChannelName| {
        let mut last = EventId::START;
        for number in 0..PUBLISHES {
            let size = if number % 100 == 0 { 100_000 } else { 10 };
            let events = vec![Event::new(None, None, "x".repeat(size), false)];
            let publication = Publication { channel: channel.clone(), events, idempotency: None };
            let id = store.publish(publication).await.unwrap().ids[0];
            assert!(id > last, "{id:?} follows {last:?}");
            last = id;
        }
    };
    let publishers = (0..8)
        .map(|number| tokio::spawn(publisher(store.clone(), name(&format!("c{}", number % 3)))));
    let all = futures_util::future::join_all(publishers);
    let all = tokio::time::timeout(Duration::from_secs(60), all).await.expect("each is answered");
    all.into_iter().for_each(|publisher| publisher.unwrap());
    store.stop().await;
}

#[tokio::test]
async fn what_was_too_old_stays_away_when_the_log_is_opened_again() {
    let limits = Limits { retain_age: Duration::from_secs(1), ..LIMITS };
    let open = |bytes: FileBytes| {
        let files = Arc::new(Memory::durable(bytes));
        let dynamic: Arc<dyn Files> = files.clone();
        let store = LocalStore::open_files(
            dynamic,
            CONFIG,
            limits.into(),
            Clock::default(),
            Arc::new(Deaf),
        );
        (files, store.unwrap())
    };
    let (files, store) = open(FileBytes::new());
    let events = vec![Event::stored(None, None, "old")];
    store.publish(Publication { channel: name("a"), events, idempotency: None }).await.unwrap();
    let count = async |store: &LocalStore| {
        store.sweep().await;
        // The first command may be answered in the commit before the sweep.
        store.settle(0).await;
        store.settle(0).await;
        store.read(&name("a"), EventId::START, ALL).await.unwrap().events.len()
    };
    assert_eq!(count(&store).await, 1);
    let gone = async {
        while count(&store).await > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it grows old");
    store.stop().await;
    let (_, store) = open(files.bytes());
    assert_eq!(count(&store).await, 0);
    store.stop().await;
}

#[tokio::test]
async fn the_settings_of_a_channel_hold_after_a_restart() {
    let (files, store) = open(FileBytes::new());
    let settings = ChannelSettings { retain_events: Some(2), ..ChannelSettings::default() };
    let events = vec![settings.event_for(&name("a")).unwrap()];
    let channel = settings_channel();
    store.publish(Publication { channel, events, idempotency: None }).await.unwrap();
    assert_eq!(store.limits().of(&name("a")).retain_events, 2);
    store.stop().await;
    let (_, store) = open(files.bytes());
    assert_eq!(store.limits().of(&name("a")).retain_events, 2);
    assert_eq!(store.limits().of(&name("b")).retain_events, LIMITS.retain_events);
}
