//! The stores in which an origin keeps its events: on disk, in memory or in Redis. All of them
//! implement the trait [`Store`] and pass the same conformance suite (`tests/it`).
//!
//! A store assigns ids, keeps the events and the state that results from them, and passes every
//! accepted event to the hub in order, together with the id of the event before it. The hub detects
//! a lost event by a break in that chain. Events that are older than the hub's tail buffer are read
//! from the store in bounded pages.

mod channel_limits;
mod fill;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod local;
mod metrics;
mod record;
pub mod redis;

pub use channel_limits::{ChannelLimits, ChannelSettings, deleted_channel, settings_channel};
pub use metrics::{StoreFault, StoreMetrics};

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, FIELD_BYTES_MAX, Field, StoredEvent};
use crate::core::log_state::{Bounds, LogState};
use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

/// The future that a method of [`Store`] returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The limits on what a store keeps and accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events that are older than this are dropped.
    pub retain_age: Duration,
    /// Maximum number of events kept in a channel.
    pub retain_events: u64,
    /// Maximum bytes of events kept in a channel.
    pub retain_bytes: u64,
    /// Maximum number of channels. A channel name costs memory until the channel is forgotten.
    pub channels: u64,
    /// A channel that has no events and no state is forgotten after this time without a publish.
    pub channel_idle: Duration,
    /// Maximum number of keys in the state of a channel. Every fresh join receives the whole state.
    pub keys: u64,
    /// Maximum bytes of the state of a channel.
    pub state_bytes: u64,
    /// Maximum bytes of events and state in the whole store.
    pub total_bytes: u64,
    /// How long the store remembers an idempotency key.
    pub idempotency_age: Duration,
    /// Maximum number of idempotency keys that are remembered at a time.
    pub idempotency_keys: u64,
}

/// A limit whose excess refuses a publish. The other limits drop old events instead.
#[derive(Clone, Copy, Debug)]
pub enum Quota {
    Channels,
    TotalBytes,
    Keys,
    StateBytes,
    IdempotencyKeys,
}

impl Limits {
    /// Checks the value that a publish would lead to.
    ///
    /// # Errors
    /// Fails when the value is over the limit.
    pub fn check(&self, quota: Quota, value: u64) -> Result<(), StoreError> {
        let (limit, refusal) = self.quota(quota);
        if value <= limit { Ok(()) } else { Err(refusal) }
    }

    /// Returns the refusal of a publish that would exceed a limit.
    pub fn refusal(&self, quota: Quota) -> StoreError {
        self.quota(quota).1
    }

    fn quota(&self, quota: Quota) -> (u64, StoreError) {
        let (limit, what, flag) = match quota {
            Quota::Channels => (self.channels, "too many channels", "--max-channels"),
            Quota::TotalBytes => {
                (self.total_bytes, "the store is full, in bytes", "--max-store-bytes")
            }
            Quota::Keys => (self.keys, "too many keys in the channel", "--max-keys"),
            Quota::StateBytes => {
                (self.state_bytes, "the channel's state, in bytes", "--max-state-bytes")
            }
            Quota::IdempotencyKeys => {
                (self.idempotency_keys, "too many idempotency keys", "--max-idempotency-keys")
            }
        };
        (limit, StoreError::Limit { what, limit, flag })
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self {
            retain_age: 24 * HOUR,
            retain_events: 100_000,
            retain_bytes: 64 * MIB,
            channels: 100_000,
            channel_idle: 7 * 24 * HOUR,
            keys: 10_000,
            state_bytes: 8 * MIB,
            total_bytes: 1024 * MIB,
            idempotency_age: HOUR / 6,
            idempotency_keys: 1_000_000,
        }
    }
}

/// A publish of one or more events to one channel. The store accepts all of the events or none.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The channel that the events are published to.
    pub channel: ChannelName,
    /// The events, at least one.
    pub events: Vec<Event>,
    /// The publisher's idempotency key and the digest of the publish, if the publisher sent a key.
    pub idempotency: Option<Idempotency>,
}

/// An idempotency key with the digest of its publish, by which a repeated publish is recognized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The value of the `Idempotency-Key` header.
    pub key: String,
    /// The digest of everything that was published with the key.
    pub digest: u128,
}

/// The rule for idempotency keys, as error messages state it.
pub const IDEMPOTENCY_KEY_RULE: &str = "takes 1 to 256 characters of visible ASCII, once";

