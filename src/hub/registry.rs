//! The channels in memory: those that have readers, or had readers a moment ago.
//!
//! A channel is in the registry from the moment at which its first reader arrives. From then on
//! every event that the store accepts for this channel is appended to its tail buffer; earlier
//! events come from the store. A channel that never had an event is removed together with its last
//! reader. Other channels stay for a minute after their last reader has left, because at a boundary
//! all readers leave and come back at once. One budget bounds the memory of all tail buffers
//! together.
//!
//! A new event reaches a stream in these steps. The store calls `appended`, which appends the event
//! to the channel (`channel.rs`). If the channel has at most `WOKEN_AT_ONCE_MAX` waiters, they are
//! woken immediately; otherwise [`ChannelRegistry::announce`] wakes them. A waiter is a group of a
//! pump (`fanout`), or a task that serves one response. It polls its stream (`event_stream.rs`),
//! whose reader (`reader.rs`) reads the tail buffer.

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, StoredEvent};
use crate::core::sse::Format;
use crate::hub::channel::Channel;
use crate::store::{ChannelFilter, EventSink, deleted_channel};
use crate::sync::clock::Clock;
use crate::sync::plants::{Plant, is_planted};
use crate::sync::waiters::HasWaiters;
use crate::telemetry::traces::Traces;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::Notify;

/// How long a channel without readers stays in memory, in ms.
const LINGER_MS: u64 = 60_000;
/// Most readers that the thread of the store wakes by itself. A wake-up of a reader takes about a
/// microsecond.
const WOKEN_AT_ONCE_MAX: usize = 8;
/// Largest size of one channel's tail buffer in bytes, whatever the budget.
const TAIL_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The channels by name, in one map for each format. The readers of a format share its bytes, and a
/// format without readers costs nothing.
#[derive(Debug, Default)]
struct Channels {
    raw: HashMap<ChannelName, Arc<Channel>>,
    json: HashMap<ChannelName, Arc<Channel>>,
}

/// The registry of the channels in memory.
#[derive(Debug)]
pub struct ChannelRegistry {
    clock: Clock,
    bytes_max: usize,
    channels: Mutex<Channels>,
    dirty: Mutex<Vec<Arc<Channel>>>,
    announce: Notify,
    traces: Arc<Traces>,
}

/// The lease of a reader on a channel. It keeps the channel in memory.
#[derive(Debug)]
pub struct Lease {
    registry: Arc<ChannelRegistry>,
    format: Format,
    channel: Arc<Channel>,
}

impl ChannelRegistry {
    /// Returns an empty registry, whose tail buffers have at most about `bytes_max` bytes in all.
    pub fn new(clock: Clock, bytes_max: usize) -> Self {
        Self {
            clock,
            bytes_max,
            channels: Mutex::default(),
            dirty: Mutex::default(),
            announce: Notify::new(),
            traces: Arc::default(),
        }
    }

