//! How far an origin has read the firehose of each shard (the recent events of all channels of the
//! shard, see `tail.rs`), and which of its entries the origin knows.
//!
//! An origin knows an entry if it has read the entry from the firehose, or if Redis has
//! acknowledged to it the publish that made the entry. The origin remembers the newest entries of
//! both kinds. If the firehose loses entries, the origin finds out which ones.

use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio::time::Instant;

/// Maximum number of remembered entries, of those that were read and of those that were not.
const REMEMBERED_MAX: usize = 20_000;

/// How far a shard was read, and which entries it had.
#[derive(Debug)]
pub struct Progress {
    /// The last entry that was read. `None` means that reading has not begun.
    read: watch::Sender<Option<EventId>>,
    /// The keys of the shard were made for another number of shards.
    disagrees: AtomicBool,
    known: Mutex<Known>,
}

/// A publish that this origin read, or that Redis acknowledged to it.
#[derive(Clone, Debug)]
pub struct Remembered {
    pub channel: ChannelName,
    pub last: EventId,
}

#[derive(Debug, Default)]
struct Known {
    read: BTreeMap<EventId, Remembered>,
    /// Acknowledged and not read yet, with the time of the acknowledgement.
    unread: BTreeMap<EventId, (Remembered, Instant)>,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            read: watch::Sender::new(None),
            disagrees: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    /// Notes whether the keys were made for the number of shards of this origin.
    pub fn agree(&self, agrees: bool) {
        self.disagrees.store(!agrees, Ordering::Relaxed);
    }

    /// Whether the keys were made for this number of shards at the last check.
    pub fn agrees(&self) -> bool {
        !self.disagrees.load(Ordering::Relaxed)
    }

    /// Notes that everything up to `entry` was read, also where reading goes back to `entry`.
    pub fn reach(&self, entry: EventId) {
        self.read.send_replace(Some(entry));
    }

    /// Completes once everything up to `entry` was read.
    pub async fn reached(&self, entry: EventId) {
        // The sender lives as long as the store.
        self.read.subscribe().wait_for(|read| read.is_some_and(|read| read >= entry)).await.ok();
    }

    /// Remembers an entry that was read.
    pub fn note_read(&self, entry: EventId, publish: Remembered) {
        let mut known = self.known.lock();
        known.unread.remove(&entry);
        known.read.insert(entry, publish);
        while known.read.len() > REMEMBERED_MAX {
            known.read.pop_first();
        }
    }

    /// Remembers an entry that Redis has acknowledged at the time `at`.
    pub fn note_acknowledged(&self, entry: EventId, publish: Remembered, at: Instant) {
        let mut known = self.known.lock();
        if known.read.contains_key(&entry) {
            return;
        }
        known.unread.insert(entry, (publish, at));
        while known.unread.len() > REMEMBERED_MAX {
            known.unread.pop_first();
        }
    }

    /// Forgets entries: they are lost and announced, or they need no further check.
    pub fn forget(&self, entries: &[EventId]) {
        let mut known = self.known.lock();
        for entry in entries {
            known.read.remove(entry);
            known.unread.remove(entry);
        }
    }

    /// Returns all remembered entries, the newest first.
    pub fn newest_first(&self) -> Vec<(EventId, Remembered)> {
        let known = self.known.lock();
        let unread = known.unread.iter().map(|(entry, (publish, _))| (entry, publish));
        let mut all: Vec<_> = known.read.iter().chain(unread).collect();
        all.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        all.into_iter().map(|(entry, publish)| (*entry, publish.clone())).collect()
    }

    /// Returns the entries that were acknowledged but that reading has missed: those up to
    /// `position`, and those that were acknowledged before `quiet_since`, if the firehose has had
    /// no entry since then.
    pub fn missed(
        &self,
        position: EventId,
        quiet_since: Option<Instant>,
    ) -> Vec<(EventId, Remembered)> {
        let known = self.known.lock();
        let passed = known.unread.range(..=position);
        let later = (Bound::Excluded(position), Bound::Unbounded);
        let later = quiet_since.map(|since| {
            known.unread.range(later).filter(move |(_, (_, acknowledged))| *acknowledged < since)
        });
        let missed = passed.chain(later.into_iter().flatten());
        missed.map(|(entry, (publish, _))| (*entry, publish.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn publish() -> Remembered {
        Remembered { channel: ChannelName::parse("a").expect("a name"), last: entry(1) }
    }

    fn entry(ms: u64) -> EventId {
        EventId { ms, seq: 0 }
    }

    fn ids(entries: Vec<(EventId, Remembered)>) -> Vec<u64> {
        entries.into_iter().map(|(entry, _)| entry.ms).collect()
    }

    #[test]
    fn an_acknowledged_entry_is_missed_once_reading_has_passed_it() {
        let progress = Progress::new();
        progress.note_acknowledged(entry(5), publish(), Instant::now());
        assert!(ids(progress.missed(entry(4), None)).is_empty());
        assert_eq!(ids(progress.missed(entry(6), None)), [5]);
        progress.note_read(entry(5), publish());
        assert!(ids(progress.missed(entry(6), None)).is_empty());
        // The acknowledgement may also arrive after the entry was read.
        progress.note_acknowledged(entry(5), publish(), Instant::now());
        assert!(ids(progress.missed(entry(6), None)).is_empty());
    }

    #[test]
    fn an_acknowledged_entry_is_missed_if_nothing_follows_in_time() {
        let progress = Progress::new();
        let at = Instant::now();
        progress.note_acknowledged(entry(5), publish(), at);
        assert!(ids(progress.missed(entry(4), Some(at))).is_empty());
        assert_eq!(ids(progress.missed(entry(4), Some(at + Duration::from_millis(1)))), [5]);
    }

    #[test]
    fn remembered_entries_are_bounded_and_come_newest_first() {
        let progress = Progress::new();
        for ms in 1..=REMEMBERED_MAX as u64 + 5 {
            progress.note_read(entry(2 * ms), publish());
            progress.note_acknowledged(entry(2 * ms + 1), publish(), Instant::now());
        }
        let all = ids(progress.newest_first());
        assert_eq!(all.len(), 2 * REMEMBERED_MAX);
        assert!(all.is_sorted_by(|newer, older| newer > older));
        progress.forget(&[entry(all[0]), entry(all[1])]);
        assert_eq!(ids(progress.newest_first()), all[2..]);
    }
}
