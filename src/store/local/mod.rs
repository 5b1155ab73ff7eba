//! The embedded store: one machine, durable in a directory or, for tests and toys, in memory.
//!
//! One file of redb, one thread that writes it (`writer.rs`). Whatever publishes are waiting go
//! into one transaction and one fsync, and nothing is acknowledged or shown to a reader before
//! that. Readers use redb's snapshots and wait for nobody. In memory it is the same engine on
//! another backend, so the two differ in nothing but where the pages lie.

mod batch;
mod tables;
mod writer;

use super::{
    Answer, Limits, Listener, Page, PageLimit, Publication, Published, Standing, State, Store,
    StoreError,
};
use crate::clock::Clock;
use crate::cursor::EventId;
use crate::event::ChannelName;
use redb::Database;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tables::Snapshot;
use tokio::sync::{mpsc, oneshot};
use writer::Writer;

/// Commands that may wait for the writer; more senders than that wait for room.
const QUEUE_MAX: usize = 4_096;
/// The file in the data directory.
const FILE_NAME: &str = "events.redb";

/// Where the pages lie.
#[derive(Clone, Debug)]
pub enum Backing {
    /// In this process; gone with it.
    Memory,
    /// In `events.redb` in this directory.
    Directory(PathBuf),
}

/// The embedded store.
pub struct LocalStore {
    database: Slot,
    commands: mpsc::Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The open database; empty while the writer opens it anew after a fault of the disk.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<Arc<Database>>>>);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

enum Command {
    Publish(Publication, Reply<Published>),
    Close(ChannelName, Reply<EventId>),
    Reopen(ChannelName, Reply<()>),
    Settle(oneshot::Sender<()>),
    Sweep,
    Stop,
}

impl LocalStore {
    /// Opens the store, and creates it where there is none. Blocks while it does.
    ///
    /// # Errors
    /// Says what stands in the way: another process, a newer format, no right to write.
    pub fn open(
        backing: Backing,
        limits: Limits,
        clock: Clock,
        listener: Arc<dyn Listener>,
    ) -> Result<Self, StoreError> {
        let database = Slot::default();
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let mut writer = Writer::new(backing, limits, clock, listener, database.clone());
        writer.open()?;
        let thread = std::thread::Builder::new()
            .name("headwater-log".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| StoreError::Down(format!("no thread for the log: {error}")))?;
        Ok(Self { database, commands, thread: Mutex::new(Some(thread)) })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || StoreError::Down("the store has stopped".to_owned());
        self.commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn look<T: Send + 'static>(
        &self,
        channel: &ChannelName,
        look: impl FnOnce(&Snapshot, &ChannelName) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.get()?;
        let channel = channel.clone();
        tokio::task::spawn_blocking(move || look(&Snapshot::take(&database)?, &channel))
            .await
            .map_err(|error| StoreError::Down(format!("a read of the log failed: {error}")))?
    }
}

impl Slot {
    fn get(&self) -> Result<Arc<Database>, StoreError> {
        let closed = || StoreError::Down("the log is being opened again after a fault".to_owned());
        self.lock().clone().ok_or_else(closed)
    }

    fn set(&self, database: Option<Arc<Database>>) {
        let before = std::mem::replace(&mut *self.lock(), database);
        drop(before);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for LocalStore {
    fn publish(&self, publication: Publication) -> Answer<'_, Result<Published, StoreError>> {
        Box::pin(self.ask(|reply| Command::Publish(publication, reply)))
    }

    fn close<'a>(&'a self, channel: &'a ChannelName) -> Answer<'a, Result<EventId, StoreError>> {
        Box::pin(self.ask(|reply| Command::Close(channel.clone(), reply)))
    }

    fn reopen<'a>(&'a self, channel: &'a ChannelName) -> Answer<'a, Result<(), StoreError>> {
        Box::pin(self.ask(|reply| Command::Reopen(channel.clone(), reply)))
    }

    fn standing<'a>(
        &'a self,
        channel: &'a ChannelName,
    ) -> Answer<'a, Result<Standing, StoreError>> {
        Box::pin(self.look(channel, Snapshot::standing))
    }

    fn position_before<'a>(
        &'a self,
        channel: &'a ChannelName,
        ms: u64,
    ) -> Answer<'a, Result<EventId, StoreError>> {
        Box::pin(self.look(channel, move |log, channel| log.position_before(channel, ms)))
    }

    fn read<'a>(
        &'a self,
        channel: &'a ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> Answer<'a, Result<Page, StoreError>> {
        Box::pin(self.look(channel, move |log, channel| log.read(channel, position, limit)))
    }

    fn read_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> Answer<'a, Result<Page, StoreError>> {
        Box::pin(self.look(channel, move |log, channel| log.read_back(channel, before, limit)))
    }

    fn position_back<'a>(
        &'a self,
        channel: &'a ChannelName,
        count: u64,
    ) -> Answer<'a, Result<EventId, StoreError>> {
        Box::pin(self.look(channel, move |log, channel| log.position_back(channel, count)))
    }

    fn state<'a>(&'a self, channel: &'a ChannelName) -> Answer<'a, Result<State, StoreError>> {
        Box::pin(self.look(channel, Snapshot::state))
    }

    fn settle(&self, _ms: u64) -> Answer<'_, ()> {
        Box::pin(async {
            let (reply, settled) = oneshot::channel();
            // Whatever was given an earlier id is ahead of this in the one queue.
            if self.commands.send(Command::Settle(reply)).await.is_ok() {
                settled.await.ok();
            }
        })
    }

    fn ready(&self) -> Answer<'_, Result<(), StoreError>> {
        Box::pin(async { self.database.get().map(drop) })
    }

    fn sweep(&self) -> Answer<'_, ()> {
        // A store that has stopped has nothing to sweep.
        Box::pin(async { self.commands.send(Command::Sweep).await.unwrap_or_default() })
    }

    fn stop(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.commands.send(Command::Stop).await.ok();
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread {
                tokio::task::spawn_blocking(|| thread.join().ok()).await.ok();
            }
        })
    }
}
