//! Where events are kept. One trait; every store passes one conformance suite (`tests/it`).
//!
//! A store gives ids, keeps events and the state made of them, and tells the hub of every event
//! that it has accepted, in order, with the id of the event before it: a break in that chain is
//! how a lost event is noticed. Everything a reader needs beyond the hub's recent run is read
//! from here in bounded pages.

pub mod local;
mod metrics;
mod record;
pub mod redis;

pub use metrics::{StoreFault, StoreMetrics};

use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, FIELD_BYTES_MAX, Field, StoredEvent};
use crate::core::log_state::{Bounds, LogState};
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

/// What a store promises, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How much is kept, and how much is accepted. A limit on growth each; `Duration`s and bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events older than this are dropped.
    pub retain_age: Duration,
    /// Most events kept in a channel.
    pub retain_events: u64,
    /// Most bytes of events kept in a channel.
    pub retain_bytes: u64,
    /// Most channels; a name costs memory for as long as it is known.
    pub channels: u64,
    /// A channel without events, state and publishes for this long is forgotten.
    pub channel_idle: Duration,
    /// Most keys in one channel's state; every fresh join is sent all of it.
    pub keys: u64,
    /// Most bytes of one channel's state.
    pub state_bytes: u64,
    /// Most bytes of events and state in the whole store.
    pub total_bytes: u64,
    /// How long an idempotency key is remembered.
    pub idempotency_age: Duration,
    /// Most idempotency keys remembered at once.
    pub idempotency_keys: u64,
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

/// One publish: one or more events for one channel, all or nothing.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where to.
    pub channel: ChannelName,
    /// At least one.
    pub events: Vec<Event>,
    /// The publisher's key for this publish, and a digest of all that it said.
    pub idempotency: Option<Idempotency>,
}

/// What makes a repeated publish recognisable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The `Idempotency-Key`.
    pub key: String,
    /// Digest of what was published with it.
    pub digest: u128,
}

/// What an idempotency key may be.
pub const IDEMPOTENCY_KEY_RULE: &str = "takes 1 to 256 characters of visible ASCII";

impl Idempotency {
    /// A key, and a digest of all that its publish says, so that it cannot stand for two.
    pub fn of(
        key: String,
        is_batch: bool,
        kind: Option<&str>,
        of_key: Option<&str>,
        removes_key: bool,
        body: &[u8],
    ) -> Self {
        let mut digest = Xxh3::new();
        // An earlier version knew no removal: without one the digest is the same as it was.
        digest.update(&[u8::from(is_batch) | u8::from(removes_key) << 1]);
        for text in [kind.unwrap_or_default(), of_key.unwrap_or_default()] {
            digest.update(&(text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        }
        digest.update(body);
        Self { key, digest: digest.digest128() }
    }

    /// As [`Idempotency::of`], for one event; the same as if it had come in a body of its own.
    ///
    /// # Errors
    /// What a key may be.
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

    /// The same key of one publisher, by the `sub` of its token: no publisher can take a key that
    /// another one is about to use. An empty text is every publisher without one.
    #[must_use]
    pub fn of_subject(self, subject: &str) -> Self {
        if subject.is_empty() {
            return self;
        }
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, subject.as_bytes());
        let hash: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        // A key that comes in has no control characters.
        Self { key: format!("\u{1}of {hash} {}", self.key), ..self }
    }

    /// Whether a text can be a key.
    pub fn is_key(text: &str) -> bool {
        (1..=FIELD_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    }
}

/// An accepted publish: the ids of its events, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// One id an event.
    pub ids: Vec<EventId>,
    /// Whether this was a repetition, and nothing was stored.
    pub repeated: bool,
}

/// Why a publish, a close or a read failed. Except for [`StoreError::Unclear`], nothing is stored
/// after one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The channel has ended.
    Closed,
    /// Nothing was ever published to the channel, or it was forgotten.
    NoChannel,
    /// The idempotency key was used for something else.
    KeyReused,
    /// A limit is reached; what was not stored can be tried again once something was dropped.
    Limit { what: &'static str, limit: u64, flag: &'static str },
    /// The store cannot be reached or written. Nothing was stored. The text is for the operator.
    Down(String),
    /// The store did not say what became of the command: it may have been carried out.
    Unclear(String),
}

/// Consecutive events of one channel.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events after the given place.
    pub events: Vec<StoredEvent>,
    /// Whether that was all there is.
    pub complete: bool,
    /// From where to where the log goes. When events after the given place are missing, the page
    /// has a hole before it; a place later than the last means that the log has lost events.
    pub bounds: Bounds,
    /// Whether the channel has ended.
    pub closed: bool,
}

/// The newest event of each key, oldest first.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The place in the log at which it was taken.
    pub position: EventId,
    /// The events.
    pub events: Vec<StoredEvent>,
}

/// Most of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Most events.
    pub events: usize,
    /// Most bytes, but one event at least.
    pub bytes: usize,
}

/// Told of everything that a store accepts. Calls for one channel come in the order of its ids.
pub trait Listener: Send + Sync + 'static {
    /// `events` follow the event `previous` of `channel`, with nothing between.
    fn appended(&self, channel: &ChannelName, previous: EventId, events: &[StoredEvent]);
    /// Something may have been missed: everything in memory is to be read again.
    fn lost_place(&self);
}

/// A place to keep events.
pub trait Store: Send + Sync + 'static {
    /// Accepts a publish, durably where the store is durable.
    fn publish(&self, publication: Publication) -> StoreFuture<'_, Result<Published, StoreError>>;
    /// Ends a channel. Returns the id of its `end` event, the first one when it had ended already.
    /// A channel that nobody has published to is refused, and nothing is stored.
    fn close<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>>;
    /// Lets an ended channel take events again; does nothing to an open one. A channel that nobody
    /// has published to is refused.
    fn reopen<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<(), StoreError>>;
    /// What a channel's log looks like; all zero for one that nobody has published to.
    fn log_state<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<LogState, StoreError>>;
    /// The last place in a channel before the instant `ms`.
    fn position_before<'a>(
        &'a self,
        channel: &'a ChannelName,
        ms: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>>;
    /// The events after `position`.
    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>>;
    /// The newest events before `before`, oldest first. `complete` says that none that is kept lies
    /// before them.
    fn read_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>>;
    /// The place after which the newest `count` events of publishers lie, or all that are kept.
    fn position_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        count: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>>;
    /// A channel's state.
    fn state<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<State, StoreError>>;
    /// Ends once the listener was told of everything with an id before the instant `ms`, which
    /// has passed by the store's clock.
    fn settle(&self, ms: u64) -> StoreFuture<'_, ()>;
    /// Whether the store can be read and written.
    fn ready(&self) -> StoreFuture<'_, Result<(), StoreError>>;
    /// Its counters and gauges, brought up to date.
    fn metrics(&self) -> StoreMetrics;
    /// Ends once the store has failed for good, with the reason: only a new process helps.
    fn failed(&self) -> StoreFuture<'_, String> {
        Box::pin(std::future::pending())
    }
    /// Drops what is too old; called every second. A store that sees to it by itself does nothing.
    fn sweep(&self) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Whether other origins have the same events.
    fn is_shared(&self) -> bool {
        false
    }
    /// Ends the store's own tasks; what it accepted is kept.
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
