//! Sends publishes of one channel to Redis together.
//!
//! A call of the publish script runs about twenty commands in Redis. Most of these are needed once
//! for each call, and not for each event. While [`CALLS_MAX`] calls of a channel are under way,
//! further publishes wait. The next call takes the waiting publishes in their order, up to
//! `EVENTS_MAX` events and `BYTES_MAX` bytes. A publish that comes alone never waits. Publishes
//! with an idempotency key are sent alone, because the script checks one key.

use super::RedisStore;
use super::publish::Call;
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};
use crate::store::{Publication, Published, StoreError};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The most calls of one channel that are under way at the same time. With two of them, Redis works
/// on one while the answers to the other are on their way.
const CALLS_MAX: usize = 2;
/// The most events and bytes of data in one call, unless a single publish has more. They bound the
/// time for which a call keeps other clients of Redis waiting.
const EVENTS_MAX: usize = 256;
const BYTES_MAX: usize = 256 * 1024;

/// The channels with calls under way.
#[derive(Default)]
pub struct Calls(Mutex<HashMap<ChannelName, Line>>);

/// The calls of one channel, and the publishes that wait for the next one.
#[derive(Default)]
struct Line {
    calls: usize,
    waiting: VecDeque<Waiting>,
}

/// A publish that waits for the next call.
struct Waiting {
    events: Vec<Event>,
    since: Instant,
    reply: oneshot::Sender<Result<Published, StoreError>>,
}

/// The right to make one call of a channel. When it is dropped, the next call begins, also if the
/// publisher has disconnected.
struct CallPermit {
    store: Arc<RedisStore>,
    channel: ChannelName,
}

impl RedisStore {
    /// Publishes events, together with those of other publishers where none has an idempotency key.
    pub async fn publish_events(&self, publication: Publication) -> Result<Published, StoreError> {
        let Publication { channel, events, idempotency } = publication;
        if idempotency.is_none()
            && let Some(store) = self.own.upgrade()
        {
            return store.publish_together(channel, events).await;
        }
        let (channel, events, since) = (&channel, &events[..], Instant::now());
        let (ends, is_limited) = (false, true);
        self.publish_call(Call { channel, events, idempotency, ends, is_limited, since }).await
    }

    async fn publish_together(
        self: Arc<Self>,
        channel: ChannelName,
        events: Vec<Event>,
    ) -> Result<Published, StoreError> {
        let since = Instant::now();
        let answer = {
            let mut lines = self.calls.0.lock();
            let line = lines.entry(channel.clone()).or_default();
            if line.calls < CALLS_MAX {
                line.calls += 1;
                None
            } else {
                let (reply, answer) = oneshot::channel();
                line.waiting.push_back(Waiting { events: events.clone(), since, reply });
                Some(answer)
            }
        };
        match answer {
            None => {
                let turn = CallPermit { store: self, channel };
                turn.call(&events, since).await
            }
            Some(answer) => answer.await.unwrap_or_else(|_| Err(stopped())),
        }
    }
}

impl Calls {
    /// Takes the publishes for the next call of a channel. If none wait, the call is counted out.
    fn next(&self, channel: &ChannelName) -> Vec<Waiting> {
        let mut lines = self.0.lock();
        let Some(line) = lines.get_mut(channel) else { return Vec::new() };
        let (mut batch, mut events, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = line.waiting.front() {
            let size: usize = next.events.iter().map(|event| event.data.len()).sum();
            let fits = events + next.events.len() <= EVENTS_MAX && bytes + size <= BYTES_MAX;
            if !batch.is_empty() && !fits {
                break;
            }
            events += next.events.len();
            bytes += size;
            batch.extend(line.waiting.pop_front());
        }
        if batch.is_empty() {
            line.calls -= 1;
            if line.calls == 0 {
                lines.remove(channel);
            }
        }
        batch
    }
}

impl CallPermit {
    async fn call(&self, events: &[Event], since: Instant) -> Result<Published, StoreError> {
        let (channel, idempotency, ends) = (&self.channel, None, false);
        let call = Call { channel, events, idempotency, ends, is_limited: true, since };
        self.store.publish_call(call).await
    }

    /// Publishes a batch in one call, and answers each of its publishes.
    async fn serve(self, mut batch: Vec<Waiting>) {
        // Nobody waits for the answer, and nothing was sent yet.
        batch.retain(|waiting| !waiting.reply.is_closed());
        let Some(since) = batch.iter().map(|waiting| waiting.since).min() else { return };
        let events: Vec<Event> =
            batch.iter().flat_map(|waiting| waiting.events.iter().cloned()).collect();
        match self.call(&events, since).await {
            Ok(Published { ids, .. }) => share(batch, &ids),
            // One of them exceeds the limit; the others may fit.
            Err(StoreError::Limit { .. }) if batch.len() > 1 => {
                for Waiting { events, since, reply } in batch {
                    reply.send(self.call(&events, since).await).ok();
                }
            }
            Err(error) => batch.into_iter().for_each(|waiting| {
                waiting.reply.send(Err(error.clone())).ok();
            }),
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let batch = self.store.calls.next(&self.channel);
        if batch.is_empty() {
            return;
        }
        let next = Self { store: self.store.clone(), channel: self.channel.clone() };
        // A publisher that disconnects must not end the calls of others, so a call for several
        // publishers is a task of its own.
        self.store.runtime.spawn(next.serve(batch));
    }
}

/// Gives each publish the ids of its events.
fn share(batch: Vec<Waiting>, mut ids: &[EventId]) {
    for Waiting { events, reply, .. } in batch {
        let (own, rest) = ids.split_at_checked(events.len()).unwrap_or((&[], &[]));
        ids = rest;
        reply.send(Ok(Published { ids: own.to_vec(), repeated: false })).ok();
    }
}

fn stopped() -> StoreError {
    StoreError::Unclear("redis: the process stops".to_owned())
}
