//! Types and values of VCL, and how each becomes a string.
//!
//! A VCL string is bytes, a Rust string is UTF-8. A byte that is no UTF-8 (from a decoded token, say)
//! is kept as a private-use letter and comes back as that byte where bytes count: hashes, base64.

use std::net::IpAddr;

use super::dates;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Integer,
    Float,
    Bool,
    Span,
    Time,
    Address,
    Backend,
    Acl,
    Table,
    /// A bare word that a function takes: `sha256`, `lookup`, or a header's name.
    Word,
    /// Whatever a testing function was given.
    Any,
    Nothing,
}

const TYPE_NAMES: [(&str, Type); 13] = [
    ("STRING", Type::Text),
    ("INTEGER", Type::Integer),
    ("FLOAT", Type::Float),
    ("BOOL", Type::Bool),
    ("RTIME", Type::Span),
    ("TIME", Type::Time),
    ("IP", Type::Address),
    ("BACKEND", Type::Backend),
    ("ACL", Type::Acl),
    ("TABLE", Type::Table),
    ("ID", Type::Word),
    ("ANY", Type::Any),
    ("VOID", Type::Nothing),
];

impl Type {
    pub fn named(name: &str) -> Option<Type> {
        TYPE_NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    pub fn name(self) -> &'static str {
        TYPE_NAMES.iter().find(|(_, kind)| *kind == self).expect("all are listed").0
    }

    pub fn is_number(self) -> bool {
        matches!(self, Type::Integer | Type::Float | Type::Span)
    }

    /// What a variable of the type holds before anything is set.
    pub fn blank(self) -> Value {
        match self {
            Type::Integer => Value::Integer(0),
            Type::Float => Value::Float(0.0),
            Type::Bool => Value::Bool(false),
            Type::Span => Value::Span(0),
            Type::Time => Value::Time(0),
            Type::Address => Value::Address(None),
            Type::Backend => Value::Backend(String::new()),
            _ => Value::Text(None),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None` is "not set", which is not the empty string.
    Text(Option<String>),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds.
    Span(i64),
    /// Nanoseconds since the Unix epoch.
    Time(i64),
    Address(Option<IpAddr>),
    Backend(String),
    Word(String),
    Nothing,
}

impl Value {
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(Some(text.into()))
    }

    pub fn kind(&self) -> Type {
        match self {
            Value::Text(_) => Type::Text,
            Value::Integer(_) => Type::Integer,
            Value::Float(_) => Type::Float,
            Value::Bool(_) => Type::Bool,
            Value::Span(_) => Type::Span,
            Value::Time(_) => Type::Time,
            Value::Address(_) => Type::Address,
            Value::Backend(_) => Type::Backend,
            Value::Word(_) => Type::Word,
            Value::Nothing => Type::Nothing,
        }
    }

    pub fn is_set(&self) -> bool {
        !matches!(self, Value::Text(None) | Value::Address(None))
    }

    /// As a string, or `None` where the value is not set.
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            Value::Text(text) => return text.clone(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => format!("{value:.3}"),
            Value::Bool(value) => if *value { "1" } else { "0" }.to_owned(),
            Value::Span(value) => format!("{:.3}", *value as f64 / 1e9),
            Value::Time(value) => dates::http_date(*value),
            Value::Address(address) => return address.map(|address| address.to_string()),
            Value::Backend(name) | Value::Word(name) => name.clone(),
            Value::Nothing => return None,
        })
    }

    /// For messages: the value and what it is.
    pub fn shown(&self) -> String {
        match self {
            Value::Text(Some(text)) => format!("{text:?}"),
            Value::Bool(value) => value.to_string(),
            Value::Span(value) => format!("{}s", *value as f64 / 1e9),
            _ if !self.is_set() => "not set".to_owned(),
            _ => format!("{} {}", self.kind().name(), self.to_text().unwrap_or_default()),
        }
    }

    /// In a condition a string is true when it is set, however empty.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Bool(value) => *value,
            other => other.is_set(),
        }
    }

    /// For comparisons between numbers of different types: spans count in seconds.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Integer(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            Value::Span(value) | Value::Time(value) => Some(*value as f64 / 1e9),
            _ => None,
        }
    }
}

const STRAY_BYTES: u32 = 0xF700;

pub fn text_of(bytes: &[u8]) -> String {
    // A string ends at its first NUL, as at Fastly.
    let bytes = bytes.split(|byte| *byte == 0).next().expect("a split has a first part");
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let letter = |byte: &u8| char::from_u32(STRAY_BYTES + u32::from(*byte)).expect("private");
        text.extend(chunk.invalid().iter().map(letter));
    }
    text
}

pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for letter in text.chars() {
        match u32::from(letter) {
            code @ 0xF780..=0xF7FF => bytes.push((code - STRAY_BYTES) as u8),
            _ => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}
