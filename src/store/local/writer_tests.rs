//! Tests of the writer, one commit after the other, on files in memory.
#![cfg(test)]

use super::super::{Publication, Published, Store, StoreError};
use super::command::{CommandQueue, WriteCommand};
use super::damage_tests::{Deaf, FileBytes, LIMITS};
use super::files::{Files, Memory};
use super::health::Ticket;
use super::maintenance::{Maintainer, Maintenance};
use super::writer::Writer;
use super::{LocalConfig, LocalStore};
use crate::core::event::{ChannelName, Event};
use crate::sync::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::{self, Receiver};

const RESERVE: u64 = 1_000_000;
const CONFIG: LocalConfig =
    LocalConfig { timeout: Duration::from_secs(60), reserve: RESERVE, file_bytes: 8 << 20 };

/// A log whose commits the test makes.
struct Log {
    files: Arc<Memory>,
    store: LocalStore,
    writer: Writer,
    queue: CommandQueue,
    maintainer: Maintainer,
}

impl Log {
    fn open(files: FileBytes) -> Self {
        Self::with(files, CONFIG)
    }

    fn with(files: FileBytes, config: LocalConfig) -> Self {
        let files = Arc::new(Memory::durable(files));
        let dynamic: Arc<dyn Files> = files.clone();
        let (limits, clock) = (LIMITS.into(), Clock::default());
        let built = LocalStore::build(dynamic, config, limits, clock, Arc::new(Deaf), false);
        let (store, writer, queue) = built.unwrap();
        let (maintainer, _) = Maintenance::without_thread(1);
        Self { files, store, writer, queue, maintainer }
    }

    /// Makes a commit of one publish.
    fn publish(&mut self, data: &str) -> Result<Published, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(WriteCommand::Publish(publication(data), reply, Ticket::default()));
        self.commit();
        reply_of(answer).expect("an answer")
    }

    fn send(&self, command: WriteCommand) {
        self.store.commands.try_send(command).expect("there is room");
    }

    fn commit(&mut self) {
        self.writer.step(&mut self.queue, &self.maintainer);
    }

    /// The bytes of the last file after the end of its records.
    fn rest(&self) -> Vec<u8> {
        let (files, last) = (self.files.bytes(), &self.writer.last_file);
        let name = super::log_file::name(last.number, last.number, "log");
        files[&name][last.end as usize..].to_vec()
    }
}

