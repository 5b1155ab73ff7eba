//! One test suite that every store must pass. It runs on the memory store, the disk store, and
//! Redis alone, as a cluster and behind sentinels, and Valkey.

use crate::kit::now_ms;
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, Event, StoredEvent};
use headwater::core::log_state::{Bounds, LogState};
use headwater::store::local::{Backing, LocalConfig, LocalStore};
use headwater::store::redis::{RedisConfig, RedisStore, RedisTls};
use headwater::store::{
    EventSink, Idempotency, Limits, PageLimit, Publication, Published, Store, StoreError,
};
use headwater::sync::clock::Clock;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const LIMITS: Limits = Limits {
    retain_age: Duration::from_secs(3600),
    retain_events: 1_000,
    retain_bytes: 1 << 20,
    channels: 50,
    channel_idle: Duration::from_secs(3600),
    keys: 20,
    state_bytes: 10_000,
    total_bytes: 1 << 22,
    idempotency_age: Duration::from_secs(600),
    idempotency_keys: 100,
};
pub const ALL: PageLimit = PageLimit { events: 10_000, bytes: 1 << 30 };

/// The calls of the store to its listener: channel, previous id and events.
#[derive(Default)]
pub struct Told(Mutex<Vec<(ChannelName, EventId, Vec<StoredEvent>)>>);

impl Told {
    pub fn calls(&self) -> Vec<(ChannelName, EventId, Vec<StoredEvent>)> {
        self.0.lock().unwrap().clone()
    }
}

impl EventSink for Told {
    fn appended(&self, channel: &ChannelName, previous: EventId, events: &[StoredEvent]) {
        self.0.lock().unwrap().push((channel.clone(), previous, events.to_vec()));
    }

    /// A store may call this when it opens, before it reports any event.
    fn lost_place(&self) {
        assert!(self.0.lock().unwrap().is_empty(), "nothing was lost");
    }
}

/// A store under test, with its listener and clock.
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub told: Arc<Told>,
    pub clock: Clock,
    /// True for Redis, which trims in whole nodes of 100 entries, and has its own clock.
    is_redis: bool,
}

pub fn local(backing: Backing, limits: Limits) -> Subject {
    let (told, clock) = (Arc::new(Told::default()), Clock::default());
    let config =
        LocalConfig { timeout: Duration::from_secs(10), reserve: 0, file_bytes: 16 * 1024 };
    let store = LocalStore::open(backing, config, limits, clock.clone(), told.clone());
    let store = store.expect("it opens");
    Subject { store: Arc::new(store), told, clock, is_redis: false }
}

pub async fn redis(url: String, prefix: &str, limits: Limits) -> Subject {
    let (told, clock) = (Arc::new(Told::default()), Clock::default());
    let timeout = Duration::from_secs(20);
    let prefix = prefix.to_owned();
    let settings = Vec::new();
    let (tls, wait_replicas) = (RedisTls::default(), 0);
    let config = RedisConfig { url, tls, prefix, shards: 3, wait_replicas, timeout, settings };
    let store = RedisStore::open(config, limits, clock.clone(), told.clone()).await;
    Subject { store: store.expect("it opens"), told, clock, is_redis: true }
}

/// Runs each check on every kind of store.
macro_rules! on_every_store {
    ($($check:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $check() {
                super::$check(async |limits| super::local(super::Backing::Memory, limits)).await;
            })*
        }
        mod redis {
            $(#[tokio::test] async fn $check() {
                let server = crate::kit::redis::RedisServer::start();
                let count = std::cell::Cell::new(0);
                super::$check(async |limits| {
                    count.set(count.get() + 1);
                    super::redis(server.url(), &format!("test{}", count.get()), limits).await
                })
                .await;
            })*
        }
        #[tokio::test]
        async fn a_redis_cluster_passes_the_suite() {
            let cluster = crate::kit::redis::Cluster::start(0);
            let count = std::cell::Cell::new(0);
            let open = async |limits| {
                count.set(count.get() + 1);
                redis(cluster.url(), &format!("test{}", count.get()), limits).await
            };
            $($check(&open).await;)*
        }
        #[tokio::test]
        async fn valkey_passes_the_suite() {
            let server = crate::kit::redis::RedisServer::valkey();
            assert!(server.command(&["INFO", "server"]).contains("server_name:valkey"));
            let count = std::cell::Cell::new(0);
            let open = async |limits| {
                count.set(count.get() + 1);
                redis(server.url(), &format!("test{}", count.get()), limits).await
            };
            $($check(&open).await;)*
        }
        #[tokio::test]
        async fn redis_behind_sentinels_passes_the_suite() {
            let sentinels = crate::kit::redis::Sentinels::start();
            let count = std::cell::Cell::new(0);
            let open = async |limits| {
                count.set(count.get() + 1);
                redis(sentinels.url(), &format!("test{}", count.get()), limits).await
            };
            $($check(&open).await;)*
        }
        mod disk {
            $(#[tokio::test] async fn $check() {
                let directory = tempfile::tempdir().unwrap();
                let count = std::cell::Cell::new(0);
                super::$check(async |limits| {
                    count.set(count.get() + 1);
                    let path = directory.path().join(count.get().to_string());
                    super::local(super::Backing::Directory(path), limits)
                })
                .await;
            })*
        }
    };
}

