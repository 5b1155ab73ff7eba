//! A group: the subscribers of one pump that receive the same stream, that is, the same channels,
//! format and end.
//!
//! Everything that a stream costs is paid once for the group: its reader, its timers, its framing.
//! A subscriber is a socket and an offset in the group's window.
//!
//! The group sends in passes. Before a pass the stream is polled. The pass then writes to each
//! subscriber, with one system call, everything that this subscriber has not been sent yet. With
//! more subscribers a pass takes longer. The events that arrive during a pass are sent together in
//! the next one, so the number of system calls does not grow with the number of events. A pass is
//! cut into slices, and other groups of the pump send between two slices.

use super::socket::Socket;
use super::window::{Point, Window};
use crate::core::caching::Ending;
use crate::hub::event_stream::{CountedStream, EventStream, StreamAborted, StreamAccount};
use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Most bytes that one poll of a stream adds to the window. More bytes wait for the next pass.
const POLL_BYTES_MAX: u64 = 64 * 1024;
/// Most subscribers to which one slice writes: about half a millisecond.
const SLICE: usize = 256;

/// How many bytes the window of a group may keep.
#[derive(Clone, Copy, Debug)]
pub struct WindowLimits {
    /// For slow subscribers. A subscriber that is further behind leaves the group and catches up on
    /// its own, from the tail buffer or the store.
    pub slow: usize,
    /// After every subscriber has got them, so that a joiner that read the same events a moment
    /// earlier finds its place.
    pub history: usize,
}

/// One subscriber.
pub struct Subscriber {
    /// The socket.
    pub socket: Socket,
    /// The group of the subscriber, and its place among the members.
    group: usize,
    member: usize,
    /// The offset in the window up to which everything was sent.
    offset: u64,
    /// The point up to which the account has counted.
    counted: Point,
    /// The byte of the group's stream after which this subscriber's stream ends early.
    payload_max: u64,
    is_blocked: bool,
    account: StreamAccount,
    reply: oneshot::Sender<Outcome>,
}

/// Why a subscriber left its group.
pub enum Outcome {
    /// The response is complete, and the connection can serve the next request.
    Complete(Socket),
    /// The subscriber has to continue on its own: it is too slow for the group or not at its place,
    /// or its stream has to end early.
    Leave(Box<Leaver>),
    /// The client has disconnected, or the stream was aborted.
    Gone,
}

/// A subscriber that continues outside of its group.
pub struct Leaver {
    /// The connection.
    pub socket: Socket,
    /// The bytes that have to be sent before anything else.
    pub rest: Bytes,
    /// The stream after those bytes, or `None` if they end the response.
    pub stream: Option<EventStream>,
    /// The account of the stream.
    pub account: StreamAccount,
}

/// A subscriber that wants to join a group.
pub struct Joiner {
    /// The connection. Everything up to the places of the stream was sent.
    pub socket: Socket,
    /// The stream.
    pub stream: Box<CountedStream>,
    /// Where the outcome is sent to.
    pub reply: oneshot::Sender<Outcome>,
}

impl Joiner {
    fn refuse(self) {
        let Self { socket, stream, reply } = self;
        let CountedStream { stream, account } = *stream;
        let leaver = Leaver { socket, rest: Bytes::new(), stream: Some(stream), account };
        reply.send(Outcome::Leave(Box::new(leaver))).ok();
    }
}

/// The group.
pub struct Group {
    id: usize,
    stream: EventStream,
    window: Window,
    members: Vec<usize>,
    blocked: HashSet<usize>,
    /// The offset up to which the running pass sends, or the last one has sent.
    pass_end: u64,
    /// The members below this index have not been visited in this pass. The pass goes backwards, so
    /// that a member that leaves or joins meanwhile leaves no other member out.
    unvisited: usize,
    needs_pass: bool,
    /// The time, in ms, of an event that no pass has sent yet: about the oldest one.
    unsent_since: Option<u64>,
    /// The events and bytes that were sent and are not in the metrics yet.
    sent: (u64, u64),
    end: Option<Result<Ending, StreamAborted>>,
}

/// The state of a group after a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSlice {
    /// There is more to do at once.
    Unfinished,
    /// The group waits for its stream, or for blocked subscribers.
    Idle,
    /// The group has no members any more.
    Empty,
}

