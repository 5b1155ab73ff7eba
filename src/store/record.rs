//! What the local store writes to disk, byte by byte. What one version writes the next reads: each
//! record begins with its version, and a version this code does not know is an error, not a guess.

use super::Published;
use crate::cursor::EventId;
use crate::event::Event;

const VERSION: u8 = 1;
/// The version of an event that removes its key although it has data. In version 1 only an event
/// without data removes its key, so all other events are still written as version 1.
const VERSION_REMOVAL: u8 = 2;

/// One channel's row. Its number stands for it in every other table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelRecord {
    pub number: u32,
    pub last: EventId,
    pub trimmed_to: EventId,
    /// `0-0` while no event is kept.
    pub oldest: EventId,
    /// The id of the `end` event; `0-0` while the channel is open.
    pub closed: EventId,
    pub events: u64,
    pub bytes: u64,
    pub keys: u64,
    pub state_bytes: u64,
    /// When it was last published to, in ms.
    pub used_at: u64,
}

/// What an idempotency key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    pub digest: u128,
    pub first: EventId,
    pub count: u64,
    pub expires_at: u64,
}

/// The record is not one that this version reads.
#[derive(Debug)]
pub struct Unreadable;

struct Reader<'a>(&'a [u8]);

impl ChannelRecord {
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.number.to_be_bytes());
        let ids = [self.last, self.trimmed_to, self.oldest, self.closed];
        for number in ids.iter().flat_map(|id| [id.ms, id.seq]) {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let counts = [self.events, self.bytes, self.keys, self.state_bytes, self.used_at];
        for number in counts {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes)?;
        Ok(Self {
            number: reader.u32()?,
            last: reader.id()?,
            trimmed_to: reader.id()?,
            oldest: reader.id()?,
            closed: reader.id()?,
            events: reader.u64()?,
            bytes: reader.u64()?,
            keys: reader.u64()?,
            state_bytes: reader.u64()?,
            used_at: reader.u64()?,
        })
    }
}

impl IdempotencyRecord {
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.digest.to_be_bytes());
        for number in [self.first.ms, self.first.seq, self.count, self.expires_at] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes)?;
        Ok(Self {
            digest: u128::from_be_bytes(reader.array()?),
            first: reader.id()?,
            count: reader.u64()?,
            expires_at: reader.u64()?,
        })
    }

    /// The answer that the first publish got.
    pub fn answer(&self) -> Published {
        let EventId { ms, seq } = self.first;
        let ids = (0..self.count).map(|n| EventId { ms, seq: seq + n }).collect();
        Published { ids, repeated: true }
    }
}

/// `version, type length, key length (u16, 0 = none), type, key, data`.
pub fn write_event(event: &Event) -> Vec<u8> {
    let text = |field: &Option<crate::event::Field>| {
        field.as_ref().map_or(String::new(), |field| field.as_str().to_owned())
    };
    let (kind, key) = (text(&event.kind), text(&event.key));
    let mut out = Vec::with_capacity(5 + event.weight());
    let is_marked = event.removes_key() && !event.data.is_empty();
    out.push(if is_marked { VERSION_REMOVAL } else { VERSION });
    out.extend_from_slice(&(kind.len() as u16).to_be_bytes());
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    for part in [kind.as_bytes(), key.as_bytes(), event.data.as_bytes()] {
        out.extend_from_slice(part);
    }
    out
}

pub fn read_event(bytes: &[u8]) -> Result<Event, Unreadable> {
    let (mut reader, is_marked) = match bytes.split_first() {
        Some((&VERSION_REMOVAL, rest)) => (Reader(rest), true),
        _ => (Reader::new(bytes)?, false),
    };
    let kind = usize::from(u16::from_be_bytes(reader.array()?));
    let key = usize::from(u16::from_be_bytes(reader.array()?));
    let kind = reader.text(kind)?;
    let key = reader.text(key)?;
    let data = reader.text(reader.0.len())?;
    let some = |text: &'static str| move |field: &&str| *field != text;
    let event = Event::stored(Some(kind).filter(some("")), Some(key).filter(some("")), data);
    Ok(if is_marked { event.removing_its_key() } else { event })
}

/// A row of the state table: the event and its id.
pub fn write_state(id: EventId, event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + event.weight());
    out.extend_from_slice(&id.ms.to_be_bytes());
    out.extend_from_slice(&id.seq.to_be_bytes());
    out.extend_from_slice(&write_event(event));
    out
}

pub fn read_state(bytes: &[u8]) -> Result<(EventId, Event), Unreadable> {
    let mut reader = Reader(bytes);
    let id = reader.id()?;
    Ok((id, read_event(reader.0)?))
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            _ => Err(Unreadable),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_be_bytes)
    }

    fn id(&mut self) -> Result<EventId, Unreadable> {
        Ok(EventId { ms: self.u64()?, seq: self.u64()? })
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Unreadable> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        std::str::from_utf8(head).map_err(|_| Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let id = |n| EventId { ms: n, seq: n + 1 };
        let channel = ChannelRecord {
            number: 1,
            last: id(2),
            trimmed_to: id(4),
            oldest: id(6),
            closed: id(8),
            events: 10,
            bytes: 11,
            keys: 12,
            state_bytes: 13,
            used_at: 14,
        };
        assert_eq!(ChannelRecord::read(&channel.write()).unwrap(), channel);
        let key =
            IdempotencyRecord { digest: u128::MAX - 1, first: id(1), count: 3, expires_at: 9 };
        assert_eq!(IdempotencyRecord::read(&key.write()).unwrap(), key);
        for event in [
            Event::stored(None, None, ""),
            Event::stored(Some("k"), None, "a\r\nb"),
            Event::stored(Some("type"), Some("ключ"), "данные"),
            Event::stored(Some("type"), Some("key"), ""),
            Event::stored(None, Some("key"), "x").removing_its_key(),
            Event::end(),
        ] {
            assert_eq!(read_event(&write_event(&event)).unwrap(), event);
            assert_eq!(read_state(&write_state(id(5), &event)).unwrap(), (id(5), event));
        }
    }

    /// The bytes of version 1, written down: a change that breaks old files fails here.
    #[test]
    fn version_1_stays_readable() {
        let event = b"\x01\x00\x05\x00\x02priceEU{\"bid\":1}";
        let expected = Event::stored(Some("price"), Some("EU"), "{\"bid\":1}");
        assert_eq!(read_event(event).unwrap(), expected);
        assert_eq!(write_event(&expected), event);
        assert_eq!(ChannelRecord::default().write().len(), 1 + 4 + 8 * 8 + 5 * 8);
        let removal = b"\x02\x00\x00\x00\x02EUgone";
        let expected = Event::stored(None, Some("EU"), "gone").removing_its_key();
        assert_eq!(read_event(removal).unwrap(), expected);
        assert_eq!(write_event(&expected), removal);
    }

    #[test]
    fn what_is_cut_short_or_newer_is_refused() {
        let event = write_event(&Event::stored(Some("kind"), Some("key"), "x"));
        for length in 0..event.len() - 1 {
            assert!(read_event(&event[..length]).is_err());
        }
        assert!(read_event(b"\x03\x00\x00\x00\x00").is_err());
        assert!(ChannelRecord::read(&[2; 109]).is_err());
        assert!(IdempotencyRecord::read(&[]).is_err());
    }
}
