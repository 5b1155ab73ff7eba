//! Compaction frees space: it replaces several files by one that has only the records that are
//! still needed. It reads only sealed files, and removes them after the new file is durable. A
//! crash at any moment therefore leaves either the old files or the new one. The maintenance thread
//! (`maintenance.rs`) runs it when the sweep of the writer (`Writer::sweep`, once a second) asks
//! for it.

use super::super::record::{Reader, Unreadable};
use super::catalog::{Catalog, LogFile};
use super::files::{Files, read_all, write_whole};
use super::frame::{self, Frame, Kind};
use super::log_file::{LogIdentity, name, store_index};
use super::records::{ChannelRecord, Checkpoint, Events, KeyRecord, read_name};
use super::summary::{Summary, summarize};
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use parking_lot::{RwLock, RwLockReadGuard};
use std::io;
use std::ops::RangeInclusive;

/// Files smaller than the full size divided by `SMALL_PART` are joined once `SMALL_FILES` of them
/// are adjacent.
const SMALL_PART: u64 = 4;
const SMALL_FILES: usize = 8;
/// How long a compacted file is not compacted again, in ms. The records that it keeps for
/// idempotency keys and channels do not count as live, so it could look almost empty.
const REST_MS: u64 = 10 * 60 * 1000;

/// Returns the next files that are worth compacting: files of which less than half is live, or
/// several small files.
pub fn candidates(
    catalog: &Catalog,
    last_file: u32,
    file_bytes: u64,
    now: u64,
) -> Option<RangeInclusive<u32>> {
    let is_small =
        |log_file: &LogFile| log_file.size < file_bytes / SMALL_PART && log_file.rests_until <= now;
    let mut sealed = catalog.log_files.range(..last_file).peekable();
    while let Some((first, log_file)) = sealed.next() {
        if !is_wasteful(log_file, now) && !is_small(log_file) {
            continue;
        }
        let (mut until, mut live, mut files) = (*first, log_file.live(), 1);
        let mut is_worth_it = is_wasteful(log_file, now);
        while let Some((number, next)) = sealed.next_if(|(_, next)| {
            let is_one = is_wasteful(next, now) || is_small(next);
            is_one && live + next.live() <= file_bytes
        }) {
            (until, live, files) = (*number, live + next.live(), files + 1);
            is_worth_it |= is_wasteful(next, now);
        }
        if is_worth_it || files >= SMALL_FILES {
            return Some(*first..=until);
        }
    }
    None
}

fn is_wasteful(log_file: &LogFile, now: u64) -> bool {
    log_file.live() < log_file.size / 2 && log_file.rests_until <= now
}

