//! The encoding of an event on disk and in Redis, byte by byte. Later versions must read the
//! records of earlier ones. Each record begins with its version, and reading a record of an unknown
//! version fails.

use crate::core::cursor::EventId;
use crate::core::event::{Event, Field};
use crate::core::trace_context::{TRACE_CONTEXT_BYTES, TraceContext};

const VERSION: u8 = 1;
/// The version of an event that removes its key although it has data. In version 1 only an event
/// without data removes its key, so all other events are still written as version 1.
const VERSION_REMOVAL: u8 = 2;
/// The version of an event with the context of its trace, which precedes a record of version 1 or 2.
/// Only records in Redis have it, so that the other origins learn the trace, and only while an
/// origin exports traces (`--otlp-endpoint`).
const VERSION_TRACED: u8 = 3;

/// The record is damaged or has a version that this code does not read.
#[derive(Debug)]
pub struct Unreadable;

/// Reads the fields of a record one after the other.
pub struct Reader<'a>(&'a [u8]);

/// Encodes an event with its trace, if it has one; see [`append_event`].
pub fn write_event(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(6 + TRACE_CONTEXT_BYTES + event.weight());
    if let Some(trace) = event.trace() {
        out.push(VERSION_TRACED);
        out.extend_from_slice(&trace.to_bytes());
    }
    append_event(&mut out, event);
    out
}

/// Appends the encoded event without its trace: `version, type length, key length (u16, 0 = none), type, key, data`.
pub fn append_event(out: &mut Vec<u8>, event: &Event) {
    let kind = event.kind.as_ref().map_or("", Field::as_str);
    let key = event.key.as_ref().map_or("", Field::as_str);
    let is_marked = event.removes_key() && !event.data.is_empty();
    out.push(if is_marked { VERSION_REMOVAL } else { VERSION });
    out.extend_from_slice(&(kind.len() as u16).to_be_bytes());
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    for part in [kind.as_bytes(), key.as_bytes(), event.data.as_bytes()] {
        out.extend_from_slice(part);
    }
}

pub fn read_event(bytes: &[u8]) -> Result<Event, Unreadable> {
    if let Some((&VERSION_TRACED, rest)) = bytes.split_first() {
        let mut reader = Reader(rest);
        let trace = TraceContext::from_bytes(reader.array()?);
        return read_untraced(reader.0).map(|event| event.traced(trace));
    }
    read_untraced(bytes)
}

/// Decodes a record of version 1 or 2.
fn read_untraced(bytes: &[u8]) -> Result<Event, Unreadable> {
    let (mut reader, is_marked) = match bytes.split_first() {
        Some((&VERSION_REMOVAL, rest)) => (Reader(rest), true),
        Some((&VERSION, rest)) => (Reader(rest), false),
        _ => return Err(Unreadable),
    };
    let kind = usize::from(u16::from_be_bytes(reader.array()?));
    let key = usize::from(u16::from_be_bytes(reader.array()?));
    let kind = reader.text(kind)?;
    let key = reader.text(key)?;
    let data = reader.text_to_end()?;
    let some = |text: &'static str| move |field: &&str| *field != text;
    let event = Event::stored(Some(kind).filter(some("")), Some(key).filter(some("")), data);
    Ok(if is_marked { event.removing_its_key() } else { event })
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn id(&mut self) -> Result<EventId, Unreadable> {
        Ok(EventId { ms: self.u64()?, seq: self.u64()? })
    }

    pub fn text(&mut self, length: usize) -> Result<&'a str, Unreadable> {
        std::str::from_utf8(self.take(length)?).map_err(|_| Unreadable)
    }

    pub fn text_to_end(&mut self) -> Result<&'a str, Unreadable> {
        self.text(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        for event in [
            Event::stored(None, None, ""),
            Event::stored(Some("k"), None, "a\r\nb"),
            Event::stored(Some("type"), Some("ключ"), "данные"),
            Event::stored(Some("type"), Some("key"), ""),
            Event::stored(None, Some("key"), "x").removing_its_key(),
            Event::end(),
        ] {
            assert_eq!(read_event(&write_event(&event)).unwrap(), event);
        }
    }

    /// The literal bytes of version 1. A change that makes old files unreadable fails here.
    #[test]
    fn version_1_stays_readable() {
        let event = b"\x01\x00\x05\x00\x02priceEU{\"bid\":1}";
        let expected = Event::stored(Some("price"), Some("EU"), "{\"bid\":1}");
        assert_eq!(read_event(event).unwrap(), expected);
        assert_eq!(write_event(&expected), event);
        let removal = b"\x02\x00\x00\x00\x02EUgone";
        let expected = Event::stored(None, Some("EU"), "gone").removing_its_key();
        assert_eq!(read_event(removal).unwrap(), expected);
        assert_eq!(write_event(&expected), removal);
    }

    #[test]
    fn a_trace_is_kept_in_redis_only() {
        let trace = TraceContext { trace_id: 1 << 127, span_id: 2, flags: 1 };
        for event in [
            Event::stored(Some("type"), None, "x"),
            Event::stored(None, Some("key"), "x").removing_its_key(),
        ] {
            let traced = event.clone().traced(trace);
            let record = write_event(&traced);
            assert_eq!(read_event(&record).unwrap(), traced);
            for length in 0..TRACE_CONTEXT_BYTES + 6 {
                assert!(read_event(&record[..length]).is_err());
            }
            let mut on_disk = Vec::new();
            append_event(&mut on_disk, &traced);
            assert_eq!(read_event(&on_disk).unwrap(), event);
        }
        // A record has one trace at most.
        let twice = [&[3; 26][..], &[3; 26], b"\x01\x00\x00\x00\x00"].concat();
        assert!(read_event(&twice).is_err());
    }

    #[test]
    fn what_is_cut_short_or_newer_is_refused() {
        let event = write_event(&Event::stored(Some("kind"), Some("key"), "x"));
        for length in 0..event.len() - 1 {
            assert!(read_event(&event[..length]).is_err());
        }
        assert!(read_event(b"\x04\x00\x00\x00\x00").is_err());
        assert!(read_event(&[]).is_err());
    }
}
