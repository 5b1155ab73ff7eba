//! The encoding of the log's records, byte by byte: the body of each kind of frame.
//!
//! Every record of events contains its channel and the id of the event before it. A record can
//! therefore be read by itself, and a lost record is revealed by the next one. A record of events
//! has extension fields. Readers skip unknown extensions, so that later versions can add some.

use super::super::record::{Reader, Unreadable, append_event, read_event};
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};

/// The extension with the idempotency key of the publish.
const EXTENSION_KEY: u8 = 1;
/// The flag of the first record that the channel ever had.
const FLAG_FIRST: u8 = 1;

/// Events of one channel, with consecutive ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    pub channel: ChannelName,
    /// The channel never had an earlier event.
    pub is_first: bool,
    /// The id of the channel's event before these.
    pub previous: EventId,
    pub first: EventId,
    pub key: Option<KeyRecord>,
    pub events: Vec<Event>,
}

/// The meaning of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    pub key: Box<str>,
    pub digest: u128,
    pub first: EventId,
    pub count: u32,
    /// The instant of its expiry, in ms since the Unix epoch.
    pub expires_at: u64,
}

/// The properties of a channel apart from its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRecord {
    pub channel: ChannelName,
    pub last: EventId,
    /// The id of its `end` event, or `0-0` while the channel is open.
    pub closed: EventId,
    pub low_watermark: EventId,
}

/// The properties of the log that a checkpoint records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The newest id in any channel.
    pub newest: EventId,
    /// The instant against which the ages of events are measured, in ms.
    pub ages: u64,
}

impl Checkpoint {
    /// Appends the body of the frame to `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        write_id(out, self.newest);
        out.extend_from_slice(&self.ages.to_be_bytes());
    }

    /// Decodes the body of a frame.
    pub fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self { newest: reader.id()?, ages: reader.u64()? })
    }
}

impl Events {
    /// Appends the body of the frame to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_name(out, &self.channel);
        out.push(if self.is_first { FLAG_FIRST } else { 0 });
        write_id(out, self.previous);
        write_id(out, self.first);
        out.extend_from_slice(&(self.events.len() as u32).to_be_bytes());
        let extensions = out.len();
        out.extend_from_slice(&[0; 2]);
        if let Some(key) = &self.key {
            out.push(EXTENSION_KEY);
            out.extend_from_slice(&(24 + key.key.len() as u16).to_be_bytes());
            out.extend_from_slice(&key.digest.to_be_bytes());
            out.extend_from_slice(&key.expires_at.to_be_bytes());
            out.extend_from_slice(key.key.as_bytes());
        }
        let length = (out.len() - extensions - 2) as u16;
        out[extensions..extensions + 2].copy_from_slice(&length.to_be_bytes());
        for event in &self.events {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            append_event(out, event);
            let length = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }

    /// Decodes the body of a frame.
    pub fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        let channel = read_name(&mut reader)?;
        let [flags] = reader.array()?;
        let (previous, first) = (reader.id()?, reader.id()?);
        let count = reader.u32()?;
        let length = usize::from(u16::from_be_bytes(reader.array()?));
        let mut extensions = Reader::new(reader.take(length)?);
        let mut key = None;
        while !extensions.is_empty() {
            let [tag] = extensions.array()?;
            let length = usize::from(u16::from_be_bytes(extensions.array()?));
            let mut value = Reader::new(extensions.take(length)?);
            if tag == EXTENSION_KEY {
                let (digest, expires_at) = (u128::from_be_bytes(value.array()?), value.u64()?);
                let text = value.text_to_end()?.into();
                key = Some(KeyRecord { key: text, digest, first, count, expires_at });
            }
        }
        let mut events = Vec::with_capacity((count as usize).min(body.len()));
        for _ in 0..count {
            let length = reader.u32()? as usize;
            events.push(read_event(reader.take(length)?)?);
        }
        first.seq.checked_add(u64::from(count)).filter(|_| count > 0).ok_or(Unreadable)?;
        Ok(Self { channel, is_first: flags & FLAG_FIRST != 0, previous, first, key, events })
    }

    /// The id of the event at `index`.
    pub fn id(&self, index: usize) -> EventId {
        EventId { ms: self.first.ms, seq: self.first.seq + index as u64 }
    }
}

impl KeyRecord {
    /// Appends the body of the frame to `out`.
    pub fn write(&self, channel: &ChannelName, out: &mut Vec<u8>) {
        write_name(out, channel);
        write_id(out, self.first);
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.digest.to_be_bytes());
        out.extend_from_slice(&self.expires_at.to_be_bytes());
        out.extend_from_slice(self.key.as_bytes());
    }

    /// Decodes the body of a frame.
    pub fn read(body: &[u8]) -> Result<(ChannelName, Self), Unreadable> {
        let mut reader = Reader::new(body);
        let channel = read_name(&mut reader)?;
        let (first, count) = (reader.id()?, reader.u32()?);
        let (digest, expires_at) = (u128::from_be_bytes(reader.array()?), reader.u64()?);
        first.seq.checked_add(u64::from(count)).ok_or(Unreadable)?;
        let key = reader.text_to_end()?.into();
        Ok((channel, Self { key, digest, first, count, expires_at }))
    }
}