/// Writes one file in place of the files in `numbers`. Returns `None` if no record in them is worth
/// keeping.
///
/// # Errors
/// Fails when a file cannot be read, written, renamed or removed. The log then still has every
/// record worth keeping.
pub fn compact(
    files: &dyn Files,
    catalog: &RwLock<Catalog>,
    head: LogIdentity,
    numbers: RangeInclusive<u32>,
    now: u64,
) -> io::Result<Option<(LogFile, Summary)>> {
    let newest = *numbers.end();
    let (old, oldest) = {
        let log_files = &read(catalog).log_files;
        let old = log_files.range(numbers).map(|(number, log_file)| (*number, log_file.clone()));
        (old.collect::<Vec<_>>(), log_files.keys().next().copied())
    };
    let Some(first) = old.first().map(|(_, log_file)| log_file.first) else { return Ok(None) };
    let is_oldest = oldest == old.first().map(|(number, _)| *number);
    let mut kept = Kept::new(catalog, head, is_oldest);
    for (number, log_file) in &old {
        kept.take_file(*number, log_file)?;
    }
    // The new file may have the name of an old one, and a leftover index must not be taken for its
    // index.
    for (number, log_file) in &old {
        files.remove(&name(log_file.first, *number, "index")).unwrap_or_default();
    }
    // Not every file system keeps the order of two changes of names.
    files.sync_names()?;
    let with = match kept.finish() {
        None => {
            // The next file then also stands for the removed files. Otherwise they would look like
            // missing files.
            let next =
                read(catalog).log_files.range(newest + 1..).next().map(|(n, s)| (*n, s.first));
            if let Some((number, next_first)) = next {
                for extension in ["log", "index"] {
                    let before = name(next_first, number, extension);
                    let renamed = files.rename(&before, &name(first, number, extension));
                    if extension == "log" { renamed? } else { renamed.unwrap_or_default() }
                }
                files.sync_names()?;
            }
            None
        }
        Some(bytes) => {
            let log = write_whole(files, &name(first, newest, "log"), &bytes)?;
            let mut summary = summarize(&frame::scan(&bytes, head.seed, false), newest);
            let index = store_index(files, (first, newest), &mut summary, head.seed).ok();
            let mut log_file = LogFile::new(first, log, index, bytes.len() as u64);
            log_file.rests_until = now + REST_MS;
            Some((log_file, summary))
        }
    };
    for (number, log_file) in &old {
        if (log_file.first, *number) != (first, newest) || with.is_none() {
            files.remove(&name(log_file.first, *number, "log"))?;
        }
    }
    files.sync_names()?;
    Ok(with)
}

fn read(catalog: &RwLock<Catalog>) -> RwLockReadGuard<'_, Catalog> {
    catalog.read()
}

/// The records worth keeping. The catalog changes while the files are read, but every change
/// (dropped events, replaced state, forgotten channels) only reduces the records worth keeping. At
/// worst, a record is therefore kept longer than necessary.
///
/// The lock is held for one lookup at a time. A thread that holds the lock for longer, and takes it
/// again after short breaks, keeps the writer from it (measured: 60 ms for a file of large
/// records).
struct Kept<'c> {
    catalog: &'c RwLock<Catalog>,
    head: LogIdentity,
    /// There is no older file, so the removal of a key needs no record.
    is_oldest: bool,
    commit: u64,
    frames: Vec<u8>,
    channels: Vec<Summary>,
}

impl<'c> Kept<'c> {
    /// No record yet. `is_oldest`: no file is older than those that are read.
    fn new(catalog: &'c RwLock<Catalog>, head: LogIdentity, is_oldest: bool) -> Self {
        Self { catalog, head, is_oldest, commit: 0, frames: Vec::new(), channels: Vec::new() }
    }

