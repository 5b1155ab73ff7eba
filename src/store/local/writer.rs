//! The one thread that writes the log.
//!
//! It takes whatever commands wait, applies them in one transaction, commits once, and only then
//! tells the hub and the publishers. When the disk fails, everyone in the batch is told so and the
//! file is opened anew until that works.

use super::super::record::ChannelRecord;
use super::super::{Limits, Listener, StoreError};
use super::batch::{Batch, Committed, Pending, Tables};
use super::tables::{FORMAT, META_FORMAT, META_LAST_ID, META_NEXT_CHANNEL, Snapshot, down};
use super::{Backing, Command, FILE_NAME, Reply, Slot};
use crate::clock::Clock;
use crate::cursor::EventId;
use crate::event::{ChannelName, Event};
use redb::{Database, ReadableTable, WriteTransaction};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most commands and bytes in one transaction: bounds its memory and the wait of its first.
const BATCH_COMMANDS_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// redb's own default is 1 GiB; the hub holds what is live, so the cache serves catch-up only.
const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// Pause between two tries to open the file after a fault.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    backing: Backing,
    limits: Limits,
    clock: Clock,
    listener: Arc<dyn Listener>,
    slot: Slot,
    catalog: Catalog,
}

/// What the writer knows without reading: all of it follows from committed tables.
#[derive(Clone, Default)]
pub struct Catalog {
    pub channels: HashMap<ChannelName, ChannelRecord>,
    pub totals: Totals,
}

#[derive(Clone, Copy, Default)]
pub struct Totals {
    /// The newest id given, in any channel: ids of one store order all its events.
    pub last: EventId,
    pub next_channel: u32,
    pub bytes: u64,
    pub idempotency_keys: u64,
}

impl Writer {
    pub fn new(
        backing: Backing,
        limits: Limits,
        clock: Clock,
        listener: Arc<dyn Listener>,
        slot: Slot,
    ) -> Self {
        Self { backing, limits, clock, listener, slot, catalog: Catalog::default() }
    }

    /// Opens the file and reads the catalog.
    pub fn open(&mut self) -> Result<(), StoreError> {
        let database = open_database(&self.backing)?;
        prepare(&database)?;
        let mut catalog = read_catalog(&database)?;
        // Also an id that was given and then lost with a failed commit is not given again.
        catalog.totals.last = catalog.totals.last.max(self.catalog.totals.last);
        // Ids of a time that this machine's clock has yet to reach: segments go on from there too.
        self.clock.at_least(catalog.totals.last.ms);
        self.catalog = catalog;
        self.slot.set(Some(Arc::new(database)));
        Ok(())
    }

    /// Works until told to stop, or until nobody is left who could.
    pub fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let (commands, stop) = take_waiting(first, &mut queue);
            if let Err(fault) = self.apply(commands) {
                tracing::error!(%fault, "the log could not be written; it is opened again");
                self.reopen(&mut queue);
            }
            if stop {
                break;
            }
        }
        self.slot.set(None);
    }

    /// Applies commands in one transaction; answers each of them.
    fn apply(&mut self, commands: Vec<Command>) -> Result<(), StoreError> {
        let mut pending: Vec<Pending> = Vec::new();
        let result = self.commit(commands, &mut pending);
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        if let Ok(Some(committed)) = result {
            self.catalog.totals = committed.totals;
            for (name, record) in committed.touched {
                match record {
                    Some(record) => self.catalog.channels.insert(name, record),
                    None => self.catalog.channels.remove(&name),
                };
            }
            for (channel, previous, events) in &committed.appended {
                self.listener.appended(channel, *previous, events);
            }
        }
        for answer in pending {
            answer(outcome.clone());
        }
        outcome
    }

    fn commit(
        &self,
        commands: Vec<Command>,
        pending: &mut Vec<Pending>,
    ) -> Result<Option<Committed>, StoreError> {
        let mut commands = commands.into_iter();
        let begun = self.slot.get().and_then(|database| {
            let mut transaction = database.begin_write().map_err(down)?;
            // After a kill the file opens at once instead of being walked through.
            transaction.set_quick_repair(matches!(self.backing, Backing::Directory(_)));
            Ok(transaction)
        });
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(fault) => {
                commands.for_each(|command| pending.push(refusal(command)));
                return Err(fault);
            }
        };
        let filled = self.fill(&transaction, &mut commands, pending);
        // What the fault kept from its turn is answered with it.
        commands.for_each(|command| pending.push(refusal(command)));
        match filled? {
            None => transaction.abort().map_err(down).map(|()| None),
            Some(committed) => {
                transaction.commit().map_err(down)?;
                Ok(Some(committed))
            }
        }
    }

    /// `None`: nothing was changed, so there is nothing to commit.
    fn fill(
        &self,
        transaction: &WriteTransaction,
        commands: &mut impl Iterator<Item = Command>,
        pending: &mut Vec<Pending>,
    ) -> Result<Option<Committed>, StoreError> {
        let mut batch = Batch::new(transaction, &self.catalog, self.limits, self.clock.now())?;
        for command in commands {
            batch.command(command, pending)?;
        }
        batch.finish()
    }

    /// Opens the file again and again; whoever asks meanwhile is told that the store is down.
    fn reopen(&mut self, queue: &mut mpsc::Receiver<Command>) {
        loop {
            self.slot.set(None);
            match self.open() {
                Ok(()) => break,
                Err(fault) => tracing::error!(%fault, "the log cannot be opened"),
            }
            #[expect(clippy::disallowed_methods, reason = "a thread of its own, not a task")]
            std::thread::sleep(REOPEN_PAUSE);
            while let Ok(command) = queue.try_recv() {
                if matches!(command, Command::Stop) {
                    queue.close();
                    return;
                }
                refusal(command)(Err(StoreError::Down("the log cannot be opened".to_owned())));
            }
            if queue.is_closed() {
                return;
            }
        }
        tracing::info!("the log is open again");
        self.listener.lost_place();
    }
}

