//! The keys of the Redis store. Later versions read the same keys, so their names and the format of
//! their values must not change.
//!
//! Channels are distributed over shards. All keys of a shard have the same hash tag, so that a
//! script can use them together, and in a cluster each shard is on one node.

use crate::core::event::ChannelName;
use xxhash_rust::xxh3::xxh3_64;

/// The names of the keys.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    shards: usize,
}

impl Keys {
    pub fn new(prefix: &str, shards: usize) -> Self {
        Self { prefix: prefix.to_owned(), shards }
    }

    /// The number of shards.
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

    /// Stream: the recent events of all channels of a shard.
    pub fn firehose(&self, shard: usize) -> String {
        format!("{}:firehose", self.tag(shard))
    }

    /// Hash: the end of the firehose, its bytes, the position before all events, the newest event,
    /// and the number of shards.
    pub fn head(&self, shard: usize) -> String {
        format!("{}:head", self.tag(shard))
    }

    /// Stream: the events of a channel.
    pub fn log(&self, channel: &ChannelName) -> String {
        self.of_channel(channel, "log")
    }

    /// Hash: the last id of a channel, its `end` event, the position before its first event, and
    /// its sizes.
    pub fn meta(&self, channel: &ChannelName) -> String {
        self.of_channel(channel, "meta")
    }

    /// The beginning of the names of [`Keys::meta`] in a shard. The name of the channel follows it.
    pub fn before_name(&self, shard: usize) -> String {
        format!("{}:meta:", self.tag(shard))
    }

    /// Hash: the newest event of each key of a channel.
    pub fn state(&self, channel: &ChannelName) -> String {
        self.of_channel(channel, "state")
    }

    /// The keys for the scripts that read a channel.
    pub fn of_log(&self, channel: &ChannelName) -> [String; 3] {
        [self.head(self.shard_of(channel)), self.log(channel), self.meta(channel)]
    }

    /// The keys of [`Keys::of_log`], and the state of the channel.
    pub fn of_state(&self, channel: &ChannelName) -> [String; 4] {
        let [head, log, meta] = self.of_log(channel);
        [head, log, meta, self.state(channel)]
    }

    /// String: the meaning of an idempotency key.
    pub fn idempotency(&self, channel: &ChannelName, key: &str) -> String {
        format!("{}:{key}", self.of_channel(channel, "once"))
    }

    /// Hash: the bytes of each channel of a shard, and of all of them under an empty name.
    pub fn sizes(&self, shard: usize) -> String {
        format!("{}:sizes", self.tag(shard))
    }

    /// Hash: how many idempotency keys of a shard expire at which time.
    pub fn key_counts(&self, shard: usize) -> String {
        format!("{}:key-counts", self.tag(shard))
    }

    /// String, stream and hash: used only to test which commands this user may run.
    pub fn self_test(&self, shard: usize) -> [String; 3] {
        ["string", "stream", "hash"].map(|kind| format!("{}:self-test:{kind}", self.tag(shard)))
    }

    /// A key of each kind of a shard, for a channel that has no events.
    pub fn of_each_kind(&self, shard: usize) -> Vec<String> {
        let tag = self.tag(shard);
        let of_channel =
            ["log", "meta", "state", "once"].map(|kind| format!("{tag}:{kind}:self-test:"));
        let mut keys =
            vec![self.firehose(shard), self.head(shard), self.sizes(shard), self.key_counts(shard)];
        keys.extend(of_channel);
        if shard == 0 {
            keys.extend([self.shard_count(), self.settings()]);
        }
        keys
    }

    /// The pattern of all keys, as a rule of `ACL SETUSER`.
    pub fn acl_rule(&self) -> String {
        format!("~{{{}:*", self.prefix)
    }

    /// String: the number of shards, which must be the same for all origins.
    pub fn shard_count(&self) -> String {
        format!("{}:shards", self.tag(0))
    }

    /// Hash: the settings that must be the same for all origins.
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
        assert_eq!(keys.meta(&channel), format!("{}a", keys.before_name(shard)));
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
        // The distribution of channels over shards is part of the format.
        let shards: Vec<_> = ["a", "b", "c", "ticker"]
            .map(|name| keys.shard_of(&ChannelName::parse(name).unwrap()))
            .into();
        assert_eq!(shards, [3, 3, 3, 1]);
    }
}
