//! The embedded store of one machine. It is durable in a directory, or in memory for tests and
//! experiments.
//!
//! The store is a log of append-only files (`log_file.rs`). A file consists of records that each
//! have a checksum (`frame.rs`, `records.rs`). The writer (`writer.rs`) puts all waiting publishes
//! into one write and one sync, and acknowledges or delivers an event only after that. It has a
//! thread of its own (`writing.rs`; in memory, the task of a small publish may do the work
//! instead). A second thread makes the indexes and compacts files (`maintenance.rs`). The locations
//! of events are in memory and in an index beside each file (`block.rs`, `summary.rs`,
//! `catalog.rs`). Readers look up the locations there, then read the files (`reading.rs`) without
//! waiting for the writer. The store in memory is the same code on files in memory.

mod batch;
mod batch_tests;
mod block;
mod catalog;
mod catalog_tests;
mod command;
mod compaction;
mod compaction_tests;
pub mod copy;
mod copy_tests;
mod damage_tests;
mod erasure;
mod faulty_files_tests;
pub mod files;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod health;
mod keys;
mod listing;
mod log_file;
mod log_file_tests;
mod maintenance;
mod model_tests;
mod reading;
mod reading_tests;
mod records;
mod state;
pub mod stepped;
mod stepped_log_tests;
mod summary;
mod summary_tests;
mod sweep;
mod writer;
mod writer_tests;
mod writing;

use super::{
    ChannelFilter, ChannelLimits, ChannelSize, EventSink, Page, PageLimit, Publication, Published,
    State, Store, StoreError, StoreFault, StoreFuture, StoreMetrics,
};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use crate::core::log_state::LogState;
use crate::sync::clock::Clock;
use crate::sync::plants::{Plant, is_planted};
use block::Block;
use catalog::Catalog;
use command::{CommandQueue, Reply, WriteCommand};
use files::{Directory, Files, Memory};
use health::{Health, Ticket};
use parking_lot::{RwLock, RwLockReadGuard};
use reading::{Plan, RecordReader};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sweep::Ages;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::Writer;
use writing::Writing;

/// Maximum number of commands in the writer's queue. Further senders wait for room.
const QUEUE_MAX: usize = 4_096;

/// Maximum number of concurrent reads of files.
const READERS_MAX: usize = 8;

/// Where the files of the log are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// The files are in the memory of this process and are lost when it ends.
    Memory,
    /// The files are in this directory.
    Directory(PathBuf),
}

/// The configuration of the embedded store.
#[derive(Clone, Copy, Debug)]
pub struct LocalConfig {
    /// How long a publish may wait for the disk.
    pub timeout: Duration,
    /// Publishes are refused while fewer bytes than this are free on the disk.
    pub reserve: u64,
    /// The size in bytes at which a file of the log is sealed and the next file begins.
    pub file_bytes: u64,
}

/// The value of [`LocalConfig::file_bytes`] except in tests. It is small enough that a file is
/// compacted in tens of milliseconds, and large enough that a log of gigabytes has few files.
pub const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The embedded store.
pub struct LocalStore {
    catalog: Arc<RwLock<Catalog>>,
    reader: Arc<RecordReader>,
    /// Each read of files holds a permit.
    reading: Arc<Semaphore>,
    health: Arc<Health>,
    timeout: Duration,
    limits: Arc<ChannelLimits>,
    commands: mpsc::Sender<WriteCommand>,
    /// `None` if the caller does the steps of the writer. It is dropped after `commands`.
    writing: Option<Writing>,
}

