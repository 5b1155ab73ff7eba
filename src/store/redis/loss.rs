//! Handles the loss of events that Redis had acknowledged: a replica that lagged was promoted, or
//! the data were deleted. Every affected channel gets a `gap` event.
//!
//! An origin finds a loss in two ways. First, the origin has read an entry that the firehose no
//! longer has: the firehose ends before that entry, or the next entry that the origin reads names a
//! predecessor that is older than that entry. Second, Redis has acknowledged an entry to the
//! origin, but the origin never reads it, because the Redis server failed between the
//! acknowledgement and the read (`tail.rs`). Only the origin that received the acknowledgement can
//! find the second kind.

use super::RedisStore;
use super::connection::RedisConnection;
use super::progress::Remembered;
use super::reply::{array, id, next};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::store::{StoreError, StoreFault};
use fred::types::Value;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// The entries that are lost, and for each affected channel its newest lost event.
#[derive(Default)]
struct LostEntries {
    entries: Vec<EventId>,
    channels: BTreeMap<ChannelName, EventId>,
}

/// Handles the loss of entries that this origin had read up to `position`. Announces the loss in
/// every affected channel. Returns the newest entry up to which the log still equals what was read,
/// from which reading continues.
pub async fn of_entries_read(
    store: &RedisStore,
    shard: usize,
    connection: &RedisConnection,
    position: EventId,
) -> Result<EventId, StoreError> {
    let mut common = EventId::START;
    let mut lost = LostEntries::default();
    for (entry, publish) in store.progress[shard].newest_first() {
        if first_entry(store, shard, connection, entry, Some(entry)).await?.is_none() {
            lost.add(entry, publish);
        } else if entry <= position {
            common = entry;
            break;
        }
        // An entry that exists but was not read yet was acknowledged by the new server.
    }
    announce(store, shard, lost).await?;
    tracing::info!(shard, kept = %common, "the log is read again from the newest entry that is left");
    store.progress[shard].reach(common);
    Ok(common)
}

/// Handles the loss of entries that Redis had acknowledged to this origin and that reading has
/// missed (see `Progress::missed`).
pub async fn of_entries_acknowledged(
    store: &RedisStore,
    shard: usize,
    position: EventId,
    quiet_since: Option<Instant>,
) -> Result<(), StoreError> {
    let progress = &store.progress[shard];
    let missed = progress.missed(position, quiet_since);
    if missed.is_empty() {
        return Ok(());
    }
    // The entries were acknowledged over this connection. The follower's own connection may still
    // lead to a server that does not have them yet.
    let connection = &store.connection;
    let oldest = first_entry(store, shard, connection, EventId::START, None).await?;
    let mut lost = LostEntries::default();
    for (entry, publish) in missed {
        let is_stored = first_entry(store, shard, connection, entry, Some(entry)).await?.is_some();
        // Of an entry that is older than the firehose, it is unknown whether it was lost. It was
        // most likely removed because of its age while this origin was disconnected.
        let is_decided = oldest.is_none_or(|oldest| oldest < entry);
        if !is_stored && is_decided {
            lost.add(entry, publish);
        } else if !is_stored || entry <= position {
            progress.forget(&[entry]);
        }
    }
    match lost.entries.is_empty() {
        true => Ok(()),
        false => announce(store, shard, lost).await,
    }
}

impl LostEntries {
    fn add(&mut self, entry: EventId, publish: Remembered) {
        self.entries.push(entry);
        let newest = self.channels.entry(publish.channel).or_default();
        *newest = publish.last.max(*newest);
    }
}

/// Adds a `gap` event to every affected channel. The entries are forgotten only after all
/// announcements: if one fails, all are announced again.
async fn announce(store: &RedisStore, shard: usize, lost: LostEntries) -> Result<(), StoreError> {
    let LostEntries { entries, channels } = lost;
    tracing::error!(
        shard,
        channels = channels.len(),
        "redis has lost events that were read or acknowledged here"
    );
    if !channels.is_empty() {
        store.metrics.fault(StoreFault::Lost);
    }
    for (channel, last) in channels {
        store.announce_loss(&channel, last).await?;
    }
    store.progress[shard].forget(&entries);
    store.lost_place();
    Ok(())
}

/// Returns the first entry of the firehose from `from` to `to` (or the end).
async fn first_entry(
    store: &RedisStore,
    shard: usize,
    connection: &RedisConnection,
    from: EventId,
    to: Option<EventId>,
) -> Result<Option<EventId>, StoreError> {
    let (from, to) = (from.to_string(), to.map_or("+".to_owned(), |to| to.to_string()));
    let key = store.keys.firehose(shard);
    let words = [key.as_str(), &from, &to, "COUNT", "1"].map(Value::from).into();
    let slot = store.keys.slot(shard);
    let found = connection.command("XRANGE", slot, words, store.config.timeout).await;
    let mut found = array(found.map_err(|error| connection.down(&error))?)?.into_iter();
    let Some(entry) = found.next() else { return Ok(None) };
    id(next(&mut array(entry)?.into_iter())?).map(Some)
}