on_every_store!(
    ids_go_up_and_events_come_back_as_they_were,
    a_batch_is_stored_next_to_each_other,
    pages_are_bounded_and_follow_each_other,
    what_is_over_the_limit_of_events_or_bytes_is_dropped_oldest_first,
    a_repeated_publish_stores_nothing_and_gets_the_first_answer,
    the_state_is_the_newest_event_of_each_key,
    a_channel_ends_and_opens_again,
    an_erased_channel_has_nothing_but_its_end,
    limits_are_errors_that_name_their_flag,
    the_listener_hears_of_all_in_order_with_no_break,
    a_position_before_an_instant_is_found,
    ids_never_go_back_when_the_clock_does,
    publishes_at_once_are_all_stored_once,
);

pub fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

pub fn event(key: Option<&str>, data: &str) -> Event {
    Event::stored(Some("kind"), key, data)
}

async fn publish(store: &dyn Store, channel: &str, events: Vec<Event>) -> Vec<EventId> {
    let publication = Publication { channel: name(channel), events, idempotency: None };
    store.publish(publication).await.expect("it is accepted").ids
}

async fn publish_one(store: &dyn Store, channel: &str, data: &str) -> EventId {
    publish(store, channel, vec![event(None, data)]).await[0]
}

async fn datas(store: &dyn Store, channel: &str, after: EventId) -> Vec<String> {
    let page = store.read(&name(channel), after, ALL).await.unwrap();
    page.events.iter().map(|stored| stored.event.data.to_string()).collect()
}

async fn ids_go_up_and_events_come_back_as_they_were(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, .. } = open(LIMITS).await;
    let channel = name("a");
    let log_state = store.log_state(&channel).await.unwrap();
    let beginning = log_state.bounds.beginning;
    let bounds =
        Bounds { beginning, opened_at: beginning, low_watermark: beginning, last: beginning };
    assert_eq!(log_state, LogState { bounds, ..LogState::default() });
    assert!(store.read(&channel, EventId::START, ALL).await.unwrap().complete);
    let events = [event(None, ""), event(Some("k"), "a\r\nb"), Event::stored(None, None, "é👩‍🚀")];
    let mut expected = Vec::new();
    for event in events {
        let id = publish(&*store, "a", vec![event.clone()]).await[0];
        assert!(expected.last().is_none_or(|last: &StoredEvent| last.id < id));
        expected.push(StoredEvent { id, event });
    }
    let page = store.read(&channel, EventId::START, ALL).await.unwrap();
    assert_eq!(page.events, expected);
    assert!(page.complete && page.bounds.last == expected[2].id);
    assert_eq!(page.bounds.start(), EventId::START);
    assert!(!page.bounds.misses(EventId::START) && !page.bounds.misses(beginning));
    let page = store.read(&channel, expected[0].id, ALL).await.unwrap();
    assert_eq!(page.events, expected[1..]);
    assert!(datas(&*store, "other", EventId::START).await.is_empty());
    let log_state = store.log_state(&channel).await.unwrap();
    assert_eq!((log_state.bounds.last, log_state.oldest), (expected[2].id, Some(expected[0].id)));
    assert!(log_state.keyed && !log_state.closed);
    store.ready().await.unwrap();
    store.stop().await;
}