impl LocalStore {
    /// Opens the store and creates it if it does not exist. The call blocks until the log is open.
    ///
    /// # Errors
    /// Fails when another process uses the directory, when the log has another format, or when a
    /// file cannot be created, read or written. The error names the cause.
    pub fn open(
        backing: Backing,
        config: LocalConfig,
        limits: impl Into<Arc<ChannelLimits>>,
        clock: Clock,
        sink: Arc<dyn EventSink>,
    ) -> Result<Self, StoreError> {
        let (place, files) = match &backing {
            Backing::Memory => ("the memory store".to_owned(), Ok(boxed(Memory::default()))),
            Backing::Directory(path) => {
                (path.display().to_string(), Directory::open(path).map(boxed))
            }
        };
        let why = |error: io::Error| StoreError::Down(format!("cannot open {place}: {error}"));
        Self::open_files(files.map_err(why)?, config, limits.into(), clock, sink).map_err(why)
    }

    fn open_files(
        files: Arc<dyn Files>,
        config: LocalConfig,
        limits: Arc<ChannelLimits>,
        clock: Clock,
        sink: Arc<dyn EventSink>,
    ) -> io::Result<Self> {
        let (mut store, writer, queue) = Self::build(files, config, limits, clock, sink, false)?;
        let maintainer = writer.maintenance().start(&store.health)?;
        store.writing = Some(Writing::start(writer, queue, maintainer)?);
        Ok(store)
    }

    /// Opens the files and repairs them, without starting the writer. `is_older` means that the
    /// files are a backup, so that the events after the backup are lost.
    fn build(
        files: Arc<dyn Files>,
        config: LocalConfig,
        limits: Arc<ChannelLimits>,
        clock: Clock,
        sink: Arc<dyn EventSink>,
        is_older: bool,
    ) -> io::Result<(Self, Writer, CommandQueue)> {
        let beginning = EventId { ms: clock.now(), seq: 0 };
        let mut opened = log_file::open(&*files, beginning)?;
        if is_older {
            opened.suspect();
        }
        // The newest id may be later than this machine's clock. The clock of the store then goes on
        // from that id, and so do the segments.
        if is_planted(Plant::IdReuse) {
            opened.catalog.newest = opened.catalog.beginning;
        }
        clock.at_least(opened.catalog.newest.ms);
        let ages = Ages::new(opened.catalog.ages, clock.now(), clock.uptime());
        let catalog = Arc::new(RwLock::new(opened.catalog));
        let health = Arc::new(Health::default());
        let reader = Arc::new(RecordReader::new(opened.head.seed, health.metrics.clone()));
        let mut writer = Writer {
            files,
            limits: limits.clone(),
            config,
            clock,
            sink,
            catalog: catalog.clone(),
            reader: reader.clone(),
            health: health.clone(),
            head: opened.head,
            last_file: opened.last_file,
            commit: opened.commit,
            must_cut: false,
            must_follow: false,
            ages,
        };
        if opened.is_damaged {
            health.metrics.fault(StoreFault::Damaged);
        }
        writer.begin(opened.is_damaged, opened.torn)?;
        writer.look_at_disk();
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let reading = Arc::new(Semaphore::new(READERS_MAX));
        let (timeout, writing) = (config.timeout, None);
        let store = Self { catalog, reader, reading, health, timeout, limits, commands, writing };
        store.load_settings()?;
        Ok((store, writer, CommandQueue::new(queue)))
    }

