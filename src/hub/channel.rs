//! A channel in memory, for its readers in one format: its tail buffer, and the tasks that wait for
//! its next events.
//!
//! Its locks are held for a few instructions and never across an await. All readers share the tail
//! buffer. The fresh joins of one segment share one snapshot of the state, if the memory budget has
//! room to keep it. The channel has no queue for any reader.

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, StoredEvent};
use crate::core::segment::Segment;
use crate::core::sse::{EventWriter, Format};
use crate::core::tail_buffer::TailBuffer;
use crate::limits::budget::{Budget, Charge, Exhausted};
use crate::store::{PageLimit, State, Store, StoreError};
use crate::sync::background;
use crate::sync::plants::{Plant, is_planted};
use crate::sync::waiters::{HasWaiters, WaiterList};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::OnceCell;

/// One channel in memory, for its readers in one format.
#[derive(Debug)]
pub struct Channel {
    name: ChannelName,
    writer: EventWriter,
    buffer: Mutex<TailBuffer>,
    waiters: WaiterList,
    /// The snapshots with which the fresh joins of a segment begin, by the instant at which the
    /// segment began.
    fresh: Mutex<BTreeMap<u64, Arc<OnceCell<Fresh>>>>,
    /// Whether events were appended and the readers were not woken yet.
    pub(crate) is_dirty: AtomicBool,
    /// The instant at which a reader last left, in ms.
    pub(crate) left_at: AtomicU64,
    /// The number of leases. It changes only while the registry is locked.
    pub(crate) readers: AtomicUsize,
    /// The number of subscribers. One reader of a pump sends to all subscribers of a group.
    pub(crate) subscribers: AtomicUsize,
}

/// The snapshot with which a fresh join begins.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The position after which the live events follow.
    pub position: EventId,
    /// The encoded events of the state, if the channel has one.
    pub state: Option<Bytes>,
    /// The charge for the copy that is kept for later joins, if the budget had room for it.
    kept: Option<Arc<Charge>>,
}

/// Memory that is charged for a state before its size is known, in bytes.
const STATE_MEMORY_BYTES: usize = 64 * 1024;

/// The reason why a stream cannot begin, or why a state cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The store failed.
    Store(StoreError),
    /// Other responses leave no memory for it.
    NoMemory(Exhausted),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Exhausted> for ReadError {
    fn from(exhausted: Exhausted) -> Self {
        Self::NoMemory(exhausted)
    }
}

/// Reads the state of a channel, and charges the memory for its events and for a text that is made
/// of them.
///
/// # Errors
/// Fails when the store does not answer, or when no memory becomes free in time.
pub async fn charged_state(
    store: &dyn Store,
    budget: &Budget,
    name: &ChannelName,
) -> Result<(State, Charge), ReadError> {
    let mut wanted = STATE_MEMORY_BYTES;
    loop {
        let charge = budget.charge_in_time(wanted).await?;
        let state = store.state(name).await?;
        let weight: usize = state.events.iter().map(|stored| stored.event.weight() + 64).sum();
        let needed = 3 * weight;
        if needed <= wanted {
            return Ok((state, charge));
        }
        // The charge is released before the wait for a larger one.
        wanted = needed;
    }
}

impl Channel {
    pub(crate) fn new(name: ChannelName, format: Format) -> Self {
        let writer = EventWriter::new(name.clone(), format);
        Self {
            name,
            buffer: Mutex::new(TailBuffer::new(writer.clone(), 0)),
            writer,
            waiters: WaiterList::default(),
            fresh: Mutex::default(),
            is_dirty: AtomicBool::new(false),
            left_at: AtomicU64::new(0),
            readers: AtomicUsize::new(0),
            subscribers: AtomicUsize::new(0),
        }
    }

    /// Returns the name of the channel.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Returns the writer that encodes the events in the format of the readers.
    pub fn writer(&self) -> &EventWriter {
        &self.writer
    }