async fn a_batch_is_stored_next_to_each_other(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, told, .. } = open(LIMITS).await;
    let batch: Vec<_> = (0..100).map(|n| event(None, &n.to_string())).collect();
    let others = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..50 {
                publish_one(&*store, "a", &format!("other {n}")).await;
            }
        }
    });
    let ids = publish(&*store, "a", batch).await;
    others.await.unwrap();
    assert!(ids.is_sorted_by(|a, b| a < b));
    let page = store.read(&name("a"), EventId::START, ALL).await.unwrap();
    let first = page.events.iter().position(|stored| stored.id == ids[0]).unwrap();
    let stored: Vec<_> = page.events[first..first + 100].iter().map(|stored| stored.id).collect();
    assert_eq!(stored, ids);
    drop(told);
}

async fn pages_are_bounded_and_follow_each_other(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, .. } = open(LIMITS).await;
    let batch = (0..100).map(|n| event(None, &format!("{n:0>100}"))).collect();
    let ids = publish(&*store, "a", batch).await;
    for limit in [
        PageLimit { events: 7, bytes: 1 << 20 },
        PageLimit { events: 1_000, bytes: 1_000 },
        PageLimit { events: 1_000, bytes: 1 },
    ] {
        let (mut position, mut seen) = (EventId::START, Vec::new());
        loop {
            let page = store.read(&name("a"), position, limit).await.unwrap();
            assert!(page.events.len() <= limit.events);
            let bytes: usize = page.events.iter().map(|stored| stored.event.weight()).sum();
            assert!(page.events.len() == 1 || bytes <= limit.bytes);
            seen.extend(page.events.iter().map(|stored| stored.id));
            position = seen[seen.len() - 1];
            if page.complete {
                break;
            }
        }
        assert_eq!(seen, ids);
    }
}

async fn what_is_over_the_limit_of_events_or_bytes_is_dropped_oldest_first(
    open: impl AsyncFn(Limits) -> Subject,
) {
    let by_count = Limits { retain_events: 10, ..LIMITS };
    let by_bytes = Limits { retain_bytes: 1_050, ..LIMITS };
    for limits in [by_count, by_bytes] {
        let Subject { store, is_redis, .. } = open(limits).await;
        let mut ids = Vec::new();
        for n in 0..40 {
            ids.push(publish_one(&*store, "a", &format!("{n:0>100}")).await);
        }
        let log_state = store.log_state(&name("a")).await.unwrap();
        let page = store.read(&name("a"), EventId::START, ALL).await.unwrap();
        let kept = page.events.len();
        let most = if is_redis { 39 } else { 10 };
        assert!((8..=most).contains(&kept), "{kept} kept");
        assert_eq!(page.events[0].id, ids[40 - kept]);
        assert_eq!(log_state.oldest, Some(ids[40 - kept]));
        assert_eq!(log_state.bounds.low_watermark, ids[40 - kept - 1]);
        assert!(log_state.bounds.misses(EventId::START));
        assert_eq!(page.bounds, log_state.bounds);
        assert_eq!(log_state.bounds.last, ids[39]);
    }
}

async fn a_repeated_publish_stores_nothing_and_gets_the_first_answer(
    open: impl AsyncFn(Limits) -> Subject,
) {
    let Subject { store, .. } = open(LIMITS).await;
    let publication = |channel: &str, digest| Publication {
        channel: name(channel),
        events: vec![event(None, "1"), event(None, "2")],
        idempotency: Some(Idempotency { key: "key".into(), digest }),
    };
    let first = store.publish(publication("a", 7)).await.unwrap();
    assert!(!first.repeated);
    let again = store.publish(publication("a", 7)).await.unwrap();
    assert_eq!(again, Published { repeated: true, ..first });
    assert_eq!(store.publish(publication("a", 8)).await, Err(StoreError::KeyReused));
    assert!(!store.publish(publication("b", 8)).await.unwrap().repeated);
    assert_eq!(datas(&*store, "a", EventId::START).await, ["1", "2"]);
    // The repeated publish gets the first answer also after the channel has ended.
    store.close(&name("a")).await.unwrap();
    assert!(store.publish(publication("a", 7)).await.unwrap().repeated);
    // Of two concurrent publishes with the same key, one is stored.
    let both = tokio::join!(store.publish(publication("c", 1)), store.publish(publication("c", 1)));
    let (one, two) = (both.0.unwrap(), both.1.unwrap());
    assert!(one.ids == two.ids && one.repeated != two.repeated);
}

