//! A thread that sends streams to its subscribers.
//!
//! It waits for three things: sockets (a blocked one can be written to, or a client has
//! disconnected), streams that have something new, and subscribers that join. Then every group
//! that has something to send gets one slice, so that a large group delays a small one by one slice
//! at most.

use super::group::{AfterSlice, Group, Joiner, Subscribers, WindowLimits};
use crate::hub::event_stream::StreamKey;
use mio::{Events, Poll, Token};
use parking_lot::Mutex;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

/// The token of the pump's own waker. The tokens of the sockets are the keys of the subscribers.
const WAKER: Token = Token(usize::MAX);
/// Most events of sockets that are read at once.
const EVENTS_MAX: usize = 1_024;
/// Most bytes of the windows of a pump's groups in all, however much memory there is.
const WINDOWS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The part of the bytes for slow subscribers that joiners have beside them.
const HISTORIES_PART: usize = 4;
/// Most bytes of one window, whatever the share.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;
const HISTORY_BYTES_MAX: usize = 16 * 1024;
/// The pause between two comparisons of the loads of the pumps.
const BALANCE_PAUSE: Duration = Duration::from_secs(1);
/// A pump gives subscribers away when it has more than this part of its share, and this number,
/// beyond its share.
const IMBALANCE_PART: usize = 4;
const IMBALANCE_MIN: usize = 64;
/// Most subscribers that a pump gives away at once.
const MOVED_MAX: usize = 256;

/// The part of a pump that other threads use.
pub struct Shared {
    waker: mio::Waker,
    /// Whether the pump waits, and has to be woken.
    is_asleep: AtomicBool,
    inbox: Mutex<Inbox>,
    /// The number of subscribers.
    load: AtomicUsize,
}

/// The shared parts of all pumps.
pub type AllPumps = Arc<[Arc<Shared>]>;

#[derive(Default)]
struct Inbox {
    joiners: Vec<Joiner>,
    /// The groups whose streams have something new.
    woken: Vec<usize>,
    must_stop: bool,
}

/// The state of a pump.
pub struct Pump {
    poll: Poll,
    shared: Arc<Shared>,
    subscribers: Subscribers,
    groups: Slab<GroupSlot>,
    by_key: HashMap<StreamKey, usize>,
    /// The groups that have something to send, in the order of their turns.
    turns: VecDeque<usize>,
    /// All pumps, with this one.
    pumps: AllPumps,
    /// Most bytes of the windows of all groups for slow subscribers. Each group has an equal share.
    windows_bytes: usize,
    balanced_at: Instant,
}

/// A group, with what the pump knows of it.
struct GroupSlot {
    group: Group,
    key: StreamKey,
    waker: Arc<GroupWaker>,
    has_turn: bool,
    /// Whether the stream has something new. It is polled after the pass that is running.
    needs_poll: bool,
}

/// Notes that the stream of a group has something new.
struct GroupWaker {
    pump: Arc<Shared>,
    group: usize,
    is_noted: AtomicBool,
}

impl Shared {
    /// Adds a subscriber.
    pub fn join(&self, joiner: Joiner) {
        self.load.fetch_add(1, Ordering::Relaxed);
        self.inbox.lock().joiners.push(joiner);
        self.wake();
    }

    /// Ends the pump, and closes the connections that it still has.
    pub fn stop(&self) {
        self.inbox.lock().must_stop = true;
        self.wake();
    }

    /// Returns the number of subscribers.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if self.is_asleep.swap(false, Ordering::AcqRel) {
            // Without a wake-up the pump would continue at the next event of any socket.
            self.waker.wake().ok();
        }
    }
}

impl Wake for GroupWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_noted.swap(true, Ordering::AcqRel) {
            self.pump.inbox.lock().woken.push(self.group);
            self.pump.wake();
        }
    }
}

impl Pump {
    /// Creates `count` pumps without subscribers, whose windows share `windows_bytes` bytes.
    ///
    /// # Errors
    /// Fails when the process has no file descriptor left.
    pub fn all(count: usize, windows_bytes: usize) -> io::Result<(Vec<Self>, AllPumps)> {
        let polls = (0..count).map(|_| Poll::new()).collect::<io::Result<Vec<Poll>>>()?;
        let shared = |poll: &Poll| {
            Ok(Arc::new(Shared {
                waker: mio::Waker::new(poll.registry(), WAKER)?,
                is_asleep: AtomicBool::new(false),
                inbox: Mutex::default(),
                load: AtomicUsize::new(0),
            }))
        };
        let all: Arc<[_]> = polls.iter().map(shared).collect::<io::Result<Vec<_>>>()?.into();
        let pumps = polls.into_iter().zip(&*all);
        let bytes = (windows_bytes / count.max(1)).min(WINDOWS_BYTES_MAX);
        let pumps = pumps.map(|(poll, shared)| Self::new(poll, shared.clone(), all.clone(), bytes));
        Ok((pumps.collect::<io::Result<_>>()?, all))
    }

