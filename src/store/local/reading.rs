//! Pages of the log: what they hold is looked up in the catalog under its lock, then read from the
//! files without it. Every record is checked against its checksum; one that is damaged becomes a
//! `gap` event in its place.

use super::super::{Page, PageLimit, State, StoreFault, StoreMetrics};
use super::block::{Block, Entries, Entry, read_entries};
use super::catalog::{Catalog, Segment};
use super::files::{File, read_all};
use super::frame::{self, Kind};
use super::records::Events;
use super::summary::{Kept, entries_at, summarize};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event, StoredEvent};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Most bytes that are read from a file at once, where records lie side by side.
const READ_BYTES_MAX: u64 = 256 * 1024;
/// Most bytes between two records that are read along with them.
const HOLE_BYTES_MAX: u64 = 4 * 1024;

/// Reads records of a log with the seed of its checksums.
#[derive(Debug)]
pub struct RecordReader {
    seed: u64,
    metrics: StoreMetrics,
}

/// Where the events of a page lie.
pub struct Plan {
    name: ChannelName,
    blocks: Vec<(Segment, Block)>,
    /// What the page says of the channel; without events.
    page: Page,
}

/// The last bytes that were read of a file.
#[derive(Default)]
struct Window {
    file: Option<Arc<dyn File>>,
    offset: u64,
    bytes: Vec<u8>,
}

impl Plan {
    /// Where up to `limit` events after `position` lie, and the position.
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

    /// Where up to `limit` events before `before` lie, and the place after which they do.
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

    /// The block of a channel that `choose` finds.
    pub fn block(
        catalog: &Catalog,
        name: &ChannelName,
        choose: impl FnOnce(&VecDeque<Block>) -> Option<usize>,
    ) -> Option<(Segment, Block)> {
        let channel = catalog.channels.get(name)?;
        let block = channel.blocks.get(choose(&channel.blocks)?)?;
        Some((catalog.segments.get(&block.segment)?.clone(), block.clone()))
    }

    /// Whether no file needs to be read.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The page without any event.
    pub fn into_page(self) -> Page {
        self.page
    }

    fn new(catalog: &Catalog, name: &ChannelName) -> Self {
        let log_state = catalog.log_state(name);
        let (bounds, closed) = (log_state.bounds, log_state.closed);
        let page = Page { bounds, closed, complete: true, ..Page::default() };
        Self { name: name.clone(), blocks: Vec::new(), page }
    }

    /// Takes blocks until they hold enough events. Of the first, only some may be wanted.
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
            if let Some(segment) = catalog.segments.get(&block.segment) {
                self.blocks.push((segment.clone(), block.clone()));
            }
            if index > 0 {
                events += block.events;
                bytes += block.bytes;
            }
        }
    }
}

impl RecordReader {
    /// A reader of the log with this seed.
    pub fn new(seed: u64, metrics: StoreMetrics) -> Self {
        Self { seed, metrics }
    }

