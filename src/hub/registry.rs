//! The channels in memory: those that somebody reads, or read a moment ago.
//!
//! A channel is here from the moment a reader opens it, and from then on it is told of every event
//! the store accepts; what came before is the store's to give. One that nobody published to leaves
//! with its last reader; the others stay for a minute, because at a boundary all readers leave and
//! come back at once. The memory of all runs together is bounded by one budget.

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, StoredEvent};
use crate::core::sse::Format;
use crate::hub::channel::Channel;
use crate::store::Listener;
use crate::sync::clock::Clock;
use crate::sync::waiters::HasWaiters;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How long a channel without readers stays, in ms.
const LINGER_MS: u64 = 60_000;
/// Most bytes of one channel's run, whatever the budget.
const TAIL_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Channels by name, in each format apart: the bytes of one format are shared by its readers, and
/// a format that no client reads costs nothing.
#[derive(Debug, Default)]
struct Channels {
    raw: HashMap<ChannelName, Arc<Channel>>,
    json: HashMap<ChannelName, Arc<Channel>>,
}

/// The channels in memory.
#[derive(Debug)]
pub struct ChannelRegistry {
    clock: Clock,
    bytes_max: usize,
    channels: Mutex<Channels>,
    dirty: Mutex<Vec<Arc<Channel>>>,
    announce: Notify,
}

/// A reader's hold on a channel: keeps it in memory.
#[derive(Debug)]
pub struct Lease {
    registry: Arc<ChannelRegistry>,
    format: Format,
    channel: Arc<Channel>,
}

impl ChannelRegistry {
    /// No channels yet, and at most about `bytes_max` bytes of recent events in all.
    pub fn new(clock: Clock, bytes_max: usize) -> Self {
        Self {
            clock,
            bytes_max,
            channels: Mutex::default(),
            dirty: Mutex::default(),
            announce: Notify::new(),
        }
    }

    /// Holds a channel in memory, for a reader in `format`.
    pub fn open(self: &Arc<Self>, name: &ChannelName, format: Format) -> Lease {
        let mut channels = self.channels();
        let channel = channels
            .of(format)
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Channel::new(name.clone(), format)))
            .clone();
        Lease { registry: self.clone(), format, channel }
    }

    /// How many channels are in memory; one that is read in two formats counts twice.
    pub fn len(&self) -> usize {
        self.channels().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of each of so many channels' runs.
    fn share(&self, channels: usize) -> usize {
        (self.bytes_max / channels.max(1)).min(TAIL_BUFFER_BYTES_MAX)
    }

    /// Lets go of channels that nobody has read for a while, and of events beyond each one's share.
    pub fn sweep(&self) {
        let now = self.clock.machine_now();
        let mut channels = self.channels();
        for format in [Format::Raw, Format::Json] {
            channels.of(format).retain(|_, channel| {
                let left_at = channel.left_at.load(Ordering::Relaxed);
                Arc::strong_count(channel) > 1 || now < left_at.saturating_add(LINGER_MS)
            });
        }
        // A channel that was alone for a while has more than its share now.
        let share = self.share(channels.len());
        for channel in channels.raw.values().chain(channels.json.values()) {
            channel.log().set_bytes_max(share);
        }
    }

    /// Wakes readers for as long as it is polled. Apart from the appending, so that the store does
    /// not wait for ten thousand wake-ups; and events that come while it works share the next.
    pub async fn announce(&self) {
        loop {
            self.announce.notified().await;
            let dirty = std::mem::take(&mut *self.dirty());
            for channel in dirty {
                channel.is_dirty.store(false, Ordering::Release);
                channel.waiters().wake_all();
                tokio::task::yield_now().await;
            }
        }
    }

    fn mark_dirty(&self, channel: Arc<Channel>) {
        if channel.mark_dirty() {
            self.dirty().push(channel);
            self.announce.notify_one();
        }
    }

    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dirty(&self) -> MutexGuard<'_, Vec<Arc<Channel>>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channels {
    fn of(&mut self, format: Format) -> &mut HashMap<ChannelName, Arc<Channel>> {
        match format {
            Format::Raw => &mut self.raw,
            Format::Json => &mut self.json,
        }
    }

    fn len(&self) -> usize {
        self.raw.len() + self.json.len()
    }
}

impl Listener for ChannelRegistry {
    fn appended(&self, channel: &ChannelName, previous: EventId, events: &[StoredEvent]) {
        // An event of a later instant than now would wait for the end of a response.
        if let Some(last) = events.last() {
            self.clock.at_least(last.id.ms);
        }
        let (formats, count) = {
            let channels = self.channels();
            let formats = [channels.raw.get(channel).cloned(), channels.json.get(channel).cloned()];
            (formats, channels.len())
        };
        for channel in formats.into_iter().flatten() {
            channel.append(previous, events, self.share(count));
            self.mark_dirty(channel);
        }
    }

    fn lost_place(&self) {
        let all: Vec<_> = {
            let channels = self.channels();
            channels.raw.values().chain(channels.json.values()).cloned().collect()
        };
        for channel in all {
            channel.reset();
            self.mark_dirty(channel);
        }
    }
}

impl Deref for Lease {
    type Target = Arc<Channel>;

    fn deref(&self) -> &Arc<Channel> {
        &self.channel
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.channel.left_at.store(self.registry.clock.machine_now(), Ordering::Relaxed);
        let is_unused = self.channel.log().is_unused();
        if is_unused && !self.channel.holds_state() {
            let mut channels = self.registry.channels();
            // This hold and the map's: nobody else reads it, and under the lock nobody can begin.
            if Arc::strong_count(&self.channel) == 2 {
                channels.of(self.format).remove(self.channel.name());
            }
        }
    }
}
