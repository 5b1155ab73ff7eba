//! Deletes the events and the state of a channel, and ends the channel. Also reads the settings of
//! single channels.

use super::reply::id_if_any;
use super::{NO_ANSWER, RedisStore};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::store::{StoreError, settings_channel};
use bytes::Bytes;
use tokio::time::Instant;

impl RedisStore {
    /// Ends a channel, and drops its events before that end and its state.
    pub async fn erase_call(&self, channel: &ChannelName) -> Result<EventId, StoreError> {
        self.close_call(channel).await?;
        let shard = self.keys.shard_of(channel);
        let [head, log, meta, state] = self.keys.of_state(channel);
        let keys = [head, log, meta, state, self.keys.sizes(shard)];
        let idle = self.limits.of(channel).channel_idle.as_millis().to_string();
        let arguments = [Bytes::from(channel.to_string()), Bytes::from(idle)];
        let answer = self.script(&self.scripts.erase, channel, &keys, &arguments).await?;
        let give_up = Instant::now() + self.config.timeout;
        self.wait_for_replicas(shard, self.config.wait_replicas, give_up).await?;
        id_if_any(answer)?.ok_or_else(|| {
            StoreError::Down("the channel was opened again meanwhile; delete it again".to_owned())
        })
    }

    /// Waits until Redis is reachable, and reads the settings of single channels if changes of them
    /// may have been missed: a publish trims the log of its channel by the settings.
    pub async fn may_publish(&self, give_up: Instant) -> Result<(), StoreError> {
        self.reachable(give_up).await?;
        if !self.limits.is_complete() {
            let known = self.limits.position();
            let (channel, slow) = (settings_channel(), |_| StoreError::Down(NO_ANSWER.to_owned()));
            let state = tokio::time::timeout_at(give_up, self.current_state(&channel)).await;
            self.limits.load(known, &state.map_err(slow)??);
        }
        Ok(())
    }

    /// Notes that events may have been missed, so that everything must be read again.
    pub fn lost_place(&self) {
        self.limits.mark_incomplete();
        self.sink.lost_place();
    }
}
