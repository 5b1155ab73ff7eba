//! The newest events of one channel as encoded SSE bytes, in one bounded append-only buffer. The
//! buffer stores nothing for a reader: a reader has a position, and passes it to
//! [`TailBuffer::read`], also after a missed wake-up, a late start or a reconnect. `base` is the id
//! of the last event before the buffer. Earlier events come from the store.
//!
//! A lagging reader gets its pending events in large chunks. A chunk inside one block refers to the
//! bytes of the block, which all readers share. The newest events are in small blocks. `read`
//! copies several of these into one chunk of at most [`CHUNK_BYTES`]. A reader takes its next chunk
//! only after it has sent the last one, so it holds one chunk at most.

use crate::core::cursor::EventId;
use crate::core::event::StoredEvent;
use crate::core::sse::{self, EventWriter};
use bytes::Bytes;
use std::collections::VecDeque;

mod tests;

/// Size up to which encoded events are joined, in bytes: the size of one write to a socket, and the
/// most that a reader of single events copies.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Memory per event beside its bytes: its index entry, and its own block until it is joined.
const EVENT_OVERHEAD_BYTES: usize = 96;

/// The buffer. Byte offsets count from the first byte that was appended since the last reset.
#[derive(Debug)]
pub struct TailBuffer {
    writer: EventWriter,
    base: Option<EventId>,
    beginning: EventId,
    entries: VecDeque<Entry>,
    blocks: VecDeque<Block>,
    bytes_max: usize,
    generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: EventId,
    end: u64,
    /// Length of the `id:` line at the start of the encoded event.
    id_line: u16,
    is_end: bool,
}

/// A contiguous range of encoded events: one event, or several that were joined.
#[derive(Clone, Debug)]
struct Block {
    start: u64,
    bytes: Bytes,
}

/// The result of a read after a position.
#[derive(Debug)]
pub enum Read {
    /// At least one event follows.
    Events(Chunk),
    /// There is no further event before the given instant yet.
    CaughtUp,
    /// The position lies before the buffer: the events must be read from the store.
    BeforeTail,
}

/// A chunk: consecutive events of one channel.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The encoded events.
    pub bytes: Bytes,
    /// The number of events.
    pub events: u64,
    /// The id of the last event.
    pub last: EventId,
    /// Whether the last event ends the channel.
    pub is_end: bool,
}

impl TailBuffer {
    /// Returns an empty buffer of about `bytes_max` bytes at most, with an unknown beginning.
    pub fn new(writer: EventWriter, bytes_max: usize) -> Self {
        let (entries, blocks) = (VecDeque::new(), VecDeque::new());
        let beginning = EventId::START;
        Self { writer, base: None, beginning, entries, blocks, bytes_max, generation: 0 }
    }