fn publication(data: &str) -> Publication {
    let events = vec![Event::stored(None, None, data)];
    Publication { channel: name("a"), events, idempotency: None }
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

fn reply_of<T>(mut answer: Receiver<T>) -> Option<T> {
    answer.try_recv().ok()
}

#[test]
fn a_publish_leaves_the_reserve_of_the_disk_free() {
    let mut log = Log::open(FileBytes::default());
    log.publish("first").unwrap();
    let before = log.writer.last_file.end;
    log.publish("other").unwrap();
    let length = log.writer.last_file.end - before;
    log.files.set_free(RESERVE + length);
    log.publish("third").unwrap();
    log.files.set_free(RESERVE + length - 1);
    let refused = log.publish("fails").unwrap_err();
    assert!(
        matches!(&refused, StoreError::Down(why) if why.contains("--disk-reserve")),
        "{refused}"
    );
    assert!(log.writer.health.is_failing());
    log.files.set_free(RESERVE + length);
    log.publish("works").unwrap();
    assert!(!log.writer.health.is_failing());
}

#[test]
fn a_disk_that_is_almost_full_is_reported_before_a_publish_fails() {
    let log = Log::open(FileBytes::default());
    for (free, is_failing) in [(RESERVE, false), (RESERVE - 1, true)] {
        log.files.set_free(free);
        log.writer.look_at_disk();
        assert_eq!(log.writer.health.metrics.free_bytes.get(), free as i64);
        assert_eq!(log.writer.health.is_failing(), is_failing, "{free} bytes are free");
    }
    // The same fault is counted once, however often the disk is looked at.
    let faults = || format!("{:?}", log.writer.health);
    let before = faults();
    log.writer.look_at_disk();
    assert_eq!(faults(), before);
}

#[test]
fn zeros_are_written_ahead_of_every_commit() {
    let mut log = Log::open(FileBytes::default());
    let mut sizes = Vec::new();
    for _ in 0..40 {
        log.publish(&"x".repeat(100_000)).unwrap();
        assert!(log.writer.last_file.end < log.writer.last_file.allocated);
        // The checkpoint of an idle log is behind its end.
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        assert!(is_zero(&log.rest()[1_000..]), "only zeros follow the checkpoint");
        sizes.push(log.writer.last_file.allocated);
    }
    sizes.dedup();
    assert!((2..=6).contains(&sizes.len()), "the file grows in large steps: {sizes:?}");
}

#[test]
fn a_withdrawn_command_changes_nothing() {
    let mut log = Log::open(FileBytes::default());
    log.publish("kept").unwrap();
    let withdrawn = || {
        let ticket = Ticket::default();
        assert!(ticket.withdraw());
        ticket
    };
    let (reply, published) = oneshot::channel();
    log.send(WriteCommand::Publish(publication("withdrawn"), reply, withdrawn()));
    let (reply, closed) = oneshot::channel();
    log.send(WriteCommand::Close(name("a"), reply, withdrawn()));
    let (reply, erased) = oneshot::channel();
    log.send(WriteCommand::Erase(name("a"), reply, withdrawn()));
    let before = log.writer.last_file.end;
    log.commit();
    assert_eq!(log.writer.last_file.end, before);
    assert!(reply_of(published).is_none());
    assert!(reply_of(closed).is_none() && reply_of(erased).is_none());
    // A closed channel stays closed.
    let (reply, closed) = oneshot::channel();
    log.send(WriteCommand::Close(name("a"), reply, Ticket::default()));
    let (reply, reopened) = oneshot::channel();
    log.send(WriteCommand::Reopen(name("a"), reply, withdrawn()));
    log.commit();
    assert!(reply_of(closed).unwrap().is_ok() && reply_of(reopened).is_none());
    assert!(matches!(log.publish("refused"), Err(StoreError::Closed)));
}

#[test]
fn the_rest_of_an_interrupted_commit_is_overwritten_at_the_start() {
    let mut log = Log::open(FileBytes::default());
    log.publish("kept").unwrap();
    let end = log.writer.last_file.end as usize;
    log.publish("torn").unwrap();
    let torn = log.writer.last_file.end as usize - 20;
    let mut files = log.files.bytes();
    let file = files.get_mut(&super::log_file::name(1, 1, "log")).unwrap();
    file[torn..].fill(0);
    assert!(file[end..].iter().any(|byte| *byte != 0));
    let log = Log::open(files);
    assert_eq!(log.writer.last_file.end as usize, end);
    assert!(log.rest().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_command_that_was_not_begun_in_time_is_withdrawn() {
    let config = LocalConfig { timeout: Duration::from_millis(200), ..CONFIG };
    let log = Log::with(FileBytes::default(), config);
    let refused = log.store.publish(publication("late")).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Down(why) if why.contains("not take it")), "{refused}");
    let mut log = Log::with(FileBytes::default(), config);
    let publish = log.store.publish(publication("begun"));
    let begin = async {
        let (mut commands, _) = loop {
            tokio::task::yield_now().await;
            let taken = log.queue.take();
            if !taken.0.is_empty() {
                break taken;
            }
        };
        let Some(WriteCommand::Publish(_, reply, ticket)) = commands.pop() else {
            panic!("a publish")
        };
        assert!(ticket.take());
        reply
    };
    let (outcome, _reply) = tokio::join!(publish, begin);
    let unclear = outcome.unwrap_err();
    assert!(
        matches!(&unclear, StoreError::Unclear(why) if why.contains("not confirm")),
        "{unclear}"
    );
}