    fn new(
        poll: Poll,
        shared: Arc<Shared>,
        pumps: AllPumps,
        windows_bytes: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            subscribers: Subscribers::new(poll.registry().try_clone()?),
            poll,
            shared,
            groups: Slab::new(),
            by_key: HashMap::new(),
            turns: VecDeque::new(),
            pumps,
            balanced_at: Instant::now(),
            windows_bytes,
        })
    }

    /// Sends until the pump is stopped. The thread must be in the context of a runtime, because
    /// streams read from the store.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            if let Err(error) = self.wait(&mut events)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "sockets cannot be polled");
            }
            // No subscriber joins between the poll and here, so no event concerns a later
            // subscriber with the same key.
            events.iter().for_each(|event| self.socket_event(event));
            let Inbox { joiners, woken, must_stop } =
                std::mem::take(&mut *self.shared.inbox.lock());
            if must_stop {
                return;
            }
            for group in woken {
                if let Some(slot) = self.groups.get_mut(group) {
                    slot.waker.is_noted.store(false, Ordering::Release);
                    slot.needs_poll = true;
                    self.give_turn(group);
                }
            }
            joiners.into_iter().for_each(|joiner| self.join(joiner));
            self.balance();
            for _ in 0..self.turns.len() {
                self.take_turn();
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        self.shared.load.store(self.subscribers.len(), Ordering::Relaxed);
        let mut timeout = Some(Duration::ZERO);
        if self.turns.is_empty() {
            self.shared.is_asleep.store(true, Ordering::SeqCst);
            let inbox = self.shared.inbox.lock();
            if inbox.joiners.is_empty() && inbox.woken.is_empty() && !inbox.must_stop {
                timeout = None;
            }
        }
        let polled = self.poll.poll(events, timeout);
        self.shared.is_asleep.store(false, Ordering::Release);
        polled
    }

    fn socket_event(&mut self, event: &mio::event::Event) {
        let key = event.token().0;
        let Some(group) = self.subscribers.group_of(key) else { return };
        let Some(slot) = self.groups.get_mut(group) else { return };
        if event.is_error() || event.is_write_closed() {
            slot.group.drop_gone(key, &mut self.subscribers);
        }
        // A client that closes its sending side during a stream counts as disconnected.
        if event.is_read_closed() {
            slot.group.drop_closed(key, &mut self.subscribers);
        }
        if event.is_writable() {
            slot.group.unblock(key, &mut self.subscribers);
        }
        self.give_turn(group);
    }

    fn join(&mut self, joiner: Joiner) {
        let group = self.group_of(&joiner);
        self.poll_group(group);
        if let Some(slot) = self.groups.get_mut(group) {
            slot.group.join(joiner, &mut self.subscribers);
        }
        self.give_turn(group);
    }

    /// Returns the group that sends the joiner's stream. The first joiner begins it.
    fn group_of(&mut self, joiner: &Joiner) -> usize {
        let stream = &joiner.stream.stream;
        let key = stream.key();
        if let Some(group) = self.by_key.get(&key) {
            return *group;
        }
        let entry = self.groups.vacant_entry();
        let id = entry.key();
        let stream = stream.fork(&stream.places(), usize::MAX);
        let waker = Arc::new(GroupWaker {
            pump: self.shared.clone(),
            group: id,
            is_noted: AtomicBool::new(false),
        });
        let group = Group::new(id, stream);
        entry.insert(GroupSlot {
            group,
            key: key.clone(),
            waker,
            has_turn: false,
            needs_poll: false,
        });
        self.by_key.insert(key, id);
        id
    }

    /// Lets subscribers leave if this pump has many more than the others. Their tasks then choose
    /// the pump with the fewest.
    fn balance(&mut self) {
        if self.balanced_at.elapsed() < BALANCE_PAUSE {
            return;
        }
        self.balanced_at = Instant::now();
        let all: usize = self.pumps.iter().map(|pump| pump.load()).sum();
        let share = all.div_ceil(self.pumps.len().max(1));
        let excess = self.subscribers.len().saturating_sub(share);
        if excess <= share / IMBALANCE_PART + IMBALANCE_MIN {
            return;
        }
        if let Some((_, slot)) = self.groups.iter_mut().max_by_key(|(_, slot)| slot.group.len()) {
            slot.group.move_away(excess.min(MOVED_MAX), &mut self.subscribers);
        }
    }

    fn poll_group(&mut self, group: usize) {
        let Some(slot) = self.groups.get_mut(group) else { return };
        slot.needs_poll = false;
        let waker = Waker::from(slot.waker.clone());
        let is_more = slot.group.poll(&mut Context::from_waker(&waker)).is_ready();
        if !slot.group.is_open() {
            // A later joiner of the same stream begins another group.
            if self.by_key.get(&slot.key) == Some(&group) {
                self.by_key.remove(&slot.key);
            }
        } else if is_more {
            waker.wake();
        }
    }

    fn give_turn(&mut self, group: usize) {
        if let Some(slot) = self.groups.get_mut(group)
            && !std::mem::replace(&mut slot.has_turn, true)
        {
            self.turns.push_back(group);
        }
    }

    /// Gives the next group its turn: one slice of a pass.
    fn take_turn(&mut self) {
        let Some(group) = self.turns.pop_front() else { return };
        let Some(slot) = self.groups.get_mut(group) else { return };
        slot.has_turn = false;
        if slot.needs_poll && slot.group.is_between_passes() {
            self.poll_group(group);
        }
        let count = self.groups.len().max(1);
        let limits = WindowLimits {
            slow: (self.windows_bytes / count).min(WINDOW_BYTES_MAX),
            history: (self.windows_bytes / HISTORIES_PART / count).min(HISTORY_BYTES_MAX),
        };
        let Some(slot) = self.groups.get_mut(group) else { return };
        match slot.group.slice(&mut self.subscribers, limits) {
            AfterSlice::Unfinished => self.give_turn(group),
            AfterSlice::Idle if slot.needs_poll => self.give_turn(group),
            AfterSlice::Idle => {}
            AfterSlice::Empty => {
                let slot = self.groups.remove(group);
                if self.by_key.get(&slot.key) == Some(&group) {
                    self.by_key.remove(&slot.key);
                }
            }
        }
    }
}