/// The subscribers of a pump, of all its groups, and the poll that watches their sockets.
pub struct Subscribers {
    slab: Slab<Subscriber>,
    registry: Registry,
}

impl Group {
    /// Creates a group without members that continues `stream`.
    pub fn new(id: usize, stream: EventStream) -> Self {
        let mut stream = stream.without_bytes_max();
        stream.set_subscribers(0);
        Self {
            id,
            window: Window::new(stream.places()),
            stream,
            members: Vec::new(),
            blocked: HashSet::new(),
            pass_end: 0,
            unvisited: 0,
            needs_pass: false,
            unsent_since: None,
            sent: (0, 0),
            end: None,
        }
    }

    /// Whether the stream can have new members.
    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Whether no pass is running. Between two passes the stream may be polled.
    pub fn is_between_passes(&self) -> bool {
        self.unvisited == 0
    }

    /// Adds a subscriber, if the window still has all bytes after its place. Otherwise the
    /// subscriber goes back, to read on by itself.
    pub fn join(&mut self, joiner: Joiner, subscribers: &mut Subscribers) {
        // A stream that has ended has sent its end; the joiner's own stream ends in the same way.
        let chunk_end =
            self.window.at(&joiner.stream.stream.places()).filter(|_| self.end.is_none());
        let Some(chunk_end) = chunk_end else { return joiner.refuse() };
        let Joiner { socket, stream, reply } = joiner;
        let CountedStream { stream, account } = *stream;
        let bytes_left = stream.bytes_left() as u64;
        // The mark of a joiner counts only while no event follows its place. The group may have read
        // events that the joiner receives now.
        let is_newest = chunk_end.point.end == self.window.end();
        let least_mark = if is_newest { stream.least_mark() } else { 0 };
        let subscriber = Subscriber {
            socket,
            group: self.id,
            member: self.members.len(),
            offset: chunk_end.point.end,
            counted: chunk_end.point,
            payload_max: chunk_end.point.payload.saturating_add(bytes_left),
            is_blocked: false,
            account,
            reply,
        };
        // If the process has no memory left to watch the socket, the connection is closed.
        let Ok(key) = subscribers.insert(subscriber) else { return };
        self.members.push(key);
        self.stream.set_subscribers(self.members.len());
        self.stream.raise_least_mark(least_mark);
        // The group may have read on.
        self.send(key, subscribers);
        self.report();
    }

