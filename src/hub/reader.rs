//! Reads one or more channels from a place on, as one stream of event blocks.
//!
//! Replay and live are the same read: what the recent run holds comes from there, what lies before
//! it from the store in pages, and each step begins at a position, so there is no hand-over between
//! them. A reader holds at most one page a channel, asks for the next only when it is polled, and
//! is woken by its channels. Several channels are merged in the order of their ids, and each event
//! carries the cursor of all of them. The memory for the pages of all its channels is charged at
//! once: a reader that waited for a second page while it held a first could wait for readers that
//! wait for it.

use crate::core::cursor::{Cursor, EventId};
use crate::core::event::ChannelName;
use crate::core::sse;
use crate::core::tail_buffer::{PIECE_BYTES, Piece, Read};
use crate::hub::channel::Channel;
use crate::hub::registry::Lease;
use crate::limits::budget::{Budget, Charge};
use crate::store::{Page, PageLimit, Store, StoreError};
use crate::sync::waiters::Registration;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::Semaphore;

/// What one reader may hold of old events.
const PAGE: PageLimit = PageLimit { events: 1_000, bytes: 64 * 1024 };
/// What such a page and the blocks made of it take, in bytes.
const PAGE_MEMORY_BYTES: usize = 2 * PAGE.bytes;

/// A stream of events from a place on.
pub struct Reader {
    store: Arc<dyn Store>,
    budget: Budget,
    /// Of all readers that share it, one at a time has a page.
    turn: Option<Arc<Semaphore>>,
    tails: Vec<Tail>,
    /// Events with ids from this instant (ms) on belong to the next response.
    until_ms: u64,
    paging: Option<Paging>,
    merge: MergeMemory,
}

/// The memory for the pages of a reader of several channels.
struct MergeMemory {
    /// Held from the first page until nothing of any page is left.
    charge: Option<Charge>,
    /// The part of each channel, in bytes.
    share: usize,
}

/// Blocks of consecutive events, ready to send.
#[derive(Debug)]
pub struct Delivery {
    /// The blocks.
    pub bytes: Bytes,
    /// How many events they are.
    pub events: u64,
}

/// The next of a stream.
#[derive(Debug)]
pub enum Step {
    /// Some events.
    Events(Delivery),
    /// Every channel has ended, and all of it was read.
    Ended,
}

/// Why a stream cannot go on without a hole.
#[derive(Debug)]
pub enum Lost {
    /// The next event is no longer kept.
    FellBehind,
    /// The store no longer has what this reader already got, or does not answer.
    Store(String),
}

struct Tail {
    // Before the lease, which looks at how many hold the channel when it is dropped.
    waiting: Registration<Channel>,
    lease: Lease,
    position: EventId,
    /// Read but not yet merged; blocks without their `id:` lines. Empty in a stream of one channel.
    ahead: VecDeque<Piece>,
    progress: Progress,
}