/// Answers a command that had no turn.
fn refusal(command: Command) -> Pending {
    fn refuse<T: 'static>(reply: Reply<T>) -> Pending {
        let why = || StoreError::Down("the log could not be written".to_owned());
        Box::new(move |committed| drop(reply.send(Err(committed.err().unwrap_or_else(why)))))
    }
    match command {
        Command::Publish(_, reply) => refuse(reply),
        Command::Close(_, reply) => refuse(reply),
        Command::Reopen(_, reply) => refuse(reply),
        Command::Settle(reply) => Box::new(|_| reply.send(()).unwrap_or_default()),
        Command::Sweep | Command::Stop => Box::new(|_| {}),
    }
}

/// The first command and all that wait behind it, within the limits of a batch.
fn take_waiting(first: Command, queue: &mut mpsc::Receiver<Command>) -> (Vec<Command>, bool) {
    let mut commands = Vec::new();
    let (mut bytes, mut next) = (0, Some(first));
    while let Some(command) = next {
        if matches!(command, Command::Stop) {
            return (commands, true);
        }
        if let Command::Publish(publication, _) = &command {
            bytes += publication.events.iter().map(Event::weight).sum::<usize>();
        }
        commands.push(command);
        let is_full = commands.len() == BATCH_COMMANDS_MAX || bytes > BATCH_BYTES_MAX;
        next = if is_full { None } else { queue.try_recv().ok() };
    }
    (commands, false)
}

fn open_database(backing: &Backing) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let directory = match backing {
        Backing::Memory => {
            let backend = redb::backends::InMemoryBackend::new();
            return builder.create_with_backend(backend).map_err(down);
        }
        Backing::Directory(directory) => directory,
    };
    let path = directory.join(FILE_NAME);
    let why = |error: &dyn std::fmt::Display| {
        StoreError::Down(format!("cannot open {}: {error}", path.display()))
    };
    std::fs::create_dir_all(directory).map_err(|error| why(&error))?;
    builder.create(&path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            why(&"another process has it open; give each its own --store")
        }
        error => why(&error),
    })
}

/// Creates the tables where there are none, and refuses a layout that is not ours.
fn prepare(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(down)?;
    let mut tables = Tables::open(&transaction)?;
    let format = tables.meta.get(META_FORMAT).map_err(down)?.map(|row| row.value().to_vec());
    match format.as_deref() {
        None => {
            let format: &[u8] = &[FORMAT];
            tables.meta.insert(META_FORMAT, format).map_err(down)?;
        }
        Some([FORMAT]) => {}
        Some(other) => {
            return Err(StoreError::Down(format!(
                "the log has format {other:?}, this version reads {FORMAT}: use the newer headwater"
            )));
        }
    }
    drop(tables);
    transaction.commit().map_err(down)
}

fn read_catalog(database: &Database) -> Result<Catalog, StoreError> {
    let snapshot = Snapshot::take(database)?;
    let channels: HashMap<_, _> = snapshot.channels()?.into_iter().collect();
    let mut totals = Totals { idempotency_keys: snapshot.idempotency_keys()?, ..Totals::default() };
    for record in channels.values() {
        totals.bytes += record.bytes + record.state_bytes;
    }
    let last = snapshot.meta(META_LAST_ID)?.unwrap_or_default();
    if let Some((ms, seq)) = last.split_at_checked(8) {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or_default();
        totals.last = EventId { ms: number(ms), seq: number(seq) };
    }
    if let Some(next) = snapshot.meta(META_NEXT_CHANNEL)? {
        totals.next_channel =
            next.as_slice().try_into().map(u32::from_be_bytes).unwrap_or_default();
    }
    Ok(Catalog { channels, totals })
}