    /// Polls the stream, and adds its next bytes to the window.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.window.end() + POLL_BYTES_MAX;
        while self.end.is_none() {
            if self.window.end() >= until {
                return Poll::Ready(());
            }
            match self.stream.poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(delivery))) => {
                    let places = self.stream.places();
                    if delivery.events > 0 && self.unsent_since.is_none() {
                        self.unsent_since = places.iter().map(|place| place.position.ms).max();
                    }
                    self.window.append(&delivery.bytes, delivery.events, places);
                }
                Poll::Ready(Some(Err(aborted))) => self.end = Some(Err(aborted)),
                Poll::Ready(None) => {
                    self.window.finish();
                    self.end = Some(Ok(self.stream.ending().unwrap_or(Ending::Boundary)));
                }
            }
            self.needs_pass = true;
        }
        Poll::Pending
    }

    /// Writes to the next members, and finishes the pass after the last of them.
    pub fn slice(&mut self, subscribers: &mut Subscribers, limits: WindowLimits) -> AfterSlice {
        if self.unvisited == 0 && std::mem::take(&mut self.needs_pass) {
            self.unvisited = self.members.len();
            self.pass_end = self.window.end();
            self.stream.pass_begins();
        }
        for _ in 0..SLICE {
            let Some(member) = self.unvisited.checked_sub(1) else { break };
            self.unvisited = member;
            if let Some(key) = self.members.get(member) {
                self.send(*key, subscribers);
            }
        }
        if self.unvisited == 0 {
            self.finish_pass(subscribers, limits);
        }
        self.report();
        match self.unvisited > 0 || self.needs_pass {
            _ if self.members.is_empty() => AfterSlice::Empty,
            true => AfterSlice::Unfinished,
            false => AfterSlice::Idle,
        }
    }

    /// Continues to send to a subscriber that was blocked.
    pub fn unblock(&mut self, key: usize, subscribers: &mut Subscribers) {
        let Some(subscriber) = subscribers.get_mut(key).filter(|one| one.is_blocked) else {
            return;
        };
        subscriber.is_blocked = false;
        self.blocked.remove(&key);
        self.send(key, subscribers);
        self.report();
    }

    /// Removes a subscriber if its client has closed its sending side. A request that was sent
    /// early is still there to be served.
    pub fn drop_closed(&mut self, key: usize, subscribers: &mut Subscribers) {
        if subscribers.get(key).is_some_and(|subscriber| subscriber.socket.is_at_end()) {
            self.drop_gone(key, subscribers);
        }
    }

    /// Removes a subscriber whose client has disconnected.
    pub fn drop_gone(&mut self, key: usize, subscribers: &mut Subscribers) {
        if let Some(subscriber) = self.remove(key, subscribers) {
            subscriber.reply.send(Outcome::Gone).ok();
        }
    }

    /// Returns the number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the group has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Lets up to `count` subscribers leave, so that they can join another pump.
    pub fn move_away(&mut self, count: usize, subscribers: &mut Subscribers) {
        let leavers: Vec<usize> = self.members.iter().rev().take(count).copied().collect();
        let mut copy = ChunkCopy::default();
        leavers.into_iter().for_each(|key| self.leave(key, subscribers, &mut copy));
        self.report();
    }

    /// Adds what was sent to the metrics. This is done once for a slice, because all pumps share the
    /// counters.
    fn report(&mut self) {
        let (events, bytes) = std::mem::take(&mut self.sent);
        if bytes > 0 {
            self.stream.sent(events, bytes);
        }
    }

    /// Sends to one subscriber everything that the window has for it.
    fn send(&mut self, key: usize, subscribers: &mut Subscribers) {
        if let Some(Err(StreamAborted(ending))) = self.end {
            if let Some(subscriber) = subscribers.get_mut(key) {
                subscriber.account.ended(ending);
            }
            return self.drop_gone(key, subscribers);
        }
        let Some(subscriber) = subscribers.get_mut(key).filter(|one| !one.is_blocked) else {
            return;
        };
        let head = self.window.head();
        let is_full = head.payload > subscriber.payload_max;
        let until = match is_full {
            true => self
                .window
                .within(subscriber.payload_max)
                .map_or(0, |chunk_end| chunk_end.point.end),
            false => head.end,
        };
        while subscriber.offset < until {
            match subscriber.socket.write(self.window.bytes(subscriber.offset, until)) {
                Err(_) => return self.drop_gone(key, subscribers),
                Ok(0) => {
                    subscriber.is_blocked = true;
                    self.blocked.insert(key);
                    return;
                }
                Ok(count) => subscriber.offset += count as u64,
            }
        }
        if is_full {
            return self.leave(key, subscribers, &mut ChunkCopy::default());
        }
        subscriber.count(head, &mut self.sent);
        if let Some(Ok(ending)) = self.end
            && let Some(mut subscriber) = self.remove(key, subscribers)
        {
            subscriber.account.ended(ending);
            subscriber.reply.send(Outcome::Complete(subscriber.socket)).ok();
        }
    }

    fn finish_pass(&mut self, subscribers: &mut Subscribers, limits: WindowLimits) {
        if let Some(stored_at) = self.unsent_since.take() {
            self.stream.pass_ended(stored_at);
        }
        // At the end of the stream, blocked subscribers finish on their own.
        let excess = match self.end {
            Some(_) => Some(u64::MAX),
            None => self.window.excess(limits.slow),
        };
        if let Some(excess) = excess {
            let is_behind = |key: &&usize| {
                subscribers.get(**key).is_some_and(|subscriber| subscriber.offset < excess)
            };
            let behind: Vec<usize> = self.blocked.iter().filter(is_behind).copied().collect();
            // Subscribers that were stopped in the same chunk share a copy of it.
            let mut copy = ChunkCopy::default();
            behind.into_iter().for_each(|key| self.leave(key, subscribers, &mut copy));
        }
        let offsets = self.blocked.iter().filter_map(|key| subscribers.get(*key));
        let slowest = offsets.map(|subscriber| subscriber.offset).min();
        let history = self.window.end().saturating_sub(limits.history as u64);
        // Members that are not blocked have everything up to the end of the pass.
        self.window.trim(slowest.unwrap_or(u64::MAX).min(self.pass_end).min(history));
    }

    /// Lets a subscriber leave the group after the chunk that it has begun to send.
    fn leave(&mut self, key: usize, subscribers: &mut Subscribers, copy: &mut ChunkCopy) {
        let Some(mut subscriber) = self.remove(key, subscribers) else { return };
        let Some(chunk_end) = self.window.from(subscriber.offset).cloned() else { return };
        let Point { end, payload, .. } = chunk_end.point;
        subscriber.count(chunk_end.point, &mut self.sent);
        let rest = copy.rest(&self.window, subscriber.offset, end);
        let is_last = self.end.is_some() && end == self.window.end();
        let bytes_left = subscriber.payload_max.saturating_sub(payload) as usize;
        let stream = (!is_last).then(|| self.stream.fork(&chunk_end.places, bytes_left));
        if let Some(Ok(ending)) = self.end.filter(|_| is_last) {
            subscriber.account.ended(ending);
        }
        let Subscriber { socket, account, reply, .. } = subscriber;
        reply.send(Outcome::Leave(Box::new(Leaver { socket, rest, stream, account }))).ok();
    }

    fn remove(&mut self, key: usize, subscribers: &mut Subscribers) -> Option<Subscriber> {
        let subscriber = subscribers.remove(key)?;
        if subscriber.is_blocked {
            self.blocked.remove(&key);
        }
        self.members.swap_remove(subscriber.member);
        self.stream.set_subscribers(self.members.len());
        if let Some(moved) = self.members.get(subscriber.member)
            && let Some(moved) = subscribers.get_mut(*moved)
        {
            moved.member = subscriber.member;
        }
        self.unvisited = self.unvisited.min(self.members.len());
        Some(subscriber)
    }
}

