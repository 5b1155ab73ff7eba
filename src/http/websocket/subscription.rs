//! The subscriptions of one WebSocket. They use the same readers as streams, but without a planned
//! end.

use crate::core::cursor::{Cursor, EventId};
use crate::core::event::ChannelName;
use crate::hub::reader::{ReadFailure, Reader, Step};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

/// The approximate number of bytes of events that one step reads.
const STEP_BYTES: usize = 64 * 1024;
/// The number of own events still to be skipped at which no more messages of the client are read.
const UNREAD_OWN_MAX: usize = 1_024;

/// The subscription of a client to one channel.
pub struct Subscription {
    /// The channel.
    pub channel: ChannelName,
    reader: Reader,
    own: EchoFilter,
}

/// The ids of events that the client published with `"echo": false` and that must be skipped, in
/// their order.
#[derive(Debug, Default)]
struct EchoFilter(VecDeque<EventId>);

/// All subscriptions of one WebSocket.
#[derive(Default)]
pub struct Subscriptions {
    all: Vec<Subscription>,
    next: usize,
}

impl Subscription {
    /// Creates a subscription that delivers the events of `reader`.
    pub fn new(channel: ChannelName, reader: Reader) -> Self {
        Self { channel, reader, own: EchoFilter::default() }
    }

    /// The cursor up to which events were read. It is valid for a stream as well.
    pub fn cursor(&self) -> Cursor {
        Cursor { positions: self.reader.positions(), mark: None }
    }

    /// Whether the channel has ended, and everything up to its end was read.
    pub fn is_over(&self) -> bool {
        self.reader.is_over()
    }

    /// The reader of the events.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Skips the events with these ids when the reader reaches them.
    pub fn suppress(&mut self, ids: &[EventId]) {
        self.own.add(ids, self.position());
    }

    /// Whether the event with this id is sent to the client. Must be called in the order of the
    /// ids.
    pub fn wants(&mut self, id: Option<EventId>) -> bool {
        let id = id.filter(|_| !self.own.0.is_empty());
        id.is_none_or(|id| !self.own.is_next(id))
    }

    /// Continues with another reader.
    pub fn replace(&mut self, reader: Reader) {
        self.reader = reader;
        // Events that fell into the gap never arrive. While the filter waits for too many of them,
        // no messages of the client are read.
        self.own.forget(self.position());
    }

    fn position(&self) -> EventId {
        self.reader.positions().first().copied().unwrap_or_default()
    }
}

impl EchoFilter {
    /// Adds those of `ids` that a reader at `position` has not passed.
    fn add(&mut self, ids: &[EventId], position: EventId) {
        self.0.extend(ids.iter().filter(|id| **id > position));
    }

    /// Removes the ids that a reader at `position` has passed.
    fn forget(&mut self, position: EventId) {
        while self.0.front().is_some_and(|own| *own <= position) {
            self.0.pop_front();
        }
    }

    /// Whether the event with this id must be skipped. Removes this id and all ids before it.
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
    /// The number of subscriptions.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The subscription at an index.
    pub fn at(&mut self, index: usize) -> &mut Subscription {
        &mut self.all[index]
    }

    /// The index of the subscription to a channel.
    pub fn find(&self, channel: &ChannelName) -> Option<usize> {
        self.all.iter().position(|one| one.channel == *channel)
    }

    /// Adds a subscription.
    pub fn add(&mut self, subscription: Subscription) {
        self.all.push(subscription);
    }

    /// Removes and returns the subscription at an index. The last subscription takes its index.
    pub fn remove(&mut self, index: usize) -> Subscription {
        self.all.swap_remove(index)
    }

    /// Whether the client has published so far ahead of a subscription that its messages must wait.
    pub fn must_catch_up(&self) -> bool {
        self.all.iter().any(|one| one.own.0.len() >= UNREAD_OWN_MAX)
    }

    /// Waits for the next step of any subscription, and returns it with the index of the
    /// subscription. The subscriptions take turns. Cancellation-safe.
    pub async fn next(&mut self) -> (usize, Result<Step, ReadFailure>) {
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
        // The reader continues after a gap.
        own.forget(id(6));
        assert_eq!(own.0, [id(7)]);
        assert!(!own.is_next(id(8)) && own.0.is_empty());
    }
}
