//! Lists the channels of the catalog and their sizes, for operators.

use super::super::{ChannelFilter, ChannelSize};
use super::catalog::Catalog;
use crate::core::event::ChannelName;
use std::collections::BTreeSet;

impl Catalog {
    /// Returns the first names that `filter` selects.
    pub fn names(&self, filter: &ChannelFilter) -> Vec<ChannelName> {
        let mut names = BTreeSet::new();
        self.channels.keys().for_each(|name| filter.collect(&mut names, name));
        names.into_iter().collect()
    }

    /// Returns how much is kept of a channel.
    pub fn size(&self, name: &ChannelName) -> ChannelSize {
        let Some(channel) = self.channels.get(name) else { return ChannelSize::default() };
        ChannelSize {
            events: channel.events,
            bytes: channel.bytes,
            keys: channel.state.len() as u64,
            state_bytes: channel.state_bytes,
        }
    }
}
