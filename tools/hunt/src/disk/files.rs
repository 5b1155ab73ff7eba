//! A disk that keeps a model of what was synced.
//!
//! A file has the bytes that a reader sees now, the bytes that are durable, and the writes in
//! between. A power failure decides for each of these writes whether it reached the disk: as a
//! whole, in some of its sectors, or up to any byte. Names are durable after [`Files::sync_names`].

use crate::random::Random;
use headwater::store::local::files::{File, Files};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// A disk writes sectors of this many bytes as a whole, unless it tears one.
const SECTOR_BYTES: usize = 512;
/// The system writes pages of this many bytes, unless it is stopped within one.
const PAGE_BYTES: usize = 4096;

/// The faults that a disk may have beside power failures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Writes fail once in this many times, after a part of their bytes. 0: never.
    pub write_fails: u64,
    /// Syncs fail once in this many times, and lose some of the writes. 0: never.
    pub sync_fails: u64,
    /// Syncs report success without an effect, once in this many times. 0: never.
    pub sync_lies: u64,
    /// Reads fail once in this many times. 0: never.
    pub read_fails: u64,
}

/// A disk with one flat directory.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    random: Random,
    faults: Faults,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renames: Vec<NameChange>,
    /// The number of changes until the power fails.
    changes_left: Option<u64>,
    /// The process that opened the disk last. Handles of earlier ones no longer work.
    epoch: u64,
    is_full: bool,
    told: Vec<String>,
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Cut { length: usize },
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

struct Handle {
    disk: Disk,
    inode: usize,
    epoch: u64,
}