async fn the_state_is_the_newest_event_of_each_key(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, .. } = open(Limits { retain_events: 2, ..LIMITS }).await;
    for (key, data) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4"), ("b", "")] {
        publish(&*store, "x", vec![event(Some(key), data)]).await;
    }
    let last = publish_one(&*store, "x", "no key").await;
    let state = store.state(&name("x")).await.unwrap();
    let datas: Vec<_> = state.events.iter().map(|stored| &*stored.event.data).collect();
    assert_eq!(datas, ["3", "4"], "oldest first, kept although the log is trimmed");
    assert_eq!(state.position, last);
    publish(&*store, "x", vec![event(Some("a"), ""), event(Some("c"), "5"), event(Some("c"), "")])
        .await;
    assert!(store.state(&name("x")).await.unwrap().events.is_empty());
    assert!(!store.log_state(&name("x")).await.unwrap().keyed);
}

async fn a_channel_ends_and_opens_again(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, .. } = open(LIMITS).await;
    let before = publish(&*store, "a", vec![event(Some("k"), "1")]).await[0];
    let end = store.close(&name("a")).await.unwrap();
    assert_eq!(store.close(&name("a")).await.unwrap(), end);
    let refused =
        Publication { channel: name("a"), events: vec![event(None, "2")], idempotency: None };
    assert_eq!(store.publish(refused.clone()).await, Err(StoreError::Closed));
    let log_state = store.log_state(&name("a")).await.unwrap();
    assert!(log_state.closed && log_state.bounds.last == end);
    let page = store.read(&name("a"), before, ALL).await.unwrap();
    assert!(page.events.len() == 1 && page.events[0].event.is_end());
    // A client that joins now still receives the end.
    assert_eq!(store.position_before(&name("a"), u64::MAX).await.unwrap(), before);
    assert_eq!(store.state(&name("a")).await.unwrap().position, before);
    store.reopen(&name("a")).await.unwrap();
    assert!(store.publish(refused).await.unwrap().ids[0] > end);
    assert_eq!(datas(&*store, "a", EventId::START).await, ["1", "{}", "2"]);
    // A channel without any publish does not exist, and closing or reopening it stores nothing.
    assert_eq!(store.close(&name("new")).await, Err(StoreError::NoChannel));
    assert_eq!(store.reopen(&name("new")).await, Err(StoreError::NoChannel));
    assert_eq!(store.log_state(&name("new")).await.unwrap().oldest, None);
}

async fn limits_are_errors_that_name_their_flag(open: impl AsyncFn(Limits) -> Subject) {
    let limits = Limits {
        channels: 2,
        keys: 2,
        state_bytes: 400,
        total_bytes: 2_000,
        idempotency_keys: 1,
        ..LIMITS
    };
    let Subject { store, .. } = open(limits).await;
    let try_publish =
        async |channel: &str, key: Option<&str>, data: &str, idempotency: Option<&str>| {
            let idempotency = idempotency.map(|key| Idempotency { key: key.to_owned(), digest: 1 });
            let events = vec![event(key, data)];
            store.publish(Publication { channel: name(channel), events, idempotency }).await
        };
    let refused = |result: Result<Published, StoreError>, expected: &str| match result {
        Err(StoreError::Limit { flag, .. }) => assert_eq!(flag, expected),
        other => panic!("{other:?}"),
    };
    try_publish("a", Some("1"), "x", Some("i")).await.unwrap();
    refused(try_publish("a", None, "x", Some("j")).await, "--max-idempotency-keys");
    try_publish("a", Some("2"), "x", None).await.unwrap();
    refused(try_publish("a", Some("3"), "x", None).await, "--max-keys");
    try_publish("a", Some("2"), "y", None).await.expect("a known key");
    refused(try_publish("a", Some("2"), &"y".repeat(400), None).await, "--max-state-bytes");
    try_publish("b", None, "x", None).await.unwrap();
    refused(try_publish("c", None, "x", None).await, "--max-channels");
    refused(try_publish("a", None, &"y".repeat(2_000), None).await, "--max-store-bytes");
    try_publish("a", Some("1"), "", None).await.expect("room is made by removing");
    try_publish("a", Some("3"), "x", None).await.expect("and then used");
}

