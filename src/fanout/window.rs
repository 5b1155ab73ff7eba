//! The bytes that a group sends to its subscribers: the newest part of the group's stream, framed
//! as chunks of HTTP/1.1 (RFC 9112, section 7.1).
//!
//! Each byte is framed and copied into the window once for all subscribers. A subscriber is only an
//! offset. For the end of each chunk, the window records the position of the stream in each
//! channel. A subscriber can join or leave the group at the end of a chunk.

use crate::hub::reader::Place;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::fmt::Write;

/// The last chunk of a response.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The newest chunks of a group's stream. Offsets count from the first byte of the group.
#[derive(Debug)]
pub struct Window {
    /// The offset of the first byte.
    base: u64,
    bytes: BytesMut,
    /// The end of the newest chunk.
    head: Point,
    /// The end of each chunk that ends after `base`, and before them the end at `base` or earlier.
    ends: VecDeque<ChunkEnd>,
}

/// The end of a chunk, and the place in each channel after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkEnd {
    /// The end of the chunk.
    pub point: Point,
    /// The place in each channel.
    pub places: Box<[Place]>,
}

/// The end of a chunk, counted from the beginning of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The offset after the chunk.
    pub end: u64,
    /// The number of events up to here.
    pub events: u64,
    /// The number of bytes of the stream up to here, without the framing.
    pub payload: u64,
}

impl Window {
    /// Returns an empty window of a stream whose events begin at `places`.
    pub fn new(places: Box<[Place]>) -> Self {
        let head = Point::default();
        let ends = VecDeque::from([ChunkEnd { point: head, places }]);
        Self { base: 0, bytes: BytesMut::new(), head, ends }
    }

    /// Appends a chunk with `events` events. After it the stream is at `places`.
    pub fn append(&mut self, chunk: &[u8], events: u64, places: Box<[Place]>) {
        chunk_head(&mut self.bytes, chunk.len());
        self.bytes.extend_from_slice(chunk);
        chunk_end(&mut self.bytes);
        self.head = Point {
            end: self.end(),
            events: self.head.events + events,
            payload: self.head.payload + chunk.len() as u64,
        };
        self.ends.push_back(ChunkEnd { point: self.head, places });
    }

    /// Appends the last chunk, which ends the response. It belongs to the chunk before it, so that
    /// no subscriber leaves between the two.
    pub fn finish(&mut self) {
        last_chunk(&mut self.bytes);
        self.head.end = self.end();
        if let Some(newest) = self.ends.back_mut() {
            newest.point = self.head;
        }
    }

    /// Returns the end of the newest chunk.
    pub fn head(&self) -> Point {
        self.head
    }

    /// Returns the offset after the newest byte.
    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Returns the offset of the first byte.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Returns the bytes between two offsets. Both lie in the window.
    pub fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let index = |offset: u64| (offset.saturating_sub(self.base) as usize).min(self.bytes.len());
        &self.bytes[index(from)..index(to)]
    }

    /// Returns the newest end at these places, if the window still has all bytes after it.
    pub fn at(&self, places: &[Place]) -> Option<&ChunkEnd> {
        let ends = self.ends.iter().rev().take_while(|end| end.point.end >= self.base);
        ends.into_iter().find(|end| *end.places == *places)
    }

    /// Returns the end of the chunk that contains `offset`, or the end at `offset` itself.
    pub fn from(&self, offset: u64) -> Option<&ChunkEnd> {
        self.ends.get(self.ends.partition_point(|end| end.point.end < offset))
    }

    /// Returns the offset at which the chunk begins that contains `offset`.
    pub fn start_of(&self, offset: u64) -> u64 {
        let after = self.ends.partition_point(|end| end.point.end < offset);
        let before = after.checked_sub(1).map(|before| self.ends[before].point.end);
        before.map_or(self.base, |start| start.max(self.base))
    }

    /// Returns the newest end up to which the stream has at most `payload` bytes.
    pub fn within(&self, payload: u64) -> Option<&ChunkEnd> {
        let after = self.ends.partition_point(|end| end.point.payload <= payload);
        self.ends.get(after.checked_sub(1)?)
    }

    /// Drops the bytes before `offset`.
    pub fn trim(&mut self, offset: u64) {
        let count = offset.saturating_sub(self.base) as usize;
        let count = count.min(self.bytes.len());
        self.bytes.advance(count);
        self.base += count as u64;
        if self.bytes.is_empty() {
            // The memory of a burst is returned.
            self.bytes = BytesMut::new();
        }
        // The end at `base` stays: subscribers may begin there.
        while self.ends.get(1).is_some_and(|second| second.point.end <= self.base) {
            self.ends.pop_front();
        }
    }

    /// Returns the offset before which the bytes can be dropped, so that at most `bytes_max` bytes
    /// stay: the end of a chunk. Returns `None` if the window has no more bytes than that.
    pub fn excess(&self, bytes_max: usize) -> Option<u64> {
        let keep_from = self.end().saturating_sub(bytes_max as u64);
        if keep_from <= self.base {
            return None;
        }
        self.from(keep_from).map(|end| end.point.end)
    }
}

/// Appends the beginning of a chunk of `length` bytes.
pub fn chunk_head(out: &mut BytesMut, length: usize) {
    // A `BytesMut` takes all text.
    write!(out, "{length:x}\r\n").ok();
}

/// Appends the end of a chunk.
pub fn chunk_end(out: &mut BytesMut) {
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk of a response.
pub fn last_chunk(out: &mut BytesMut) {
    out.extend_from_slice(LAST_CHUNK);
}
