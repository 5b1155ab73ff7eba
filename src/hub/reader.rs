//! Reads one or more channels after a position, as one stream of SSE events.
//!
//! One code path reads old and new events: new events come from the tail buffer, and earlier ones
//! from the store in pages. Each read continues after the position of the last one, so no event is
//! lost between them. A reader holds at most one page for each channel. Events of several channels
//! are merged by id, and each is sent with a cursor for all of them.

use crate::core::cursor::{Cursor, EventId};
use crate::core::event::ChannelName;
use crate::core::sse::{self, Format};
use crate::core::tail_buffer::{CHUNK_BYTES, Chunk, Read};
use crate::hub::channel::Channel;
use crate::hub::registry::Lease;
use crate::limits::budget::{Budget, Charge};
use crate::store::{Page, PageLimit, Store, StoreError};
use crate::sync::plants::{Plant, is_planted};
use crate::sync::waiters::Registration;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use tokio::sync::Semaphore;

/// Limits of one page of old events.
const PAGE: PageLimit = PageLimit { events: 1_000, bytes: 64 * 1024 };
/// Memory that such a page and the events encoded from it take, in bytes.
const PAGE_MEMORY_BYTES: usize = 2 * PAGE.bytes;

/// A stream of events after a position.
pub struct Reader {
    store: Arc<dyn Store>,
    budget: Budget,
    /// Of all readers that share this semaphore, only one has a page at a time.
    turn: Option<Arc<Semaphore>>,
    tails: Vec<Tail>,
    /// The number of subscribers that receive the events.
    subscribers: usize,
    /// Events with ids from this instant (ms) on belong to the next response.
    until_ms: u64,
    paging: Option<Paging>,
    merge: MergeMemory,
}

/// The memory for the pages of several channels. It is reserved in one step: two readers that each
/// held one page and waited for a second one would deadlock.
struct MergeMemory {
    /// The charge is held from the first page until no event of any page is left.
    charge: Option<Charge>,
    /// The share of each channel, in bytes.
    share: usize,
}

/// The place of a reader in one channel. From the same places on, two readers of the same channels
/// read the same events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The id of the last event that was handed out.
    pub position: EventId,
    /// Whether that was an event that ends the channel. The reader then reads nothing more of it,
    /// also if it is opened again.
    pub is_ended: bool,
}

/// Encoded consecutive events, ready to send.
#[derive(Debug)]
pub struct Delivery {
    /// The encoded events.
    pub bytes: Bytes,
    /// The number of events.
    pub events: u64,
}

/// The next step of a stream.
#[derive(Debug)]
pub enum Step {
    /// The next events.
    Events(Delivery),
    /// Every channel has ended, and all of its events were read.
    Ended,
}

/// The reason why a stream cannot go on without missing events.
#[derive(Debug)]
pub enum ReadFailure {
    /// The next event is no longer kept.
    FellBehind,
    /// The store no longer has events that this reader has already handed out, or it fails.
    Store(String),
}

struct Tail {
    waiting: Registration<Channel>,
    lease: Lease,
    position: EventId,
    /// Events that were read but not merged yet, without their `id:` lines. Empty in a stream of
    /// one channel.
    ahead: VecDeque<Chunk>,
    progress: Progress,
}

/// The reading state of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The channel has to be read.
    Reading,
    /// The store had no more events when the tail buffer was in this state. The reader waits until
    /// that state changes.
    AtHead { generation: u64, base: Option<EventId> },
    /// All events before `until_ms` were read.
    AtLimit,
    /// An event that ends the channel was read.
    Ended,
}

type PageFuture =
    std::pin::Pin<Box<dyn Future<Output = Result<(Page, Option<Charge>), StoreError>> + Send>>;

struct Paging {
    tail: usize,
    generation: u64,
    base: Option<EventId>,
    page: PageFuture,
}

impl Reader {
    /// Returns a reader of `leases`, each with the position after which it begins, for events
    /// before `until_ms`.
    pub fn new(
        store: Arc<dyn Store>,
        budget: Budget,
        leases: Vec<(Lease, EventId)>,
        until_ms: u64,
    ) -> Self {
        let tails = leases.into_iter().map(|(lease, position)| Tail {
            waiting: Registration::new(Arc::clone(&lease)),
            lease,
            position,
            ahead: VecDeque::new(),
            progress: Progress::Reading,
        });
        let merge = MergeMemory { charge: None, share: PAGE_MEMORY_BYTES };
        let (tails, subscribers, turn, paging) = (tails.collect(), 0, None, None);
        let mut reader = Self { store, budget, turn, tails, subscribers, until_ms, paging, merge };
        reader.set_subscribers(1);
        reader
    }