async fn an_erased_channel_has_nothing_but_its_end(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, .. } = open(LIMITS).await;
    assert_eq!(store.erase(&name("a")).await, Err(StoreError::NoChannel));
    let before = publish_one(&*store, "b", "stays").await;
    publish(&*store, "a", (0..9).map(|n| event(Some(&format!("key {n}")), "x")).collect()).await;
    let end = store.erase(&name("a")).await.unwrap();
    for _ in 0..2 {
        let page = store.read(&name("a"), before, ALL).await.unwrap();
        assert!(page.closed && page.events.len() == 1 && page.events[0].event.is_end());
        assert!(page.bounds.misses(before) && page.bounds.last >= end);
        assert!(store.state(&name("a")).await.unwrap().events.is_empty());
        let size = store.size(&name("a")).await.unwrap();
        assert_eq!((size.events, size.keys, size.state_bytes), (1, 0, 0));
        // It can be repeated.
        store.erase(&name("a")).await.unwrap();
    }
    store.reopen(&name("a")).await.unwrap();
    publish(&*store, "a", vec![event(Some("key 1"), "new")]).await;
    assert_eq!(store.state(&name("a")).await.unwrap().events.len(), 1);
    assert_eq!(datas(&*store, "b", EventId::START).await, ["stays"]);
}

async fn the_listener_hears_of_all_in_order_with_no_break(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, told, .. } = open(LIMITS).await;
    for n in 0..20 {
        let channel = ["a", "b"][n % 2];
        publish(&*store, channel, (0..=n % 3).map(|_| event(None, "x")).collect()).await;
    }
    store.close(&name("a")).await.unwrap();
    store.settle(0).await;
    let told = std::mem::take(&mut *told.0.lock().unwrap());
    for channel in ["a", "b"] {
        let page = store.read(&name(channel), EventId::START, ALL).await.unwrap();
        let of_channel = told.iter().filter(|(name, ..)| name.as_str() == channel);
        let (mut last, mut heard) = (page.bounds.beginning, Vec::new());
        for (_, previous, events) in of_channel {
            assert_eq!(*previous, last);
            heard.extend(events.iter().cloned());
            last = heard[heard.len() - 1].id;
        }
        assert_eq!(heard, page.events);
    }
}

async fn a_position_before_an_instant_is_found(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, clock, is_redis, .. } = open(Limits { retain_events: 3, ..LIMITS }).await;
    let beginning = store.log_state(&name("a")).await.unwrap().bounds.beginning;
    assert_eq!(store.position_before(&name("a"), u64::MAX).await.unwrap(), beginning);
    let mut ids = Vec::new();
    for n in 0..5_usize {
        ids.push(publish_one(&*store, "a", &n.to_string()).await);
        // Each event has its own millisecond, by the clock of the local stores and by that of Redis.
        while clock.now().min(now_ms()) <= ids[n].ms {
            tokio::task::yield_now().await;
        }
    }
    let before = async |ms| store.position_before(&name("a"), ms).await.unwrap();
    assert_eq!(before(u64::MAX).await, ids[4]);
    assert_eq!(before(ids[4].ms).await, ids[3]);
    assert_eq!(before(ids[3].ms).await, ids[2]);
    assert_eq!(before(ids[2].ms).await, ids[1], "the place after which events are kept");
    assert_eq!(before(0).await, if is_redis { beginning } else { ids[1] });
}

async fn ids_never_go_back_when_the_clock_does(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, clock, .. } = open(LIMITS).await;
    let first = publish_one(&*store, "a", "1").await;
    clock.correct(-3_600_000);
    let second = publish_one(&*store, "a", "2").await;
    assert!(second > first);
    clock.correct(0);
    assert!(publish_one(&*store, "a", "3").await > second);
    assert_eq!(datas(&*store, "a", first).await, ["2", "3"]);
}

async fn publishes_at_once_are_all_stored_once(open: impl AsyncFn(Limits) -> Subject) {
    let Subject { store, .. } = open(LIMITS).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { publish_one(&*store, "a", &n.to_string()).await });
    }
    let mut ids: Vec<_> = tasks.join_all().await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    let mut stored = datas(&*store, "a", EventId::START).await;
    stored.sort_by_key(|data| data.parse::<u32>().unwrap());
    assert_eq!(stored, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
}
