//! The writer of the log.
//!
//! The writer takes the waiting commands, up to the limits of one commit (`command.rs`), and turns
//! them into records. It writes the records with one write and one sync, and only then changes the
//! catalog, passes the events to the hub and answers the publishers. When a write or a sync fails,
//! the writer overwrites the remains of the failed commit before the next commit. Until this has
//! succeeded, the writer refuses every publish. Reads continue.

use super::super::{ChannelLimits, EventSink, StoreError};
use super::batch::{Append, Batch, Change, Staged, WritePosition};
use super::catalog::{Catalog, LogFile};
use super::command::{CommandQueue, Pending, WriteCommand, answer_later, refuse};
use super::files::Files;
use super::frame::{self, Kind};
use super::log_file::{LastFile, LogIdentity};
use super::maintenance::{Maintainer, Maintenance, trim_again};
use super::reading::RecordReader;
use super::records::{Checkpoint, write_id};
use super::sweep::Ages;
use super::{Health, LocalConfig};
use crate::sync::clock::Clock;
use crate::sync::plants::{Plant, is_planted};
use parking_lot::RwLock;
use std::io;
use std::sync::Arc;
use std::time::Instant;

pub(super) struct Writer {
    pub files: Arc<dyn Files>,
    pub limits: Arc<ChannelLimits>,
    pub config: LocalConfig,
    pub clock: Clock,
    pub sink: Arc<dyn EventSink>,
    pub catalog: Arc<RwLock<Catalog>>,
    pub reader: Arc<RecordReader>,
    pub health: Arc<Health>,
    pub head: LogIdentity,
    pub last_file: LastFile,
    /// The number of the last commit.
    pub commit: u64,
    /// The bytes after the end of the log may belong to a failed commit.
    pub must_cut: bool,
    /// The file is sealed, and the next one could not be created yet.
    pub must_follow: bool,
    pub ages: Ages,
}

impl Writer {
    /// Returns the maintenance of the files of this log.
    pub fn maintenance(&self) -> Maintenance {
        Maintenance {
            files: self.files.clone(),
            catalog: self.catalog.clone(),
            reader: self.reader.clone(),
            head: self.head,
            file_bytes: self.config.file_bytes,
        }
    }

    /// Repairs what was wrong when the log was opened: removes an interrupted commit, and announces
    /// lost events.
    pub fn begin(&mut self, opened_damaged: bool, torn: u64) -> io::Result<()> {
        if torn != 0 {
            tracing::info!(bytes = torn, "the last commit was cut off by a crash; it is removed");
            self.last_file.cut()?;
        }
        trim_again(&mut self.catalog.write(), &self.reader);
        if self.files.is_durable() {
            self.last_file.complete()?;
        }
        if opened_damaged {
            self.announce_losses()?;
        }
        Ok(())
    }

    /// Applies the commands of the next commit. Returns whether a stop was among them.
    pub fn step(&mut self, queue: &mut CommandQueue, maintainer: &Maintainer) -> bool {
        let (commands, is_stopped) = queue.take();
        self.health.work_begins(Instant::now());
        self.apply(commands, maintainer);
        if queue.is_empty() {
            self.checkpoint();
        }
        self.health.work_ends();
        is_stopped
    }

    /// Whether the next file begins after a commit of this many bytes.
    pub fn fills_file(&self, bytes: usize) -> bool {
        self.last_file.end + bytes as u64 >= self.config.file_bytes
    }

    /// Writes the checkpoint at the end of a log that is closed.
    pub fn end(&mut self) {
        self.health.must_checkpoint();
        self.checkpoint();
        if self.last_file.file.sync().is_err() {
            tracing::warn!("the log could not be synced at the end; what was acknowledged is safe");
        }
    }

    /// Applies commands in one commit and answers each of them.
    fn apply(&mut self, commands: Vec<WriteCommand>, maintainer: &Maintainer) {
        let is_sweep = commands.iter().any(|command| matches!(command, WriteCommand::Sweep));
        let mut pending = Vec::new();
        let outcome = match self.heal() {
            Ok(()) => self.commit(commands, &mut pending, maintainer),
            Err(refusal) => {
                commands.into_iter().for_each(|command| pending.extend(refuse(command)));
                Err(refusal)
            }
        };
        for answer in pending {
            answer(outcome.clone());
        }
        if is_sweep {
            self.sweep(maintainer);
        }
    }

    fn commit(
        &mut self,
        commands: Vec<WriteCommand>,
        pending: &mut Vec<Pending>,
        maintainer: &Maintainer,
    ) -> Result<(), StoreError> {
        let staged = self.stage(commands, pending);
        if staged.bytes.is_empty() {
            return Ok(());
        }
        self.write(&staged.bytes)?;
        let appended = self.change(staged.changes);
        for append in &appended {
            self.limits.note(&append.channel, &append.stored);
            self.sink.appended(&append.channel, append.follows, &append.stored);
        }
        if self.fills_file(0) {
            self.seal(maintainer);
        }
        Ok(())
    }

