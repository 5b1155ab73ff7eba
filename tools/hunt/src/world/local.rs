//! The store of a world with one origin and no Redis: the real store, on a disk whose power fails.
//!
//! The logs against which the clients are checked have each event that the store has passed on. When
//! the log is opened again after a crash, all of these events must still be there.

use super::World;
use super::origin::Feed;
use super::redis::Redis;
use crate::disk::files::{Disk, Faults};
use crate::random::Random;
use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, StoredEvent};
use headwater::hub::Hub;
use headwater::hub::registry::ChannelRegistry;
use headwater::store::local::stepped::Steps;
use headwater::store::local::{LocalConfig, LocalStore};
use headwater::store::{EventSink, Limits, PageLimit, Store};
use headwater::sync::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const CONFIG: LocalConfig =
    LocalConfig { timeout: Duration::from_secs(2), reserve: 0, file_bytes: 4 * 1024 };
const ALL: PageLimit = PageLimit { events: 100_000, bytes: 1 << 30 };
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
/// The time between two sweeps of the store.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The machine of the origin, whose disk outlives each process.
pub struct Machine {
    disk: Disk,
    retain_events: u64,
}

/// Passes stored events on to the streams, and to the logs that clients are checked with.
struct Recorder {
    redis: Arc<Redis>,
    registry: Arc<ChannelRegistry>,
    feed: Arc<Feed>,
}

impl EventSink for Recorder {
    fn appended(&self, channel: &ChannelName, previous: EventId, events: &[StoredEvent]) {
        self.redis.record(channel, events);
        self.feed.receive(channel, events, self.redis.now());
        self.registry.appended(channel, previous, events);
    }

    fn lost_place(&self) {
        self.registry.lost_place();
    }
}

impl Machine {
    pub fn new(retain: usize) -> Self {
        Self { disk: Disk::new(), retain_events: retain as u64 }
    }

    /// Opens the log, and checks that no event is lost that the store had passed on.
    pub async fn open(
        &self,
        world: &World,
        clock: Clock,
        registry: Arc<ChannelRegistry>,
        feed: Arc<Feed>,
    ) -> Result<(Arc<LocalStore>, Steps), String> {
        let limits = Limits {
            retain_events: self.retain_events,
            retain_age: MONTH,
            channel_idle: MONTH,
            idempotency_age: MONTH,
            ..Limits::default()
        };
        let recorder = Arc::new(Recorder { redis: world.redis.clone(), registry, feed });
        let files = Arc::new(self.disk.clone());
        let opened = LocalStore::open_stepped(files, CONFIG, limits, clock, recorder);
        let (store, steps) =
            opened.map_err(|error| format!("the log cannot be opened: {error}"))?;
        for name in &world.channels {
            let page = store.read(name, EventId::START, ALL).await;
            let page = page.map_err(|error| format!("{name} cannot be read: {error}"))?;
            world.redis.recover(name, &page)?;
        }
        Ok((Arc::new(store), steps))
    }

    /// The power fails after some more changes of the disk.
    pub fn begin_to_fail(&self, random: &mut Random) {
        self.disk.begin(Random::of(random.number(), "torn", 0), Faults::default());
        self.disk.fail_after(random.below(4));
    }

    /// The process has ended. Where the power has failed, the disk loses what was not synced.
    pub fn process_has_ended(&self, random: &mut Random) {
        match self.disk.is_off() {
            true => self.disk.restart(random),
            false => self.disk.end_process(),
        }
    }
}

/// Does the work of the threads of a store.
pub async fn run(mut steps: Steps, hub: Arc<Hub>, feed: Arc<Feed>, mut random: Random) {
    loop {
        tokio::time::sleep(Duration::from_millis(random.choose(&[1, 1, 2, 7]))).await;
        let known = feed.count();
        while steps.write() {}
        if feed.count() > known && feed.ends_at_event.swap(false, Ordering::Relaxed) {
            hub.end_streams();
        }
        while steps.maintain() {}
    }
}

/// Sweeps the store, as an origin does.
pub async fn sweep(store: Arc<LocalStore>) {
    loop {
        tokio::time::sleep(SWEEP_PAUSE).await;
        store.sweep().await;
    }
}