    /// Notes the number of subscribers that receive the events, which is 1 at first.
    pub fn set_subscribers(&mut self, count: usize) {
        for tail in &self.tails {
            tail.lease.subscribers.fetch_add(count, Ordering::Relaxed);
            tail.lease.subscribers.fetch_sub(self.subscribers, Ordering::Relaxed);
        }
        self.subscribers = count;
    }

    /// From now on the reader reads a page only while no other reader with the same semaphore does.
    pub fn take_turns(&mut self, turn: Arc<Semaphore>) {
        self.turn = Some(turn);
    }

    /// Returns a reader of the same channels that continues at `places`.
    pub fn fork(&self, places: &[Place]) -> Self {
        let leases = self.tails.iter().map(|tail| tail.lease.again());
        let leases = leases.zip(places.iter().map(|place| place.position)).collect();
        let mut fork = Self::new(self.store.clone(), self.budget.clone(), leases, self.until_ms);
        for (tail, place) in fork.tails.iter_mut().zip(places) {
            if place.is_ended {
                tail.progress = Progress::Ended;
            }
        }
        fork
    }

    /// Returns the place of the reader in each channel.
    pub fn places(&self) -> Box<[Place]> {
        let place = |tail: &Tail| Place {
            position: tail.position,
            is_ended: tail.progress == Progress::Ended,
        };
        self.tails.iter().map(place).collect()
    }

    /// Returns the names of the channels, in the order of the positions.
    pub fn names(&self) -> Vec<ChannelName> {
        self.tails.iter().map(|tail| tail.lease.name().clone()).collect()
    }

    /// Returns the encoding of the events.
    pub fn format(&self) -> Format {
        self.tails.first().map_or(Format::Raw, |tail| tail.lease.format())
    }

    /// Returns the position of each channel up to which all events were handed out.
    pub fn positions(&self) -> Vec<EventId> {
        self.tails.iter().map(|tail| tail.position).collect()
    }

    /// Returns the newest position of each channel in memory, for [`Plant::CursorSkip`].
    pub fn newest_positions(&self) -> Vec<EventId> {
        let newest = |tail: &Tail| tail.lease.buffer().last().unwrap_or(tail.position);
        self.tails.iter().map(newest).collect()
    }

    /// Whether everything of channels that have all ended was handed out.
    pub fn is_over(&self) -> bool {
        self.tails.iter().all(|tail| tail.progress == Progress::Ended)
    }

    /// Whether the reader waits for a page of the store.
    pub fn is_paging(&self) -> bool {
        self.paging.is_some()
    }

