//! The thread that makes the indexes of sealed files and compacts files.
//!
//! Both tasks read whole files and take tens of milliseconds. If the thread of the writer ran them,
//! every publish would wait for them. In a measurement without this thread, a publisher with 10,000
//! tiny events in each request filled a file of 16 MiB several times a second, and raised the p99
//! latency of other publishers from 4 to 126 ms.
//!
//! The tasks run in the order in which they were submitted, so that a file is never compacted
//! before its index is made. The thread locks the catalog only for short moments, and the writer
//! continues meanwhile.

use super::catalog::{Catalog, LogFile};
use super::compaction;
use super::files::{Files, read_all};
use super::frame;
use super::health::Health;
use super::log_file::{LogIdentity, store_index};
use super::reading::RecordReader;
use super::summary::summarize;
use parking_lot::RwLock;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Maximum number of waiting tasks. While the queue is full, the writer waits before it seals
/// another file, because the entries of a file without an index are in memory.
const TASKS_WAITING_MAX: usize = 2;
/// Maximum time that one task spends on compaction before the next task runs.
const COMPACTION_TIME: Duration = Duration::from_millis(50);
/// How long files whose compaction failed are not compacted again, in ms.
const RETRY_MS: u64 = 10_000;

/// The state of the maintenance thread.
pub struct Maintenance {
    pub files: Arc<dyn Files>,
    pub catalog: Arc<RwLock<Catalog>>,
    pub reader: Arc<RecordReader>,
    pub head: LogIdentity,
    /// The size in bytes at which a file is sealed.
    pub file_bytes: u64,
}

enum Task {
    /// Make the index of the sealed file with this number.
    Index(u32),
    /// Compact files before the file with the number `last_file`; `now` is in ms.
    Compact { last_file: u32, now: u64 },
}

/// The writer's handle of the running thread. The thread ends when the handle is stopped or
/// dropped.
pub struct Maintainer {
    tasks: SyncSender<Task>,
    /// `None` when the tasks are done step by step, by [`Maintenance::step`].
    thread: Option<JoinHandle<()>>,
}

/// The tasks that wait for [`Maintenance::step`].
pub struct Tasks(Receiver<Task>);

impl Maintainer {
    /// Requests the index of a sealed file. The call blocks while the queue is full.
    pub fn index(&self, number: u32) {
        self.give(Task::Index(number));
    }

    /// Requests a compaction, unless the queue is full. The next request follows a second later.
    pub fn compact(&self, last_file: u32, now: u64) {
        self.tasks.try_send(Task::Compact { last_file, now }).unwrap_or_default();
    }

    fn give(&self, task: Task) {
        // A thread that has died is reported by its watch, and the process then ends.
        self.tasks.send(task).unwrap_or_default();
    }

    /// Waits until all tasks are done and the thread has ended.
    pub fn stop(self) {
        drop(self.tasks);
        if let Some(thread) = self.thread {
            thread.join().unwrap_or_default();
        }
    }
}

impl Maintenance {
    /// Starts the thread. If it panics, `health` reports that the store has died.
    ///
    /// # Errors
    /// Fails when the system cannot create a thread.
    pub fn start(self, health: &Arc<Health>) -> io::Result<Maintainer> {
        let (tasks, queue) = sync_channel(TASKS_WAITING_MAX);
        let alive = health.watch();
        let run = move || {
            self.run(queue);
            alive.ended_well();
        };
        let builder = std::thread::Builder::new().name("headwater-files".to_owned());
        Ok(Maintainer { tasks, thread: Some(builder.spawn(run)?) })
    }

    /// Returns a handle whose tasks are done by [`Maintenance::step`]. At most `tasks_max` of them
    /// may wait.
    pub fn without_thread(tasks_max: usize) -> (Maintainer, Tasks) {
        let (tasks, queue) = sync_channel(tasks_max);
        (Maintainer { tasks, thread: None }, Tasks(queue))
    }

    /// Does the next task. Returns whether there was one.
    pub fn step(&self, tasks: &Tasks) -> bool {
        let Ok(task) = tasks.0.try_recv() else { return false };
        self.carry_out(task, Duration::MAX);
        true
    }

    fn run(self, queue: Receiver<Task>) {
        for task in queue {
            self.carry_out(task, COMPACTION_TIME);
        }
    }

    fn carry_out(&self, task: Task, compaction_time: Duration) {
        match task {
            Task::Index(number) => self.index_or_warn(number),
            Task::Compact { last_file, now } => {
                let begun = Instant::now();
                while begun.elapsed() < compaction_time && self.compact(last_file, now) {}
            }
        }
    }

    fn index_or_warn(&self, number: u32) {
        if let Err(error) = self.index(number) {
            tracing::warn!(number, %error, "no index was written; it is made at the next start");
        }
    }

    fn index(&self, number: u32) -> io::Result<()> {
        let (first, log) = {
            let catalog = self.catalog.read();
            let log_file = catalog.log_files.get(&number).ok_or(io::ErrorKind::NotFound)?;
            (log_file.first, log_file.log.clone())
        };
        let bytes = read_all(&*log)?;
        let mut summary = summarize(&frame::scan(&bytes, self.head.seed, false), number);
        if summary.is_damaged {
            return Err(io::Error::other("the file is damaged"));
        }
        let index = store_index(&*self.files, (first, number), &mut summary, self.head.seed)?;
        let mut catalog = self.catalog.write();
        catalog.sealed(number, Some(index), &summary);
        Ok(())
    }

