//! Follows one shard: reads all events of the channels of this shard, whichever origin has
//! published them, and gives each of them to the [`EventSink`](crate::store::EventSink) of the store,
//! the channel registry (`hub/registry.rs`).
//!
//! It reads them from a log in Redis and not from pub/sub messages, because messages can be lost.
//! Two alternatives were rejected. With XREAD on the logs of all channels, every wake-up takes
//! processor time of Redis in proportion to the number of channels (98 us for 100 keys, 540 us for
//! 1,000, measured). Pub/sub is cheap but loses messages whenever a connection breaks. Instead,
//! each shard has one stream (the data type of Redis), the firehose, to which the publish script
//! also writes. Each publish wakes each origin once, however many channels there are, and idle
//! channels cost nothing. After an interruption an origin catches up from the last id. Every origin
//! reads every byte, which is acceptable because few origins are needed behind a cache.
//!
//! Each entry contains the id of the entry before it. If that id is not the last one that was read,
//! there are two cases. Either the origin was disconnected for longer than the firehose is kept:
//! then everything in memory is read again from the logs of the channels. Or the firehose itself
//! has lost entries, by a failover to a replica that lagged: then every affected channel gets a
//! `gap` event (see `loss`).

use super::RedisStore;
use super::connection::RedisConnection;
use super::loss;
use super::progress::Remembered;
use super::reply::{self, array, id, next, text, unexpected};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, StoredEvent};
use crate::store::{StoreError, StoreFault};
use fred::error::ErrorKind;
use fred::types::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a read waits for entries, and how long its answer may take in addition.
const BLOCK: Duration = Duration::from_millis(1_000);
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1_000);
/// Maximum number of entries in one read.
const READ_MAX: u64 = 512;
/// The pause after a failure.
const FAULT_PAUSE: Duration = Duration::from_millis(100);
/// The interval at which the end of the log and the clock are checked.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// An entry of the firehose. The content is `None` if it is damaged.
pub struct Entry {
    pub id: EventId,
    pub news: Option<News>,
}

/// The content of a firehose entry: one publish.
pub struct News {
    pub before: EventId,
    pub channel: ChannelName,
    pub previous: EventId,
    pub events: Vec<StoredEvent>,
}

/// Follows a shard as long as the future is polled.
pub async fn follow(store: Arc<RedisStore>, shard: usize, connection: RedisConnection) {
    let mut read = None;
    let mut looked_at = None;
    let mut is_following = true;
    loop {
        let outcome = step(&store, shard, &connection, &mut read, &mut looked_at).await;
        if outcome.is_ok() != is_following {
            is_following = outcome.is_ok();
            match &outcome {
                Ok(()) => tracing::info!(shard, "the log is followed again"),
                Err(_) if connection.is_explained() => {
                    tracing::warn!(shard, "the log is not followed")
                }
                Err(error) => tracing::warn!(shard, %error, "the log is not followed"),
            }
        }
        if outcome.is_err() {
            looked_at = None;
            tokio::time::sleep(FAULT_PAUSE).await;
        }
    }
}