/// A copy of one chunk of the window.
#[derive(Default)]
struct ChunkCopy {
    start: u64,
    bytes: Bytes,
}

impl ChunkCopy {
    /// Returns the bytes of a chunk from `offset` on to its end.
    fn rest(&mut self, window: &Window, offset: u64, end: u64) -> Bytes {
        if offset == end {
            return Bytes::new();
        }
        if self.start + self.bytes.len() as u64 != end {
            self.start = window.start_of(offset);
            self.bytes = Bytes::copy_from_slice(window.bytes(self.start, end));
        }
        self.bytes.slice(offset.saturating_sub(self.start) as usize..)
    }
}

impl Subscribers {
    /// Returns an empty set, whose sockets are watched through `registry`. The token of each
    /// socket is the key of its subscriber.
    pub fn new(registry: Registry) -> Self {
        Self { slab: Slab::new(), registry }
    }

    /// Returns the number of subscribers.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are no subscribers.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Returns the keys of all subscribers.
    #[cfg(test)]
    pub fn keys(&self) -> Vec<usize> {
        self.slab.iter().map(|(key, _)| key).collect()
    }

    /// Returns the group of a subscriber.
    pub fn group_of(&self, key: usize) -> Option<usize> {
        self.slab.get(key).map(|subscriber| subscriber.group)
    }

    fn get(&self, key: usize) -> Option<&Subscriber> {
        self.slab.get(key)
    }

    fn get_mut(&mut self, key: usize) -> Option<&mut Subscriber> {
        self.slab.get_mut(key)
    }

    fn insert(&mut self, subscriber: Subscriber) -> io::Result<usize> {
        let entry = self.slab.vacant_entry();
        let key = entry.key();
        let raw = subscriber.socket.as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut SourceFd(&raw), Token(key), interest)?;
        entry.insert(subscriber);
        Ok(key)
    }

    fn remove(&mut self, key: usize) -> Option<Subscriber> {
        let subscriber = self.slab.try_remove(key)?;
        // The socket may go on outside of the pump.
        self.registry.deregister(&mut SourceFd(&subscriber.socket.as_raw_fd())).ok();
        Some(subscriber)
    }
}

impl Subscriber {
    /// Adds the events and bytes up to `point` that were not counted before to `sent`.
    fn count(&mut self, point: Point, sent: &mut (u64, u64)) {
        sent.0 += point.events.saturating_sub(self.counted.events);
        sent.1 += point.payload.saturating_sub(self.counted.payload);
        self.counted = point;
    }
}
