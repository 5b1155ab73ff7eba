//! Checks, copies and restores the directory of a log. A process may write the log while it is
//! copied, but not while it is checked.
//!
//! The files of a log are only appended to, so a prefix of a log is itself a valid log. A copy
//! takes the files in their order, and omits the incomplete commit at the end of the last one. If a
//! compaction replaces files meanwhile, the copy begins again.

use super::files::{Directory, File, Files, read_all, write_named};
use super::frame::{self, Kind, Scan};
use super::log_file::{
    LogIdentity, NO_HEAD, PAGE_BYTES, invalid, is_cut, name, numbers, write_zeros,
};
use super::summary::summarize;
use super::{FILE_BYTES, LocalConfig, LocalStore};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, StoredEvent};
use crate::store::{EventSink, Limits};
use crate::sync::clock::Clock;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often a copy begins again because of compactions before it fails.
const TRIES_MAX: usize = 20;

/// The content of a log and the damage found in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of files of the log.
    pub files: usize,
    /// The bytes of these files.
    pub bytes: u64,
    /// The number of events in them, including events that are no longer kept.
    pub events: u64,
    /// The number of channels in them.
    pub channels: usize,
    /// The newest id.
    pub newest: EventId,
    /// The damage, with the file and the location.
    pub damage: Vec<Damage>,
}

/// One instance of damage.
#[derive(Debug, PartialEq, Eq)]
pub enum Damage {
    /// A range of bytes in a file that is not valid records.
    Bytes { file: String, range: Range<usize> },
    /// The end of a file is missing.
    Cut { file: String },
    /// The files with the numbers `first` to `last` are missing.
    Missing { first: u32, last: u32 },
}

/// Reads every record of the log in a directory and verifies it.
///
/// # Errors
/// Fails when there is no log, when another process uses it, or when a file cannot be read.
pub fn check(path: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    walk(&Directory::existing(path)?, &mut report, |_, _, _| Ok(()))?;
    Ok(report)
}