impl Idempotency {
    /// Returns the key with a digest of the whole publish. Because of the digest, one key cannot
    /// stand for two different publishes.
    pub fn of(
        key: String,
        is_batch: bool,
        kind: Option<&str>,
        of_key: Option<&str>,
        removes_key: bool,
        body: &[u8],
    ) -> Self {
        let mut digest = Xxh3::new();
        // Earlier versions had no removal. Without a removal the digest is the same as in those
        // versions.
        digest.update(&[u8::from(is_batch) | u8::from(removes_key) << 1]);
        for text in [kind.unwrap_or_default(), of_key.unwrap_or_default()] {
            digest.update(&(text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        }
        digest.update(body);
        Self { key, digest: digest.digest128() }
    }

    /// Like [`Idempotency::of`], for a single event. The result equals that of a publish whose body
    /// is the data of this event.
    ///
    /// # Errors
    /// Returns [`IDEMPOTENCY_KEY_RULE`] when the key does not satisfy it.
    pub fn of_event(key: String, event: &Event) -> Result<Self, &'static str> {
        if !Self::is_key(&key) {
            return Err(IDEMPOTENCY_KEY_RULE);
        }
        let text = |field: &Option<Field>| field.as_ref().map(|field| field.as_str().to_owned());
        let (kind, of_key) = (text(&event.kind), text(&event.key));
        let removes_key = event.removes_key() && !event.data.is_empty();
        let data = event.data.as_bytes();
        Ok(Self::of(key, false, kind.as_deref(), of_key.as_deref(), removes_key, data))
    }

    /// Restricts the key to one subject (the `sub` of the publisher's token), so that a publisher
    /// cannot use a key that another publisher is about to use. All publishers with an empty
    /// subject share their keys.
    #[must_use]
    pub fn of_subject(self, subject: &str) -> Self {
        if subject.is_empty() {
            return self;
        }
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, subject.as_bytes());
        let hash: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        // A key from a request has no control characters, so it cannot equal a key of this form.
        Self { key: format!("\u{1}of {hash} {}", self.key), ..self }
    }

    /// Whether a text is valid as an idempotency key.
    pub fn is_key(text: &str) -> bool {
        (1..=FIELD_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    }
}

/// The result of an accepted publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// One id for each event, in the order of the events.
    pub ids: Vec<EventId>,
    /// Whether the publish was a repetition. In this case nothing was stored.
    pub repeated: bool,
}

/// The reason why a publish, a close or a read failed. After every error except
/// [`StoreError::Unclear`], nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The channel has ended.
    Closed,
    /// The channel never had a publish, or the store has forgotten it.
    NoChannel,
    /// The idempotency key was used for a different publish.
    KeyReused,
    /// A limit is reached. The publish can succeed later, after something was dropped.
    Limit { what: &'static str, limit: u64, flag: &'static str },
    /// The store cannot be reached, read or written. Nothing was stored. The text is for the
    /// operator.
    Down(String),
    /// The store did not confirm the command, so the command may have been carried out.
    Unclear(String),
}

/// A page: consecutive events of one channel.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events of the page, oldest first.
    pub events: Vec<StoredEvent>,
    /// Whether the log has no further events in the direction of the read.
    pub complete: bool,
    /// The bounds of the channel's log. They show whether events directly after the requested
    /// position are no longer kept. A requested position after `bounds.last` means that the log has
    /// lost events.
    pub bounds: Bounds,
    /// Whether the channel has ended.
    pub closed: bool,
}

/// The state of a channel: the newest event of each key, oldest first.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The position in the log at which the state was taken.
    pub position: EventId,
    /// The newest event of each key, oldest first.
    pub events: Vec<StoredEvent>,
}

/// Selects channels by name, in the order of the names.
#[derive(Clone, Debug)]
pub struct ChannelFilter {
    /// The names begin with this text.
    pub prefix: String,
    /// The names come after this one.
    pub after: Option<ChannelName>,
    /// Maximum number of names: the first ones are returned.
    pub limit: usize,
}

/// How much a store keeps of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelSize {
    /// The number of events in the log, about: a store may drop old events with a delay.
    pub events: u64,
    /// The bytes of the log as they count against the limits.
    pub bytes: u64,
    /// The number of keys in the state.
    pub keys: u64,
    /// The bytes of the state as they count against the limits.
    pub state_bytes: u64,
}

impl ChannelFilter {
    /// Whether a name has the prefix and comes after `after`. Headwater's own channels are never
    /// selected.
    pub fn selects(&self, name: &ChannelName) -> bool {
        name.as_str().starts_with(&self.prefix)
            && !name.is_reserved()
            && self.after.as_ref().is_none_or(|after| name > after)
    }