    fn stage(&self, commands: Vec<WriteCommand>, pending: &mut Vec<Pending>) -> Staged {
        let catalog = self.catalog.read();
        let (now, position) = (self.clock.now(), self.write_position());
        let mut batch = Batch::new(&catalog, &self.limits, now, position);
        for command in commands {
            match command {
                WriteCommand::Publish(publication, reply, ticket) if ticket.take() => {
                    pending.push(answer_later(reply, batch.publish(publication)));
                }
                WriteCommand::Close(channel, reply, ticket) if ticket.take() => {
                    pending.push(answer_later(reply, batch.close(&channel)));
                }
                WriteCommand::Erase(channel, reply, ticket) if ticket.take() => {
                    pending.push(answer_later(reply, batch.erase(&channel)));
                }
                WriteCommand::Reopen(channel, reply, ticket) if ticket.take() => {
                    pending.push(answer_later(reply, batch.reopen(&channel)));
                }
                WriteCommand::Settle(reply) => {
                    pending.push(Box::new(|_| reply.send(()).unwrap_or_default()));
                }
                // The sender withdrew the command, and reported that nothing is stored.
                WriteCommand::Publish(..)
                | WriteCommand::Close(..)
                | WriteCommand::Erase(..)
                | WriteCommand::Reopen(..) => {}
                WriteCommand::Sweep | WriteCommand::Stop => {}
            }
        }
        batch.finish()
    }

    fn write_position(&self) -> WritePosition {
        let (log_file, offset) = (self.last_file.number, self.last_file.end as usize);
        WritePosition { log_file, offset, commit: self.commit + 1, seed: self.head.seed }
    }

