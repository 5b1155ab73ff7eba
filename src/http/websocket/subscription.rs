//! The channels that one socket listens to: the same readers as streams have, without an end.

use crate::core::cursor::{Cursor, EventId};
use crate::core::event::ChannelName;
use crate::hub::reader::{Lost, Reader, Step};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

/// About how many bytes of events one step takes.
const STEP_BYTES: usize = 64 * 1024;
/// Most own events that a socket's publishes may be ahead of its reading.
const UNREAD_OWN_MAX: usize = 1_024;

/// A channel that a socket listens to.
pub struct Subscription {
    /// Its name.
    pub channel: ChannelName,
    reader: Reader,
    own: EchoFilter,
}

/// Events that a client published and does not want back, in their order.
#[derive(Debug, Default)]
struct EchoFilter(VecDeque<EventId>);

/// All of a socket's.
#[derive(Default)]
pub struct Subscriptions {
    all: Vec<Subscription>,
    next: usize,
}

impl Subscription {
    /// What `reader` reads.
    pub fn new(channel: ChannelName, reader: Reader) -> Self {
        Self { channel, reader, own: EchoFilter::default() }
    }

    /// Up to where its events were sent; good for a stream as well.
    pub fn cursor(&self) -> Cursor {
        Cursor { positions: self.reader.positions(), mark: None }
    }

    /// Passes these events over when they come.
    pub fn suppress(&mut self, ids: &[EventId]) {
        self.own.add(ids, self.position());
    }

    /// Whether the client wants the event with this id. Ask in the order of the ids.
    pub fn wants(&mut self, id: Option<EventId>) -> bool {
        let id = id.filter(|_| !self.own.0.is_empty());
        id.is_none_or(|id| !self.own.is_next(id))
    }

    /// Goes on with another reader.
    pub fn replace(&mut self, reader: Reader) {
        self.reader = reader;
        // What fell into the gap does not come any more: waiting for it would end the reading.
        self.own.forget(self.position());
    }

    fn position(&self) -> EventId {
        self.reader.positions().first().copied().unwrap_or_default()
    }
}

impl EchoFilter {
    /// Those of `ids` that a reader at `position` has not passed.
    fn add(&mut self, ids: &[EventId], position: EventId) {
        self.0.extend(ids.iter().filter(|id| **id > position));
    }

    /// Forgets what a reader at `position` has passed.
    fn forget(&mut self, position: EventId) {
        while self.0.front().is_some_and(|own| *own <= position) {
            self.0.pop_front();
        }
    }

    /// Whether an event is one of them, once it has come.
    fn is_next(&mut self, id: EventId) -> bool {
        while self.0.front().is_some_and(|own| *own < id) {
            self.0.pop_front();
        }
        let is_own = self.0.front() == Some(&id);
        self.forget(id);
        is_own
    }
}

impl Subscriptions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// One by its place.
    pub fn at(&mut self, index: usize) -> &mut Subscription {
        &mut self.all[index]
    }

    /// One by its channel.
    pub fn find(&self, channel: &ChannelName) -> Option<usize> {
        self.all.iter().position(|one| one.channel == *channel)
    }

    /// One more.
    pub fn add(&mut self, subscription: Subscription) {
        self.all.push(subscription);
    }

    /// One less.
    pub fn remove(&mut self, index: usize) -> Subscription {
        self.all.swap_remove(index)
    }

    /// Whether the client publishes so far ahead of what it reads that it has to wait.
    pub fn must_catch_up(&self) -> bool {
        self.all.iter().any(|one| one.own.0.len() >= UNREAD_OWN_MAX)
    }

    /// The next of any of them, each in its turn. Cancel safe.
    pub async fn next(&mut self) -> (usize, Result<Step, Lost>) {
        poll_fn(|context| {
            let count = self.all.len();
            for offset in 0..count {
                let index = (self.next + offset) % count;
                let reader = &mut self.all[index].reader;
                if let Poll::Ready(step) = reader.poll_next(context, STEP_BYTES) {
                    self.next = index + 1;
                    return Poll::Ready((index, step));
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    #[test]
    fn own_events_are_passed_over_once_and_none_is_waited_for_that_will_not_come() {
        let mut own = EchoFilter::default();
        own.add(&[id(1), id(3), id(5), id(7)], id(1));
        assert_eq!(own.0, [id(3), id(5), id(7)]);
        assert!(!own.is_next(id(2)) && own.is_next(id(3)) && !own.is_next(id(4)));
        assert_eq!(own.0, [id(5), id(7)]);
        // The reader goes on behind a gap.
        own.forget(id(6));
        assert_eq!(own.0, [id(7)]);
        assert!(!own.is_next(id(8)) && own.0.is_empty());
    }
}