    /// Sends a command to the writer and waits for the answer. After the timeout, a command that
    /// the writer has not begun is withdrawn.
    async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>, Ticket) -> WriteCommand,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Down("the store has stopped".to_owned());
        let ticket = Ticket::default();
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.send(command(reply, ticket.clone())).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| StoreError::Unclear("the store has stopped".to_owned()))?
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer,
            Err(_) if ticket.withdraw() => Err(StoreError::Down(
                "the disk did not take it in time (--store-timeout)".to_owned(),
            )),
            Err(_) => Err(StoreError::Unclear(
                "the disk did not confirm it in time (--store-timeout)".to_owned(),
            )),
        }
    }

    /// Sends a command to the writer, as soon as there is room in its queue.
    async fn send(&self, command: WriteCommand) -> Result<(), SendError<WriteCommand>> {
        let small_bytes = command.small_bytes();
        self.commands.send(command).await?;
        self.command_was_sent(small_bytes);
        Ok(())
    }

    fn command_was_sent(&self, small_bytes: Option<usize>) {
        if let Some(writing) = &self.writing {
            writing.command_was_sent(small_bytes);
        }
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read()
    }

    /// Reads files on a background thread that may block.
    async fn read_files<T: Send + 'static>(
        &self,
        read: impl FnOnce(&RecordReader) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.reader.clone();
        // The permit is awaited here, so that a cancelled request leaves the queue. A thread that
        // has begun to read runs to its end.
        let permit = self.reading.clone().acquire_owned().await;
        let failed = |error: &dyn std::fmt::Display| {
            StoreError::Down(format!("the log cannot be read: {error}"))
        };
        let read = crate::sync::background::run(move || {
            let _permit = permit;
            read(&reader)
        });
        let read = read.await;
        read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    /// Reads the entries of the block that `choose` selects and returns the id that `find` finds in
    /// them.
    async fn place_in(
        &self,
        name: &ChannelName,
        choose: impl FnOnce(&VecDeque<Block>) -> Option<usize>,
        find: impl FnOnce(&VecDeque<block::Entry>) -> Option<EventId> + Send + 'static,
    ) -> Result<Option<EventId>, StoreError> {
        let Some((log_file, block)) = Plan::block(&self.catalog(), name, choose) else {
            return Ok(None);
        };
        let name = name.clone();
        self.read_files(move |reader| Ok(find(&reader.entries(&name, &log_file, &block)?))).await
    }

    /// Returns the last position before `id`. In an ended channel this position is always before
    /// the `end` event, so that a client that begins there receives that event.
    async fn place_before(&self, name: &ChannelName, id: EventId) -> Result<EventId, StoreError> {
        let (start, low_watermark, id) = {
            let catalog = self.catalog();
            let Some(channel) = catalog.channels.get(name) else { return Ok(catalog.beginning) };
            let is_open = channel.closed == EventId::START;
            let id = if is_open { id } else { id.min(channel.closed) };
            (channel.start(catalog.beginning), channel.low_watermark, id)
        };
        let choose = |blocks: &VecDeque<Block>| {
            blocks.partition_point(|block| block.first < id).checked_sub(1)
        };
        let found = self.place_in(name, choose, move |entries| {
            // The events of an entry have the same ms, and an `end` event has an entry of its own,
            // so `id` is never inside of one.
            let index = entries.partition_point(|entry| entry.first < id).checked_sub(1)?;
            entries.get(index).map(block::Entry::last)
        });
        Ok(found.await?.filter(|place| *place > low_watermark).unwrap_or(start))
    }
}

fn boxed(files: impl Files) -> Arc<dyn Files> {
    Arc::new(files)
}

