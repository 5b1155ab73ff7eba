//! The files of the log: their names, and how they are opened, sealed and followed by the next
//! file.
//!
//! A file such as `0000000003-0000000003.log` is written up to about 16 MiB. Then it is sealed,
//! gets its own index (`.index`) and is never written again. Compaction replaces several files by
//! one, which is why a name has two numbers. The free space after the records of the last file is
//! filled with zeros in advance. A commit (`fdatasync` of a write inside the file) then writes only
//! the pages of its records and no metadata of the file system.
//!
//! A crash may leave a torn commit at the end of the last file. `frame.rs` finds it when the log is
//! opened, and `Writer::begin` cuts it off. Damaged records are skipped then, and
//! `Writer::announce_losses` announces what may be lost.

use super::catalog::{Catalog, LogFile};
use super::files::{File, Files, read_all, write_named, write_whole};
use super::frame::{self, Kind, Scan};
use super::records::{Checkpoint, write_id};
use super::summary::{Summary, summarize};
use crate::core::cursor::EventId;
use crate::sync::random::random;
use std::cmp::Reverse;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many bytes of zeros the last file has ahead of its records.
const AHEAD_BYTES: u64 = 1024 * 1024;
pub const PAGE_BYTES: u64 = 4 * 1024;
/// The name of the file that contains the [`LogIdentity`] twice. The second copy is in its own page.
const HEAD_NAME: &str = "log";
const HEAD_MAGIC: [u8; 8] = *b"HWLOG\0\0\x01";
const HEAD_BYTES: usize = 40;
const HEAD_SECOND: usize = 4 * 1024;
/// The error message for a log without its head file.
pub const NO_HEAD: &str = "the file \"log\" is missing: the copy is not complete";
/// The data file of earlier versions, which had a different format.
const FORMER_NAME: &str = "events.redb";

/// The properties that all files of a log have in common.
#[derive(Clone, Copy, Debug)]
pub struct LogIdentity {
    /// The seed of all checksums.
    pub seed: u64,
    /// The position before the first event.
    pub beginning: EventId,
}

/// The file that is being written.
pub struct LastFile {
    pub number: u32,
    pub file: Arc<dyn File>,
    /// The offset of the next frame.
    pub end: u64,
    /// The offset up to which the file is filled with zeros.
    pub allocated: u64,
}

/// A log after opening.
pub struct Opened {
    pub head: LogIdentity,
    pub catalog: Catalog,
    pub last_file: LastFile,
    pub commit: u64,
    /// The number of bytes of an interrupted commit.
    pub torn: u64,
    /// Events may be lost, and it cannot always be determined which ones.
    pub is_damaged: bool,
}

/// The name of a file that holds the records of the files `first` to `until`.
pub fn name(first: u32, until: u32, extension: &str) -> String {
    format!("{first:010}-{until:010}.{extension}")
}

/// Reads the numbers in the name of a file of the log.
pub fn numbers(name: &str) -> Option<(u32, u32)> {
    let (first, until) = name.strip_suffix(".log")?.split_once('-')?;
    let (first, until) = (first.parse().ok()?, until.parse().ok()?);
    // The first file has the number 1, and after each file there is a number for the next one.
    let is_possible = 1 <= first && first <= until && until < u32::MAX;
    is_possible.then_some((first, until))
}

