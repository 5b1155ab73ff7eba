//! Makes values of the bytes that libFuzzer chooses. The values are read in order, each with its
//! length before it, so that a mutation changes one of them. When no bytes are left, all values are
//! empty or zero.

use headwater::core::cursor::EventId;
use headwater::core::event::{ChannelName, Event, Field};
use headwater::core::sse::{Gap, GapReason};

/// The bytes that are left.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number less than `count`, which is at most 256.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// Any number. Its first byte says how many bytes follow, and whether it is counted down from
    /// the largest number.
    pub fn number(&mut self) -> u64 {
        let head = self.byte();
        let bytes = self.take(usize::from(head & 0x7f) % 9);
        let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        if head & 0x80 == 0 { number } else { u64::MAX - number }
    }

    pub fn bytes(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            255 => usize::from(self.byte()) << 8 | usize::from(self.byte()),
            short => usize::from(short),
        };
        self.take(length)
    }

    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    pub fn id(&mut self) -> EventId {
        EventId { ms: self.number(), seq: self.number() }
    }

    /// One of eight names, so that channels occur again.
    pub fn channel(&mut self) -> ChannelName {
        let names = ["a", "b", "prices.eur", "0", "Z~", "x-1", "a.b", "channel_with_a_longer_name"];
        ChannelName::parse(names[self.below(names.len())]).expect("a name")
    }

    /// A type or a key, if the text is a valid one.
    pub fn field(&mut self, read: impl Fn(&str) -> Option<Field>) -> Option<Field> {
        if !self.flag() {
            return None;
        }
        read(&self.text())
    }

    /// An event of a publisher.
    pub fn event(&mut self) -> Event {
        let kind = self.field(|text| Field::kind(text).ok());
        let key = self.field(|text| Field::key(text).ok());
        let removes_key = self.flag();
        Event::new(kind, key, self.text(), removes_key)
    }

    /// An event as a log has it: of a publisher, or of Headwater.
    pub fn event_of_log(&mut self) -> Event {
        match self.byte() {
            0 => Event::end(),
            1 => Event::lost(&self.id().to_string()),
            2 => Event::damaged(&self.id().to_string()),
            _ => self.event(),
        }
    }

    pub fn gap(&mut self) -> Gap {
        Gap {
            reason: GapReason::ALL[self.below(GapReason::ALL.len())],
            requested: self.text(),
            oldest: self.flag().then(|| self.id()),
            channel: self.channel(),
        }
    }

    /// Cuts bytes into chunks, none of them empty.
    pub fn chunks(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut rest, mut chunks) = (bytes, Vec::new());
        while !rest.is_empty() {
            let length = match self.byte() {
                0 => rest.len(),
                short => usize::from(short).min(rest.len()),
            };
            chunks.push(rest[..length].to_vec());
            rest = &rest[length..];
        }
        chunks
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
