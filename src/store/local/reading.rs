//! Reads pages of the log. The locations of the events are looked up in the catalog under its lock.
//! The files are then read without the lock. Every record is verified against its checksum, and a
//! damaged record is replaced by a `gap` event.

use super::super::{Page, PageLimit, State, StoreFault, StoreMetrics};
use super::block::{Block, Entries, Entry, read_entries};
use super::catalog::{Catalog, LogFile};
use super::files::{File, read_all};
use super::frame::{self, Kind};
use super::records::Events;
use super::summary::{Kept, entries_at, summarize};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, StoredEvent};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Maximum bytes in one read of a file, when records are close to each other.
const READ_BYTES_MAX: u64 = 256 * 1024;
/// Maximum distance in bytes between two records that are read together.
const HOLE_BYTES_MAX: u64 = 4 * 1024;

/// Reads the records of a log and verifies their checksums with the seed of the log.
#[derive(Debug)]
pub struct RecordReader {
    seed: u64,
    pub(super) metrics: StoreMetrics,
}

/// The locations of the events of a page.
pub struct Plan {
    name: ChannelName,
    pub(super) blocks: Vec<(LogFile, Block)>,
    /// The bounds and the status of the channel, without events.
    page: Page,
}

/// The bytes of the last read of a file.
#[derive(Default)]
struct Window {
    file: Option<Arc<dyn File>>,
    offset: u64,
    bytes: Vec<u8>,
}

impl Plan {
    /// Returns the locations of up to `limit` events after `position`. The returned position is
    /// `position` or the low watermark, whichever is later.
    pub fn after(
        catalog: &Catalog,
        name: &ChannelName,
        position: EventId,
        limit: PageLimit,
    ) -> (Self, EventId) {
        let mut plan = Self::new(catalog, name);
        let Some(channel) = catalog.channels.get(name) else { return (plan, position) };
        let position = position.max(channel.low_watermark);
        let from = channel.blocks.partition_point(|block| block.last <= position);
        plan.gather(catalog, channel.blocks.range(from..), limit);
        (plan, position)
    }

    /// Returns the locations of up to `limit` events before `before`, and the low watermark, after
    /// which they lie.
    pub fn before(
        catalog: &Catalog,
        name: &ChannelName,
        before: EventId,
        limit: PageLimit,
    ) -> (Self, EventId) {
        let mut plan = Self::new(catalog, name);
        let Some(channel) = catalog.channels.get(name) else { return (plan, EventId::START) };
        let until = channel.blocks.partition_point(|block| block.first < before);
        plan.gather(catalog, channel.blocks.range(..until).rev(), limit);
        plan.blocks.reverse();
        (plan, channel.low_watermark)
    }

    /// Returns the block of a channel that `choose` selects, and its file.
    pub fn block(
        catalog: &Catalog,
        name: &ChannelName,
        choose: impl FnOnce(&VecDeque<Block>) -> Option<usize>,
    ) -> Option<(LogFile, Block)> {
        let channel = catalog.channels.get(name)?;
        let block = channel.blocks.get(choose(&channel.blocks)?)?;
        Some((catalog.log_files.get(&block.log_file)?.clone(), block.clone()))
    }

    /// Whether the page has no events, so that no file must be read.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns the page without events.
    pub fn into_page(self) -> Page {
        self.page
    }

    fn new(catalog: &Catalog, name: &ChannelName) -> Self {
        let log_state = catalog.log_state(name);
        let (bounds, closed) = (log_state.bounds, log_state.closed);
        let page = Page { bounds, closed, complete: true, ..Page::default() };
        Self { name: name.clone(), blocks: Vec::new(), page }
    }

    /// Adds blocks until they have enough events. The first block does not count, because only some
    /// of its events may belong to the page.
    fn gather<'b>(
        &mut self,
        catalog: &Catalog,
        blocks: impl Iterator<Item = &'b Block>,
        limit: PageLimit,
    ) {
        let (mut events, mut bytes) = (0, 0);
        for (index, block) in blocks.enumerate() {
            if events >= limit.events as u64 || bytes > limit.bytes as u64 {
                self.page.complete = false;
                return;
            }
            if let Some(log_file) = catalog.log_files.get(&block.log_file) {
                self.blocks.push((log_file.clone(), block.clone()));
            }
            if index > 0 {
                events += block.events;
                bytes += block.bytes;
            }
        }
    }
}

impl RecordReader {
    /// Creates a reader of the log with this seed.
    pub fn new(seed: u64, metrics: StoreMetrics) -> Self {
        Self { seed, metrics }
    }