    /// Locks the tail buffer. Keep the guard for a few instructions only.
    pub fn buffer(&self) -> MutexGuard<'_, TailBuffer> {
        self.buffer.lock()
    }

    /// Appends events. The caller has to wake the readers.
    pub(crate) fn append(&self, previous: EventId, events: &[StoredEvent], bytes_max: usize) {
        let mut log = self.buffer();
        log.set_bytes_max(bytes_max);
        log.append(previous, events);
    }

    /// Drops everything that was read from the store.
    pub(crate) fn reset(&self) {
        self.buffer().reset();
        self.fresh.lock().clear();
    }

    /// Marks the channel's readers to be woken. Returns whether they were not marked before.
    pub(crate) fn mark_dirty(&self) -> bool {
        !self.is_dirty.swap(true, Ordering::AcqRel)
    }

    /// Returns the snapshot with which all fresh joins of a segment begin. It is read from the
    /// store once per segment, so that all of them get the same bytes.
    ///
    /// # Errors
    /// Fails when the store does not answer, or when no memory becomes free in time.
    pub async fn snapshot_in(
        &self,
        segment: Segment,
        store: &dyn Store,
        budget: &Budget,
    ) -> Result<Fresh, ReadError> {
        let starts_at = segment.starts_at;
        let cell = self.fresh_cell(segment);
        let start = || self.begin_fresh(starts_at, store, budget);
        let fresh = cell.get_or_try_init(start).await?.clone();
        if fresh.state.is_some() && fresh.kept.is_none() {
            // The budget has no room to keep another copy, so each later join makes its own.
            self.fresh.lock().remove(&starts_at);
        }
        if self.buffer().covers(fresh.position) {
            return Ok(fresh);
        }
        // The position is not in the tail buffer. The store must still keep the events after it, or
        // the stream would begin with missing events.
        let nothing = PageLimit { events: 0, bytes: 0 };
        let page = store.read(&self.name, fresh.position, nothing).await?;
        if !page.bounds.misses(fresh.position) && fresh.position <= page.bounds.last {
            return Ok(fresh);
        }
        self.fresh.lock().remove(&starts_at);
        self.begin_fresh(starts_at, store, budget).await
    }

    async fn begin_fresh(
        &self,
        starts_at: u64,
        store: &dyn Store,
        budget: &Budget,
    ) -> Result<Fresh, ReadError> {
        let log_state = store.log_state(&self.name).await?;
        if !log_state.keyed {
            let position = self.buffer().position_before(starts_at);
            let position = match position.filter(|_| !self.buffer().is_ended()) {
                Some(position) => position,
                None => store.position_before(&self.name, starts_at).await?,
            };
            return Ok(Fresh { position, state: None, kept: None });
        }
        // While no event is published, segments of different lanes begin with the same state.
        let known: Vec<_> =
            self.fresh.lock().values().filter_map(|cell| cell.get().cloned()).collect();
        let is_same =
            |fresh: &Fresh| fresh.state.is_some() && fresh.position == log_state.bounds.last;
        if let Some(same) = known.into_iter().find(is_same) {
            return Ok(same);
        }
        let (state, charge) = charged_state(store, budget, &self.name).await?;
        let position = match is_planted(Plant::LateState) {
            true => log_state.bounds.last,
            false => state.position,
        };
        let writer = self.writer.clone();
        // Encoding a large state takes milliseconds, and other requests must not wait for it.
        let blocks = background::run(move || {
            let mut blocks = Vec::new();
            for stored in &state.events {
                writer.after_id(&mut blocks, None, &stored.event);
            }
            charge.hold(blocks)
        });
        let blocks = blocks.await.map_err(|error| StoreError::Down(error.to_string()))?;
        let kept = budget.keep(blocks.len()).map(Arc::new);
        Ok(Fresh { position, state: Some(blocks), kept })
    }

    /// Whether the channel keeps a copy of its state for later joins. Such a copy takes work to
    /// make.
    pub(crate) fn holds_state(&self) -> bool {
        let fresh = self.fresh.lock();
        fresh.values().any(|cell| cell.get().is_some_and(|fresh| fresh.kept.is_some()))
    }

    fn fresh_cell(&self, segment: Segment) -> Arc<OnceCell<Fresh>> {
        let mut fresh = self.fresh.lock();
        let length = segment.ends_at - segment.starts_at;
        // Each lane has its own running segment. The snapshots of segments that are over are
        // dropped.
        fresh.retain(|starts_at, _| starts_at + length > segment.starts_at);
        fresh.entry(segment.starts_at).or_default().clone()
    }
}

impl HasWaiters for Channel {
    fn waiters(&self) -> &WaiterList {
        &self.waiters
    }
}