    /// Sets the size limit, and drops the oldest events that exceed it.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict();
    }

    /// Appends consecutive events. `previous` is the id of the event before the first of them. If
    /// it is not the newest event here, the log has skipped or lost events: the buffer begins
    /// again, and readers before `previous` have to read from the store.
    pub fn append(&mut self, previous: EventId, events: &[StoredEvent]) {
        if self.base.is_none() || self.last() != Some(previous) {
            self.reset();
            self.base = Some(previous);
        }
        for StoredEvent { id, event } in events {
            debug_assert!(self.last().is_none_or(|last| last < *id));
            let mut block = Vec::with_capacity(event.weight() + 64);
            sse::id_line(&mut block, &id.to_string());
            let id_line = block.len() as u16;
            self.writer.after_id(&mut block, Some(*id), event);
            let (start, end) = (self.end(), self.end() + block.len() as u64);
            self.entries.push_back(Entry { id: *id, end, id_line, is_end: event.is_end() });
            self.blocks.push_back(Block { start, bytes: block.into() });
        }
        // Eviction comes first, so that a joined block is never larger than the limit.
        self.evict();
        self.join_small_blocks();
    }

    /// Records that `last` is the newest event of the store's log, and `beginning` the position
    /// before every event. A buffer without a base begins at `last`, and a reader there no longer
    /// needs the store.
    ///
    /// `generation` is that of the buffer before the log was read. The result of a read that began
    /// before the latest reset is ignored: the log may have received events between the two, and
    /// these are not appended here.
    pub fn begin_at(&mut self, generation: u64, beginning: EventId, last: EventId) {
        if generation != self.generation {
            return;
        }
        self.beginning = beginning;
        if self.base.is_none() {
            self.base = Some(last);
        }
    }

    /// Whether the channel has never had an event, as far as is known.
    pub fn is_unused(&self) -> bool {
        self.last().is_none_or(|last| last == self.beginning)
    }

    /// Empties the buffer, so that every reader reads from the store again.
    pub fn reset(&mut self) {
        self.entries.clear();
        self.blocks.clear();
        self.base = None;
        self.generation += 1;
    }

    /// Returns a number that changes at every reset. It shows a reader that the buffer was emptied.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the id of the event after which the buffer begins, or `None` if it is not known yet.
    pub fn base(&self) -> Option<EventId> {
        self.base
    }

    /// Returns the id of the newest event, or the base if the buffer has no event.
    pub fn last(&self) -> Option<EventId> {
        self.entries.back().map(|entry| entry.id).or(self.base)
    }

    /// Whether the newest event ended the channel.
    pub fn is_ended(&self) -> bool {
        self.entries.back().is_some_and(|entry| entry.is_end)
    }

    /// Whether a reader at `position` needs nothing from the store.
    pub fn covers(&self, position: EventId) -> bool {
        self.base.is_some_and(|base| base <= position)
    }

    /// Returns the last position before the instant `ms`, if the buffer reaches back that far.
    pub fn position_before(&self, ms: u64) -> Option<EventId> {
        let index = self.entries.partition_point(|entry| entry.id.ms < ms);
        match index.checked_sub(1) {
            Some(last) => Some(self.entries[last].id),
            None => self.base.filter(|base| base.ms < ms),
        }
    }

    /// Reads the events after `position` with ids before the instant `until_ms`: at most
    /// `bytes_max` bytes but at least one event, and no event after one that ends the channel.
    pub fn read(&self, position: EventId, until_ms: u64, bytes_max: usize) -> Read {
        let range = match self.range_after(position, until_ms) {
            Ok(range) => range,
            Err(nothing) => return nothing,
        };
        let start = self.offset_before(range.start);
        let chunk = self.chunk_at(start, self.entries[range.end - 1].end, bytes_max);
        let end = start + chunk.len() as u64;
        let last = self.index_of_end(range.start, end);
        let entry = &self.entries[last];
        Read::Events(Chunk {
            bytes: chunk.slice(..(entry.end - start) as usize),
            events: (last - range.start + 1) as u64,
            last: entry.id,
            is_end: entry.is_end,
        })
    }

    /// Reads like [`TailBuffer::read`], but returns single events without their `id:` lines, for
    /// streams of several channels, whose ids are joined cursors.
    ///
    /// # Errors
    /// Fails with one of the other two results of `read`.
    pub fn read_each(
        &self,
        position: EventId,
        until_ms: u64,
        bytes_max: usize,
    ) -> Result<Vec<Chunk>, Read> {
        let range = self.range_after(position, until_ms)?;
        let mut chunks = Vec::new();
        let mut bytes = 0;
        for index in range {
            let entry = &self.entries[index];
            let start = self.offset_before(index) + u64::from(entry.id_line);
            bytes += (entry.end - start) as usize;
            let is_after_end = chunks.last().is_some_and(|chunk: &Chunk| chunk.is_end);
            if is_after_end || bytes > bytes_max && !chunks.is_empty() {
                break;
            }
            let bytes = self.chunk_at(start, entry.end, usize::MAX);
            chunks.push(Chunk { bytes, events: 1, last: entry.id, is_end: entry.is_end });
        }
        Ok(chunks)
    }

    /// Returns the indexes of the readable events after `position`. The range is never empty.
    fn range_after(
        &self,
        position: EventId,
        until_ms: u64,
    ) -> Result<std::ops::Range<usize>, Read> {
        if !self.covers(position) {
            return Err(Read::BeforeTail);
        }
        let first = self.index_after(position);
        let mut end = self.entries.len();
        if self.entries.back().is_some_and(|entry| entry.id.ms >= until_ms) {
            end = self.entries.partition_point(|entry| entry.id.ms < until_ms);
        }
        if first >= end {
            return Err(Read::CaughtUp);
        }
        Ok(first..end)
    }

    /// Returns the index of the first event after `position`. Most readers are near the newest
    /// event, so the search goes back from there in doubling steps.
    fn index_after(&self, position: EventId) -> usize {
        let length = self.entries.len();
        let mut step = 1;
        while step <= length && self.entries[length - step].id > position {
            step *= 2;
        }
        let low = length.saturating_sub(step);
        let high = length - step / 2;
        let window = self.entries.range(low..high);
        low + window.take_while(|entry| entry.id <= position).count()
    }

    /// Returns the index of the last event from `first` on that ends at or before the offset `end`,
    /// or of the first event that ends the channel, whichever comes first.
    fn index_of_end(&self, first: usize, end: u64) -> usize {
        let mut last = first;
        for index in first..self.entries.len() {
            if self.entries[index].end > end {
                break;
            }
            last = index;
            if self.entries[index].is_end {
                break;
            }
        }
        last
    }

    /// Returns bytes from `start` on: the rest of its block if that is enough, otherwise this rest
    /// joined with the small blocks after it. The bytes are whole events, at most `bytes_max` bytes
    /// but at least one event.
    fn chunk_at(&self, start: u64, end: u64, bytes_max: usize) -> Bytes {
        let index = self.blocks.partition_point(|block| block.start <= start) - 1;
        let block = &self.blocks[index];
        let rest = block.bytes.slice((start - block.start) as usize..);
        let reach = end.min(start.saturating_add(bytes_max as u64));
        let block_end = block.start + block.bytes.len() as u64;
        if block_end >= reach || rest.len() >= CHUNK_BYTES / 4 {
            return rest.slice(..self.cut(start, block_end.min(end), bytes_max));
        }
        let mut joined = Vec::with_capacity(CHUNK_BYTES.min((reach - start) as usize));
        joined.extend_from_slice(&rest);
        for block in self.blocks.range(index + 1..) {
            let length = block.bytes.len();
            let too_much = joined.len() + length > CHUNK_BYTES.min(bytes_max);
            if too_much || block.start + length as u64 > end {
                break;
            }
            joined.extend_from_slice(&block.bytes);
        }
        joined.into()
    }

    /// Returns how many bytes from `start` towards `end` are whole events within `bytes_max`, but
    /// at least one event.
    fn cut(&self, start: u64, end: u64, bytes_max: usize) -> usize {
        let whole = (end - start) as usize;
        if whole <= bytes_max {
            return whole;
        }
        let first = self.entries.partition_point(|entry| entry.end <= start);
        let fits = self.entries.partition_point(|entry| entry.end <= start + bytes_max as u64);
        (self.entries[fits.max(first + 1) - 1].end - start) as usize
    }

    fn offset_before(&self, index: usize) -> u64 {
        match index.checked_sub(1) {
            Some(previous) => self.entries[previous].end,
            None => self.blocks.front().map_or(0, |block| block.start),
        }
    }

    fn end(&self) -> u64 {
        self.blocks.back().map_or(0, |block| block.start + block.bytes.len() as u64)
    }

    /// Joins the small blocks at the end once they fill a chunk, so that each byte is copied once.
    fn join_small_blocks(&mut self) {
        let mut bytes = 0;
        let mut first = self.blocks.len();
        while first > 0 && self.blocks[first - 1].bytes.len() < CHUNK_BYTES / 4 {
            first -= 1;
            bytes += self.blocks[first].bytes.len();
        }
        if bytes < CHUNK_BYTES {
            return;
        }
        let mut joined = Vec::with_capacity(bytes);
        let start = self.blocks[first].start;
        for block in self.blocks.drain(first..) {
            joined.extend_from_slice(&block.bytes);
        }
        self.blocks.push_back(Block { start, bytes: joined.into() });
    }

    /// Drops whole blocks from the front, then events of a joined block that is still too large.
    /// The newest event always stays.
    fn evict(&mut self) {
        while self.blocks.len() > 1 && self.weight() > self.bytes_max {
            self.blocks.pop_front();
            let start = self.blocks.front().map_or(0, |block| block.start);
            self.forget_before(start);
        }
        if self.entries.len() < 2 || self.weight() <= self.bytes_max {
            return;
        }
        let end = self.end();
        let newest = self.entries.len() - 1;
        let is_too_much = |(index, entry): &(usize, &Entry)| {
            let bytes = (end - entry.end) as usize;
            bytes + (newest - index) * EVENT_OVERHEAD_BYTES > self.bytes_max
        };
        let dropped = self.entries.iter().enumerate().take_while(is_too_much).count();
        let start = self.entries[dropped.min(newest - 1)].end;
        self.forget_before(start);
        if let Some(block) = self.blocks.front_mut() {
            let rest = Bytes::copy_from_slice(&block.bytes[(start - block.start) as usize..]);
            *block = Block { start, bytes: rest };
        }
    }

    fn forget_before(&mut self, start: u64) {
        while self.entries.front().is_some_and(|entry| entry.end <= start) {
            self.base = self.entries.pop_front().map(|entry| entry.id);
        }
    }

    fn weight(&self) -> usize {
        let start = self.blocks.front().map_or(0, |block| block.start);
        (self.end() - start) as usize + self.entries.len() * EVENT_OVERHEAD_BYTES
    }
}
