//! Channel names and events as publishers send them, and the limits on both.
//!
//! The constructors check what publishers send, and refuse everything that the wire format cannot
//! carry. A line break in a field, for example, would otherwise start a second field. Later code
//! does not check the values again.

use crate::core::cursor::EventId;
use crate::core::trace_context::TraceContext;
use std::fmt;
use std::sync::Arc;

/// Longest channel name, in bytes: one path segment that fits into the key and the log line of
/// every cache.
pub const CHANNEL_NAME_BYTES_MAX: usize = 128;
/// Longest `event` or `key`, in bytes. Both are repeated with every event and every entry of the
/// state.
pub const FIELD_BYTES_MAX: usize = 256;
/// Event types that have a meaning in Headwater, or that `EventSource` fires itself.
pub const RESERVED_TYPES: [&str; 6] = ["segment", "gap", "end", "shed", "open", "error"];

/// The beginning of the names of Headwater's own channels, which clients cannot use.
pub const RESERVED_NAMES: &str = "headwater~";

/// A channel's name: `[A-Za-z0-9][A-Za-z0-9._~-]{0,127}`, without [`RESERVED_NAMES`] at its
/// beginning. It is cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// An SSE `event` type or a state `key`. Invariant: 1 to [`FIELD_BYTES_MAX`] bytes without CR, LF
/// and NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field(Box<str>);

/// An event with the id that the store gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The id of the event, which is its position in the channel.
    pub id: EventId,
    /// The event as it was published.
    pub event: Event,
}

/// One event as its publisher sent it. The store adds the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The SSE event type. An event without a type reaches `onmessage`.
    pub kind: Option<Field>,
    /// The key whose state this event replaces.
    pub key: Option<Field>,
    /// The text, with the publisher's own line breaks.
    pub data: Box<str>,
    /// Whether the event removes its key from the state. It is never set for an event without a
    /// key.
    removes_key: bool,
    /// The trace of the publish, if spans of it are exported. It is boxed, because few events have
    /// one.
    trace: Option<Box<TraceContext>>,
}

/// The reason why a name, a type or a key was refused. The message is written to follow the name of
/// the field, for example "the channel name".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The value is empty.
    Empty,
    /// The value is longer than `limit` bytes.
    TooLong { length: usize, limit: usize },
    /// The name has a character that is not allowed.
    BadCharacter(char),
    /// The name begins with a character that is only allowed after the first one.
    BadFirstCharacter(char),
    /// The value has a CR or an LF.
    LineBreak,
    /// The value has the character U+0000.
    Nul,
    /// The type is one of [`RESERVED_TYPES`].
    Reserved,
    /// The name begins with [`RESERVED_NAMES`].
    ReservedName,
}

impl ChannelName {
    /// Parses a channel name that a client or an operator has given.
    ///
    /// # Errors
    /// Fails when `raw` does not match the pattern of [`ChannelName`], or is reserved.
    pub fn parse(raw: &str) -> Result<Self, FieldError> {
        match raw.starts_with(RESERVED_NAMES) {
            true => Err(FieldError::ReservedName),
            false => Self::stored(raw),
        }
    }

    /// Parses a channel name that a store has kept, which may be reserved.
    ///
    /// # Errors
    /// Fails when `raw` does not match the pattern of [`ChannelName`].
    pub fn stored(raw: &str) -> Result<Self, FieldError> {
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

    /// Returns the name of one of Headwater's own channels.
    pub fn reserved(purpose: &str) -> Self {
        Self(format!("{RESERVED_NAMES}{purpose}").into())
    }

    /// Whether the channel is one of Headwater's own.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_NAMES)
    }

    /// Returns the name as text.
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
    /// Parses a state key.
    ///
    /// # Errors
    /// Fails when the key is empty, is too long, or has CR, LF or NUL.
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