impl ChannelRecord {
    /// Appends the body of the frame to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_name(out, &self.channel);
        [self.last, self.closed, self.low_watermark].into_iter().for_each(|id| write_id(out, id));
    }

    /// Decodes the body of a frame.
    pub fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        let channel = read_name(&mut reader)?;
        let (last, closed, low_watermark) = (reader.id()?, reader.id()?, reader.id()?);
        Ok(Self { channel, last, closed, low_watermark })
    }
}

/// Appends the length and the bytes of a channel name.
pub fn write_name(out: &mut Vec<u8>, name: &ChannelName) {
    out.push(name.as_str().len() as u8);
    out.extend_from_slice(name.as_str().as_bytes());
}

/// Reads a channel name, which follows its length.
pub fn read_name(reader: &mut Reader<'_>) -> Result<ChannelName, Unreadable> {
    let [length] = reader.array()?;
    ChannelName::stored(reader.text(usize::from(length))?).map_err(|_| Unreadable)
}

/// Appends an id.
pub fn write_id(out: &mut Vec<u8>, id: EventId) {
    out.extend_from_slice(&id.ms.to_be_bytes());
    out.extend_from_slice(&id.seq.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> EventId {
        EventId { ms, seq }
    }

    fn events() -> Events {
        let channel = ChannelName::parse("a").unwrap();
        let key = KeyRecord {
            key: "once".into(),
            digest: u128::MAX - 1,
            first: id(7, 1),
            count: 2,
            expires_at: 9,
        };
        let removal = Event::stored(None, Some("k"), "gone").removing_its_key();
        let events = vec![Event::stored(Some("t"), None, "x\r\ny"), removal];
        let (previous, first) = (id(5, 0), id(7, 1));
        Events { channel, is_first: true, previous, first, key: Some(key), events }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let mut out = Vec::new();
        let events = events();
        events.write(&mut out);
        assert_eq!(Events::read(&out).unwrap(), events);
        for length in 0..out.len() {
            assert!(Events::read(&out[..length]).is_err(), "{length}");
        }
        let (channel, key) = (events.channel.clone(), events.key.unwrap());
        let mut out = Vec::new();
        key.write(&channel, &mut out);
        assert_eq!(KeyRecord::read(&out).unwrap(), (channel.clone(), key));
        let (last, closed, low_watermark) = (id(1, 2), id(3, 4), id(5, 6));
        let record = ChannelRecord { channel, last, closed, low_watermark };
        let mut out = Vec::new();
        record.write(&mut out);
        assert_eq!(ChannelRecord::read(&out).unwrap(), record);
        let checkpoint = Checkpoint { newest: id(1, 2), ages: 3 };
        let mut out = Vec::new();
        checkpoint.write(&mut out);
        assert_eq!(Checkpoint::read(&out).unwrap(), checkpoint);
    }

    #[test]
    fn the_events_of_a_record_have_consecutive_ids() {
        let events = events();
        assert_eq!([0, 1].map(|index| events.id(index)), [id(7, 1), id(7, 2)]);
        // The id after the last event exists too.
        let read = |first, events| {
            let mut out = Vec::new();
            Events { first, events, key: None, ..self::events() }.write(&mut out);
            Events::read(&out).is_ok()
        };
        assert!(read(id(7, u64::MAX - 2), events.events.clone()));
        assert!(!read(id(7, u64::MAX - 1), events.events.clone()));
        assert!(!read(id(7, 1), Vec::new()), "a record without events");
    }

    /// The literal bytes of the first format. A change that makes old files unreadable fails here.
    #[test]
    fn the_first_format_stays_readable() {
        let mut expected = b"\x01a\x01".to_vec();
        [5_u64, 0, 7, 1].iter().for_each(|n| expected.extend_from_slice(&n.to_be_bytes()));
        expected.extend_from_slice(b"\0\0\0\x02\0\x1f\x01\0\x1c");
        expected.extend_from_slice(&(u128::MAX - 1).to_be_bytes());
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\x09once");
        expected.extend_from_slice(b"\0\0\0\x0a\x01\0\x01\0\0tx\r\ny");
        expected.extend_from_slice(b"\0\0\0\x0a\x02\0\0\0\x01kgone");
        let mut out = Vec::new();
        events().write(&mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn a_field_of_a_later_version_is_passed_over() {
        let mut out = Vec::new();
        let plain = Events { key: None, is_first: false, ..events() };
        plain.write(&mut out);
        let at = 2 + 1 + 32 + 4;
        out[at..at + 2].copy_from_slice(&5_u16.to_be_bytes());
        out.splice(at + 2..at + 2, *b"\xc8\0\x02hi");
        assert_eq!(Events::read(&out).unwrap(), plain);
    }
}
