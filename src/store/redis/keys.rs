//! The keys of the Redis store. What one version writes the next reads: these names and what lies
//! under them are the format.
//!
//! Channels are spread over shards; all keys of a shard carry one hash tag, so a script can touch
//! them together and in a cluster each shard has its node.

use crate::core::event::ChannelName;
use xxhash_rust::xxh3::xxh3_64;

/// Names of keys.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    shards: usize,
}

impl Keys {
    pub fn new(prefix: &str, shards: usize) -> Self {
        Self { prefix: prefix.to_owned(), shards }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The shard of a channel.
    pub fn shard_of(&self, channel: &ChannelName) -> usize {
        (xxh3_64(channel.as_str().as_bytes()) % self.shards as u64) as usize
    }

    /// The cluster slot of a shard.
    pub fn slot(&self, shard: usize) -> u16 {
        fred::util::redis_keyslot(self.tag(shard).as_bytes())
    }

    /// Stream: every event of the shard's channels, for a while.
    pub fn firehose(&self, shard: usize) -> String {
        format!("{}:firehose", self.tag(shard))
    }

    /// Hash: where the firehose ends, its bytes, the place before all events, the newest event, and
    /// the number of shards.
    pub fn head(&self, shard: usize) -> String {
        format!("{}:head", self.tag(shard))
    }

    /// Stream: a channel's events.
    pub fn log(&self, channel: &ChannelName) -> String {
        self.of_channel(channel, "log")
    }

    /// Hash: a channel's last id, its end, the place before its first event, its sizes.
    pub fn meta(&self, channel: &ChannelName) -> String {
        self.of_channel(channel, "meta")
    }

    /// Hash: the newest event of each key.
    pub fn state(&self, channel: &ChannelName) -> String {
        self.of_channel(channel, "state")
    }

    /// What the scripts take that read a channel.
    pub fn of_log(&self, channel: &ChannelName) -> [String; 3] {
        [self.head(self.shard_of(channel)), self.log(channel), self.meta(channel)]
    }

    /// The same, and its state.
    pub fn of_state(&self, channel: &ChannelName) -> [String; 4] {
        let [head, log, meta] = self.of_log(channel);
        [head, log, meta, self.state(channel)]
    }

    /// String: what an idempotency key stands for.
    pub fn idempotency(&self, channel: &ChannelName, key: &str) -> String {
        format!("{}:{key}", self.of_channel(channel, "once"))
    }

    /// String, stream and hash: only to find out what this user may do.
    pub fn self_test(&self, shard: usize) -> [String; 3] {
        ["string", "stream", "hash"].map(|kind| format!("{}:self-test:{kind}", self.tag(shard)))
    }

    /// String: the number of shards, which all origins must agree on.
    pub fn shard_count(&self) -> String {
        format!("{}:shards", self.tag(0))
    }

    /// Hash: settings in which all origins agree.
    pub fn settings(&self) -> String {
        format!("{}:settings", self.tag(0))
    }

    fn of_channel(&self, channel: &ChannelName, what: &str) -> String {
        format!("{}:{what}:{channel}", self.tag(self.shard_of(channel)))
    }

    fn tag(&self, shard: usize) -> String {
        format!("{{{}:{shard}}}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_channel_share_a_slot_and_keep_their_names() {
        let keys = Keys::new("hw", 4);
        let channel = ChannelName::parse("a").unwrap();
        let shard = keys.shard_of(&channel);
        assert_eq!(keys.log(&channel), format!("{{hw:{shard}}}:log:a"));
        let slot = |key: &str| fred::util::redis_keyslot(key.as_bytes());
        for key in [
            keys.log(&channel),
            keys.meta(&channel),
            keys.state(&channel),
            keys.idempotency(&channel, "}x{"),
            keys.firehose(shard),
            keys.head(shard),
        ] {
            assert_eq!(slot(&key), keys.slot(shard), "{key}");
        }
        // The spread is part of the format.
        let shards: Vec<_> = ["a", "b", "c", "ticker"]
            .map(|name| keys.shard_of(&ChannelName::parse(name).unwrap()))
            .into();
        assert_eq!(shards, [3, 3, 3, 1]);
    }
}