    /// Returns the next events: at most about `bytes_max` bytes, but at least one event.
    ///
    /// # Errors
    /// Fails when the stream cannot go on without missing events. The stream must then be broken
    /// off.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<Result<Step, ReadFailure>> {
        loop {
            let read = match self.tails.len() {
                1 => self.read_one(context.waker(), bytes_max),
                _ => self.read_merged(context.waker(), bytes_max),
            };
            if let Some(delivery) = read {
                return Poll::Ready(Ok(Step::Events(delivery)));
            }
            let Some(mut paging) = self.paging.take() else {
                return if self.is_over() { Poll::Ready(Ok(Step::Ended)) } else { Poll::Pending };
            };
            let polled = paging.page.as_mut().poll(context);
            match polled.map_err(|error| ReadFailure::Store(error.to_string()))? {
                Poll::Pending => {
                    self.paging = Some(paging);
                    return Poll::Pending;
                }
                Poll::Ready((page, charge)) => {
                    if let Some(delivery) = self.take_page(paging, page, charge)? {
                        return Poll::Ready(Ok(Step::Events(delivery)));
                    }
                }
            }
        }
    }

    /// Reads a stream of one channel, whose encoded events go out unchanged.
    fn read_one(&mut self, waker: &Waker, bytes_max: usize) -> Option<Delivery> {
        let (until_ms, tail) = (self.until_ms, &mut self.tails[0]);
        if self.paging.is_some() || !tail.may_read(waker) {
            return None;
        }
        let read =
            tail.lease.buffer().read(tail.position, until_ms, bytes_max.min(TAIL_READ_BYTES));
        match read {
            Read::Events(chunk) => {
                tail.passed(&chunk);
                return Some(Delivery { bytes: chunk.bytes, events: chunk.events });
            }
            Read::CaughtUp => {}
            Read::BeforeTail => self.ask_store(0, bytes_max),
        }
        None
    }

    /// Reads a stream of several channels. The earliest event of all channels goes first, with the
    /// joined cursor.
    fn read_merged(&mut self, waker: &Waker, bytes_max: usize) -> Option<Delivery> {
        let bytes_max = bytes_max.min(CHUNK_BYTES);
        let (mut bytes, mut events) = (Vec::new(), 0);
        while self.fill_ahead(waker) && bytes.len() < bytes_max {
            let heads = self.tails.iter().enumerate();
            let heads = heads.filter_map(|(index, tail)| Some((tail.ahead.front()?.last, index)));
            let Some((_, first)) = heads.min() else { break };
            let tail = &mut self.tails[first];
            let Some(chunk) = tail.ahead.pop_front() else { break };
            tail.passed(&chunk);
            let cursor = Cursor { positions: self.positions(), mark: None };
            sse::id_line(&mut bytes, &cursor.to_string());
            bytes.extend_from_slice(&chunk.bytes);
            events += 1;
        }
        if self.paging.is_none() && self.tails.iter().all(|tail| tail.ahead.is_empty()) {
            self.merge.charge = None;
        }
        (events > 0).then(|| Delivery { bytes: bytes.into(), events })
    }

    /// Reads ahead in every channel that has nothing ahead. Returns `false` if a channel needs a
    /// page of the store first, because until then it is not known which event comes next.
    fn fill_ahead(&mut self, waker: &Waker) -> bool {
        if self.paging.is_some() {
            return false;
        }
        for index in 0..self.tails.len() {
            let tail = &mut self.tails[index];
            if !tail.ahead.is_empty() || !tail.may_read(waker) {
                continue;
            }
            let read = tail.lease.buffer().read_each(tail.position, self.until_ms, CHUNK_BYTES);
            match read {
                Ok(chunks) => tail.ahead.extend(chunks),
                Err(Read::BeforeTail) => {
                    self.ask_store(index, PAGE.bytes);
                    return false;
                }
                Err(_) => {}
            }
        }
        true
    }

    fn ask_store(&mut self, index: usize, bytes_max: usize) {
        let tail = &self.tails[index];
        let (generation, base) = {
            let log = tail.lease.buffer();
            (log.generation(), log.base())
        };
        let (store, position) = (self.store.clone(), tail.position);
        let name = tail.lease.name().clone();
        let limit = PageLimit { bytes: PAGE.bytes.min(bytes_max), ..PAGE };
        let (budget, turn) = (self.budget.clone(), self.turn.clone());
        let page: PageFuture = if self.tails.len() == 1 {
            Box::pin(async move {
                let turn = match turn {
                    Some(turn) => turn.acquire_owned().await.ok(),
                    None => None,
                };
                let (page, charge) = charged_page(&*store, &budget, &name, position, limit).await?;
                Ok((page, Some(charge.with_turn(turn))))
            })
        } else {
            let has_memory = self.merge.charge.is_some();
            let wanted = self.merge.share * self.tails.len();
            Box::pin(async move {
                let charge = if has_memory { None } else { Some(budget.charge(wanted).await) };
                Ok((store.read(&name, position, limit).await?, charge))
            })
        };
        self.paging = Some(Paging { tail: index, generation, base, page });
    }

    fn take_page(
        &mut self,
        paging: Paging,
        page: Page,
        mut charge: Option<Charge>,
    ) -> Result<Option<Delivery>, ReadFailure> {
        let is_merged = self.tails.len() > 1;
        if is_merged {
            self.merge.charge = self.merge.charge.take().or(charge.take());
            let needed = page_memory(&page);
            if needed > self.merge.share {
                self.restart_merge(needed);
                return Ok(None);
            }
        }
        let tail = &mut self.tails[paging.tail];
        if page.bounds.misses(tail.position) && !is_planted(Plant::CleanEnd) {
            return Err(ReadFailure::FellBehind);
        }
        if page.bounds.last < tail.position {
            return Err(ReadFailure::Store("the log ends before what was already sent".to_owned()));
        }
        // Only the store can tell whether an ended channel was reopened, so the tail buffer does
        // not begin after an end.
        if page.complete && !page.closed {
            let bounds = page.bounds;
            tail.lease.buffer().begin_at(paging.generation, bounds.beginning, bounds.last);
        }
        let (out, events) = tail.take_events(&page, self.until_ms, is_merged);
        if events == 0 && page.complete && tail.progress == Progress::Reading {
            let Paging { generation, base, .. } = paging;
            tail.progress = Progress::AtHead { generation, base };
        }
        if is_merged {
            return Ok(None);
        }
        let bytes = match charge {
            Some(charge) => charge.hold(out),
            None => out.into(),
        };
        Ok((events > 0).then(|| Delivery { bytes, events }))
    }

    /// Drops the events that were read ahead, so that the reader holds no charge while it waits for
    /// the memory of larger events.
    fn restart_merge(&mut self, share: usize) {
        self.merge = MergeMemory { charge: None, share };
        for tail in &mut self.tails {
            if !tail.ahead.is_empty() {
                tail.ahead.clear();
                tail.progress = Progress::Reading;
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.set_subscribers(0);
    }
}

/// Returns the memory that a page and the events encoded from it take, in bytes.
fn page_memory(page: &Page) -> usize {
    2 * page.events.iter().map(|stored| stored.event.weight()).sum::<usize>()
}

/// Reads a page, and charges the memory for its events and their encoded form.
async fn charged_page(
    store: &dyn Store,
    budget: &Budget,
    name: &ChannelName,
    position: EventId,
    limit: PageLimit,
) -> Result<(Page, Charge), StoreError> {
    let mut wanted = PAGE_MEMORY_BYTES;
    loop {
        let charge = budget.charge(wanted).await;
        let page = store.read(name, position, limit).await?;
        let needed = page_memory(&page);
        if needed <= wanted {
            return Ok((page, charge));
        }
        // The page has an event that is larger than a page. The charge is released before the wait
        // for a larger one.
        wanted = needed;
    }
}

/// Largest number of bytes that one step reads from the tail buffer. With more bytes, the
/// connection of a slow reader would hold more than it can send soon.
const TAIL_READ_BYTES: usize = 4 * CHUNK_BYTES;

impl Tail {
    /// Registers for wake-ups, then returns whether a read may find events.
    fn may_read(&mut self, waker: &Waker) -> bool {
        if self.progress != Progress::Reading || !is_planted(Plant::LostWakeUp) {
            self.waiting.register(waker);
        }
        match self.progress {
            Progress::Reading => true,
            Progress::AtLimit | Progress::Ended => false,
            Progress::AtHead { generation, base } => {
                let log = self.lease.buffer();
                let is_changed = log.generation() != generation || log.base() != base;
                drop(log);
                if is_changed {
                    self.progress = Progress::Reading;
                }
                is_changed
            }
        }
    }

    /// Encodes a page's events before `until_ms`, and returns the bytes and the number of events.
    /// In a merge the events stay in `ahead`, without their `id:` lines; otherwise they count as
    /// handed out.
    fn take_events(&mut self, page: &Page, until_ms: u64, is_merged: bool) -> (Vec<u8>, u64) {
        let (mut out, mut events) = (Vec::new(), 0);
        for stored in &page.events {
            if stored.id.ms >= until_ms {
                self.progress = Progress::AtLimit;
                break;
            }
            let is_end = stored.event.is_end();
            let start = out.len();
            if !is_merged {
                sse::id_line(&mut out, &stored.id.to_string());
            }
            self.lease.writer().after_id(&mut out, Some(stored.id), &stored.event);
            events += 1;
            if is_merged {
                let bytes = Bytes::copy_from_slice(&out[start..]);
                self.ahead.push_back(Chunk { bytes, events: 1, last: stored.id, is_end });
            } else {
                self.position = stored.id;
            }
            if is_end {
                // In a merge the `end` event is not handed out yet.
                self.progress = if is_merged { self.progress } else { Progress::Ended };
                break;
            }
        }
        (out, events)
    }

    fn passed(&mut self, chunk: &Chunk) {
        self.position = chunk.last;
        if chunk.is_end {
            self.progress = Progress::Ended;
        }
    }
}
