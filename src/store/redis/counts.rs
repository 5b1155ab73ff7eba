//! What counts against the limits of the whole store: channels, their bytes, and idempotency keys.
//!
//! Redis has separate counts for each shard, because a script can use the keys of one shard only.
//! The publish script therefore gets the limit minus the counts of the other shards, as this origin
//! has last read them. Within a shard the limits are exact. Over several shards, the limits can be
//! exceeded by as much as the origins publish within `LOOK_PAUSE` (see `tail`).
//!
//! Redis drops events, and channels without events and state, when their time is over, but does not
//! reduce the counts. The origins examine the counted channels one after another. They do so only
//! while the channels or the bytes of all shards exceed half of their limit, so that idle channels
//! cost nothing in a store with room.

use super::RedisStore;
use super::connection::RedisConnection;
use super::reply::{array, next, number, text};
use crate::core::event::ChannelName;
use crate::store::{Limits, StoreError};
use bytes::Bytes;
use fred::types::Value;
use parking_lot::Mutex;

/// The number of channels of a shard that are examined at once, about. For 500 of them Redis needs
/// less than a millisecond.
const RECOUNT_STEP: &str = "500";

/// The numbers of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    channels: u64,
    bytes: u64,
    idempotency_keys: u64,
}

/// The numbers of one shard that the publish script reports. `None` is a number that has not
/// changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    channels: Option<u64>,
    bytes: Option<u64>,
    idempotency_keys: Option<u64>,
}

/// The numbers of each shard, as this origin learned them last.
pub struct Counts {
    shards: Mutex<Vec<Count>>,
    /// Where the next step of the examination of each shard begins.
    cursors: Mutex<Vec<String>>,
}

impl Counts {
    pub fn new(shards: usize) -> Self {
        Self {
            shards: Mutex::new(vec![Count::default(); shards]),
            cursors: Mutex::new(vec!["0".to_owned(); shards]),
        }
    }

    /// Returns how many channels, bytes and idempotency keys a shard may have at most, as arguments
    /// of the publish script. `counts_key` says whether the publish has an idempotency key that
    /// counts.
    pub fn allowed(
        &self,
        shard: usize,
        limits: &Limits,
        is_limited: bool,
        counts_key: bool,
    ) -> [String; 3] {
        if !is_limited {
            return [u64::MAX.to_string(), u64::MAX.to_string(), String::new()];
        }
        let others = self.sum(|other| other != shard);
        let keys = limits.idempotency_keys.saturating_sub(others.idempotency_keys).to_string();
        [
            limits.channels.saturating_sub(others.channels).to_string(),
            limits.total_bytes.saturating_sub(others.bytes).to_string(),
            if counts_key { keys } else { String::new() },
        ]
    }

    /// Notes the numbers of a shard.
    pub fn note(&self, shard: usize, counted: Counted) {
        let Counted { channels, bytes, idempotency_keys } = counted;
        let mut shards = self.shards.lock();
        let count = &mut shards[shard];
        count.channels = channels.unwrap_or(count.channels);
        count.bytes = bytes.unwrap_or(count.bytes);
        count.idempotency_keys = idempotency_keys.unwrap_or(count.idempotency_keys);
    }

    /// Returns the sums over the shards that `is_wanted` selects.
    fn sum(&self, is_wanted: impl Fn(usize) -> bool) -> Count {
        let mut sum = Count::default();
        let shards = self.shards.lock();
        for (_, count) in shards.iter().enumerate().filter(|(shard, _)| is_wanted(*shard)) {
            sum.channels = sum.channels.saturating_add(count.channels);
            sum.bytes = sum.bytes.saturating_add(count.bytes);
            sum.idempotency_keys = sum.idempotency_keys.saturating_add(count.idempotency_keys);
        }
        sum
    }
}

impl Counted {
    /// Reads the end of a reply of the publish script. A publish that was repeated has no numbers.
    pub fn read(parts: &mut impl Iterator<Item = Value>) -> Result<Self, StoreError> {
        let mut part = || match parts.next().map(text).transpose()?.filter(|text| !text.is_empty())
        {
            None => Ok(None),
            Some(text) => number(Value::from(text)).map(Some),
        };
        Ok(Self { channels: part()?, bytes: part()?, idempotency_keys: part()? })
    }
}