impl Store for LocalStore {
    fn publish(&self, publication: Publication) -> StoreFuture<'_, Result<Published, StoreError>> {
        Box::pin(self.ask(|reply, ticket| WriteCommand::Publish(publication, reply, ticket)))
    }

    fn close<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(self.ask(|reply, ticket| WriteCommand::Close(channel.clone(), reply, ticket)))
    }

    fn erase<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(self.ask(|reply, ticket| WriteCommand::Erase(channel.clone(), reply, ticket)))
    }

    fn reopen<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<(), StoreError>> {
        Box::pin(self.ask(|reply, ticket| WriteCommand::Reopen(channel.clone(), reply, ticket)))
    }

    fn log_state<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<LogState, StoreError>> {
        Box::pin(async { Ok(self.catalog().log_state(channel)) })
    }

    fn position_before<'a>(
        &'a self,
        channel: &'a ChannelName,
        ms: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(self.place_before(channel, EventId { ms, seq: 0 }))
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let (plan, position) = Plan::after(&self.catalog(), channel, position, limit);
            match plan.is_empty() {
                true => Ok(plan.into_page()),
                false => self.read_files(move |reader| reader.page(plan, position, limit)).await,
            }
        })
    }

    fn read_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> StoreFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let (plan, after) = Plan::before(&self.catalog(), channel, before, limit);
            self.read_files(move |reader| reader.page_back(plan, (after, before), limit)).await
        })
    }

    fn position_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        count: u64,
    ) -> StoreFuture<'a, Result<EventId, StoreError>> {
        Box::pin(async move {
            let (start, mut left) = {
                let catalog = self.catalog();
                let Some(known) = catalog.channels.get(channel) else {
                    return Ok(catalog.beginning);
                };
                // The `end` event does not count, because no publisher sent it.
                let count = count + u64::from(known.closed != EventId::START);
                if known.events <= count {
                    return Ok(known.start(catalog.beginning));
                }
                (known.start(catalog.beginning), count)
            };
            let mut before = 0;
            let choose = |blocks: &VecDeque<Block>| {
                let mut back = blocks.iter().rev();
                let index = back.position(|block| {
                    let is_here = block.events > left;
                    before = left;
                    left -= block.events.min(left);
                    is_here
                })?;
                Some(blocks.len() - 1 - index)
            };
            let Some((log_file, block)) = Plan::block(&self.catalog(), channel, choose) else {
                return Ok(start);
            };
            let name = channel.clone();
            let found = self.read_files(move |reader| {
                let mut left = before;
                for entry in reader.entries(&name, &log_file, &block)?.iter().rev() {
                    if u64::from(entry.count) > left {
                        let EventId { ms, seq } = entry.last();
                        return Ok(Some(EventId { ms, seq: seq - left }));
                    }
                    left -= u64::from(entry.count);
                }
                Ok(None)
            });
            Ok(found.await?.unwrap_or(start))
        })
    }

    fn state<'a>(&'a self, channel: &'a ChannelName) -> StoreFuture<'a, Result<State, StoreError>> {
        Box::pin(self.current_state(channel))
    }

    fn names<'a>(
        &'a self,
        filter: &'a ChannelFilter,
    ) -> StoreFuture<'a, Result<Vec<ChannelName>, StoreError>> {
        Box::pin(async { Ok(self.catalog().names(filter)) })
    }

    fn size<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> StoreFuture<'a, Result<ChannelSize, StoreError>> {
        Box::pin(async { Ok(self.catalog().size(channel)) })
    }

    fn settle(&self, _ms: u64) -> StoreFuture<'_, ()> {
        Box::pin(async {
            let (reply, settled) = oneshot::channel();
            // Every command with an earlier id is before this one in the queue.
            if self.send(WriteCommand::Settle(reply)).await.is_ok() {
                settled.await.ok();
            }
        })
    }

    fn ready(&self) -> StoreFuture<'_, Result<(), StoreError>> {
        Box::pin(async { self.health.check(Instant::now()) })
    }

    fn limits(&self) -> &Arc<ChannelLimits> {
        &self.limits
    }

    fn metrics(&self) -> StoreMetrics {
        let metrics = self.health.metrics.clone();
        self.catalog().measure(&metrics, self.limits.general().total_bytes);
        metrics
    }

    fn failed(&self) -> StoreFuture<'_, String> {
        Box::pin(async {
            self.health.died().await;
            health::DEAD.to_owned()
        })
    }

    fn sweep(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.health.watch_work(Instant::now());
            let bytes = self.catalog().bytes;
            self.health.fill.watch(bytes, self.limits.general().total_bytes);
            // A full queue means that the writer is busy. The next sweep follows in a second.
            self.commands.try_send(WriteCommand::Sweep).unwrap_or_default();
            self.command_was_sent(None);
        })
    }

    fn stop(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.send(WriteCommand::Stop).await.ok();
            let thread = self.writing.as_ref().and_then(Writing::take_thread);
            if let Some(thread) = thread {
                tokio::task::spawn_blocking(|| thread.join().ok()).await.ok();
            }
        })
    }
}
