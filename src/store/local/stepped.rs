//! The log without its threads, for simulations. The caller runs the steps of the writer and of the
//! maintenance one by one, so that the seed of the simulation determines the order of all steps.

use super::command::CommandQueue;
use super::files::Files;
use super::maintenance::{Maintainer, Maintenance, Tasks};
use super::writer::Writer;
use super::{ChannelLimits, EventSink, LocalConfig, LocalStore};
use crate::sync::clock::Clock;
use std::io;
use std::sync::Arc;

/// Most tasks of the maintenance that may wait.
const TASKS_MAX: usize = 64;

/// The work that the threads of a store would do.
pub struct Steps {
    writer: Writer,
    queue: CommandQueue,
    maintainer: Maintainer,
    maintenance: Maintenance,
    tasks: Tasks,
}

impl LocalStore {
    /// Opens a store on these files, without threads. Its commands wait until the caller does the
    /// steps.
    ///
    /// # Errors
    /// Fails when the log has another format, or when a file cannot be created, read or written.
    pub fn open_stepped(
        files: Arc<dyn Files>,
        config: LocalConfig,
        limits: impl Into<Arc<ChannelLimits>>,
        clock: Clock,
        sink: Arc<dyn EventSink>,
    ) -> io::Result<(Self, Steps)> {
        let (store, writer, queue) = Self::build(files, config, limits.into(), clock, sink, false)?;
        let (maintainer, tasks) = Maintenance::without_thread(TASKS_MAX);
        let maintenance = writer.maintenance();
        Ok((store, Steps { writer, queue, maintainer, maintenance, tasks }))
    }
}

impl Steps {
    /// Applies the commands that wait, in one commit. Returns whether any command waited.
    pub fn write(&mut self) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        self.writer.step(&mut self.queue, &self.maintainer);
        true
    }

    /// Does one task of the maintenance. Returns whether there was one.
    pub fn maintain(&mut self) -> bool {
        self.maintenance.step(&self.tasks)
    }

    /// Closes the log, as a process does that is stopped.
    pub fn stop(mut self) {
        while self.write() {}
        self.writer.end();
        while self.maintain() {}
    }
}