impl RedisStore {
    /// Asks Redis for the numbers of a shard.
    pub async fn count(
        &self,
        connection: &RedisConnection,
        shard: usize,
    ) -> Result<(), StoreError> {
        let keys = [self.keys.sizes(shard), self.keys.key_counts(shard)];
        let answer = connection.run(&self.scripts.counts, self.keys.slot(shard), &keys, &[]).await;
        let answer = answer.map_err(|error| connection.down(&error))?;
        self.counts.note(shard, Counted::read(&mut array(answer)?.into_iter())?);
        Ok(())
    }

    /// Brings the numbers of a shard and the metrics up to date. An error is not reported here,
    /// because publishes then fail for the same reason, and streams go on.
    pub async fn watch_counts(&self, connection: &RedisConnection, shard: usize) {
        if self.count(connection, shard).await.is_err() {
            return;
        }
        let (total, limits) = (self.counts.sum(|_| true), self.limits.general());
        if shard == 0 {
            self.metrics.bytes.set(total.bytes as i64);
            self.metrics.fill.set(total.bytes as f64 / limits.total_bytes.max(1) as f64);
            self.fill.watch(total.bytes, limits.total_bytes);
        }
        let is_half = total.channels > limits.channels / 2 || total.bytes > limits.total_bytes / 2;
        if is_half {
            // A replica refuses this write. The master gets the same request later.
            self.recount(connection, shard).await.ok();
        }
    }

    /// Corrects the numbers of some channels of a shard.
    async fn recount(&self, connection: &RedisConnection, shard: usize) -> Result<(), StoreError> {
        let (slot, sizes) = (self.keys.slot(shard), self.keys.sizes(shard));
        let cursor = self.counts.cursors.lock()[shard].clone();
        let words = [&sizes, cursor.as_str(), "COUNT", RECOUNT_STEP].map(Value::from).into();
        let step = connection.command("HSCAN", slot, words, self.config.timeout).await;
        let mut parts = array(step.map_err(|error| connection.down(&error))?)?.into_iter();
        let cursor = text(next(&mut parts)?)?;
        let (mut keys, mut names) = (vec![sizes], Vec::new());
        for name in array(next(&mut parts)?)?.into_iter().step_by(2) {
            if let Ok(channel) = ChannelName::stored(&text(name)?) {
                keys.extend([self.keys.log(&channel), self.keys.meta(&channel)]);
                names.push(Bytes::from(channel.to_string()));
            }
        }
        let recounted = connection.run(&self.scripts.recount, slot, &keys, &names).await;
        recounted.map_err(|error| connection.down(&error))?;
        self.counts.cursors.lock()[shard] = cursor;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(channels: u64, bytes: u64, keys: u64) -> Counted {
        let [channels, bytes, idempotency_keys] = [channels, bytes, keys].map(Some);
        Counted { channels, bytes, idempotency_keys }
    }

    #[test]
    fn a_shard_gets_what_the_others_leave() {
        let counts = Counts::new(3);
        counts.note(0, counted(5, 500, 1));
        counts.note(1, counted(2, 100, 2));
        counts.note(1, Counted { bytes: Some(300), ..Counted::default() });
        let limits =
            Limits { channels: 6, total_bytes: 1_000, idempotency_keys: 9, ..Limits::default() };
        let allowed =
            |shard, is_limited, counts_key| counts.allowed(shard, &limits, is_limited, counts_key);
        assert_eq!(allowed(0, true, true), ["4", "700", "7"]);
        assert_eq!(allowed(2, true, false), ["0", "200", ""]);
        assert_eq!(allowed(2, false, true)[2], "", "a key of the origin itself");
    }

    #[test]
    fn a_number_that_has_not_changed_is_empty() {
        let read = |parts: &[&str]| Counted::read(&mut parts.iter().map(|part| Value::from(*part)));
        let Counted { channels, bytes, idempotency_keys } = read(&["", "7", ""]).unwrap();
        assert_eq!((channels, bytes, idempotency_keys), (None, Some(7), None));
        assert!(read(&["x", "7", ""]).is_err());
        assert!(read(&[]).unwrap().bytes.is_none());
    }
}