    /// Makes frames durable at the end of the log.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let begun = Instant::now();
        self.make_room(bytes.len() as u64).map_err(|error| self.fail(&error, false))?;
        self.must_cut = true;
        if let Err(error) = self.last_file.file.write_at(bytes, self.last_file.end) {
            // The written part may contain whole records. They count as not stored only once they
            // are overwritten.
            self.must_cut = self.last_file.cut().is_err();
            return Err(self.fail(&error, self.must_cut));
        }
        let synced = match is_planted(Plant::AckBeforeSync) {
            true => Ok(()),
            false => self.last_file.file.sync(),
        };
        self.health.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        synced.map_err(|error| self.fail(&error, true))?;
        self.must_cut = false;
        self.last_file.end += bytes.len() as u64;
        self.commit += 1;
        self.health.works();
        Ok(())
    }

    /// Writes zeros ahead when that is necessary. Fails when the disk is almost full.
    fn make_room(&mut self, length: u64) -> io::Result<()> {
        // The check also applies when the file has room already, because the reserve is for other
        // uses of the machine.
        self.check_free(length)?;
        if self.files.is_durable() { self.last_file.write_ahead(length) } else { Ok(()) }
    }

    /// Updates the metric of free disk space, and reports too little space before a publish fails.
    pub fn look_at_disk(&self) {
        if let Ok(Some(free)) = self.files.free_bytes() {
            self.health.metrics.free_bytes.set(free as i64);
        }
        if let Err(error) = self.check_free(0)
            && !self.health.is_failing()
        {
            self.fail(&error, false);
        }
    }

    /// Fails if writing `length` bytes would leave less free space than the reserve.
    fn check_free(&self, length: u64) -> io::Result<()> {
        let reserve = self.config.reserve;
        match self.files.free_bytes()? {
            Some(free) if free < reserve.saturating_add(length) => {
                let why = format!(
                    "{free} bytes are free on the disk, and {reserve} are kept free (--disk-reserve)"
                );
                Err(io::Error::new(io::ErrorKind::StorageFull, why))
            }
            _ => Ok(()),
        }
    }

    fn fail(&self, error: &io::Error, is_unclear: bool) -> StoreError {
        self.health.fails(format!("the log cannot be written: {error}"));
        match is_unclear {
            true => StoreError::Unclear(format!("the disk did not confirm it: {error}")),
            false => StoreError::Down(format!("the log cannot be written: {error}")),
        }
    }

    /// Makes the log writable again: overwrites the remains of a failed commit, and begins the next
    /// file when that is due.
    fn heal(&mut self) -> Result<(), StoreError> {
        let checked = self.files.still_there().map_err(|error| {
            io::Error::new(error.kind(), format!("the data directory is gone: {error}"))
        });
        let healed =
            checked.and_then(|()| if self.must_cut { self.last_file.cut() } else { Ok(()) });
        let healed = healed.and_then(|()| {
            self.must_cut = false;
            if self.must_follow { self.follow() } else { Ok(()) }
        });
        healed.map_err(|error| self.fail(&error, false))
    }

    /// Applies durable changes to the catalog. Returns the records of events.
    fn change(&mut self, changes: Vec<Change>) -> Vec<Append> {
        let mut catalog = self.catalog.write();
        let (reader, number) = (&self.reader, self.last_file.number);
        if let Some(log_file) = catalog.log_files.get_mut(&number) {
            log_file.size = self.last_file.end;
        }
        let mut appended = Vec::new();
        for change in changes {
            let name = change.channel().clone();
            let load = |log_file: &LogFile, block: &_| reader.entries(&name, log_file, block).ok();
            let append = match change {
                Change::Append(append) => *append,
                Change::Reopen(_) => {
                    catalog.reopen(&name);
                    continue;
                }
                Change::Erase(erasure) => {
                    catalog.erase(&erasure, &load);
                    continue;
                }
            };
            catalog.commit(&append, number);
            let limits = self.limits.of(&name);
            catalog.trim(&name, u64::MAX, &load, |channel, _| {
                let is_over = channel.events > limits.retain_events;
                channel.events > 1 && (is_over || channel.bytes > limits.retain_bytes)
            });
            appended.push(append);
        }
        appended
    }

    /// Writes a checkpoint, which proves that everything before it is durable. It is written while
    /// no command waits and without a sync. The next commit overwrites it: if the checkpoint stayed
    /// in front of that commit, a crash could keep the commit and lose the checkpoint, and the hole
    /// would look like damage.
    fn checkpoint(&mut self) {
        let checkpoint = self.state();
        let mut bytes = Vec::new();
        let head = (Kind::Checkpoint, self.commit + 1, true);
        frame::write(&mut bytes, self.head.seed, head, |out| checkpoint.write(out));
        let is_whole = !self.must_cut && !self.must_follow && self.files.is_durable();
        let is_due = self.health.take_checkpoint_due() && is_whole;
        if !is_due || self.make_room(bytes.len() as u64).is_err() {
            return;
        }
        if self.last_file.file.write_at(&bytes, self.last_file.end).is_err() {
            self.must_cut = true;
            return;
        }
        self.commit += 1;
        self.ages.checkpointed = checkpoint.ages;
    }

    /// After a failure, writes a checkpoint as a test, so that the recovery of the disk is noticed.
    pub fn try_after_failure(&mut self) {
        if self.health.is_failing() && self.heal().is_ok() {
            let mut bytes = Vec::new();
            let checkpoint = self.state();
            let head = (Kind::Checkpoint, self.commit + 1, true);
            frame::write(&mut bytes, self.head.seed, head, |out| checkpoint.write(out));
            self.write(&bytes).unwrap_or_default();
        }
    }

    fn state(&self) -> Checkpoint {
        let newest = self.catalog.read().newest;
        Checkpoint { newest, ages: self.ages.now }
    }

    /// Seals the file, requests its index and begins the next file.
    fn seal(&mut self, maintainer: &Maintainer) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, self.head.seed, (Kind::Seal, self.commit + 1, true), |_| {});
        if self.write(&bytes).is_err() {
            // Sealing is attempted again after the next commit.
            return;
        }
        self.must_follow = true;
        // This frees the space that was written ahead. A failure does no harm.
        self.last_file.file.cut_at(self.last_file.end).unwrap_or_default();
        maintainer.index(self.last_file.number);
        if let Err(error) = self.follow() {
            self.fail(&error, false);
        }
    }

    /// Begins the file after a sealed one.
    fn follow(&mut self) -> io::Result<()> {
        let (checkpoint, head) = (self.state(), (self.head.seed, self.commit + 1));
        self.last_file =
            LastFile::create(&*self.files, self.last_file.number + 1, head, checkpoint)?;
        self.commit += 1;
        self.must_follow = false;
        let mut catalog = self.catalog.write();
        catalog.log_files.insert(self.last_file.number, self.last_file.log_file());
        Ok(())
    }

    /// Announces that records may be lost. Each channel that may have lost events gets a `gap`
    /// event, and the beginning of the log moves up, so that cursors of channels without events no
    /// longer count.
    fn announce_losses(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let mut staged = {
            let catalog = self.catalog.read();
            let mut batch = Batch::new(&catalog, &self.limits, now, self.write_position());
            let suspects = catalog.names_where(|channel| channel.is_suspect);
            let told = if is_planted(Plant::HalfGap) { 1 } else { usize::MAX };
            suspects.iter().take(told).for_each(|name| batch.announce_loss(name));
            tracing::error!("events of the log are lost; their channels get gap events");
            batch.finish()
        };
        let newest = staged.changes.iter().rev().find_map(|change| match change {
            Change::Append(append) => Some(append.entry.last()),
            Change::Reopen(_) | Change::Erase(_) => None,
        });
        let known = self.catalog.read().newest;
        let beginning = newest.unwrap_or(known).next(now);
        let head = (Kind::Beginning, self.commit + 1, staged.bytes.is_empty());
        frame::write(&mut staged.bytes, self.head.seed, head, |out| write_id(out, beginning));
        self.write(&staged.bytes).map_err(|error| io::Error::other(error.to_string()))?;
        self.change(staged.changes);
        let mut catalog = self.catalog.write();
        catalog.beginning = beginning;
        catalog.newest = beginning;
        Ok(())
    }
}
