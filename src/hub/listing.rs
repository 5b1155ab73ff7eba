//! Describes the channels, for operators.

use super::Hub;
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::store::{ChannelFilter, ChannelSize, StoreError};
use futures_util::future::try_join_all;
use std::collections::BTreeSet;

/// The number of channels whose properties are read from the store at the same time.
const READ_AT_ONCE: usize = 16;

/// A channel, as operators see it.
#[derive(Clone, Debug)]
pub struct ChannelInfo {
    /// The name of the channel.
    pub name: ChannelName,
    /// The extent and the status of its log.
    pub log_state: LogState,
    /// How much of it is kept.
    pub size: ChannelSize,
    /// The number of subscribers at this origin.
    pub subscribers: usize,
}

impl ChannelInfo {
    /// Whether anything was ever published to the channel, as far as the store remembers it.
    pub fn has_log(&self) -> bool {
        self.log_state.bounds.last != self.log_state.bounds.beginning
    }
}

impl Hub {
    /// Returns the channels of the store, and those that only have subscribers, as far as `filter`
    /// selects them. With `is_subscribed`, only channels with subscribers at this origin are
    /// returned, and the store does not have to look for names.
    ///
    /// # Errors
    /// Fails when the store fails or does not answer in time.
    pub async fn channels(
        &self,
        filter: &ChannelFilter,
        is_subscribed: bool,
    ) -> Result<Vec<ChannelInfo>, StoreError> {
        let mut names = BTreeSet::new();
        if !is_subscribed {
            // A scan of Redis has many steps, each with a time limit of its own.
            names.extend(self.store.names(filter).await?);
        }
        self.registry.collect_names(filter, &mut names);
        let names: Vec<_> = names.into_iter().collect();
        let mut channels = Vec::with_capacity(names.len());
        for names in names.chunks(READ_AT_ONCE) {
            let read = names.iter().map(|name| self.channel(name));
            channels.extend(try_join_all(read).await?);
        }
        Ok(channels)
    }

    /// Returns one channel.
    ///
    /// # Errors
    /// Fails when the store fails or does not answer in time.
    pub async fn channel(&self, name: &ChannelName) -> Result<ChannelInfo, StoreError> {
        let log_state = self.log_state(name).await?;
        let size = self.in_time(self.store.size(name)).await?;
        let subscribers = self.registry.subscribers(name);
        Ok(ChannelInfo { name: name.clone(), log_state, size, subscribers })
    }
}
