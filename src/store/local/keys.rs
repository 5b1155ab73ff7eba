//! The idempotency keys that the log remembers.

use super::records::KeyRecord;
use crate::core::event::ChannelName;
use std::collections::{HashMap, VecDeque};

/// The idempotency keys, by channel and key.
#[derive(Debug, Default)]
pub struct Keys {
    by_name: HashMap<(ChannelName, Box<str>), KeyRecord>,
    oldest_first: VecDeque<(u64, ChannelName, Box<str>)>,
}

impl Keys {
    pub fn len(&self) -> u64 {
        self.by_name.len() as u64
    }

    pub fn get(&self, channel: &ChannelName, key: &str) -> Option<&KeyRecord> {
        self.by_name.get(&(channel.clone(), key.into()))
    }

    pub fn insert(&mut self, channel: ChannelName, record: KeyRecord) {
        self.oldest_first.push_back((record.expires_at, channel.clone(), record.key.clone()));
        self.by_name.insert((channel, record.key.clone()), record);
    }

    /// Forgets expired keys.
    pub fn expire(&mut self, now: u64) {
        while let Some((expires_at, channel, key)) =
            self.oldest_first.pop_front_if(|first| first.0 <= now)
        {
            let name = (channel, key);
            // A key that was used again after its expiry has a newer record.
            if self.by_name.get(&name).is_some_and(|record| record.expires_at == expires_at) {
                self.by_name.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cursor::EventId;

    #[test]
    fn a_key_is_forgotten_at_its_expiry_and_kept_where_it_was_used_again() {
        let channel = ChannelName::parse("a").unwrap();
        let mut keys = Keys::default();
        for (key, expires_at) in [("again", 10), ("once", 20), ("again", 30)] {
            let (key, first) = (key.into(), EventId::START);
            let record = KeyRecord { key, digest: 1, first, count: 1, expires_at };
            keys.insert(channel.clone(), record);
        }
        for (now, known) in [(9, 2), (10, 2), (19, 2), (20, 1), (29, 1), (30, 0)] {
            keys.expire(now);
            assert_eq!(keys.len(), known, "at {now}");
            assert_eq!(keys.get(&channel, "again").is_some(), now < 30);
            assert_eq!(keys.get(&channel, "once").is_some(), now < 20);
        }
    }
}
