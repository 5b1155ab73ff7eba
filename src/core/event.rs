//! What a publisher may say: channel names, events, and the limits on both.
//!
//! Each type here has one constructor, and it refuses what the wire format could not carry
//! (a line break inside a field would forge a second field). Nothing further in checks again.

use crate::core::cursor::EventId;
use std::fmt;
use std::sync::Arc;

/// Longest channel name, in bytes: one path segment that every cache's key and log line can hold.
pub const CHANNEL_NAME_BYTES_MAX: usize = 128;
/// Longest `event` or `key`, in bytes. They are repeated in every block and every state row.
pub const FIELD_BYTES_MAX: usize = 256;
/// Event types that carry Headwater's own meaning, or that `EventSource` fires by itself.
pub const RESERVED_TYPES: [&str; 6] = ["segment", "gap", "end", "shed", "open", "error"];

/// A channel's name: `[A-Za-z0-9][A-Za-z0-9._~-]{0,127}`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// An SSE `event` type or state `key`. Invariant: no CR, LF or NUL, 1 to [`FIELD_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field(Box<str>);

/// An event with the place the store gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the channel.
    pub id: EventId,
    /// What the publisher said.
    pub event: Event,
}

/// One event as its publisher gave it; the store adds the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The SSE event type; `None` reaches `onmessage`.
    pub kind: Option<Field>,
    /// The key whose state this event becomes.
    pub key: Option<Field>,
    /// The text, with the publisher's own line breaks.
    pub data: Box<str>,
    /// Whether the event takes its key out of the state. Never set for an event without a key.
    removes_key: bool,
}

/// Why a name, type or key was refused. Reads well after "the channel name" or "the field".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// Nothing there.
    Empty,
    /// Longer than `limit` bytes.
    TooLong { length: usize, limit: usize },
    /// A character that a name may not hold.
    BadCharacter(char),
    /// A character that a name may hold, but not as its first one.
    BadFirstCharacter(char),
    /// CR or LF.
    LineBreak,
    /// U+0000.
    Nul,
    /// One of [`RESERVED_TYPES`].
    Reserved,
}

