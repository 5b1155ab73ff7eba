//! The settings that must be the same for all origins of a deployment, and the handling of
//! differences.
//!
//! An origin whose number of shards differs from that in Redis would look for channels in the wrong
//! shards, so it serves nothing until that is corrected. Other settings differ for a while whenever
//! an operator changes them on one origin after the other. Each origin reports such a difference
//! and continues.

use super::RedisStore;
use super::reply::{array, text, unexpected};
use crate::store::StoreError;
use bytes::Bytes;
use parking_lot::Mutex;

/// The error for a shard whose keys were made for another number of shards.
pub const OTHER_SHARDS: &str =
    "redis: the keys were made for another number of shards (--redis-shards)";

/// The settings of this origin, each with its flag.
pub type Settings = Vec<(&'static str, String)>;

/// The differences from the stored settings that were logged last.
#[derive(Default)]
pub struct Difference(Mutex<String>);

impl RedisStore {
    /// Stores the settings of this origin over those of other origins.
    pub async fn claim_settings(&self) -> Result<(), StoreError> {
        for (flag, stored, own) in self.different_settings(true).await?.1 {
            tracing::warn!(
                "another origin of this --redis-prefix was started with {flag} {stored}, this one \
                 with {own}; start all of them with the same"
            );
        }
        Ok(())
    }

    /// Checks whether another origin was started with other settings in the meantime.
    pub async fn watch_settings(&self) -> Result<(), StoreError> {
        let (were_missing, different) = self.different_settings(false).await?;
        if were_missing {
            // Redis has lost settings. They can be compared once each origin has stored those that
            // were missing.
            return Ok(());
        }
        self.metrics.settings_differ.set(different.len() as i64);
        let words =
            different.iter().map(|(flag, stored, own)| format!("{flag} {stored} (not {own})"));
        let words = words.collect::<Vec<_>>().join(", ");
        let mut known = self.difference.0.lock();
        if words != *known {
            match words.is_empty() {
                true => tracing::info!("the origins of this --redis-prefix have the same settings"),
                false => tracing::error!(
                    "another origin of this --redis-prefix was started with {words}; start all of \
                     them with the same, or give each deployment a --redis-prefix of its own"
                ),
            }
            *known = words;
        }
        Ok(())
    }

    /// Returns whether settings were missing in Redis, and the flag, the stored value and the own
    /// value of each setting that differs.
    async fn different_settings(
        &self,
        is_claim: bool,
    ) -> Result<(bool, Vec<(&'static str, String, String)>), StoreError> {
        let own = &self.config.settings;
        let words = own.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
        let head = [if is_claim { "1" } else { "" }.to_owned(), self.keys.shards().to_string()];
        let words = head.into_iter().chain(words);
        let words: Vec<Bytes> = words.map(Bytes::from).collect();
        let (script, keys) =
            (&self.scripts.settings, [self.keys.settings(), self.keys.shard_count()]);
        let answer = self.connection.run(script, self.keys.slot(0), &keys, &words).await;
        let others = array(answer.map_err(|error| self.connection.down(&error))?)?;
        let others = others.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let (were_missing, others) = others.split_first().ok_or_else(unexpected)?;
        let others = others.chunks_exact(2).filter_map(|pair| {
            let (flag, value) = own.iter().find(|(flag, _)| *flag == pair[0])?;
            Some((*flag, pair[1].clone(), value.clone()))
        });
        Ok((were_missing == "1", others.collect()))
    }
}

/// The error for an origin with another number of shards than the stored keys.
pub fn wrong_shards(stored: &str) -> StoreError {
    StoreError::Down(format!(
        "redis: these keys are spread over {stored} shards; start with --redis-shards {stored}, or with \
         another --redis-prefix"
    ))
}