impl Disk {
    /// Returns an empty disk.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::of(0, "disk", 0),
            faults: Faults::default(),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renames: Vec::new(),
            changes_left: None,
            epoch: 0,
            is_full: false,
            told: Vec::new(),
        })))
    }

    /// From now on the disk draws its faults from `random`.
    pub fn begin(&self, random: Random, faults: Faults) {
        let mut state = self.0.lock();
        (state.random, state.faults) = (random, faults);
    }

    /// The power fails after this number of changes.
    pub fn fail_after(&self, changes: u64) {
        self.0.lock().changes_left = Some(changes);
    }

    /// Whether the disk has no room.
    pub fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.0.lock().changes_left == Some(0)
    }

    /// Returns the faults since the last call, as sentences.
    pub fn take_told(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().told)
    }

    /// The power comes back: what was not synced is kept, dropped or torn.
    pub fn restart(&self, random: &mut Random) {
        let mut state = self.0.lock();
        state.changes_left = None;
        state.epoch += 1;
        state.is_full = false;
        let changes = std::mem::take(&mut state.renames);
        // A file system with a journal keeps the order of names; others keep any of them.
        let (kept, is_ordered) = (random.below(changes.len() as u64 + 1), random.one_in(2));
        for (number, change) in (0..).zip(changes) {
            let is_kept = if is_ordered { number < kept } else { random.one_in(2) };
            if is_kept {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            inode.settle(random);
            inode.now = inode.durable.clone();
        }
    }

    /// Ends the process, but not the machine: everything that was written is kept.
    pub fn end_process(&self) {
        let mut state = self.0.lock();
        state.epoch += 1;
        state.changes_left = None;
        state.is_full = false;
    }

    /// Damages durable bytes of one file: a bit, or up to a page. The last bytes of the newest log
    /// file stay whole: a log whose end is missing cannot be told from one that was cut off in a
    /// commit. Returns a description, or `None` if the file has too few bytes.
    pub fn damage(&self, random: &mut Random) -> Option<String> {
        let mut state = self.0.lock();
        let names: Vec<String> = state.names.keys().cloned().collect();
        let newest = names.iter().filter(|name| name.ends_with(".log")).max()?;
        let name = if random.one_in(2) { newest } else { &names[random.index(names.len())] };
        let spared = if name == newest { 72 } else { 0 };
        let inode = *state.names.get(name)?;
        let file = &mut state.inodes[inode];
        // Most of a file may be zeros that were written ahead of the records.
        let used = (file.now.iter().rposition(|byte| *byte != 0)? + 1).checked_sub(spared)?;
        let at = random.index(used);
        let bytes = file.now.get_mut(at..used)?;
        let what = match random.one_in(2) {
            true => {
                let bit = random.below(8);
                *bytes.first_mut()? ^= 1 << bit;
                format!("bit {bit} of byte {at} of {name} is flipped")
            }
            false => {
                let length = random.range(2..PAGE_BYTES as u64) as usize;
                let bytes = bytes.iter_mut().take(length);
                let count = bytes.map(|byte| *byte ^= 0x5a).count();
                format!("{count} bytes from byte {at} of {name} are other ones")
            }
        };
        file.durable.clone_from(&file.now);
        file.unsynced.clear();
        Some(what)
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.lock();
        match &mut state.changes_left {
            Some(0) => return Err(io::Error::other("the power has failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }

    fn handle(&self, inode: usize, epoch: u64) -> Arc<dyn File> {
        Arc::new(Handle { disk: self.clone(), inode, epoch })
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn fails(&mut self, once_in: u64) -> bool {
        once_in > 0 && self.random.one_in(once_in)
    }

    fn name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.renames.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl Inode {
    /// Decides which unsynced writes reached the disk.
    ///
    /// A sector on the disk has the content that the memory of the system had at some instant, so of
    /// the writes to one sector the first ones are kept. Different sectors may stop at different
    /// writes, in any order.
    fn settle(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.unsynced);
        let count = changes.len() as u64;
        let (manner, salt) = (random.below(5), random.number());
        let kept_of = |unit: usize| Random::of(salt, "unit", unit as u64).below(count + 1);
        let is_kept = |sector: usize, number: u64| match manner {
            0 => true,
            1 => number < kept_of(0),
            2 => number < kept_of(sector),
            3 => number < kept_of(sector * SECTOR_BYTES / PAGE_BYTES),
            _ => false,
        };
        for (number, change) in (0..).zip(&changes) {
            match change {
                Change::Write { offset, bytes } => {
                    for (at, part) in sectors(*offset, bytes) {
                        if is_kept(at / SECTOR_BYTES, number) {
                            put(&mut self.durable, at, part);
                        }
                    }
                }
                Change::Cut { length } if is_kept(0, number) => self.durable.resize(*length, 0),
                Change::Cut { .. } => {}
            }
        }
        // The disk stops within a write.
        if manner == 1
            && let Some(Change::Write { offset, bytes }) = changes.get(kept_of(0) as usize)
        {
            put(&mut self.durable, *offset, &bytes[..random.index(bytes.len() + 1)]);
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => put(bytes, *offset, written),
            Self::Cut { length } => bytes.resize(*length, 0),
        }
    }
}

/// Divides a write into the parts that lie in one sector each.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        at = (offset + at + 1).next_multiple_of(SECTOR_BYTES).min(offset + bytes.len()) - offset;
        (start < bytes.len()).then(|| (offset + start, &bytes[start..at]))
    })
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end && !written.is_empty() {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(offset..end) {
        place.copy_from_slice(written);
    }
}

impl Files for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.change()?;
        let (inode, epoch) = (state.inodes.len(), state.epoch);
        state.inodes.push(Inode::default());
        state.name(NameChange::Set(name.to_owned(), inode));
        Ok(self.handle(inode, epoch))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = self.0.lock();
        let inode = state.names.get(name).copied().ok_or(ErrorKind::NotFound)?;
        Ok(self.handle(inode, state.epoch))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.change()?;
        let inode = state.names.get(from).copied().ok_or(ErrorKind::NotFound)?;
        state.name(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.change()?;
        state.names.get(name).ok_or(ErrorKind::NotFound)?;
        state.name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.change()?;
        let once_in = state.faults.sync_fails;
        if state.fails(once_in) {
            state.told.push("a sync of the names fails".to_owned());
            return Err(io::Error::other("the disk reports an error (EIO)"));
        }
        state.renames.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn still_there(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        true
    }
}

impl Handle {
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.change()?;
        match state.epoch == self.epoch {
            true => Ok(state),
            false => Err(io::Error::other("the process that opened this file has ended")),
        }
    }

    fn apply(&self, state: &mut State, change: Change) {
        let inode = &mut state.inodes[self.inode];
        change.apply(&mut inode.now);
        inode.unsynced.push(change);
    }
}

impl File for Handle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let once_in = state.faults.read_fails;
        if state.fails(once_in) {
            state.told.push("a read fails".to_owned());
            return Err(io::Error::other("the disk cannot read (EIO)"));
        }
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let found = state.inodes[self.inode].now.get(from..from.saturating_add(buffer.len()));
        buffer.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.change()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let once_in = state.faults.write_fails;
        let (is_full, fails) = (state.is_full, state.fails(once_in));
        let is_torn = state.changes_left == Some(0) && state.random.one_in(2);
        if is_full || fails || is_torn {
            let written = state.random.index(bytes.len() + 1);
            let part = Change::Write { offset, bytes: bytes[..written].to_vec() };
            self.apply(&mut state, part);
            let of = bytes.len();
            state.told.push(format!("a write stops after {written} of {of} bytes"));
            let why = if is_full { ErrorKind::StorageFull } else { ErrorKind::Other };
            return Err(io::Error::new(why, "the write was cut short"));
        }
        self.apply(&mut state, Change::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn cut_at(&self, length: u64) -> io::Result<()> {
        let mut state = self.change()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.apply(&mut state, Change::Cut { length });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.change()?;
        let Faults { sync_fails, sync_lies, .. } = state.faults;
        if state.fails(sync_fails) {
            state.told.push("a sync fails".to_owned());
            // Linux reports the error once, and then takes the lost pages for written.
            let mut random = state.random.clone();
            state.inodes[self.inode].settle(&mut random);
            state.random = random;
            return Err(io::Error::other("the disk reports an error (EIO)"));
        }
        if state.fails(sync_lies) {
            state.told.push("a sync does nothing and reports success".to_owned());
            return Ok(());
        }
        let inode = &mut state.inodes[self.inode];
        for change in std::mem::take(&mut inode.unsynced) {
            change.apply(&mut inode.durable);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