    /// Reads the page of a plan: the first events after `position`.
    ///
    /// # Errors
    /// Fails when a file cannot be read for another reason than damage.
    pub fn page(&self, plan: Plan, position: EventId, limit: PageLimit) -> io::Result<Page> {
        let Plan { name, blocks, mut page } = plan;
        let (mut window, mut bytes) = (Window::default(), 0);
        for (log_file, block) in blocks {
            let entries = self.entries(&name, &log_file, &block)?;
            let from = entries.partition_point(|entry| entry.last() <= position);
            for index in from..entries.len() {
                let events = self.events(&name, &log_file, &entries, index, &mut window)?;
                for stored in events.into_iter().filter(|stored| stored.id > position) {
                    bytes += stored.event.weight();
                    let is_full = page.events.len() == limit.events || bytes > limit.bytes;
                    if is_full && (limit.events == 0 || !page.events.is_empty()) {
                        page.complete = false;
                        return Ok(page);
                    }
                    page.events.push(stored);
                }
            }
        }
        Ok(page)
    }

    /// Reads the page of a plan: the last events before `before` and after `position`.
    ///
    /// # Errors
    /// Fails in the same cases as [`RecordReader::page`].
    pub fn page_back(
        &self,
        plan: Plan,
        (position, before): (EventId, EventId),
        limit: PageLimit,
    ) -> io::Result<Page> {
        let Plan { name, blocks, mut page } = plan;
        let (mut window, mut bytes) = (Window::default(), 0);
        for (log_file, block) in blocks.into_iter().rev() {
            let entries = self.entries(&name, &log_file, &block)?;
            let until = entries.partition_point(|entry| entry.first < before);
            for index in (0..until).rev() {
                let events = self.events(&name, &log_file, &entries, index, &mut window)?;
                let is_wanted = |stored: &StoredEvent| stored.id < before && stored.id > position;
                for stored in events.into_iter().rev().filter(is_wanted) {
                    bytes += stored.event.weight();
                    let is_full = page.events.len() == limit.events || bytes > limit.bytes;
                    if is_full && !page.events.is_empty() {
                        page.complete = false;
                        page.events.reverse();
                        return Ok(page);
                    }
                    page.events.push(stored);
                }
            }
        }
        page.events.reverse();
        Ok(page)
    }

