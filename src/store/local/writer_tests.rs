//! Tests of the writer, one commit after the other, on files in memory.
#![cfg(test)]

use super::super::{Limits, Published, Store, StoreError};
use super::LocalConfig;
use super::command::WriteCommand;
use super::damage_tests::LIMITS;
use super::faulty_files_tests::FaultyFiles;
use super::files::{Memory, read_all};
use super::frame::{self, Kind};
use super::health::Ticket;
use super::stepped_log_tests::{SteppedLog, durable_files, name, publication, reply_of};
use std::time::Duration;
use tokio::sync::oneshot;

const RESERVE: u64 = 1_000_000;
const CONFIG: LocalConfig =
    LocalConfig { timeout: Duration::from_secs(60), reserve: RESERVE, file_bytes: 8 << 20 };

fn open(files: FaultyFiles) -> SteppedLog {
    SteppedLog::open(files, CONFIG, LIMITS)
}

/// Makes a commit of one publish.
fn publish(log: &mut SteppedLog, data: &str) -> Result<Published, StoreError> {
    log.publish(publication("a", data))
}

/// The bytes of the last file after the end of its records.
fn rest(log: &SteppedLog) -> Vec<u8> {
    let (files, last) = (log.files.memory.bytes(), &log.writer.last_file);
    let name = super::log_file::name(last.number, last.number, "log");
    files[&name][last.end as usize..].to_vec()
}

#[test]
fn a_publish_leaves_the_reserve_of_the_disk_free() {
    let mut log = open(durable_files());
    publish(&mut log, "first").unwrap();
    let before = log.writer.last_file.end;
    publish(&mut log, "other").unwrap();
    let length = log.writer.last_file.end - before;
    log.files.memory.set_free(RESERVE + length);
    publish(&mut log, "third").unwrap();
    log.files.memory.set_free(RESERVE + length - 1);
    let refused = publish(&mut log, "fails").unwrap_err();
    assert!(
        matches!(&refused, StoreError::Down(why) if why.contains("--disk-reserve")),
        "{refused}"
    );
    assert!(log.writer.health.is_failing());
    log.files.memory.set_free(RESERVE + length);
    publish(&mut log, "works").unwrap();
    assert!(!log.writer.health.is_failing());
}

#[test]
fn a_disk_that_is_almost_full_is_reported_before_a_publish_fails() {
    let log = open(durable_files());
    for (free, is_failing) in [(RESERVE, false), (RESERVE - 1, true)] {
        log.files.memory.set_free(free);
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
    let mut log = open(durable_files());
    let mut sizes = Vec::new();
    for _ in 0..40 {
        publish(&mut log, &"x".repeat(100_000)).unwrap();
        assert!(log.writer.last_file.end < log.writer.last_file.allocated);
        // The checkpoint of an idle log is behind its end.
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        assert!(is_zero(&rest(&log)[1_000..]), "only zeros follow the checkpoint");
        sizes.push(log.writer.last_file.allocated);
    }
    sizes.dedup();
    assert!((2..=6).contains(&sizes.len()), "the file grows in large steps: {sizes:?}");
}

#[test]
fn a_withdrawn_command_changes_nothing() {
    let mut log = open(durable_files());
    publish(&mut log, "kept").unwrap();
    let withdrawn = || {
        let ticket = Ticket::default();
        assert!(ticket.withdraw());
        ticket
    };
    let (reply, published) = oneshot::channel();
    log.send(WriteCommand::Publish(publication("a", "withdrawn"), reply, withdrawn()));
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
    assert!(matches!(publish(&mut log, "refused"), Err(StoreError::Closed)));
}

#[test]
fn the_rest_of_an_interrupted_commit_is_overwritten_at_the_start() {
    let mut log = open(durable_files());
    publish(&mut log, "kept").unwrap();
    let end = log.writer.last_file.end as usize;
    publish(&mut log, "torn").unwrap();
    let torn = log.writer.last_file.end as usize - 20;
    let mut files = log.files.memory.bytes();
    let file = files.get_mut(&super::log_file::name(1, 1, "log")).unwrap();
    file[torn..].fill(0);
    assert!(file[end..].iter().any(|byte| *byte != 0));
    let log = open(FaultyFiles::new(Memory::durable(files)));
    assert_eq!(log.writer.last_file.end as usize, end);
    assert!(rest(&log).iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_command_that_was_not_begun_in_time_is_withdrawn() {
    let config = LocalConfig { timeout: Duration::from_millis(200), ..CONFIG };
    let log = SteppedLog::open(durable_files(), config, LIMITS);
    let refused = log.store.publish(publication("a", "late")).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Down(why) if why.contains("not take it")), "{refused}");
    let mut log = SteppedLog::open(durable_files(), config, LIMITS);
    let publish = log.store.publish(publication("a", "begun"));
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

#[test]
fn an_announced_loss_is_one_commit() {
    let config = LocalConfig { file_bytes: 4 * 1024, ..CONFIG };
    let mut log = SteppedLog::open(durable_files(), config, LIMITS);
    (0..6).for_each(|_| drop(publish(&mut log, &"x".repeat(2 * 1024)).unwrap()));
    let mut files = log.files.memory.bytes();
    files.remove(&super::log_file::name(3, 3, "log")).unwrap();
    let log = SteppedLog::open(FaultyFiles::new(Memory::durable(files)), config, LIMITS);
    let bytes = read_all(&*log.writer.last_file.file).unwrap();
    let frames = frame::scan(&bytes, log.writer.head.seed, true).frames;
    let last: Vec<_> = frames.iter().filter(|frame| frame.commit == log.writer.commit).collect();
    let kinds: Vec<Kind> = last.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::Events, Kind::Beginning], "the gap event, and the new beginning");
    assert_eq!(last[0].commit, frames[frames.len() - 3].commit + 1);
}

