//! A channel that somebody reads: its recent run, and who waits for more of it.
//!
//! One lock, held for a few instructions and never across an await. Readers share the run and what
//! a fresh join of a segment begins with; the channel knows no reader by name and queues for none.

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, StoredEvent};
use crate::core::segment::Segment;
use crate::core::sse::{EventWriter, Format};
use crate::core::tail_buffer::TailBuffer;
use crate::limits::budget::{Budget, Charge, Exhausted};
use crate::store::{PageLimit, State, Store, StoreError};
use crate::sync::background;
use crate::sync::waiters::{HasWaiters, WaiterList};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// One channel in memory, as its readers in one format have it.
#[derive(Debug)]
pub struct Channel {
    name: ChannelName,
    writer: EventWriter,
    log: Mutex<TailBuffer>,
    waiters: WaiterList,
    /// What the fresh joins of a segment begin with, by the instant at which the segment began.
    fresh: Mutex<BTreeMap<u64, Arc<OnceCell<Fresh>>>>,
    /// Appended to, and the readers not yet woken.
    pub(crate) is_dirty: AtomicBool,
    /// When the last reader left, in ms.
    pub(crate) left_at: AtomicU64,
}

/// What a fresh join begins with.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The place the live events follow.
    pub position: EventId,
    /// The blocks of the state, where the channel has one.
    pub state: Option<Bytes>,
    /// Its place among the copies that are kept for later joins.
    kept: Option<Arc<Charge>>,
}

/// What a state is charged for before its size is known, in bytes.
const STATE_MEMORY_BYTES: usize = 64 * 1024;

/// Why a stream cannot begin, or a state cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The store failed.
    Store(StoreError),
    /// Other answers leave no memory for it.
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

/// A state, and what it needs of the memory: its events and a text that is made of them.
///
/// # Errors
/// When the store does not answer, or there is no memory in time.
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
        // It is given up before more is waited for.
        wanted = needed;
    }
}

impl Channel {
    pub(crate) fn new(name: ChannelName, format: Format) -> Self {
        let writer = EventWriter::new(name.clone(), format);
        Self {
            name,
            log: Mutex::new(TailBuffer::new(writer.clone(), 0)),
            writer,
            waiters: WaiterList::default(),
            fresh: Mutex::default(),
            is_dirty: AtomicBool::new(false),
            left_at: AtomicU64::new(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Writes its events in the format of its readers.
    pub fn writer(&self) -> &EventWriter {
        &self.writer
    }

    /// The recent run. Keep the guard for a few instructions only.
    pub fn log(&self) -> MutexGuard<'_, TailBuffer> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events; the caller sees to the wake-up.
    pub(crate) fn append(&self, previous: EventId, events: &[StoredEvent], bytes_max: usize) {
        let mut log = self.log();
        log.set_bytes_max(bytes_max);
        log.append(previous, events);
    }

    /// Forgets all that was read from the store.
    pub(crate) fn reset(&self) {
        self.log().reset();
        self.fresh().clear();
    }

    /// Whether the channel's readers were marked to be woken by this call.
    pub(crate) fn mark_dirty(&self) -> bool {
        !self.is_dirty.swap(true, Ordering::AcqRel)
    }

    /// What all fresh joins of a segment begin with: read from the store once a segment, so they
    /// all get the same bytes.
    ///
    /// # Errors
    /// When the store does not answer, or there is no memory in time.
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
            // There is no room for one copy more: those that join later have their own.
            self.fresh().remove(&starts_at);
        }
        if self.log().covers(fresh.position) {
            return Ok(fresh);
        }
        // Not in the run: it must still be kept, or the stream would begin with a hole.
        let nothing = PageLimit { events: 0, bytes: 0 };
        let page = store.read(&self.name, fresh.position, nothing).await?;
        if !page.bounds.misses(fresh.position) && fresh.position <= page.bounds.last {
            return Ok(fresh);
        }
        self.fresh().remove(&starts_at);
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
            let position = self.log().position_before(starts_at);
            let position = match position.filter(|_| !self.log().is_ended()) {
                Some(position) => position,
                None => store.position_before(&self.name, starts_at).await?,
            };
            return Ok(Fresh { position, state: None, kept: None });
        }
        // Segments of several lanes begin with the same state while nothing is published.
        let known: Vec<_> = self.fresh().values().filter_map(|cell| cell.get().cloned()).collect();
        let is_same =
            |fresh: &Fresh| fresh.state.is_some() && fresh.position == log_state.bounds.last;
        if let Some(same) = known.into_iter().find(is_same) {
            return Ok(same);
        }
        let (state, charge) = charged_state(store, budget, &self.name).await?;
        let (position, writer) = (state.position, self.writer.clone());
        // A large state takes milliseconds, in which other requests shall not wait.
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

    /// Whether it has a copy of its state for later joins, which took work to make.
    pub(crate) fn holds_state(&self) -> bool {
        let fresh = self.fresh();
        fresh.values().any(|cell| cell.get().is_some_and(|fresh| fresh.kept.is_some()))
    }

    fn fresh_cell(&self, segment: Segment) -> Arc<OnceCell<Fresh>> {
        let mut fresh = self.fresh();
        let length = segment.ends_at - segment.starts_at;
        // Each lane has its own current segment; those that are over are forgotten.
        fresh.retain(|starts_at, _| starts_at + length > segment.starts_at);
        fresh.entry(segment.starts_at).or_default().clone()
    }

    fn fresh(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<OnceCell<Fresh>>>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HasWaiters for Channel {
    fn waiters(&self) -> &WaiterList {
        &self.waiters
    }
}
