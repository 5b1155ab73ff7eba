//! Reads the states of channels, and the settings of single channels, which are stored as the state
//! of a reserved channel.

use super::super::{State, StoreError, settings_channel};
use super::LocalStore;
use super::catalog::LogFile;
use super::summary::Kept;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use std::io;

/// Where the state of a channel is.
struct StateLocation {
    kept: Vec<(LogFile, Kept)>,
    /// The newest event of the channel, and its `end` event, or `0-0` while the channel is open.
    last: EventId,
    closed: EventId,
}

impl LocalStore {
    /// Returns the state of a channel.
    pub(super) async fn current_state(&self, channel: &ChannelName) -> Result<State, StoreError> {
        let Some(StateLocation { kept, last, closed }) = self.places(channel) else {
            let position = self.catalog().beginning;
            return Ok(State { position, events: Vec::new() });
        };
        let position = match closed {
            EventId::START => last,
            closed => self.place_before(channel, closed).await?,
        };
        let name = channel.clone();
        self.read_files(move |reader| reader.state(&name, position, kept)).await
    }

    /// Reads the settings of single channels, while the log is opened.
    pub(super) fn load_settings(&self) -> io::Result<()> {
        let channel = settings_channel();
        if let Some(StateLocation { kept, last, .. }) = self.places(&channel) {
            let known = self.limits.position();
            self.limits.load(known, &self.reader.state(&channel, last, kept)?);
        }
        Ok(())
    }

    fn places(&self, channel: &ChannelName) -> Option<StateLocation> {
        let catalog = self.catalog();
        let known = catalog.channels.get(channel)?;
        let kept = known.state.values();
        let kept =
            kept.filter_map(|kept| Some((catalog.log_files.get(&kept.log_file)?.clone(), *kept)));
        Some(StateLocation { kept: kept.collect(), last: known.last, closed: known.closed })
    }
}
