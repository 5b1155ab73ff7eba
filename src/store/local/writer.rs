//! The one thread that writes the log.
//!
//! It takes whatever commands wait, makes records of them, writes these with one write and one
//! sync, and only then changes the catalog, tells the hub and answers the publishers. When the disk
//! fails, the log is cut back to what was durable, and until that works every publish is refused.
//! Reads go on meanwhile.

use super::super::{Limits, Listener, StoreError};
use super::batch::{Append, Batch, Change, Staged, WritePosition};
use super::catalog::{Catalog, Channel, Segment};
use super::command::{Pending, WriteCommand, answer_later, refuse, take_waiting};
use super::files::Files;
use super::frame::{self, Kind};
use super::maintenance::{Maintainer, trim_again};
use super::reading::RecordReader;
use super::records::{Mark, write_id};
use super::segment::{Head, Tail};
use super::{Health, LocalConfig};
use crate::core::event::ChannelName;
use crate::sync::clock::Clock;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Commits of several publishers begin at least so far apart: on a fast disk each would otherwise
/// have few records and write a page of the disk for each. A lone publisher does not wait.
const COMMIT_PAUSE: Duration = Duration::from_micros(500);
/// Most events that one sweep drops, so that publishes do not wait long behind it.
const SWEEP_EVENTS_MAX: u64 = 100_000;
/// The ages of events catch up with the clock this many times as fast as time passes. After a jump
/// of the clock, and after a pause of the process, nothing is dropped at once.
const AGE_CATCH_UP: u64 = 2;

/// How often the log notes the ages of an idle log, in ms.
const AGES_MARK_MS: u64 = 60_000;

pub(super) struct Writer {
    pub files: Arc<dyn Files>,
    pub limits: Limits,
    pub config: LocalConfig,
    pub clock: Clock,
    pub listener: Arc<dyn Listener>,
    pub catalog: Arc<RwLock<Catalog>>,
    pub reader: Arc<RecordReader>,
    pub health: Arc<Health>,
    pub head: Head,
    pub tail: Tail,
    /// The number of the last commit.
    pub commit: u64,
    /// Bytes after the end of the file may be of a commit that failed.
    pub must_cut: bool,
    /// The file is sealed, and the next one could not be created yet.
    pub must_follow: bool,
    pub ages: Ages,
}

/// The instant by which ages are reckoned.
pub(super) struct Ages {
    now: u64,
    swept: Instant,
    /// What the log says of it.
    marked: u64,
}

impl Ages {
    /// Goes on from where they were when the log was written last, whatever the clock says now.
    pub fn new(known: u64, now: u64) -> Self {
        let known = if known == 0 { now } else { known.min(now) };
        Self { now: known, swept: Instant::now(), marked: known }
    }

    fn advance(&mut self, now: u64) -> u64 {
        let passed = self.swept.elapsed().as_millis() as u64;
        self.swept = Instant::now();
        self.now = (self.now + AGE_CATCH_UP * passed).min(now);
        self.now
    }
}

impl Writer {
    /// Puts right what was found when the log was opened.
    pub fn begin(&mut self, opened_damaged: bool, torn: u64) -> io::Result<()> {
        if torn > 0 {
            tracing::info!(bytes = torn, "the last commit was cut off by a crash; it is removed");
            self.tail.cut()?;
        }
        trim_again(&mut self.catalog.write().unwrap_or_else(PoisonError::into_inner), &self.reader);
        if self.files.is_durable() {
            self.tail.complete()?;
        }
        if opened_damaged {
            self.announce_losses()?;
        }
        Ok(())
    }

    /// Works until it is stopped, or until no sender is left.
    pub fn run(mut self, mut queue: mpsc::Receiver<WriteCommand>, maintainer: Maintainer) {
        let mut committed = Instant::now();
        while let Some(first) = queue.blocking_recv() {
            if !queue.is_empty() && self.files.is_durable() {
                let pause = COMMIT_PAUSE.saturating_sub(committed.elapsed());
                #[expect(clippy::disallowed_methods, reason = "a thread of its own, not a task")]
                std::thread::sleep(pause);
                committed = Instant::now();
            }
            let (commands, is_stopped) = take_waiting(first, &mut queue);
            self.health.work_begins();
            self.apply(commands, &maintainer);
            if queue.is_empty() {
                self.mark();
            }
            self.health.work_ends();
            if is_stopped {
                break;
            }
        }
        self.health.must_mark();
        self.mark();
        if self.tail.file.sync().is_err() {
            tracing::warn!("the log could not be synced at the end; what was acknowledged is safe");
        }
        maintainer.stop();
    }

