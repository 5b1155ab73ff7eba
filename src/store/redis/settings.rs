//! The settings in which the origins of one deployment agree, and what happens when they do not.
//!
//! With another number of shards, an origin would look for channels where they are not: it serves
//! nothing until that is put right. The other settings differ for a while whenever an operator
//! changes them, one origin after the other: each origin reports that, and goes on.

use super::RedisStore;
use super::reply::{array, text, unexpected};
use crate::store::StoreError;
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};

/// Why nothing is read from a shard whose keys were made for another number of shards.
pub const OTHER_SHARDS: &str =
    "redis: the keys were made for another number of shards (--redis-shards)";

/// Settings of this origin, by their flags.
pub type Settings = Vec<(&'static str, String)>;

/// How the settings of this origin differ from those that are stored, as it was logged last.
#[derive(Default)]
pub struct Difference(Mutex<String>);

impl RedisStore {
    /// Stores the settings of this origin, over those of others.
    pub async fn claim_settings(&self) -> Result<(), StoreError> {
        for (flag, stored, own) in self.different_settings(true).await?.1 {
            tracing::warn!(
                "another origin of this --redis-prefix was started with {flag} {stored}, this one \
                 with {own}; start all of them with the same"
            );
        }
        Ok(())
    }

    /// Looks whether another origin was started with other settings since.
    pub async fn watch_settings(&self) -> Result<(), StoreError> {
        let (were_missing, different) = self.different_settings(false).await?;
        if were_missing {
            // They were lost. What the others have is seen once each has written what it misses.
            return Ok(());
        }
        self.metrics.settings_differ.set(different.len() as i64);
        let words =
            different.iter().map(|(flag, stored, own)| format!("{flag} {stored} (not {own})"));
        let words = words.collect::<Vec<_>>().join(", ");
        let mut known = self.difference.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Whether some were not stored, and flag, stored value and own value of each that differs.
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

/// What an origin says whose number of shards is not the one that the keys were made for.
pub fn wrong_shards(stored: &str) -> StoreError {
    StoreError::Down(format!(
        "redis: these keys are spread over {stored} shards; start with --redis-shards {stored}, or with \
         another --redis-prefix"
    ))
}