impl LogIdentity {
    /// Reads the head of a log, or creates it for a new log.
    fn open(files: &dyn Files, is_new: bool, beginning: EventId) -> io::Result<Self> {
        match files.open(HEAD_NAME) {
            Ok(file) => Self::read(&read_all(&*file)?),
            Err(error) if error.kind() == ErrorKind::NotFound && is_new => {
                let head = Self { seed: random(), beginning };
                head.store(files)?;
                Ok(head)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(invalid(NO_HEAD.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Writes the head to its file.
    pub fn store(&self, files: &dyn Files) -> io::Result<()> {
        let mut bytes = self.write();
        bytes.resize(HEAD_SECOND, 0);
        bytes.extend_from_slice(&self.write());
        write_whole(files, HEAD_NAME, &bytes).map(drop)
    }

    fn write(&self) -> Vec<u8> {
        let mut out = HEAD_MAGIC.to_vec();
        out.extend_from_slice(&self.seed.to_be_bytes());
        write_id(&mut out, self.beginning);
        out.extend_from_slice(&xxh3_64_with_seed(&out, 0).to_be_bytes());
        out
    }

    /// Decodes the bytes of the head file. The second copy is used when the first is damaged.
    pub fn read(bytes: &[u8]) -> io::Result<Self> {
        let half = |start: usize| {
            let half = bytes.get(start..start + HEAD_BYTES)?;
            let (body, checksum) = half.split_last_chunk::<8>()?;
            let is_whole = xxh3_64_with_seed(body, 0).to_be_bytes() == *checksum;
            let body = body.strip_prefix(&HEAD_MAGIC).filter(|_| is_whole)?;
            let (seed, rest) = body.split_first_chunk()?;
            let (ms, seq) = rest.split_first_chunk()?;
            let number = u64::from_be_bytes;
            let beginning = EventId { ms: number(*ms), seq: number(seq.try_into().ok()?) };
            Some(Self { seed: number(*seed), beginning })
        };
        let head = [0, HEAD_SECOND].into_iter().find_map(half);
        head.ok_or_else(|| {
            let why = "is damaged in both halves, or of a newer version";
            invalid(format!("the file {HEAD_NAME:?} {why}; restore it from a backup"))
        })
    }
}

impl LastFile {
    /// Creates the first file of the log, or the file after a sealed one.
    pub fn create(
        files: &dyn Files,
        number: u32,
        (seed, commit): (u64, u64),
        checkpoint: Checkpoint,
    ) -> io::Result<Self> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, seed, (Kind::Checkpoint, commit, true), |out| {
            checkpoint.write(out)
        });
        let end = bytes.len() as u64;
        let ahead = if files.is_durable() { AHEAD_BYTES } else { 0 };
        let allocated = end.max(ahead);
        let file = write_named(files, &name(number, number, "log"), |file| {
            file.write_at(&bytes, 0)?;
            write_zeros(file, end, allocated)
        })?;
        Ok(Self { number, file, end, allocated })
    }

    /// Ensures that `length` more bytes fit into the file and that zeros follow them. A file
    /// without zeros at its end was truncated.
    pub fn write_ahead(&mut self, length: u64) -> io::Result<()> {
        let needed = self.end + length + 1;
        if needed <= self.allocated {
            return Ok(());
        }
        let allocated = (needed + AHEAD_BYTES).next_multiple_of(PAGE_BYTES);
        write_zeros(&*self.file, self.allocated, allocated)?;
        self.allocated = allocated;
        Ok(())
    }

    /// Adds the zeros that are missing at the end of a truncated file.
    pub fn complete(&mut self) -> io::Result<()> {
        let allocated = self.allocated.max(self.end + 1).next_multiple_of(PAGE_BYTES);
        write_zeros(&*self.file, self.allocated, allocated)?;
        self.allocated = allocated;
        Ok(())
    }

    /// Overwrites the remains of a failed commit with zeros.
    pub fn cut(&self) -> io::Result<()> {
        write_zeros(&*self.file, self.end, self.file.length()?)?;
        self.file.sync()
    }

    pub fn log_file(&self) -> LogFile {
        LogFile::new(self.number, self.file.clone(), None, self.end)
    }
}

/// Makes the records at the start of the last file durable before they are served. The process that
/// wrote them may have been killed before it synced them. They are written again, because after a
/// sync that failed Linux takes lost pages for written, and does not write them at the next sync.
fn make_durable(file: &dyn File, records: &[u8]) -> io::Result<()> {
    for (offset, page) in
        (0..).step_by(PAGE_BYTES as usize).zip(records.chunks(PAGE_BYTES as usize))
    {
        file.write_at(page, offset)?;
    }
    file.sync()
}

/// Whether the end of the last, unsealed file is missing. Such a file normally has whole pages and
/// ends with zeros.
pub fn is_cut(scan: &Scan<'_>, size: u64) -> bool {
    !size.is_multiple_of(PAGE_BYTES) || (scan.end + scan.torn) as u64 >= size
}

/// Writes zeros page by page. After large writes, Linux caches the file in large units, and counts
/// and writes a whole unit whenever one byte of it changes (measured on Linux 6.18 with ext4: 1 MiB
/// for a commit of 300 bytes).
pub fn write_zeros(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let end = (at + 1).next_multiple_of(PAGE_BYTES).min(to);
        file.write_at(&vec![0; (end - at) as usize], at)?;
        at = end;
    }
    Ok(())
}

/// Opens a log and creates it if it does not exist. `beginning` is the position before the first
/// event of a new log.
///
/// # Errors
/// Fails when the log has the format of an earlier version, its head is missing or damaged, a file
/// is empty, or the disk reports an error. Damaged records are no error: they are skipped and
/// reported.
pub fn open(files: &dyn Files, beginning: EventId) -> io::Result<Opened> {
    let names = files.list()?;
    if names.iter().any(|name| name == FORMER_NAME) {
        return Err(invalid(format!(
            "{FORMER_NAME} is in the format of an earlier version, which this one does not read; \
             begin with an empty directory"
        )));
    }
    let mut found: Vec<(u32, u32)> = names.iter().filter_map(|name| numbers(name)).collect();
    found.sort_by_key(|(first, until)| (*first, Reverse(*until)));
    let head = LogIdentity::open(files, found.is_empty(), beginning)?;
    drop_leftovers(files, &names, &mut found)?;
    // The process before may have ended after it had created or renamed a file, and before the name
    // was durable. A power failure would then remove a file that is served and written from now on.
    files.sync_names()?;
    let mut opened = Opened {
        head,
        catalog: Catalog {
            beginning: head.beginning,
            newest: head.beginning,
            // The first file of a log records this. Without it, a process that ends before it has
            // recorded the clock for ages would leave none, and after a jump of the wall clock the
            // next process would drop everything.
            ages: if found.is_empty() { beginning.ms } else { 0 },
            ..Catalog::default()
        },
        last_file: LastFile {
            number: 0,
            file: Arc::new(super::files::MemoryFile::default()),
            end: 0,
            allocated: 0,
        },
        commit: 0,
        torn: 0,
        is_damaged: false,
    };
    let mut next = 1;
    for (index, (first, until)) in found.iter().enumerate() {
        if *first != next {
            tracing::error!(from = next, to = first - 1, "files of the log are missing");
            opened.suspect();
        }
        next = until + 1;
        opened.add(files, (*first, *until), index + 1 == found.len())?;
    }
    if found.is_empty() && names.iter().any(|name| name == HEAD_NAME) {
        tracing::error!("the files of the log are gone, and their events with them");
        opened.suspect();
    }
    if opened.last_file.number == 0 {
        let checkpoint = Checkpoint { newest: opened.catalog.newest, ages: opened.catalog.ages };
        opened.last_file =
            LastFile::create(files, next, (head.seed, opened.commit + 1), checkpoint)?;
        opened.commit += 1;
        opened.catalog.log_files.insert(next, opened.last_file.log_file());
    }
    Ok(opened)
}

/// Removes unfinished files, files that a compaction has replaced, and indexes without their file.
fn drop_leftovers(
    files: &dyn Files,
    names: &[String],
    found: &mut Vec<(u32, u32)>,
) -> io::Result<()> {
    let mut kept: Vec<(u32, u32)> = Vec::new();
    for (first, until) in found.drain(..) {
        match kept.last() {
            Some((_, covered)) if until <= *covered => files.remove(&name(first, until, "log"))?,
            _ => kept.push((first, until)),
        }
    }
    let of_log = |index: &str| index.replace(".index", ".log");
    for name in names {
        let is_lost = name.ends_with(".index")
            && !numbers(&of_log(name)).is_some_and(|numbers| kept.contains(&numbers));
        if name.ends_with(".tmp") || is_lost {
            files.remove(name)?;
        }
    }
    *found = kept;
    Ok(())
}

impl Opened {
    /// Notes that events of all channels known so far may be lost.
    pub fn suspect(&mut self) {
        self.is_damaged = true;
        self.catalog.channels.values_mut().for_each(|channel| channel.is_suspect = true);
    }

    fn add(
        &mut self,
        files: &dyn Files,
        (first, until): (u32, u32),
        is_last: bool,
    ) -> io::Result<()> {
        let log_name = name(first, until, "log");
        let log = files.open(&log_name)?;
        let size = log.length()?;
        if size == 0 {
            return Err(invalid(format!(
                "{log_name} is empty, so its events are lost: restore it from a backup, or move it \
                 away to go on without it"
            )));
        }
        let index = files.open(&name(first, until, "index")).ok();
        let known = index
            .as_ref()
            .filter(|_| !is_last)
            .and_then(|index| Summary::read_index(&**index, self.head.seed, until).ok());
        let log_file = LogFile::new(first, log.clone(), index, size);
        self.catalog.log_files.insert(until, log_file);
        if let Some(summary) = known {
            self.commit = self.commit.max(summary.commit);
            self.fold(summary);
            return Ok(());
        }
        let bytes = read_all(&*log)?;
        let scan = frame::scan(&bytes, self.head.seed, is_last);
        for damaged in &scan.damaged {
            tracing::error!(
                file = log_name,
                from = damaged.start,
                to = damaged.end,
                "a part of the log is damaged; what follows it is served, its loss is announced"
            );
        }
        let (end, torn) = (scan.end as u64, scan.torn as u64);
        if is_last && files.is_durable() {
            make_durable(&*log, &bytes[..scan.end])?;
        }
        let mut summary = summarize(&scan, until);
        self.commit = self.commit.max(summary.commit);
        let is_sealed = summary.is_sealed;
        let is_cut = !is_sealed && (!is_last || is_cut(&scan, size)) && files.is_durable();
        if is_sealed && !summary.is_damaged {
            let index = store_index(files, (first, until), &mut summary, self.head.seed);
            if let Some(log_file) = self.catalog.log_files.get_mut(&until) {
                log_file.index = index.ok();
            }
        } else if self.catalog.log_files.get(&until).is_some_and(|one| one.index.is_some()) {
            // The next process would believe the index, which has what this one found damaged.
            files.remove(&name(first, until, "index"))?;
        }
        self.fold(summary);
        if is_cut {
            tracing::error!(
                file = log_name,
                bytes = size,
                "the end of a file of the log is missing"
            );
            self.suspect();
        }
        if is_last && !is_sealed {
            self.last_file = LastFile { number: until, file: log, end, allocated: size };
            self.torn = torn;
        }
        Ok(())
    }

    fn fold(&mut self, summary: Summary) {
        if summary.beginning != EventId::START {
            self.is_damaged = false;
        }
        self.is_damaged |= summary.is_damaged;
        self.catalog.fold(summary);
    }
}

/// Writes the index of a sealed file. Afterwards the entries in `summary` refer to this index.
pub fn store_index(
    files: &dyn Files,
    (first, until): (u32, u32),
    summary: &mut Summary,
    seed: u64,
) -> io::Result<Arc<dyn File>> {
    let bytes = summary.write_index(seed);
    let index = write_whole(files, &name(first, until, "index"), &bytes)?;
    *summary = Summary::read_index(&*index, seed, until)
        .map_err(|_| invalid("an index cannot be read back".to_owned()))?;
    Ok(index)
}

pub fn invalid(why: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}