    /// Applies commands in one commit, and answers each of them.
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
            self.listener.appended(&append.channel, append.follows, &append.stored);
        }
        if self.tail.end >= self.config.segment_bytes {
            self.seal(maintainer);
        }
        Ok(())
    }

    fn stage(&self, commands: Vec<WriteCommand>, pending: &mut Vec<Pending>) -> Staged {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new(&catalog, self.limits, self.clock.now(), self.write_position());
        for command in commands {
            match command {
                WriteCommand::Publish(publication, reply, ticket) if ticket.take() => {
                    pending.push(answer_later(reply, batch.publish(publication)));
                }
                WriteCommand::Close(channel, reply, ticket) if ticket.take() => {
                    pending.push(answer_later(reply, batch.close(&channel)));
                }
                WriteCommand::Reopen(channel, reply, ticket) if ticket.take() => {
                    pending.push(answer_later(reply, batch.reopen(&channel)));
                }
                WriteCommand::Settle(reply) => {
                    pending.push(Box::new(|_| reply.send(()).unwrap_or_default()));
                }
                // Its sender no longer waits for an answer, and was told that nothing is stored.
                WriteCommand::Publish(..) | WriteCommand::Close(..) | WriteCommand::Reopen(..) => {}
                WriteCommand::Sweep | WriteCommand::Stop => {}
            }
        }
        batch.finish()
    }

    fn write_position(&self) -> WritePosition {
        let (segment, offset) = (self.tail.number, self.tail.end as usize);
        WritePosition { segment, offset, commit: self.commit + 1, seed: self.head.seed }
    }

    /// Makes frames durable at the end of the log.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let begun = Instant::now();
        self.make_room(bytes.len() as u64).map_err(|error| self.fail(&error, false))?;
        self.must_cut = true;
        if let Err(error) = self.tail.file.write_at(bytes, self.tail.end) {
            // A part of it may be whole records: they are not stored only once they are gone.
            self.must_cut = self.tail.cut().is_err();
            return Err(self.fail(&error, self.must_cut));
        }
        let synced = self.tail.file.sync();
        self.health.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        synced.map_err(|error| self.fail(&error, true))?;
        self.must_cut = false;
        self.tail.end += bytes.len() as u64;
        self.commit += 1;
        self.health.works();
        Ok(())
    }

    /// Writes ahead where that is due, unless the disk is almost full.
    fn make_room(&mut self, length: u64) -> io::Result<()> {
        // Also where the file has room already: the reserve is for the rest of the machine.
        self.check_free(length)?;
        if self.tail.end + length < self.tail.allocated {
            return Ok(());
        }
        if self.files.is_durable() { self.tail.write_ahead(length) } else { Ok(()) }
    }

    /// Notes how much of the disk is free, and fails before a publish does where it is too little.
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

    /// Whether so much can be written without touching the reserve.
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

    /// Sees to it that the log can be written: cuts off what a failed commit has left, and begins
    /// the next file where that is due.
    fn heal(&mut self) -> Result<(), StoreError> {
        let checked = self.files.still_there().map_err(|error| {
            io::Error::new(error.kind(), format!("the data directory is gone: {error}"))
        });
        let healed = checked.and_then(|()| if self.must_cut { self.tail.cut() } else { Ok(()) });
        let healed = healed.and_then(|()| {
            self.must_cut = false;
            if self.must_follow { self.follow() } else { Ok(()) }
        });
        healed.map_err(|error| self.fail(&error, false))
    }

    /// Changes the catalog by what is durable; returns the records of events.
    fn change(&mut self, changes: Vec<Change>) -> Vec<Append> {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let (reader, limits, number) = (&self.reader, self.limits, self.tail.number);
        if let Some(segment) = catalog.segments.get_mut(&number) {
            segment.size = self.tail.end;
        }
        let mut appended = Vec::new();
        for change in changes {
            let Some(append) = catalog.commit(change, number) else { continue };
            let name = &append.channel;
            let load = |segment: &Segment, block: &_| reader.entries(name, segment, block).ok();
            catalog.trim(name, u64::MAX, &load, |channel, _| {
                let is_over = channel.events > limits.retain_events;
                channel.events > 1 && (is_over || channel.bytes > limits.retain_bytes)
            });
            appended.push(append);
        }
        appended
    }

    /// Shows, while nothing else is to be written, that all before is durable. Without a sync: it
    /// goes to the disk together with the next commit.
    fn mark(&mut self) {
        let mark = self.state();
        let mut bytes = Vec::new();
        let head = (Kind::Mark, self.commit + 1, true);
        frame::write(&mut bytes, self.head.seed, head, |out| mark.write(out));
        let is_whole = !self.must_cut && !self.must_follow && self.files.is_durable();
        let is_due = self.health.take_unmarked() && is_whole;
        if !is_due || self.make_room(bytes.len() as u64).is_err() {
            return;
        }
        if self.tail.file.write_at(&bytes, self.tail.end).is_err() {
            self.must_cut = true;
            return;
        }
        self.tail.end += bytes.len() as u64;
        self.commit += 1;
        self.ages.marked = mark.ages;
    }

    fn state(&self) -> Mark {
        let newest = self.catalog.read().unwrap_or_else(PoisonError::into_inner).newest;
        Mark { newest, ages: self.ages.now }
    }

    /// Ends the file: seals it, asks for its index and begins the next one.
    fn seal(&mut self, maintainer: &Maintainer) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, self.head.seed, (Kind::Seal, self.commit + 1, true), |_| {});
        if self.write(&bytes).is_err() {
            // It is tried again after the next commit.
            return;
        }
        self.must_follow = true;
        // What was written ahead is given back; left there, it does no harm.
        self.tail.file.cut_at(self.tail.end).unwrap_or_default();
        maintainer.index(self.tail.number);
        if let Err(error) = self.follow() {
            self.fail(&error, false);
        }
    }

    /// Begins the file after a sealed one.
    fn follow(&mut self) -> io::Result<()> {
        let (mark, head) = (self.state(), (self.head.seed, self.commit + 1));
        self.tail = Tail::create(&*self.files, self.tail.number + 1, head, mark)?;
        self.commit += 1;
        self.must_follow = false;
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.segments.insert(self.tail.number, self.tail.segment());
        Ok(())
    }

    /// Drops what is too old: events, idempotency keys, channels that are not used, and files.
    fn sweep(&mut self, maintainer: &Maintainer) {
        let now = self.clock.now();
        let ages = self.ages.advance(now);
        self.drop_old(now, ages);
        if ages > self.ages.marked + AGES_MARK_MS {
            // What was dropped stays dropped when the log is opened again.
            self.health.must_mark();
        }
        self.look_at_disk();
        // A disk that failed is tried, so that it is known again once it works.
        if self.health.is_failing() && self.heal().is_ok() {
            let mut bytes = Vec::new();
            let mark = self.state();
            let head = (Kind::Mark, self.commit + 1, true);
            frame::write(&mut bytes, self.head.seed, head, |out| mark.write(out));
            self.write(&bytes).unwrap_or_default();
        }
        maintainer.compact(self.tail.number, now);
    }

    fn drop_old(&mut self, now: u64, ages: u64) {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let reader = &self.reader;
        let before = ages.saturating_sub(self.limits.retain_age.as_millis() as u64);
        let unused_since = ages.saturating_sub(self.limits.channel_idle.as_millis() as u64);
        catalog.keys.expire(now);
        let is_old = |channel: &Channel| channel.oldest().is_some_and(|oldest| oldest.ms < before);
        let old = catalog.channels.iter().filter(|(_, channel)| is_old(channel));
        let old: Vec<ChannelName> = old.map(|(name, _)| name.clone()).collect();
        let mut left = SWEEP_EVENTS_MAX;
        for name in &old {
            let load = |segment: &Segment, block: &_| reader.entries(name, segment, block).ok();
            left -= catalog.trim(name, left, &load, |_, oldest| oldest.ms < before).min(left);
        }
        let is_unused = |channel: &Channel| {
            channel.events == 0 && channel.state.is_empty() && channel.used_at < unused_since
        };
        let unused = catalog.channels.iter().filter(|(_, channel)| is_unused(channel));
        let unused: Vec<ChannelName> = unused.map(|(name, _)| name.clone()).collect();
        unused.iter().for_each(|name| catalog.forget(name));
    }

    /// Events of some channels may be lost, and their records with them. Each of these channels gets
    /// a `gap` event, and cursors of channels without any event no longer count.
    fn announce_losses(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let mut staged = {
            let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
            let mut batch = Batch::new(&catalog, self.limits, now, self.write_position());
            let suspects = catalog.channels.iter().filter(|(_, channel)| channel.is_suspect);
            suspects.for_each(|(name, _)| batch.announce_loss(name));
            tracing::error!("events of the log are lost; their channels get gap events");
            batch.finish()
        };
        let newest = staged.changes.iter().rev().find_map(|change| match change {
            Change::Append(append) => Some(append.entry.last()),
            Change::Reopen(_) => None,
        });
        let known = self.catalog.read().unwrap_or_else(PoisonError::into_inner).newest;
        let beginning = newest.unwrap_or(known).next(now);
        let head = (Kind::Beginning, self.commit + 1, staged.bytes.is_empty());
        frame::write(&mut staged.bytes, self.head.seed, head, |out| write_id(out, beginning));
        self.write(&staged.bytes).map_err(|error| io::Error::other(error.to_string()))?;
        self.change(staged.changes);
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.beginning = beginning;
        catalog.newest = beginning;
        Ok(())
    }
}
