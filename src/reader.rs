//! Reads one or more channels from a place on, as one stream of event blocks.
//!
//! Replay and live are the same read: what the recent run holds comes from there, what lies before
//! it from the store in pages, and each step begins at a position, so there is no hand-over between
//! them. A reader holds at most one page a channel, asks for the next only when it is polled, and
//! is woken by its channels. Several channels are merged in the order of their ids, and each event
//! carries the cursor of all of them.

use crate::budget::{Budget, Charge};
use crate::channel::Channel;
use crate::cursor::{Cursor, EventId};
use crate::event::ChannelName;
use crate::event_log::{PIECE_BYTES, Piece, Read};
use crate::live::Lease;
use crate::sse;
use crate::store::{Page, PageLimit, Store, StoreError};
use crate::wakers::Waiting;
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
    waiting: Waiting<Channel>,
    lease: Lease,
    position: EventId,
    /// Read but not yet merged; blocks without their `id:` lines. Empty in a stream of one channel.
    ahead: VecDeque<Piece>,
    /// The memory of [`Tail::ahead`], where that is of a page.
    ahead_charge: Option<Charge>,
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
    std::pin::Pin<Box<dyn Future<Output = Result<(Page, Charge), StoreError>> + Send>>;

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
            waiting: Waiting::new(Arc::clone(&lease)),
            lease,
            position,
            ahead: VecDeque::new(),
            ahead_charge: None,
            progress: Progress::Reading,
        });
        Self { store, budget, turn: None, tails: tails.collect(), until_ms, paging: None }
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
            if tail.ahead.is_empty() {
                tail.ahead_charge = None;
            }
            tail.passed(&piece);
            let cursor = Cursor { positions: self.positions(), mark: None };
            sse::id_line(&mut bytes, &cursor.to_string());
            bytes.extend_from_slice(&piece.bytes);
            events += 1;
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
        let page = Box::pin(async move {
            let turn = match turn {
                Some(turn) => turn.acquire_owned().await.ok(),
                None => None,
            };
            let (page, charge) = charged_page(&*store, &budget, &name, position, limit).await?;
            Ok((page, charge.with_turn(turn)))
        });
        self.paging = Some(Paging { tail: index, generation, base, page });
    }

    fn take_page(
        &mut self,
        paging: Paging,
        page: Page,
        charge: Charge,
    ) -> Result<Option<Delivery>, Lost> {
        let is_merged = self.tails.len() > 1;
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
        let (mut out, mut events) = (Vec::new(), 0);
        let mut stopped = None;
        for stored in &page.events {
            if stored.id.ms >= self.until_ms {
                stopped = Some(Progress::AtLimit);
                break;
            }
            let is_end = stored.event.is_end();
            let start = out.len();
            if !is_merged {
                sse::id_line(&mut out, &stored.id.to_string());
            }
            tail.lease.writer().after_id(&mut out, Some(stored.id), &stored.event);
            events += 1;
            if is_merged {
                let bytes = Bytes::copy_from_slice(&out[start..]);
                tail.ahead.push_back(Piece { bytes, events: 1, last: stored.id, is_end });
            } else {
                tail.position = stored.id;
            }
            if is_end {
                stopped = Some(Progress::Ended).filter(|_| !is_merged);
                break;
            }
        }
        let Paging { generation, base, .. } = paging;
        if let Some(progress) = stopped {
            tail.progress = progress;
        } else if events == 0 && page.complete {
            tail.progress = Progress::AtHead { generation, base };
        }
        if is_merged {
            tail.ahead_charge = Some(charge);
            return Ok(None);
        }
        Ok((events > 0).then(|| Delivery { bytes: charge.hold(out), events }))
    }
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
        let weight: usize = page.events.iter().map(|stored| stored.event.weight()).sum();
        let needed = 2 * weight;
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

    fn passed(&mut self, piece: &Piece) {
        self.position = piece.last;
        if piece.is_end {
            self.progress = Progress::Ended;
        }
    }
}
