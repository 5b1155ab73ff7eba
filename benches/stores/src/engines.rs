//! The engines, each with a checksum on every event and one sync for each commit.

use headwater::sync::clock::Clock;
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, Event, StoredEvent};
use headwater::store::local::{Backing, LocalConfig, LocalStore, FILE_BYTES};
use headwater::store::{Limits, Listener, PageLimit, Publication, Store};
use redb::{Database, ReadableDatabase, TableDefinition};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use xxhash_rust::xxh3::xxh3_64;

/// A place to keep events of one channel.
pub trait Engine: Send + Sync {
    /// Whether commits from several threads are put together by the engine.
    const GROUPS_COMMITS: bool;
    /// Stores events; they are durable when this returns.
    fn commit(&self, events: &[Vec<u8>]);
    /// Reads all events in pages, each with its checksum checked; how many they are.
    fn read_all(&self, page: usize) -> usize;
}

pub struct Redb {
    database: Database,
    next: AtomicU64,
}

const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

impl Redb {
    pub fn open(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a directory");
        let mut builder = Database::builder();
        builder.set_cache_size(32 << 20);
        let database = builder.create(path.join("events.redb")).expect("it opens");
        Self { database, next: AtomicU64::new(0) }
    }
}

impl Engine for Redb {
    const GROUPS_COMMITS: bool = false;

    fn commit(&self, events: &[Vec<u8>]) {
        let mut transaction = self.database.begin_write().expect("it begins");
        transaction.set_quick_repair(true);
        let mut table = transaction.open_table(EVENTS).expect("a table");
        for event in events {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            table.insert(number, checked(event).as_slice()).expect("it is stored");
        }
        drop(table);
        transaction.commit().expect("it is durable");
    }

    fn read_all(&self, page: usize) -> usize {
        let mut count = 0;
        loop {
            let transaction = self.database.begin_read().expect("it begins");
            let table = transaction.open_table(EVENTS).expect("a table");
            let rows = table.range(count as u64..).expect("a range").take(page);
            let read = rows.map(|row| check(row.expect("a row").1.value())).count();
            count += read;
            if read < page {
                return count;
            }
        }
    }
}

pub struct Fjall {
    database: fjall::Database,
    events: fjall::Keyspace,
    next: AtomicU64,
}

impl Fjall {
    pub fn open(path: &Path) -> Self {
        let database = fjall::Database::builder(path).open().expect("it opens");
        let options = fjall::KeyspaceCreateOptions::default;
        let events = database.keyspace("events", options).expect("a keyspace");
        Self { database, events, next: AtomicU64::new(0) }
    }
}

impl Engine for Fjall {
    const GROUPS_COMMITS: bool = false;

    fn commit(&self, events: &[Vec<u8>]) {
        let mut batch = self.database.batch();
        for event in events {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            batch.insert(&self.events, number.to_be_bytes(), checked(event));
        }
        batch.commit().expect("it is stored");
        self.database.persist(fjall::PersistMode::SyncData).expect("it is durable");
    }

    fn read_all(&self, page: usize) -> usize {
        let mut count = 0;
        loop {
            let rows = self.events.range((count as u64).to_be_bytes()..).take(page);
            let read = rows.map(|row| check(&row.value().expect("a row"))).count();
            count += read;
            if read < page {
                return count;
            }
        }
    }
}

fn checked(event: &[u8]) -> Vec<u8> {
    let mut row = xxh3_64(event).to_be_bytes().to_vec();
    row.extend_from_slice(event);
    row
}

fn check(row: &[u8]) {
    let (checksum, event) = row.split_first_chunk::<8>().expect("a checksum");
    assert_eq!(u64::from_be_bytes(*checksum), xxh3_64(event));
}

pub struct Headwater {
    store: LocalStore,
    runtime: Runtime,
}

struct Deaf;

impl Listener for Deaf {
    fn appended(&self, _: &ChannelName, _: EventId, _: &[StoredEvent]) {}
    fn lost_place(&self) {}
}

impl Headwater {
    pub fn open(path: &Path) -> Self {
        let limits = Limits {
            retain_age: Duration::from_secs(86_400),
            retain_events: u64::MAX,
            retain_bytes: u64::MAX,
            channels: 1_000,
            channel_idle: Duration::from_secs(86_400),
            keys: 1_000,
            state_bytes: 1 << 20,
            total_bytes: u64::MAX,
            idempotency_age: Duration::from_secs(600),
            idempotency_keys: 1_000,
        };
        let timeout = Duration::from_secs(60);
        let config = LocalConfig { timeout, reserve: 0, file_bytes: FILE_BYTES };
        let backing = Backing::Directory(path.to_owned());
        let store = LocalStore::open(backing, config, limits, Clock::default(), Arc::new(Deaf));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        Self { store: store.expect("it opens"), runtime }
    }
}

impl Engine for Headwater {
    const GROUPS_COMMITS: bool = true;

    fn commit(&self, events: &[Vec<u8>]) {
        let text = |event: &Vec<u8>| String::from_utf8(event.clone()).expect("text");
        let events = events.iter().map(|event| Event::stored(None, None, &text(event))).collect();
        let channel = ChannelName::parse("bench").expect("a name");
        let publication = Publication { channel, events, idempotency: None };
        self.runtime.block_on(self.store.publish(publication)).expect("it is stored");
    }

    fn read_all(&self, page: usize) -> usize {
        let channel = ChannelName::parse("bench").expect("a name");
        let limit = PageLimit { events: page, bytes: 64 << 10 };
        let (mut position, mut count) = (EventId::START, 0);
        loop {
            let read = self.runtime.block_on(self.store.read(&channel, position, limit));
            let read = read.expect("it reads");
            count += read.events.len();
            position = read.events.last().map_or(position, |stored| stored.id);
            if read.complete {
                return count;
            }
        }
    }
}

impl Drop for Headwater {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.stop());
    }
}