    /// Returns the same registry, which notes the events of traced publishes.
    #[must_use]
    pub fn with_traces(self, traces: Arc<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Returns the traces of the process.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Returns a lease on a channel for a reader in `format`, and creates the channel if it is not
    /// in memory.
    pub fn open(self: &Arc<Self>, name: &ChannelName, format: Format) -> Lease {
        let mut channels = self.channels.lock();
        let channel = channels
            .of(format)
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Channel::new(name.clone(), format)))
            .clone();
        channel.readers.fetch_add(1, Ordering::Relaxed);
        Lease { registry: self.clone(), format, channel }
    }

    /// Returns the number of channels in memory. A channel that is read in two formats counts
    /// twice.
    pub fn len(&self) -> usize {
        self.channels.lock().len()
    }

    /// Whether no channel is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the largest size of each tail buffer, in bytes, when `channels` channels are in
    /// memory.
    fn share(&self, channels: usize) -> usize {
        (self.bytes_max / channels.max(1)).min(TAIL_BUFFER_BYTES_MAX)
    }

    /// Returns the number of subscribers of a channel at this origin.
    pub fn subscribers(&self, name: &ChannelName) -> usize {
        let channels = self.channels.lock();
        let formats = [channels.raw.get(name), channels.json.get(name)].into_iter().flatten();
        formats.map(|channel| channel.subscribers.load(Ordering::Relaxed)).sum()
    }

    /// Adds the names of the channels with subscribers to `names`, as far as `filter` selects them.
    pub fn collect_names(&self, filter: &ChannelFilter, names: &mut BTreeSet<ChannelName>) {
        let channels = self.channels.lock();
        for (name, channel) in channels.raw.iter().chain(&channels.json) {
            if channel.subscribers.load(Ordering::Relaxed) > 0 {
                filter.collect(names, name);
            }
        }
    }

    /// Removes channels that had no reader for a while, and drops the events that exceed the share
    /// of their channel.
    pub fn sweep(&self) {
        let now = self.clock.machine_now();
        let mut channels = self.channels.lock();
        for format in [Format::Raw, Format::Json] {
            channels.of(format).retain(|_, channel| {
                let left_at = channel.left_at.load(Ordering::Relaxed);
                let is_read = channel.readers.load(Ordering::Relaxed) > 0;
                is_read || now < left_at.saturating_add(LINGER_MS)
            });
        }
        // The share shrinks when channels are added, so a tail buffer may exceed it now.
        let share = self.share(channels.len());
        for channel in channels.raw.values().chain(channels.json.values()) {
            channel.buffer().set_bytes_max(share);
        }
    }

    /// Wakes the readers of channels with new events, for as long as the future is polled. This is
    /// separate from appending, so that the store does not wait for ten thousand wake-ups. Events
    /// that arrive during the wake-ups share the next one.
    pub async fn announce(&self) {
        loop {
            self.announce.notified().await;
            let dirty = std::mem::take(&mut *self.dirty.lock());
            for channel in dirty {
                channel.is_dirty.store(false, Ordering::Release);
                channel.waiters().wake_all();
                tokio::task::yield_now().await;
            }
        }
    }

    /// Wakes the readers of a channel: at once where they are few, as the groups of the pumps are.
    fn wake_readers(&self, channel: Arc<Channel>) {
        match channel.waiters().len() <= WOKEN_AT_ONCE_MAX {
            true => {
                channel.waiters().wake_all();
            }
            false => self.mark_dirty(channel),
        }
    }

    /// Drops everything that is in memory of a channel. Its readers continue from the store.
    fn reset(&self, channel: Arc<Channel>) {
        channel.reset();
        self.mark_dirty(channel);
    }

    /// Returns a channel in every format in which it is in memory, and the number of all channels.
    fn in_memory(&self, name: &ChannelName) -> ([Option<Arc<Channel>>; 2], usize) {
        let channels = self.channels.lock();
        ([channels.raw.get(name).cloned(), channels.json.get(name).cloned()], channels.len())
    }

    fn mark_dirty(&self, channel: Arc<Channel>) {
        if channel.mark_dirty() {
            self.dirty.lock().push(channel);
            self.announce.notify_one();
        }
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

impl EventSink for ChannelRegistry {
    fn appended(&self, channel: &ChannelName, previous: EventId, events: &[StoredEvent]) {
        // If an event had a later time than the clock, a stream could keep it back until its next
        // response.
        if let Some(last) = events.last() {
            self.clock.at_least(last.id.ms);
        }
        if channel.is_reserved() {
            let deleted = events.iter().filter_map(|stored| deleted_channel(&stored.event));
            let channels = deleted.flat_map(|name| self.in_memory(&name).0).flatten();
            channels.for_each(|channel| self.reset(channel));
        }
        let (formats, count) = self.in_memory(channel);
        if formats.iter().any(Option::is_some) {
            self.traces.stored(channel, events);
        }
        for channel in formats.into_iter().flatten() {
            channel.append(previous, events, self.share(count));
            self.wake_readers(channel);
        }
    }

    fn lost_place(&self) {
        if is_planted(Plant::EarlyServe) {
            return;
        }
        let mut all: Vec<_> = {
            let channels = self.channels.lock();
            channels.raw.values().chain(channels.json.values()).cloned().collect()
        };
        if cfg!(feature = "plants") {
            // In a simulation the order must not depend on the hashes of the names.
            all.sort_by(|a, b| a.name().cmp(b.name()));
        }
        all.into_iter().for_each(|channel| self.reset(channel));
    }
}

impl Lease {
    /// Returns another lease on the same channel.
    pub fn again(&self) -> Self {
        self.registry.open(self.channel.name(), self.format)
    }

    /// Returns the encoding of the events.
    pub fn format(&self) -> Format {
        self.format
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
        let channel = &self.channel;
        channel.left_at.store(self.registry.clock.machine_now(), Ordering::Relaxed);
        let is_kept = !channel.buffer().is_unused() || channel.holds_state();
        // While the registry is locked, no other reader can open the channel.
        let mut channels = self.registry.channels.lock();
        let is_last = channel.readers.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_last && !is_kept {
            channels.of(self.format).remove(channel.name());
        }
    }
}
