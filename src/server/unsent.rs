//! The bytes of a response that are not yet written to the socket, as chunks of HTTP/1.1.
//!
//! A large chunk is not copied. It is a handle on bytes that other readers share, or that count
//! against the memory budget until the handle is dropped. Only small chunks are copied, so that one
//! system call writes many of them.

use crate::fanout::window::{chunk_end, chunk_head, last_chunk};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Chunks up to this size are copied, in bytes.
const COPIED_BYTES_MAX: usize = 4 * 1024;
/// Most parts that one system call writes.
const SLICES: usize = 8;

/// The unsent bytes, in order.
#[derive(Default)]
pub struct Unsent {
    parts: VecDeque<Bytes>,
    /// The bytes after all parts.
    copied: BytesMut,
    length: usize,
}

impl Unsent {
    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends bytes as they are.
    pub fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() <= COPIED_BYTES_MAX {
            return self.copied.extend_from_slice(&bytes);
        }
        self.end_part();
        self.parts.push_back(bytes);
    }

    /// Appends bytes as a chunk.
    pub fn push_chunk(&mut self, chunk: Bytes) {
        let before = self.copied.len();
        chunk_head(&mut self.copied, chunk.len());
        self.length += self.copied.len() - before;
        self.push(chunk);
        let before = self.copied.len();
        chunk_end(&mut self.copied);
        self.length += self.copied.len() - before;
    }

    /// Appends the last chunk of the response.
    pub fn push_last_chunk(&mut self) {
        let before = self.copied.len();
        last_chunk(&mut self.copied);
        self.length += self.copied.len() - before;
    }

    /// Returns the next parts, for one system call.
    pub fn slices(&self) -> [IoSlice<'_>; SLICES] {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let parts = self.parts.iter().map(AsRef::as_ref).chain([self.copied.as_ref()]);
        slices.iter_mut().zip(parts).for_each(|(slice, part)| *slice = IoSlice::new(part));
        slices
    }

    /// Drops the first `count` bytes, which were sent.
    pub fn advance(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(part) = self.parts.front_mut() {
            if part.len() > count {
                return part.advance(count);
            }
            count -= part.len();
            self.parts.pop_front();
        }
        self.copied.advance(count);
    }

    fn end_part(&mut self) {
        if !self.copied.is_empty() {
            self.parts.push_back(self.copied.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(unsent: &mut Unsent, at_once: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !unsent.is_empty() {
            let slices: Vec<u8> = unsent.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            let count = slices.len().min(at_once);
            out.extend_from_slice(&slices[..count]);
            unsent.advance(count);
        }
        out
    }

    #[test]
    fn parts_come_out_in_order_however_they_are_cut() {
        for at_once in [1, 7, 5_000, usize::MAX] {
            let mut unsent = Unsent::default();
            let large = Bytes::from(vec![b'x'; COPIED_BYTES_MAX + 1]);
            unsent.push(Bytes::from_static(b"head"));
            for _ in 0..10 {
                unsent.push_chunk(Bytes::from_static(b"small"));
                unsent.push_chunk(large.clone());
            }
            unsent.push_last_chunk();
            let mut expected = b"head".to_vec();
            for _ in 0..10 {
                expected.extend_from_slice(b"5\r\nsmall\r\n1001\r\n");
                expected.extend_from_slice(&large);
                expected.extend_from_slice(b"\r\n");
            }
            expected.extend_from_slice(b"0\r\n\r\n");
            assert_eq!(unsent.len(), expected.len());
            assert_eq!(sent(&mut unsent, at_once), expected);
        }
    }
}
