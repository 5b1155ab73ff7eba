//! Changes the settings of single channels, and deletes channels, for operators.

use super::Hub;
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, FieldError};
use crate::store::{ChannelSettings, Limits, Publication, StoreError, settings_channel};

impl Hub {
    /// Returns the settings that an operator has given to a channel, and the limits that result
    /// from all settings.
    pub fn settings_of(&self, name: &ChannelName) -> (ChannelSettings, Limits) {
        let limits = self.store.limits();
        (limits.own_settings(name), limits.of(name))
    }

    /// Replaces the settings of a channel, which does not have to exist. They apply from the
    /// channel's next event on; the log on disk and in memory also applies the time limits within
    /// seconds.
    ///
    /// # Errors
    /// Fails when the store refuses the change or does not answer in time.
    pub async fn set_channel(
        &self,
        name: &ChannelName,
        settings: ChannelSettings,
    ) -> Result<(), StoreError> {
        self.store_setting(settings.event_for(name)).await
    }

    /// Ends a channel, drops its events, its state and its settings, and makes every origin on the
    /// store drop the events from memory. Returns the id of the `end` event.
    ///
    /// # Errors
    /// Fails when the channel does not exist, or when the store does not answer in time. Deleting
    /// can be repeated.
    pub async fn delete_channel(&self, name: &ChannelName) -> Result<EventId, StoreError> {
        let end = self.settled(self.store.erase(name)).await?;
        self.store_setting(ChannelSettings::deletion_of(name)).await?;
        Ok(end)
    }

    async fn store_setting(&self, event: Result<Event, FieldError>) -> Result<(), StoreError> {
        let events = vec![event.map_err(|error| StoreError::Down(error.to_string()))?];
        let publication = Publication { channel: settings_channel(), events, idempotency: None };
        self.settled(self.store.publish(publication)).await.map(drop)
    }
}