impl ChannelName {
    /// # Errors
    /// When `raw` does not match the pattern above.
    pub fn parse(raw: &str) -> Result<Self, FieldError> {
        let first = raw.chars().next().ok_or(FieldError::Empty)?;
        if raw.len() > CHANNEL_NAME_BYTES_MAX {
            return Err(FieldError::TooLong { length: raw.len(), limit: CHANNEL_NAME_BYTES_MAX });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-');
        match raw.chars().find(|&c| !allowed(c)) {
            Some(bad) => Err(FieldError::BadCharacter(bad)),
            None if !first.is_ascii_alphanumeric() => Err(FieldError::BadFirstCharacter(first)),
            None => Ok(Self(raw.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Field {
    /// A state key.
    ///
    /// # Errors
    /// When it is empty, too long, or holds CR, LF or NUL.
    pub fn key(raw: &str) -> Result<Self, FieldError> {
        if raw.is_empty() {
            return Err(FieldError::Empty);
        }
        if raw.len() > FIELD_BYTES_MAX {
            return Err(FieldError::TooLong { length: raw.len(), limit: FIELD_BYTES_MAX });
        }
        if raw.contains(['\r', '\n']) {
            return Err(FieldError::LineBreak);
        }
        if raw.contains('\0') {
            return Err(FieldError::Nul);
        }
        Ok(Self(raw.into()))
    }

    /// An event type that a publisher may use.
    ///
    /// # Errors
    /// As [`Field::key`], and when the type is one of [`RESERVED_TYPES`].
    pub fn kind(raw: &str) -> Result<Self, FieldError> {
        if RESERVED_TYPES.contains(&raw) {
            return Err(FieldError::Reserved);
        }
        Self::key(raw)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Event {
    /// An event of a publisher. An event with a key and without data removes the key from the
    /// state; `removes_key` makes an event with data do so too.
    pub fn new(
        kind: Option<Field>,
        key: Option<Field>,
        data: impl Into<Box<str>>,
        removes_key: bool,
    ) -> Self {
        let data = data.into();
        let removes_key = key.is_some() && (removes_key || data.is_empty());
        Self { kind, key, data, removes_key }
    }

    /// The event that ends a channel. Only Headwater makes it: [`Field::kind`] refuses `end`.
    pub fn end() -> Self {
        Self::new(Some(Field("end".into())), None, "{}", false)
    }

    /// The event that tells a channel's readers that its log has lost the events up to `last`.
    pub fn lost(last: &str) -> Self {
        let data = format!(r#"{{"reason":"lost","requested":"{last}","oldest":null}}"#);
        Self::new(Some(Field("gap".into())), None, data, false)
    }

    /// The event in the place of events that are stored and cannot be read; `from` is the first.
    pub fn damaged(from: &str) -> Self {
        let data = format!(r#"{{"reason":"damaged","requested":"{from}","oldest":null}}"#);
        Self::new(Some(Field("gap".into())), None, data, false)
    }

    /// Rebuilds an event that a store wrote, so its fields were checked when they came in.
    pub fn stored(kind: Option<&str>, key: Option<&str>, data: &str) -> Self {
        let field = |text: &str| Field(text.into());
        Self::new(kind.map(field), key.map(field), data, false)
    }

    /// The same event, which also removes its key from the state.
    #[must_use]
    pub fn removing_its_key(self) -> Self {
        let Self { kind, key, data, .. } = self;
        Self::new(kind, key, data, true)
    }

    /// Whether a stream stops after this event.
    pub fn is_end(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| kind.as_str() == "end")
    }

    /// The type and the members of an event that only Headwater puts into a channel: its end, or
    /// the news that events are lost. The data of such an event is a JSON object.
    pub fn as_control(&self) -> Option<(&'static str, &str)> {
        let kind = match self.kind.as_ref()?.as_str() {
            "end" => "end",
            "gap" => "gap",
            _ => return None,
        };
        Some((kind, self.data.strip_prefix('{')?.strip_suffix('}')?))
    }

    /// Whether the event takes its key out of the state.
    pub fn removes_key(&self) -> bool {
        self.removes_key
    }

    /// Bytes this event counts for against every byte limit.
    pub fn weight(&self) -> usize {
        let length = |field: &Option<Field>| field.as_ref().map_or(0, |f| f.0.len());
        self.data.len() + length(&self.kind) + length(&self.key)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "is empty"),
            Self::TooLong { length, limit } => {
                write!(f, "is {length} bytes long, the limit is {limit}")
            }
            Self::BadCharacter(c) => write!(
                f,
                "may not hold {c:?}; a name has letters, digits and . _ ~ - (letters and digits of ASCII)"
            ),
            Self::BadFirstCharacter(c) => {
                write!(f, "may not begin with {c:?}; its first character is a letter or a digit")
            }
            Self::LineBreak => write!(f, "holds a line break"),
            Self::Nul => write!(f, "holds a NUL"),
            Self::Reserved => {
                write!(f, "is reserved; reserved are {}", RESERVED_TYPES.join(", "))
            }
        }
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_path_segment_and_a_cache_key_can_hold() {
        for good in ["a", "A.b_c~d-9", "0", &"x".repeat(128)] {
            assert!(ChannelName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "a%", "a\0", "é", &"x".repeat(129)] {
            assert!(ChannelName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_field_cannot_forge_a_second_one() {
        for bad in ["", "a\nid: 9", "a\r", "a\0", &"x".repeat(257)] {
            assert!(Field::key(bad).is_err(), "{bad:?}");
        }
        for reserved in RESERVED_TYPES {
            assert_eq!(Field::kind(reserved), Err(FieldError::Reserved));
            assert!(Field::key(reserved).is_ok());
        }
    }

    #[test]
    fn a_refused_name_is_told_what_is_wrong_with_it() {
        let check = |name, expected: &str| {
            let said = ChannelName::parse(name).unwrap_err().to_string();
            assert!(said.starts_with(expected), "{name}: {said}");
        };
        check("-bad", "may not begin with '-'");
        check("-b/d", "may not hold '/'");
        check("b d", "may not hold ' '");
    }

    #[test]
    fn an_event_removes_its_key_when_it_is_empty_or_says_so() {
        let removes = |key, data| Event::stored(None, key, data).removes_key();
        assert!(removes(Some("k"), "") && !removes(Some("k"), "x") && !removes(None, ""));
        assert!(Event::stored(None, Some("k"), "x").removing_its_key().removes_key());
        assert!(!Event::stored(None, None, "x").removing_its_key().removes_key());
    }
}
