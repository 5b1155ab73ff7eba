//! Lists the channels in Redis and their sizes, for operators.

use super::RedisStore;
use super::reply::{array, next, number, text};
use crate::core::event::ChannelName;
use crate::store::{ChannelFilter, ChannelSize, StoreError};
use fred::types::Value;
use std::collections::BTreeSet;

/// The number of keys that Redis examines in one step of a scan. A step of this size takes about a
/// millisecond, in which Redis serves no other command.
const SCAN_STEP: &str = "1000";

impl RedisStore {
    /// Returns the first names that `filter` selects. Redis has no list of the channels, so this
    /// scans all keys of each node, in steps.
    pub async fn names_of(&self, filter: &ChannelFilter) -> Result<Vec<ChannelName>, StoreError> {
        self.checked().await?;
        let mut names = BTreeSet::new();
        for shard in 0..self.keys.shards() {
            self.scan(shard, filter, &mut names).await?;
        }
        Ok(names.into_iter().collect())
    }

    async fn scan(
        &self,
        shard: usize,
        filter: &ChannelFilter,
        names: &mut BTreeSet<ChannelName>,
    ) -> Result<(), StoreError> {
        let before_name = self.keys.before_name(shard);
        let pattern = format!("{}*", escaped(&before_name));
        let mut cursor = "0".to_owned();
        loop {
            let words = [cursor.as_str(), "MATCH", &pattern, "COUNT", SCAN_STEP];
            let words = words.map(Value::from).into();
            let slot = self.keys.slot(shard);
            let step = self.connection.command("SCAN", slot, words, self.config.timeout).await;
            let step = step.map_err(|error| self.connection.down(&error))?;
            let mut parts = array(step)?.into_iter();
            cursor = text(next(&mut parts)?)?;
            for key in array(next(&mut parts)?)? {
                let key = text(key)?;
                let name = key.strip_prefix(&before_name).map(ChannelName::parse);
                if let Some(Ok(name)) = name {
                    filter.collect(names, &name);
                }
            }
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    /// Returns how much is kept of a channel.
    pub async fn size_of(&self, channel: &ChannelName) -> Result<ChannelSize, StoreError> {
        let [_, log, meta, state] = self.keys.of_state(channel);
        let answer = self.script(&self.scripts.size, channel, &[log, meta, state], &[]).await?;
        let mut parts = array(answer)?.into_iter();
        let mut part = || number(next(&mut parts)?);
        let (events, bytes) = (part()?, part()?);
        Ok(ChannelSize { events, bytes, keys: part()?, state_bytes: part()? })
    }
}

/// Escapes the characters that have a meaning in a pattern of Redis.
fn escaped(text: &str) -> String {
    let is_special = |character| matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
    let mut out = String::new();
    for character in text.chars() {
        if is_special(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