    /// Returns the entries of a block.
    ///
    /// # Errors
    /// Fails in the same cases as [`RecordReader::page`].
    pub fn entries(
        &self,
        name: &ChannelName,
        log_file: &LogFile,
        block: &Block,
    ) -> io::Result<VecDeque<Entry>> {
        let Some((offset, length, checksum)) = entries_at(&block.entries) else {
            let Entries::Here(entries) = &block.entries else { return Ok(VecDeque::new()) };
            return Ok(entries.clone());
        };
        let index = log_file.index.as_ref();
        let read = index.ok_or(ErrorKind::NotFound.into()).and_then(|index| {
            let mut bytes = vec![0; length];
            index.read_at(&mut bytes, offset)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => {
                if let Ok(entries) = read_entries(&bytes, checksum, self.seed) {
                    return Ok(entries);
                }
            }
            Err(error) if !is_damage(&error) => return Err(error),
            Err(_) => {}
        }
        tracing::error!(%name, "an index is damaged; the log itself is read in its place");
        self.entries_of_log(name, log_file, block)
    }

    /// Reconstructs the entries of a block from the log file when its index is damaged.
    fn entries_of_log(
        &self,
        name: &ChannelName,
        log_file: &LogFile,
        block: &Block,
    ) -> io::Result<VecDeque<Entry>> {
        self.metrics.fault(StoreFault::Index);
        let bytes = read_all(&*log_file.log)?;
        let summary = summarize(&frame::scan(&bytes, self.seed, false), block.log_file);
        let channel = summary.channels.into_iter().find(|channel| channel.name == *name);
        // The first record that can be read names the event before it. If that event belongs to
        // this block, its record is lost too.
        let previous = channel.as_ref().and_then(|channel| channel.previous);
        let blocks = channel.map(|channel| channel.blocks).unwrap_or_default();
        let entries = blocks.into_iter().filter_map(|block| match block.entries {
            Entries::Here(entries) => Some(entries),
            Entries::Stored { .. } => None,
        });
        let is_inside = |entry: &Entry| entry.last() >= block.first && entry.first <= block.last;
        let mut entries: VecDeque<_> = entries.flatten().filter(is_inside).collect();
        if let Some(previous) = previous
            && (block.first..block.last).contains(&previous)
        {
            entries.push_front(Entry::lost(previous));
        }
        if entries.back().is_none_or(|entry| entry.last() < block.last) {
            entries.push_back(Entry::lost(block.last));
        }
        Ok(entries)
    }

    /// Reads the events of the record at `index`, or a `gap` event if the record is damaged.
    fn events(
        &self,
        name: &ChannelName,
        log_file: &LogFile,
        entries: &VecDeque<Entry>,
        index: usize,
        window: &mut Window,
    ) -> io::Result<Vec<StoredEvent>> {
        let entry = entries[index];
        if !entry.is_lost() {
            let end = window_end(entries.range(index..));
            let bytes = window.get(&log_file.log, (entry.offset, entry.length), end);
            match bytes.map(|bytes| self.record(bytes, name, entry)) {
                Ok(Some(record)) => return Ok(stored(record)),
                Ok(None) => {}
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.report(name, entry.last());
        let event = Event::damaged(&entry.first.to_string());
        Ok(vec![StoredEvent { id: entry.last(), event }])
    }

    /// Decodes the record of an entry. Returns `None` if it is damaged or is another record.
    fn record(&self, bytes: &[u8], name: &ChannelName, entry: Entry) -> Option<Events> {
        let frame = frame::read(bytes, 0, self.seed).ok()?;
        let is_events = matches!(frame.kind, Kind::Events | Kind::End | Kind::State);
        let record = Events::read(frame.body).ok().filter(|_| is_events)?;
        let is_it = record.first == entry.first && record.events.len() == entry.count as usize;
        Some(record).filter(|record| is_it && record.channel == *name)
    }

    /// Reads the state of a channel from the locations of its events.
    ///
    /// # Errors
    /// Fails in the same cases as [`RecordReader::page`].
    pub fn state(
        &self,
        name: &ChannelName,
        position: EventId,
        mut kept: Vec<(LogFile, Kept)>,
    ) -> io::Result<State> {
        kept.sort_by_key(|(_, kept)| (kept.log_file, kept.offset, kept.id));
        let mut events: Vec<StoredEvent> = Vec::with_capacity(kept.len());
        let (mut window, mut record) = (Window::default(), None::<((u32, u32), Option<Events>)>);
        for (log_file, kept) in &kept {
            let place = (kept.log_file, kept.offset);
            if record.as_ref().is_none_or(|(at, _)| *at != place) {
                let end = u64::from(kept.offset) + u64::from(kept.length);
                let read = window.get(&log_file.log, (kept.offset, kept.length), end);
                let frame = match read {
                    Ok(bytes) => frame::read(bytes, 0, self.seed).ok(),
                    Err(error) if is_damage(&error) => None,
                    Err(error) => return Err(error),
                };
                let events = frame.and_then(|frame| Events::read(frame.body).ok());
                record = Some((place, events.filter(|events| events.channel == *name)));
            }
            let events_there = record.as_ref().and_then(|(_, events)| events.as_ref());
            let event = events_there.and_then(|events| {
                let index = kept.id.seq.checked_sub(events.first.seq)?;
                events.events.get(usize::try_from(index).ok()?).cloned()
            });
            let event = event.unwrap_or_else(|| {
                self.report(name, kept.id);
                Event::damaged(&kept.id.to_string())
            });
            events.push(StoredEvent { id: kept.id, event });
        }
        events.sort_by_key(|stored| stored.id);
        Ok(State { position, events })
    }

    fn report(&self, name: &ChannelName, last: EventId) {
        self.metrics.fault(StoreFault::Damaged);
        tracing::error!(
            channel = %name, event = %last,
            "a record of the log is damaged; its readers get a gap event, and what follows it"
        );
    }
}

impl Window {
    /// Returns the bytes of a frame. The bytes from the frame up to `end` are read at the same
    /// time.
    fn get(
        &mut self,
        file: &Arc<dyn File>,
        (offset, length): (u32, u32),
        end: u64,
    ) -> io::Result<&[u8]> {
        let (offset, length) = (u64::from(offset), u64::from(length));
        let is_here = self.file.as_ref().is_some_and(|here| Arc::ptr_eq(here, file))
            && offset >= self.offset
            && offset + length <= self.offset + self.bytes.len() as u64;
        if !is_here {
            self.bytes.resize((end - offset) as usize, 0);
            self.file = None;
            if let Err(error) = file.read_at(&mut self.bytes, offset) {
                // The file may end before `end`, so the frame alone is read.
                self.bytes.truncate(length as usize);
                file.read_at(&mut self.bytes, offset).map_err(|_| error)?;
            }
            self.file = Some(file.clone());
            self.offset = offset;
        }
        let from = (offset - self.offset) as usize;
        Ok(&self.bytes[from..from + length as usize])
    }
}

/// The end of a read that begins with the first entry and includes the entries close to it.
pub(super) fn window_end<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
    let mut entries = entries.filter(|entry| !entry.is_lost()).map(|entry| {
        let start = u64::from(entry.offset);
        (start, start + u64::from(entry.length))
    });
    let Some((start, mut end)) = entries.next() else { return 0 };
    for (next, next_end) in entries {
        let is_near = next >= end && next - end <= HOLE_BYTES_MAX;
        if !is_near || next_end - start > READ_BYTES_MAX {
            break;
        }
        end = next_end;
    }
    end
}

fn stored(record: Events) -> Vec<StoredEvent> {
    let first = record.first;
    let id = |index| EventId { ms: first.ms, seq: first.seq + index };
    (0..).zip(record.events).map(|(index, event)| StoredEvent { id: id(index), event }).collect()
}

/// Whether an error means that bytes are permanently missing or unreadable: the file does not exist
/// or ends before them, or the disk reports an I/O error.
fn is_damage(error: &io::Error) -> bool {
    let is_short = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound);
    is_short || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