    /// Parses an event type that a publisher may use.
    ///
    /// # Errors
    /// Fails like [`Field::key`], and when the type is one of [`RESERVED_TYPES`].
    pub fn kind(raw: &str) -> Result<Self, FieldError> {
        if RESERVED_TYPES.contains(&raw) {
            return Err(FieldError::Reserved);
        }
        Self::key(raw)
    }

    /// Returns the text of the field.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Event {
    /// Returns an event of a publisher. An event with a key and without data removes the key from
    /// the state; with `removes_key`, an event with a key and data removes the key too.
    pub fn new(
        kind: Option<Field>,
        key: Option<Field>,
        data: impl Into<Box<str>>,
        removes_key: bool,
    ) -> Self {
        let data = data.into();
        let removes_key = key.is_some() && (removes_key || data.is_empty());
        Self { kind, key, data, removes_key, trace: None }
    }

    /// Returns the event that ends a channel. Only Headwater creates it: [`Field::kind`] refuses
    /// `end`.
    pub fn end() -> Self {
        Self::new(Some(Field("end".into())), None, "{}", false)
    }

    /// Returns the event that informs subscribers that the log has lost the channel's events up to
    /// `last`.
    pub fn lost(last: &str) -> Self {
        let data = format!(r#"{{"reason":"lost","requested":"{last}","oldest":null}}"#);
        Self::new(Some(Field("gap".into())), None, data, false)
    }

    /// Returns the event that replaces stored events that cannot be read. `from` is the id of the
    /// first of them.
    pub fn damaged(from: &str) -> Self {
        let data = format!(r#"{{"reason":"damaged","requested":"{from}","oldest":null}}"#);
        Self::new(Some(Field("gap".into())), None, data, false)
    }

    /// Rebuilds an event that a store has written. The fields are not checked again, because they
    /// were checked when the event was published.
    pub fn stored(kind: Option<&str>, key: Option<&str>, data: &str) -> Self {
        let field = |text: &str| Field(text.into());
        Self::new(kind.map(field), key.map(field), data, false)
    }

    /// Returns the same event, changed so that it removes its key from the state.
    #[must_use]
    pub fn removing_its_key(self) -> Self {
        let Self { kind, key, data, trace, .. } = self;
        Self { trace, ..Self::new(kind, key, data, true) }
    }

    /// Returns the same event, as part of a trace.
    #[must_use]
    pub fn traced(self, trace: TraceContext) -> Self {
        Self { trace: Some(Box::new(trace)), ..self }
    }

    /// Returns the trace that the event is part of.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace.as_deref().copied()
    }

    /// Whether the event ends its channel, so that a stream stops after it.
    pub fn is_end(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| kind.as_str() == "end")
    }

    /// Returns the type and the members of a control event, or `None` for an event of a publisher.
    /// Only Headwater adds control events to a channel: its end, or a gap. Their data is a JSON
    /// object; the members are its text without the braces.
    pub fn as_control(&self) -> Option<(&'static str, &str)> {
        let kind = match self.kind.as_ref()?.as_str() {
            "end" => "end",
            "gap" => "gap",
            _ => return None,
        };
        Some((kind, self.data.strip_prefix('{')?.strip_suffix('}')?))
    }

    /// Whether the event removes its key from the state.
    pub fn removes_key(&self) -> bool {
        self.removes_key
    }

    /// Returns the number of bytes with which the event counts against every byte limit.
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
            Self::ReservedName => {
                write!(f, "may not begin with {RESERVED_NAMES}, which is reserved for Headwater")
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
        assert!(Field::key(&"x".repeat(FIELD_BYTES_MAX)).is_ok());
        for reserved in RESERVED_TYPES {
            assert_eq!(Field::kind(reserved), Err(FieldError::Reserved));
            assert!(Field::key(reserved).is_ok());
        }
    }

    #[test]
    fn the_type_the_key_and_the_data_count_against_the_limits() {
        assert_eq!(Event::stored(Some("price"), Some("EURUSD"), "1.07").weight(), 5 + 6 + 4);
        assert_eq!(Event::stored(None, Some("k"), "").weight(), 1);
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