async fn step(
    store: &RedisStore,
    shard: usize,
    connection: &RedisConnection,
    read: &mut Option<EventId>,
    looked_at: &mut Option<Instant>,
) -> Result<(), StoreError> {
    store.checked().await?;
    let progress = &store.progress[shard];
    let is_due = looked_at.is_none_or(|at| at.elapsed() >= LOOK_PAUSE);
    let position = match *read {
        Some(position) if !is_due => position,
        known => {
            // The request uses the follower's own connection, because after a failover another
            // connection may lead to another server.
            let (head, _) = store.head(connection, shard).await?;
            if shard == 0 {
                store.watch_settings().await?;
            }
            store.watch_counts(connection, shard).await;
            *looked_at = Some(Instant::now());
            let position = known.unwrap_or(head);
            if head < position {
                *read = Some(loss::of_entries_read(store, shard, connection, position).await?);
                return Ok(());
            }
            position
        }
    };
    if read.replace(position).is_none() {
        // Readers that began earlier may wait for an event that was not passed to the sink.
        store.lost_place();
        progress.reach(position);
    }
    let asked = Instant::now();
    let entries = read_entries(store, shard, connection, position).await?;
    let is_quiet = entries.is_empty();
    for Entry { id, news } in entries {
        let position = read.unwrap_or_default();
        match news {
            Some(news) if news.before < position => {
                *read = Some(loss::of_entries_read(store, shard, connection, position).await?);
                return Ok(());
            }
            Some(news) => tell(store, shard, position, id, news),
            None => {
                store.metrics.fault(StoreFault::Index);
                tracing::error!(shard, entry = %id, "an entry of the firehose is damaged");
                store.lost_place();
            }
        }
        *read = Some(id);
        progress.reach(id);
    }
    let position = read.unwrap_or_default();
    loss::of_entries_acknowledged(store, shard, position, is_quiet.then_some(asked)).await
}

/// Passes a new entry to the sink.
fn tell(store: &RedisStore, shard: usize, position: EventId, id: EventId, news: News) {
    let News { before, channel, previous, events } = news;
    if before > position {
        tracing::warn!(shard, "was away for longer than the firehose is kept");
        store.lost_place();
    }
    let last = events.last().map_or(previous, |stored| stored.id);
    store.progress[shard].note_read(id, Remembered { channel: channel.clone(), last });
    store.limits.note(&channel, &events);
    store.sink.appended(&channel, previous, &events);
    let lag = store.redis_now().saturating_sub(id.ms);
    store.metrics.lag_seconds.set(lag as f64 / 1_000.0);
}

async fn read_entries(
    store: &RedisStore,
    shard: usize,
    connection: &RedisConnection,
    position: EventId,
) -> Result<Vec<Entry>, StoreError> {
    let words =
        ["COUNT", &READ_MAX.to_string(), "BLOCK", &BLOCK.as_millis().to_string(), "STREAMS"];
    let words = words.into_iter().map(Value::from);
    let place = [store.keys.firehose(shard), position.to_string()];
    let words = words.chain(place.iter().map(|word| Value::from(word.as_str()))).collect();
    let timeout = BLOCK + ANSWER_TIME_MAX;
    let answer = connection.command("XREAD", store.keys.slot(shard), words, timeout).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            if *error.kind() == ErrorKind::Timeout {
                // The command still occupies the connection.
                connection.reconnect().await;
            }
            return Err(connection.down(&error));
        }
    };
    entries(answer)
}

/// Reads the answer of XREAD on one stream.
pub fn entries(answer: Value) -> Result<Vec<Entry>, StoreError> {
    let streams = match answer {
        // In RESP3 the answer is a map.
        Value::Map(map) => map.inner().into_values().collect(),
        other => match array(other)?.pop() {
            None => return Ok(Vec::new()),
            Some(stream) => array(stream)?.into_iter().skip(1).collect::<Vec<_>>(),
        },
    };
    let entries = streams.into_iter().next().ok_or_else(unexpected)?;
    array(entries)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<Entry, StoreError> {
    let mut parts = array(value)?.into_iter();
    let entry_id = id(next(&mut parts)?)?;
    let news = next(&mut parts).and_then(array).and_then(news).ok();
    Ok(Entry { id: entry_id, news })
}

fn news(fields: Vec<Value>) -> Result<News, StoreError> {
    let mut fields = fields.into_iter();
    let mut field = |name: &str| {
        let found = text(next(&mut fields)?)?;
        if found == name { next(&mut fields) } else { Err(unexpected()) }
    };
    let before = id(field("q")?)?;
    let channel = ChannelName::stored(&text(field("c")?)?).map_err(|_| unexpected())?;
    let previous = id(field("p")?)?;
    let first = id(field("i")?)?;
    let events = reply::stored_batch(first, &reply::bytes(field("b")?)?)?;
    Ok(News { before, channel, previous, events })
}
