//! Runs the writer: on its thread, or at once in the task of a publisher.
//!
//! The wake-up of a thread costs more than the commit of a small publish to a log in memory. Such a
//! publish is therefore committed by the task that sends it, if the writer is idle. The thread
//! commits every publish to a log on disk, every large publish, and every publish that waits behind
//! other commands, because the task of a publisher must not wait for a disk or for work that takes
//! milliseconds.

use super::command::CommandQueue;
use super::health::Health;
use super::maintenance::Maintainer;
use super::writer::Writer;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Minimum time between the beginnings of two commits when several commands wait. On a fast disk,
/// each commit would otherwise have few records and still write a whole page. A lone publisher does
/// not wait.
const COMMIT_PAUSE: Duration = Duration::from_micros(500);

/// The writer and the commands that wait for it. The holder of the lock commits them.
struct Desk {
    writer: Writer,
    queue: CommandQueue,
    maintainer: Maintainer,
}

/// A writer that runs. Dropping it ends the thread, if all senders of commands were dropped before.
pub(super) struct Writing {
    /// `None` while a holder of the lock works, and after the writer was stopped or has panicked.
    desk: Arc<Mutex<Option<Box<Desk>>>>,
    health: Arc<Health>,
    is_durable: bool,
    thread: Thread,
    ended: Mutex<Option<JoinHandle<()>>>,
}

impl Writing {
    /// Starts the thread of the writer.
    ///
    /// # Errors
    /// Fails when the system cannot create a thread.
    pub fn start(writer: Writer, queue: CommandQueue, maintainer: Maintainer) -> io::Result<Self> {
        let (health, is_durable) = (writer.health.clone(), writer.files.is_durable());
        let desk = Arc::new(Mutex::new(Some(Box::new(Desk { writer, queue, maintainer }))));
        let (shared, alive) = (desk.clone(), health.clone());
        let run = move || {
            let guard = alive.watch();
            while commit_all(&shared) {
                // A command that was sent in between has left a token, and this returns at once.
                std::thread::park();
            }
            guard.ended_well();
        };
        let handle = std::thread::Builder::new().name("headwater-log".to_owned()).spawn(run)?;
        let (thread, ended) = (handle.thread().clone(), Mutex::new(Some(handle)));
        Ok(Self { desk, health, is_durable, thread, ended })
    }

    /// Makes sure that a command that was just sent is committed. A small publish, which adds about
    /// this many bytes, may be committed before this returns.
    pub fn command_was_sent(&self, small_bytes: Option<usize>) {
        let is_committed = !self.is_durable && small_bytes.is_some_and(|bytes| self.commit(bytes));
        if !is_committed {
            self.thread.unpark();
        }
    }

    /// Commits the command that waits, if it is the only one. Returns false if the thread has to do
    /// it.
    fn commit(&self, bytes: usize) -> bool {
        // Another holder of the lock may have looked at the queue before the command was there.
        let Some(mut held) = self.desk.try_lock() else { return false };
        let Some(mut desk) = held.take_if(|desk| desk.has_only_a_small_commit(bytes)) else {
            return false;
        };
        let guard = self.health.watch();
        desk.writer.step(&mut desk.queue, &desk.maintainer);
        guard.ended_well();
        let is_done = desk.queue.is_empty();
        *held = Some(desk);
        is_done
    }

    /// Returns the handle of the thread, once. The thread ends after a stop.
    pub fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.ended.lock().take()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl Desk {
    /// Whether only one command waits, and the next file does not begin after its commit.
    fn has_only_a_small_commit(&self, bytes: usize) -> bool {
        !self.queue.is_empty() && !self.queue.has_several() && !self.writer.fills_file(bytes)
    }

    /// Commits all that waits. Returns whether the writer was stopped.
    fn commit_all(&mut self) -> bool {
        while !self.queue.is_empty() {
            let begun = Instant::now();
            if self.writer.step(&mut self.queue, &self.maintainer) {
                return true;
            }
            if self.queue.has_several() && self.writer.files.is_durable() {
                #[expect(clippy::disallowed_methods, reason = "a thread of its own, not a task")]
                std::thread::sleep(COMMIT_PAUSE.saturating_sub(begun.elapsed()));
            }
        }
        false
    }
}

/// Commits all that waits. Returns false when the writer has ended.
fn commit_all(shared: &Mutex<Option<Box<Desk>>>) -> bool {
    let mut held = shared.lock();
    // A writer that panics stays out of its place, so that nothing is committed after it.
    let Some(mut desk) = held.take() else { return false };
    if !desk.commit_all() && !desk.queue.is_closed() {
        *held = Some(desk);
        return true;
    }
    desk.writer.end();
    desk.maintainer.stop();
    false
}

#[cfg(test)]
mod tests {
    use super::super::command::WriteCommand;
    use super::super::damage_tests::{Deaf, FileBytes, LIMITS};
    use super::super::files::{Files, Memory};
    use super::super::maintenance::Maintenance;
    use super::super::stepped_log_tests::publication;
    use super::super::{LocalConfig, LocalStore};
    use super::*;
    use crate::store::Store;
    use crate::sync::clock::Clock;

    const CONFIG: LocalConfig =
        LocalConfig { timeout: Duration::from_secs(20), reserve: 0, file_bytes: 4 * 1024 };

    #[test]
    fn a_publisher_commits_what_is_alone_and_does_not_fill_the_file() {
        let files: Arc<dyn Files> = Arc::new(Memory::default());
        let (limits, clock) = (LIMITS.into(), Clock::default());
        let built = LocalStore::build(files, CONFIG, limits, clock, Arc::new(Deaf), false);
        let (store, writer, queue) = built.unwrap();
        let (maintainer, _) = Maintenance::without_thread(1);
        let desk = Desk { writer, queue, maintainer };
        assert!(!desk.has_only_a_small_commit(1), "nothing waits");
        store.commands.try_send(WriteCommand::Sweep).unwrap();
        let room = (CONFIG.file_bytes - desk.writer.last_file.end) as usize;
        assert!(desk.has_only_a_small_commit(room - 1));
        assert!(!desk.has_only_a_small_commit(room), "the next file would begin");
        store.commands.try_send(WriteCommand::Sweep).unwrap();
        assert!(!desk.has_only_a_small_commit(1), "two commands wait");
    }

    #[tokio::test]
    async fn the_threads_of_a_store_end_with_it() {
        for is_stopped in [true, false] {
            let files: Arc<dyn Files> = Arc::new(Memory::durable(FileBytes::new()));
            let (limits, clock) = (LIMITS.into(), Clock::default());
            let open = LocalStore::open_files(files.clone(), CONFIG, limits, clock, Arc::new(Deaf));
            let store = open.unwrap();
            store.publish(publication("a", "1")).await.unwrap();
            // The thread has nothing more to do, and waits.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if is_stopped {
                store.stop().await;
                assert_eq!(Arc::strong_count(&files), 1, "the writer has ended");
            }
            drop(store);
            let released = async {
                while Arc::strong_count(&files) > 1 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(CONFIG.timeout, released).await.expect("the writer ends");
        }
    }
}
