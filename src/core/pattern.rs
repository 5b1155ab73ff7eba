//! Patterns of channel names, as tokens, flags and settings have them.
//!
//! A pattern is the name of a channel, or a prefix with `*` as its last part: `prices.*` matches
//! every channel below `prices`, and `*` matches every channel. No other pattern is valid, so that
//! no pattern matches more channels than its text suggests.

use crate::core::event::{ChannelName, FieldError};
use std::fmt;
use std::str::FromStr;

/// A pattern of channel names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Matches every channel.
    All,
    /// Matches the channels whose names begin with this text, which ends with a dot.
    Below(Box<str>),
    /// Matches one channel.
    One(ChannelName),
}

impl Pattern {
    /// Whether the pattern matches a channel.
    pub fn matches(&self, name: &ChannelName) -> bool {
        match self {
            Self::All => true,
            Self::Below(beginning) => name.as_str().starts_with(&**beginning),
            Self::One(one) => one == name,
        }
    }

    /// Returns a number that is higher the fewer channels the pattern matches, among patterns that
    /// match the same channel.
    pub fn precision(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Below(beginning) => beginning.len(),
            Self::One(_) => usize::MAX,
        }
    }
}

impl FromStr for Pattern {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text == "*" {
            return Ok(Self::All);
        }
        match text.strip_suffix(".*") {
            None => Ok(Self::One(ChannelName::parse(text)?)),
            Some(parent) => {
                ChannelName::parse(parent)?;
                Ok(Self::Below(format!("{parent}.").into()))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(beginning) => write!(f, "{beginning}*"),
            Self::One(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_is_written_as_it_was_read() {
        for text in ["*", "prices.*", "prices"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_pattern_means_a_channel_or_all_below_a_name() {
        let matches =
            |pattern: &str, channel| pattern.parse::<Pattern>().unwrap().matches(&name(channel));
        assert!(matches("prices.*", "prices.eur") && matches("prices.*", "prices.eur.usd"));
        assert!(!matches("prices.*", "prices") && !matches("prices.*", "prices2.eur"));
        assert!(!matches("prices.*", "xprices.eur") && !matches("prices.eur", "prices.eur2"));
        assert!(matches("*", "a") && matches("a", "a") && !matches("a", "A"));
    }

    #[test]
    fn other_texts_are_no_patterns() {
        for text in ["", ".*", "a*", "*.a", "a.*.b", "a.**", "a.* ", "**", "a,b", "a/b", "é.*"] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_more_precise_pattern_matches_fewer_channels() {
        let precision = |text: &str| text.parse::<Pattern>().unwrap().precision();
        assert!(precision("*") < precision("a.*"));
        assert!(precision("a.*") < precision("a.b.*"));
        assert!(precision("a.b.*") < precision("a.b.c"));
    }
}