    /// Takes the records worth keeping of the file `number`.
    fn take_file(&mut self, number: u32, log_file: &LogFile) -> io::Result<()> {
        let bytes = read_all(&*log_file.log)?;
        let scan = frame::scan(&bytes, self.head.seed, false);
        // The index has the summary, unless it could not be written or is damaged.
        let index = log_file.index.as_deref();
        let known = index.and_then(|index| Summary::read_index(index, self.head.seed, number).ok());
        self.channels.push(known.unwrap_or_else(|| summarize(&scan, number)));
        for frame in &scan.frames {
            // A record that cannot be decoded is dropped.
            self.take(frame).unwrap_or_default();
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame<'_>) -> Result<(), Unreadable> {
        self.commit = self.commit.max(frame.commit);
        match frame.kind {
            Kind::Events | Kind::End => {
                let record = Events::read(frame.body)?;
                let last = record.id(record.events.len() - 1);
                match self.low_watermark(&record.channel) {
                    None => {}
                    Some(low_watermark) if last > low_watermark => self.copy(frame),
                    Some(_) => {
                        self.take_state(&record);
                        self.take_key(&record);
                    }
                }
            }
            Kind::State => self.take_state(&Events::read(frame.body)?),
            Kind::Key => {
                let (channel, key) = KeyRecord::read(frame.body)?;
                if self.is_current(&channel, &key) {
                    self.copy(frame);
                }
            }
            Kind::Reopen => {
                let channel = read_name(&mut Reader::new(frame.body))?;
                if self.is_known(&channel) {
                    self.copy(frame);
                }
            }
            Kind::Beginning => self.copy(frame),
            Kind::Checkpoint | Kind::Seal | Kind::Channel => {}
        }
        Ok(())
    }

    fn low_watermark(&self, channel: &ChannelName) -> Option<EventId> {
        read(self.catalog).channels.get(channel).map(|channel| channel.low_watermark)
    }

    fn is_known(&self, channel: &ChannelName) -> bool {
        self.low_watermark(channel).is_some()
    }

    /// Whether the record is still the current one of its idempotency key.
    fn is_current(&self, channel: &ChannelName, key: &KeyRecord) -> bool {
        read(self.catalog).keys.get(channel, &key.key) == Some(key)
    }

    /// Keeps the events that are the state of their keys, and the events that remove a key which an
    /// older file may still have.
    fn take_state(&mut self, record: &Events) {
        for (index, event) in record.events.iter().enumerate() {
            let Some(key) = &event.key else { continue };
            let id = record.id(index);
            let newest = match read(self.catalog).channels.get(&record.channel) {
                None => return,
                Some(channel) => channel.state.get(key.as_str()).map(|kept| kept.id),
            };
            let is_kept = match newest {
                Some(newest) => newest == id,
                None => event.removes_key() && !self.is_oldest,
            };
            if is_kept {
                let (channel, events) = (record.channel.clone(), vec![event.clone()]);
                let (previous, first) = (EventId::START, id);
                let state = Events { channel, is_first: false, previous, first, key: None, events };
                self.write(Kind::State, |out| state.write(out));
            }
        }
    }

    fn take_key(&mut self, record: &Events) {
        let Some(key) = &record.key else { return };
        if self.is_current(&record.channel, key) {
            self.write(Kind::Key, |out| key.write(&record.channel, out));
        }
    }

    fn copy(&mut self, frame: &Frame<'_>) {
        self.write(frame.kind, |out| out.extend_from_slice(frame.body));
    }

    fn write(&mut self, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
        let head = (kind, self.commit, false);
        frame::write(&mut self.frames, self.head.seed, head, body);
    }

    /// Returns the bytes of the new file: a record for each channel, the kept records, a checkpoint
    /// and a seal. Returns `None` if nothing is worth keeping.
    fn finish(mut self) -> Option<Vec<u8>> {
        let catalog = read(self.catalog);
        let mut channels: std::collections::BTreeMap<_, ChannelRecord> = Default::default();
        for summary in std::mem::take(&mut self.channels) {
            for found in summary.channels {
                let Some(known) = catalog.channels.get(&found.name) else { continue };
                let carried = found.carried.as_ref().map_or(EventId::START, |record| record.last);
                let closed = found.closed.unwrap_or_default();
                let record = channels.entry(found.name.clone()).or_insert(ChannelRecord {
                    channel: found.name.clone(),
                    last: EventId::START,
                    closed,
                    low_watermark: known.low_watermark,
                });
                record.last = record.last.max(found.last).max(carried);
                record.closed = closed;
            }
        }
        let (newest, ages) = (catalog.newest, catalog.ages);
        drop(catalog);
        if self.frames.is_empty() && channels.is_empty() && self.is_oldest {
            return None;
        }
        let (seed, commit) = (self.head.seed, self.commit);
        let mut out = Vec::new();
        for record in channels.values() {
            frame::write(&mut out, seed, (Kind::Channel, commit, true), |out| record.write(out));
        }
        out.append(&mut self.frames);
        let checkpoint = Checkpoint { newest, ages };
        frame::write(&mut out, seed, (Kind::Checkpoint, commit, true), |out| checkpoint.write(out));
        frame::write(&mut out, seed, (Kind::Seal, commit, true), |_| {});
        Some(out)
    }
}