/// Copies the log in `from`, to which a process may be writing, into the new directory `to`.
///
/// # Errors
/// Fails when `to` is not empty, when a file cannot be read or written, or when compactions change
/// the log too often during the copy. Files that were copied before the failure may remain in `to`.
pub fn backup(from: &Path, to: &Path) -> io::Result<Report> {
    let files = Directory::unlocked(from)?;
    let target = Directory::open(to)?;
    if !target.list()?.is_empty() {
        return Err(invalid(format!("{} is not empty", to.display())));
    }
    for _ in 0..TRIES_MAX {
        let mut report = Report::default();
        match walk(&files, &mut report, |name, bytes, scan| copy(&target, name, bytes, scan)) {
            Ok(head) => {
                head.store(&target)?;
                return Ok(report);
            }
            // A compaction has replaced the file meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                target.list()?.iter().try_for_each(|name| target.remove(name))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the log changes too fast to be copied; try again"))
}

/// Copies a backup into the new directory `to`, and adds a `gap` event to every channel, because
/// the events after the backup are lost.
///
/// # Errors
/// Fails in the same cases as [`backup`].
pub fn restore(from: &Path, to: &Path) -> io::Result<Report> {
    let report = backup(from, to)?;
    let no_limit = u64::MAX;
    let ever = Duration::from_secs(u64::from(u32::MAX));
    let limits = Limits {
        retain_age: ever,
        retain_events: no_limit,
        retain_bytes: no_limit,
        channels: no_limit,
        channel_idle: ever,
        keys: no_limit,
        state_bytes: no_limit,
        total_bytes: no_limit,
        idempotency_age: ever,
        idempotency_keys: no_limit,
    };
    let config = LocalConfig { timeout: ever, reserve: 0, file_bytes: FILE_BYTES };
    let files = Arc::new(Directory::open(to)?);
    LocalStore::build(files, config, limits.into(), Clock::default(), Arc::new(Deaf), true)?;
    Ok(report)
}

struct Deaf;

impl EventSink for Deaf {
    fn appended(&self, _: &ChannelName, _: EventId, _: &[StoredEvent]) {}
    fn lost_place(&self) {}
}

/// Scans all files in their order, and calls `visit` with the name and the bytes of each.
fn walk(
    files: &dyn Files,
    report: &mut Report,
    mut visit: impl FnMut(&str, &[u8], &Scan<'_>) -> io::Result<()>,
) -> io::Result<LogIdentity> {
    let mut found: Vec<_> = files.list()?.iter().filter_map(|name| numbers(name)).collect();
    found.sort_by_key(|(first, until)| (*first, Reverse(*until)));
    if found.is_empty() {
        return Err(invalid("there is no log here".to_owned()));
    }
    let head = match files.open("log") {
        Ok(head) => LogIdentity::read(&read_all(&*head)?)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(invalid(NO_HEAD.into())),
        Err(error) => return Err(error),
    };
    let (mut next, mut channels) = (1, HashSet::new());
    for (index, (first, until)) in found.iter().enumerate() {
        if *until < next {
            continue;
        }
        if *first > next {
            report.damage.push(Damage::Missing { first: next, last: first - 1 });
        }
        next = until + 1;
        let is_last = index + 1 == found.len();
        let file = name(*first, *until, "log");
        let bytes = read_all(&*files.open(&file)?)?;
        let scan = frame::scan(&bytes, head.seed, is_last);
        let is_sealed = scan.frames.last().is_some_and(|frame| frame.kind == Kind::Seal);
        if !is_sealed && (!is_last || is_cut(&scan, bytes.len() as u64)) {
            report.damage.push(Damage::Cut { file: file.clone() });
        }
        let damaged = scan.damaged.iter().cloned();
        report.damage.extend(damaged.map(|range| Damage::Bytes { file: file.clone(), range }));
        let summary = summarize(&scan, *until);
        report.newest = report.newest.max(summary.newest);
        for channel in summary.channels {
            report.events += channel.blocks.iter().map(|block| block.events).sum::<u64>();
            channels.insert(channel.name);
        }
        report.files += 1;
        report.bytes += bytes.len() as u64;
        visit(&file, &bytes, &scan)?;
    }
    report.channels = channels.len();
    Ok(head)
}

/// Copies the records of a file. A damaged record stays damaged, and a check of the copy finds it.
fn copy(target: &dyn Files, name: &str, bytes: &[u8], scan: &Scan<'_>) -> io::Result<()> {
    let is_sealed = scan.frames.last().is_some_and(|frame| frame.kind == Kind::Seal);
    let write = |file: &dyn File| {
        file.write_at(&bytes[..scan.end], 0)?;
        let end = scan.end as u64;
        let zeros_end = (end + 1).next_multiple_of(PAGE_BYTES);
        if is_sealed { Ok(()) } else { write_zeros(file, end, zeros_end) }
    };
    write_named(target, name, write).map(drop)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, bytes, events, channels, newest, damage } = self;
        let mib = *bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{events} events of {channels} channels in {files} files ({mib:.1} MiB), the newest is \
             {newest}"
        )?;
        damage.iter().try_for_each(|damage| writeln!(f, "DAMAGED: {damage}"))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { file, range: Range { start, end } } => {
                write!(f, "{file}: bytes {start} to {end} are no records")
            }
            Self::Cut { file } => write!(f, "{file}: its end is missing"),
            Self::Missing { first, last } => write!(f, "the files {first} to {last} are missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::Memory;
    use super::*;

    #[test]
    fn zeros_follow_the_records_of_a_copy_up_to_the_end_of_a_page() {
        let page = PAGE_BYTES as usize;
        let frame_of = |body: usize| {
            let mut bytes = Vec::new();
            let head = (Kind::Checkpoint, 1, true);
            frame::write(&mut bytes, 1, head, |out| out.resize(out.len() + body, 1));
            bytes
        };
        // A frame has a multiple of eight bytes.
        let bytes_of = |length: usize| {
            (0..length).map(frame_of).find(|bytes| bytes.len() == length).expect("a frame")
        };
        for (length, copied) in [(page - 8, page), (page, 2 * page), (page + 8, 2 * page)] {
            let bytes = bytes_of(length);
            let target = Memory::durable(Default::default());
            copy(&target, "copy", &bytes, &frame::scan(&bytes, 1, true)).unwrap();
            let mut expected = bytes;
            expected.resize(copied, 0);
            assert_eq!(target.bytes()["copy"], expected, "{length} bytes of records");
        }
    }
}