    /// Compacts some files. Returns whether there may be more to compact.
    fn compact(&self, last_file: u32, now: u64) -> bool {
        let candidates = {
            let catalog = self.catalog.read();
            compaction::candidates(&catalog, last_file, self.file_bytes, now)
        };
        let Some(numbers) = candidates else { return false };
        let done =
            compaction::compact(&*self.files, &self.catalog, self.head, numbers.clone(), now);
        let mut catalog = self.catalog.write();
        match done {
            Ok(with) => {
                let gone = catalog.replaced(numbers, with);
                trim_again(&mut catalog, &self.reader);
                drop(catalog);
                drop(gone);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "files of the log could not be compacted; tried again later");
                for (_, log_file) in catalog.log_files.range_mut(numbers) {
                    log_file.rests_until = now + RETRY_MS;
                }
                false
            }
        }
    }
}

/// Drops events again that had been dropped before the log was opened or compacted, but are still
/// in the blocks.
pub fn trim_again(catalog: &mut Catalog, reader: &RecordReader) {
    for name in catalog.untrimmed() {
        let load = |log_file: &LogFile, block: &_| reader.entries(&name, log_file, block).ok();
        catalog.trim(&name, u64::MAX, &load, |channel, oldest| oldest <= channel.low_watermark);
    }
}

#[cfg(test)]
mod tests {
    use super::super::damage_tests::{Deaf, FileBytes, LIMITS};
    use super::super::faulty_files_tests::FaultyFiles;
    use super::super::files::Memory;
    use super::super::stepped_log_tests::{SteppedLog, name, publication};
    use super::super::{LocalConfig, LocalStore};
    use super::*;
    use crate::core::cursor::EventId;
    use crate::store::{Limits, PageLimit, Store};
    use crate::sync::clock::Clock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::Mutex;

    const CONFIG: LocalConfig =
        LocalConfig { timeout: Duration::from_secs(20), reserve: 0, file_bytes: 4 * 1024 };
    const ALL: PageLimit = PageLimit { events: 1_000, bytes: 1 << 20 };

    /// Returns the number of files with this extension.
    fn count(files: &FaultyFiles, extension: &str) -> usize {
        let names = files.memory.list().unwrap();
        names.iter().filter(|name| name.ends_with(extension)).count()
    }

    #[tokio::test]
    async fn publishes_go_on_while_an_index_is_made() {
        let gate = Arc::new(Mutex::new(()));
        let memory = Memory::durable(FileBytes::new());
        let shared = gate.clone();
        // No index can be created while the gate is locked.
        let create = move |name: &str| {
            let _open = name.contains(".index").then(|| shared.blocking_lock());
            Ok(())
        };
        let files = FaultyFiles { create: Box::new(create), ..FaultyFiles::new(memory) };
        let files = Arc::new(files);
        let dynamic: Arc<dyn Files> = files.clone();
        let clock = Clock::default();
        let store =
            LocalStore::open_files(dynamic, CONFIG, LIMITS.into(), clock, Arc::new(Deaf)).unwrap();
        let channel = name("a");
        let stored = async || store.read(&channel, EventId::START, ALL).await.unwrap().events.len();
        let held = gate.lock().await;
        // The publishes fill two files and begin a third one.
        for _ in 0..20 {
            store.publish(publication("a", &"x".repeat(500))).await.unwrap();
        }
        assert_eq!((stored().await, count(&files, ".index")), (20, 0));
        // The store stops after the indexes were made.
        let mut stopping = store.stop();
        let early = tokio::time::timeout(Duration::from_millis(50), &mut stopping).await;
        assert!(early.is_err());
        drop(held);
        stopping.await;
        assert_eq!((stored().await, count(&files, ".index")), (20, 2));
    }

    /// Compacts what can be compacted, and returns the number of files of the log.
    fn compact(log: &SteppedLog, now: u64) -> usize {
        log.maintainer.compact(log.writer.last_file.number, now);
        assert_eq!(log.maintain(), 1);
        count(&log.files, ".log")
    }

    #[test]
    fn files_whose_compaction_failed_are_left_alone_for_ten_seconds() {
        let now = 1_000_000;
        let is_full = Arc::new(AtomicBool::new(false));
        let disk = is_full.clone();
        let create = move |_: &str| match disk.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        };
        let files = FaultyFiles::new(Memory::default());
        let files = FaultyFiles { create: Box::new(create), ..files };
        // The channel keeps only some events.
        let mut log = SteppedLog::open(files, CONFIG, Limits { retain_events: 4, ..LIMITS });
        for _ in 0..60 {
            log.publish(publication("a", &"x".repeat(500))).unwrap();
        }
        log.maintain();
        let before = count(&log.files, ".log");
        assert!(before > 5, "{before} files");
        // The last events of the channel are in a new file, which cannot be created.
        is_full.store(true, Ordering::Relaxed);
        assert_eq!(compact(&log, now), before);
        is_full.store(false, Ordering::Relaxed);
        assert_eq!(compact(&log, now + RETRY_MS - 1), before);
        let after = compact(&log, now + RETRY_MS);
        assert!(after < 4, "{after} of {before} files are left");
        // The maintenance has nothing to do any more.
        assert_eq!(compact(&log, now + RETRY_MS), after);
    }
}