/// What a tail knows of what lies ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Has to look.
    Reading,
    /// The store had nothing more when the run was in this state: wait until that changes.
    AtHead { generation: u64, base: Option<EventId> },
    /// All before `until_ms` is read.
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
    /// A reader of `leases`, each after the place beside it, of events before `until_ms`.
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
        Self { store, budget, turn: None, tails: tails.collect(), until_ms, paging: None, merge }
    }

    /// Reads a page only while no other reader with the same permit does.
    pub fn take_turns(&mut self, turn: Arc<Semaphore>) {
        self.turn = Some(turn);
    }

    /// The place up to which everything was handed out.
    pub fn positions(&self) -> Vec<EventId> {
        self.tails.iter().map(|tail| tail.position).collect()
    }

    /// Whether old events are on their way from the store.
    pub fn is_paging(&self) -> bool {
        self.paging.is_some()
    }

    /// The next events: about `bytes_max` bytes at most, but at least one event.
    ///
    /// # Errors
    /// When the stream cannot go on without a hole. It must then be broken off.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<Result<Step, Lost>> {
        loop {
            let read = match self.tails.len() {
                1 => self.read_one(context.waker(), bytes_max),
                _ => self.read_merged(context.waker(), bytes_max),
            };
            if let Some(delivery) = read {
                return Poll::Ready(Ok(Step::Events(delivery)));
            }
            let Some(mut paging) = self.paging.take() else {
                let is_over = self.tails.iter().all(|tail| tail.progress == Progress::Ended);
                return if is_over { Poll::Ready(Ok(Step::Ended)) } else { Poll::Pending };
            };
            match paging.page.as_mut().poll(context) {
                Poll::Pending => {
                    self.paging = Some(paging);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::Store(error.to_string()))),
                Poll::Ready(Ok((page, charge))) => match self.take_page(paging, page, charge) {
                    Err(lost) => return Poll::Ready(Err(lost)),
                    Ok(Some(delivery)) => return Poll::Ready(Ok(Step::Events(delivery))),
                    Ok(None) => {}
                },
            }
        }
    }

    /// One channel: its blocks go out as they are.
    fn read_one(&mut self, waker: &Waker, bytes_max: usize) -> Option<Delivery> {
        let until_ms = self.until_ms;
        let tail = &mut self.tails[0];
        if self.paging.is_some() || !tail.may_read(waker) {
            return None;
        }
        let read = tail.lease.log().read(tail.position, until_ms, bytes_max.min(RUN_READ_BYTES));
        match read {
            Read::Events(piece) => {
                tail.passed(&piece);
                return Some(Delivery { bytes: piece.bytes, events: piece.events });
            }
            Read::CaughtUp => {}
            Read::BeforeRun => self.ask_store(0, bytes_max),
        }
        None
    }

    /// Several channels: the earliest event of all goes first, with the joined cursor.
    fn read_merged(&mut self, waker: &Waker, bytes_max: usize) -> Option<Delivery> {
        let bytes_max = bytes_max.min(PIECE_BYTES);
        let (mut bytes, mut events) = (Vec::new(), 0);
        while self.fill_ahead(waker) && bytes.len() < bytes_max {
            let heads = self.tails.iter().enumerate();
            let heads = heads.filter_map(|(index, tail)| Some((tail.ahead.front()?.last, index)));
            let Some((_, first)) = heads.min() else { break };
            let tail = &mut self.tails[first];
            let Some(piece) = tail.ahead.pop_front() else { break };
            tail.passed(&piece);
            let cursor = Cursor { positions: self.positions(), mark: None };
            sse::id_line(&mut bytes, &cursor.to_string());
            bytes.extend_from_slice(&piece.bytes);
            events += 1;
        }
        if self.paging.is_none() && self.tails.iter().all(|tail| tail.ahead.is_empty()) {
            self.merge.charge = None;
        }
        (events > 0).then(|| Delivery { bytes: bytes.into(), events })
    }

    /// Reads ahead in every channel that has nothing ahead. `false`: one has to ask the store
    /// first, and until it has, nobody knows which event comes next.
    fn fill_ahead(&mut self, waker: &Waker) -> bool {
        if self.paging.is_some() {
            return false;
        }
        for index in 0..self.tails.len() {
            let tail = &mut self.tails[index];
            if !tail.ahead.is_empty() || !tail.may_read(waker) {
                continue;
            }
            let read = tail.lease.log().read_blocks(tail.position, self.until_ms, PIECE_BYTES);
            match read {
                Ok(pieces) => tail.ahead.extend(pieces),
                Err(Read::BeforeRun) => {
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
            let log = tail.lease.log();
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
        charge: Option<Charge>,
    ) -> Result<Option<Delivery>, Lost> {
        let is_merged = self.tails.len() > 1;
        let mut charge = charge;
        if is_merged {
            self.merge.charge = self.merge.charge.take().or(charge.take());
            let needed = page_memory(&page);
            if needed > self.merge.share {
                self.restart_merge(needed);
                return Ok(None);
            }
        }
        let tail = &mut self.tails[paging.tail];
        if page.bounds.misses(tail.position) {
            return Err(Lost::FellBehind);
        }
        if page.bounds.last < tail.position {
            return Err(Lost::Store("the log ends before what was already sent".to_owned()));
        }
        // Of an ended channel only the store knows whether it was opened again.
        if page.complete && !page.closed {
            tail.lease.log().begin_at(page.bounds.beginning, page.bounds.last);
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

    /// Gives up what was read ahead, to wait without a charge for the memory of larger events.
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

/// What a page and the blocks made of it take, in bytes.
fn page_memory(page: &Page) -> usize {
    2 * page.events.iter().map(|stored| stored.event.weight()).sum::<usize>()
}

/// A page, and what it needs of the memory: its events and the blocks that are made of them.
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
        // An event larger than a page. It is given up before more is waited for.
        wanted = needed;
    }
}

/// Most bytes that one step takes from the run: with more, a slow reader's connection would hold
/// more than it can send soon.
const RUN_READ_BYTES: usize = 4 * PIECE_BYTES;

impl Tail {
    /// Registers for wake-ups, then says whether a look may find something.
    fn may_read(&mut self, waker: &Waker) -> bool {
        self.waiting.register(waker);
        match self.progress {
            Progress::Reading => true,
            Progress::AtLimit | Progress::Ended => false,
            Progress::AtHead { generation, base } => {
                let log = self.lease.log();
                let is_changed = log.generation() != generation || log.base() != base;
                drop(log);
                if is_changed {
                    self.progress = Progress::Reading;
                }
                is_changed
            }
        }
    }

    /// The blocks of a page's events before `until_ms`, and their number. A merge keeps them ahead,
    /// without their `id:` lines; otherwise they are handed out.
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
                self.ahead.push_back(Piece { bytes, events: 1, last: stored.id, is_end });
            } else {
                self.position = stored.id;
            }
            if is_end {
                // A merge has not handed the end out yet.
                self.progress = if is_merged { self.progress } else { Progress::Ended };
                break;
            }
        }
        (out, events)
    }

    fn passed(&mut self, piece: &Piece) {
        self.position = piece.last;
        if piece.is_end {
            self.progress = Progress::Ended;
        }
    }
}