    /// The page that a plan describes: the first events after `position`.
    ///
    /// # Errors
    /// When a file cannot be read for another reason than damage.
    pub fn page(&self, plan: Plan, position: EventId, limit: PageLimit) -> io::Result<Page> {
        let Plan { name, blocks, mut page } = plan;
        let (mut window, mut bytes) = (Window::default(), 0);
        for (segment, block) in blocks {
            let entries = self.entries(&name, &segment, &block)?;
            let from = entries.partition_point(|entry| entry.last() <= position);
            for index in from..entries.len() {
                let events = self.events(&name, &segment, &entries, index, &mut window)?;
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

    /// The page that a plan describes: the last events before `before` and after `position`.
    ///
    /// # Errors
    /// As [`RecordReader::page`].
    pub fn page_back(
        &self,
        plan: Plan,
        (position, before): (EventId, EventId),
        limit: PageLimit,
    ) -> io::Result<Page> {
        let Plan { name, blocks, mut page } = plan;
        let (mut window, mut bytes) = (Window::default(), 0);
        for (segment, block) in blocks.into_iter().rev() {
            let entries = self.entries(&name, &segment, &block)?;
            let until = entries.partition_point(|entry| entry.first < before);
            for index in (0..until).rev() {
                let events = self.events(&name, &segment, &entries, index, &mut window)?;
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

    /// The entries of a block.
    ///
    /// # Errors
    /// As [`RecordReader::page`].
    pub fn entries(
        &self,
        name: &ChannelName,
        segment: &Segment,
        block: &Block,
    ) -> io::Result<VecDeque<Entry>> {
        let Some((offset, length, checksum)) = entries_at(&block.entries) else {
            let Entries::Here(entries) = &block.entries else { return Ok(VecDeque::new()) };
            return Ok(entries.clone());
        };
        let index = segment.index.as_ref();
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
        self.entries_of_log(name, segment, block)
    }

    /// The entries of a block whose index is damaged, out of the file itself.
    fn entries_of_log(
        &self,
        name: &ChannelName,
        segment: &Segment,
        block: &Block,
    ) -> io::Result<VecDeque<Entry>> {
        self.metrics.fault(StoreFault::Damaged);
        let bytes = read_all(&*segment.log)?;
        let summary = summarize(&frame::scan(&bytes, self.seed, false), block.segment);
        let channel = summary.channels.into_iter().find(|channel| channel.name == *name);
        let blocks = channel.map(|channel| channel.blocks).unwrap_or_default();
        let entries = blocks.into_iter().filter_map(|block| match block.entries {
            Entries::Here(entries) => Some(entries),
            Entries::Stored { .. } => None,
        });
        let is_inside = |entry: &Entry| entry.last() >= block.first && entry.first <= block.last;
        let mut entries: VecDeque<_> = entries.flatten().filter(is_inside).collect();
        if entries.back().is_none_or(|entry| entry.last() < block.last) {
            entries.push_back(Entry::lost(block.last));
        }
        Ok(entries)
    }

    /// The events of the record at `index`.
    fn events(
        &self,
        name: &ChannelName,
        segment: &Segment,
        entries: &VecDeque<Entry>,
        index: usize,
        window: &mut Window,
    ) -> io::Result<Vec<StoredEvent>> {
        let entry = entries[index];
        if !entry.is_lost() {
            let end = window_end(entries.range(index..));
            let bytes = window.get(&segment.log, (entry.offset, entry.length), end);
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

    /// The record of an entry, if it is whole and the right one.
    fn record(&self, bytes: &[u8], name: &ChannelName, entry: Entry) -> Option<Events> {
        let frame = frame::read(bytes, 0, self.seed).ok()?;
        let is_events = matches!(frame.kind, Kind::Events | Kind::End | Kind::State);
        let record = Events::read(frame.body).ok().filter(|_| is_events)?;
        let is_it = record.first == entry.first && record.events.len() == entry.count as usize;
        Some(record).filter(|record| is_it && record.channel == *name)
    }

    /// The state of a channel, from where its events lie.
    ///
    /// # Errors
    /// As [`RecordReader::page`].
    pub fn state(
        &self,
        name: &ChannelName,
        position: EventId,
        mut kept: Vec<(Segment, Kept)>,
    ) -> io::Result<State> {
        kept.sort_by_key(|(_, kept)| (kept.segment, kept.offset, kept.id));
        let mut events: Vec<StoredEvent> = Vec::with_capacity(kept.len());
        let (mut window, mut record) = (Window::default(), None::<((u32, u32), Option<Events>)>);
        for (segment, kept) in &kept {
            let place = (kept.segment, kept.offset);
            if record.as_ref().is_none_or(|(at, _)| *at != place) {
                let end = u64::from(kept.offset) + u64::from(kept.length);
                let read = window.get(&segment.log, (kept.offset, kept.length), end);
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
    /// The bytes of a frame; what lies between it and `end` is read along with it.
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
                // The file may end before what was to be read along.
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

/// Where a read ends that begins with the first entry.
fn window_end<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
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

/// Whether bytes are missing or cannot be read for good: the file ends before them, or the disk
/// says so.
fn is_damage(error: &io::Error) -> bool {
    let is_short = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound);
    is_short || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