    /// Adds a name to `names`, which stay the first ones among all that were added.
    pub fn collect(&self, names: &mut BTreeSet<ChannelName>, name: &ChannelName) {
        let is_full = names.len() >= self.limit;
        if !self.selects(name) || is_full && names.last().is_none_or(|last| name >= last) {
            return;
        }
        if names.insert(name.clone()) && is_full {
            names.pop_last();
        }
    }
}

/// The maximum size of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Maximum number of events.
    pub events: usize,
    /// Maximum bytes of event text. A page has at least one event even if that event is larger.
    pub bytes: usize,
}

/// Receives everything that a store accepts. The calls for one channel come in the order of its
/// ids.
pub trait EventSink: Send + Sync + 'static {
    /// Receives `events` of `channel`, which directly follow the event `previous`.
    fn appended(&self, channel: &ChannelName, previous: EventId, events: &[StoredEvent]);
    /// The sink may have missed events, so everything that it has in memory must be read again.
    fn lost_place(&self);
}

/// A store of events.
pub trait Store: Send + Sync + 'static {
    /// Accepts a publish. In a durable store the events are durable when the future completes.
    fn publish(&self, publication: Publication) -> StoreFuture<'_, Result<Published, StoreError>>;
    /// Ends a channel and returns the id of its `end` event. For a channel that has already ended,
    /// this is the id of the existing `end` event. Fails with [`StoreError::NoChannel`] and stores
    /// nothing when the channel does not exist.
    fn close<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>>;
    /// Reopens an ended channel for publishes and leaves an open channel as it is. Fails with
    /// [`StoreError::NoChannel`] when the channel does not exist.
    fn reopen<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<(), StoreError>>;
    /// Returns the bounds and the status of a channel's log. For a channel that does not exist, all
    /// bounds are the beginning of the store.
    fn log_state<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<LogState, StoreError>>;
    /// Returns the last position in a channel before the instant `ms`. In an ended channel this
    /// position is always before the `end` event.
    fn position_before<'a>(
        &'a self,
        channel: &'a ChannelName,
        ms: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>>;
    /// Returns the events after `position`, within `limit`.
    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>>;
    /// Returns the newest events before `before`, oldest first. `complete` is true when the store
    /// keeps no older events.
    fn read_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>>;
    /// Returns the position that is followed by the newest `count` events of publishers, or by all
    /// events if the store keeps fewer. The `end` event of a channel does not count.
    fn position_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        count: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>>;
    /// Returns the state of a channel.
    fn state<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<State, StoreError>>;
    /// Returns the names of the channels that the store knows, as far as `filter` selects them.
    fn names<'a>(
        &'a self,
        filter: &'a ChannelFilter,
    ) -> StoreFuture<'a, Result<Vec<ChannelName>, StoreError>>;
    /// Returns how much is kept of a channel.
    fn size<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<ChannelSize, StoreError>>;
    /// Completes once the sink has received every event with an id before the instant `ms`, and
    /// this instant has passed by the clock of the store.
    fn settle(&self, ms: u64) -> StoreFuture<'_, ()>;
    /// Fails when the store cannot be read or written.
    fn ready(&self) -> StoreFuture<'_, Result<(), StoreError>>;
    /// Returns the counters and gauges of the store, brought up to date.
    fn metrics(&self) -> StoreMetrics;
    /// Completes with the reason when the store has failed permanently, so that the process must be
    /// restarted.
    fn failed(&self) -> StoreFuture<'_, String> {
        Box::pin(std::future::pending())
    }
    /// Drops what is too old. The origin calls it every second. A store that drops old events by
    /// other means does nothing here.
    fn sweep(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Returns the limits of the channels.
    fn limits(&self) -> &Arc<ChannelLimits>;
    /// Whether other origins can use the same events.
    fn is_shared(&self) -> bool {
        false
    }
    /// Ends a channel, if it has not ended, and drops its other events and its state. Returns the id
    /// of its `end` event, which is kept like any other event. Fails with
    /// [`StoreError::NoChannel`] and stores nothing when the channel does not exist.
    fn erase<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>>;
    /// Stops the tasks of the store. Accepted events are kept.
    fn stop(&self) -> StoreFuture<'_, ()>;
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the channel has ended"),
            Self::NoChannel => write!(f, "there is no such channel"),
            Self::KeyReused => write!(f, "the idempotency key was used for another publish"),
            Self::Limit { what, limit, flag } => {
                write!(f, "{what}: the limit is {limit} ({flag})")
            }
            Self::Down(why) => write!(f, "the store does not answer: {why}"),
            Self::Unclear(why) => write!(f, "the store may have done it or not: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}
