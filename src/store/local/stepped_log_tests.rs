//! A log whose commits and maintenance a test does one by one, for the tests of the log.
#![cfg(test)]

use super::super::{Limits, Publication, Published, StoreError};
use super::command::{CommandQueue, Reply, WriteCommand};
use super::damage_tests::Deaf;
use super::faulty_files_tests::FaultyFiles;
use super::files::{Files, Memory};
use super::health::Ticket;
use super::maintenance::{Maintainer, Maintenance, Tasks};
use super::writer::Writer;
use super::{LocalConfig, LocalStore};
use crate::core::event::{ChannelName, Event};
use crate::sync::clock::Clock;
use std::sync::Arc;
use tokio::sync::oneshot::{self, Receiver};

/// Most tasks of the maintenance that may wait.
const TASKS_MAX: usize = 100;

pub struct SteppedLog {
    pub files: Arc<FaultyFiles>,
    pub store: LocalStore,
    pub writer: Writer,
    pub queue: CommandQueue,
    pub maintainer: Maintainer,
    maintenance: Maintenance,
    tasks: Tasks,
}

impl SteppedLog {
    pub fn open(files: FaultyFiles, config: LocalConfig, limits: Limits) -> Self {
        let files = Arc::new(files);
        let dynamic: Arc<dyn Files> = files.clone();
        let (limits, clock, sink) = (limits.into(), Clock::default(), Arc::new(Deaf));
        let built = LocalStore::build(dynamic, config, limits, clock, sink, false);
        let (store, writer, queue) = built.expect("it opens");
        let (maintainer, tasks) = Maintenance::without_thread(TASKS_MAX);
        let maintenance = writer.maintenance();
        Self { files, store, writer, queue, maintainer, maintenance, tasks }
    }

    /// Makes a commit of one publish.
    pub fn publish(&mut self, publication: Publication) -> Result<Published, StoreError> {
        self.write(|reply| WriteCommand::Publish(publication, reply, Ticket::default()))
    }

    /// Makes a commit of one command, and returns its answer.
    pub fn write<T>(
        &mut self,
        command: impl FnOnce(Reply<T>) -> WriteCommand,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply));
        self.commit();
        reply_of(answer).expect("an answer")
    }

    pub fn send(&self, command: WriteCommand) {
        self.store.commands.try_send(command).expect("there is room");
    }

    pub fn commit(&mut self) {
        self.writer.step(&mut self.queue, &self.maintainer);
    }

    /// Does the tasks of the maintenance that wait, and returns their number.
    pub fn maintain(&self) -> usize {
        std::iter::repeat_with(|| self.maintenance.step(&self.tasks)).take_while(|did| *did).count()
    }

    /// Returns the names of the files with this extension, in order.
    pub fn names(&self, extension: &str) -> Vec<String> {
        let mut names = self.files.memory.list().expect("they are in memory");
        names.retain(|name| name.ends_with(extension));
        names.sort();
        names
    }
}

/// Files in memory that the log treats as if they survived the process.
pub fn durable_files() -> FaultyFiles {
    FaultyFiles::new(Memory::durable(Default::default()))
}

pub fn publication(channel: &str, data: &str) -> Publication {
    let events = vec![Event::stored(None, None, data)];
    Publication { channel: name(channel), events, idempotency: None }
}

pub fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a channel name")
}

pub fn reply_of<T>(mut answer: Receiver<T>) -> Option<T> {
    answer.try_recv().ok()
}