/// The commits in the last file: the number of each one that begins there.
fn commits(log: &SteppedLog) -> Vec<u64> {
    let bytes = read_all(&*log.writer.last_file.file).unwrap();
    let frames = frame::scan(&bytes, log.writer.head.seed, true).frames;
    frames.iter().filter(|frame| frame.is_first).map(|frame| frame.commit).collect()
}

#[test]
fn each_commit_has_the_number_after_that_of_the_last_one() {
    let config = LocalConfig { file_bytes: 4 * 1024, ..CONFIG };
    let mut log = SteppedLog::open(durable_files(), config, LIMITS);
    let begun = log.writer.commit;
    assert_eq!(commits(&log), [begun]);
    // A checkpoint follows each publish while no other command waits, and the next commit
    // overwrites it.
    publish(&mut log, "1").unwrap();
    assert_eq!(commits(&log), [begun, begun + 1, begun + 2]);
    publish(&mut log, "2").unwrap();
    assert_eq!(commits(&log), [begun, begun + 1, begun + 3, begun + 4]);
    let number = log.writer.last_file.number;
    publish(&mut log, &"x".repeat(4 * 1024)).unwrap();
    // The publish, the seal, the first checkpoint of the next file, and the one that was due.
    assert_eq!(log.writer.last_file.number, number + 1);
    assert_eq!(commits(&log), [begun + 7, begun + 8]);
    assert_eq!(log.writer.commit, begun + 8);
}

#[test]
fn a_sweep_tries_again_to_write_after_a_failure() {
    let mut log = open(durable_files());
    publish(&mut log, "1").unwrap();
    let commit = log.writer.commit;
    log.files.memory.set_free(RESERVE);
    publish(&mut log, "fails").unwrap_err();
    log.send(WriteCommand::Sweep);
    log.commit();
    assert!(log.writer.health.is_failing());
    log.files.memory.set_free(2 * RESERVE);
    log.send(WriteCommand::Sweep);
    log.commit();
    assert!(!log.writer.health.is_failing());
    assert_eq!(commits(&log)[1..], [commit - 1, commit + 1, commit + 2]);
}

#[test]
fn a_checkpoint_is_written_where_it_is_due_and_proves_something() {
    let mut log = open(durable_files());
    publish(&mut log, "1").unwrap();
    let commit = log.writer.commit;
    log.commit();
    assert_eq!(log.writer.commit, commit, "it was not due again");
    log.writer.end();
    assert_eq!(log.writer.commit, commit + 1);
    log.writer.must_cut = true;
    log.writer.end();
    (log.writer.must_cut, log.writer.must_follow) = (false, true);
    log.writer.end();
    log.writer.must_follow = false;
    log.files.memory.set_free(RESERVE);
    log.writer.end();
    assert_eq!(log.writer.commit, commit + 1, "no checkpoint can be written here");
    // Files that are lost with the process need none.
    let mut log = open(FaultyFiles::new(Memory::default()));
    let commit = log.writer.commit;
    publish(&mut log, "1").unwrap();
    log.writer.end();
    assert_eq!(log.writer.commit, commit + 1);
}

#[test]
fn a_channel_keeps_its_newest_event_and_the_bytes_of_its_limit() {
    let kept = |sizes: &[usize], retain_bytes| {
        let limits = Limits { retain_bytes, ..LIMITS };
        let mut log = SteppedLog::open(durable_files(), CONFIG, limits);
        for size in sizes {
            publish(&mut log, &"x".repeat(*size)).unwrap();
        }
        let catalog = log.writer.catalog.read();
        let channel = &catalog.channels[&name("a")];
        (channel.events, channel.bytes)
    };
    let (_, bytes) = kept(&[100], 1 << 20);
    assert_eq!(kept(&[100], 1), (1, bytes), "the newest event is always kept");
    assert_eq!(kept(&[100, 100], 2 * bytes), (2, 2 * bytes));
    assert_eq!(kept(&[100, 100, 100], 2 * bytes), (2, 2 * bytes));
    assert_eq!(kept(&[100, 100], 2 * bytes - 1), (1, bytes));
}
