//! The rights that a token grants: the standard `scope` claim (RFC 8693, section 4.2), as a list of
//! `publish:<pattern>` and `subscribe:<pattern>`.
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

/// An operation on a channel that a token can grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Publish events, and end or reopen the channel.
    Publish,
    /// Read streams, history and state.
    Subscribe,
}

/// All rights that a token grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Vec<(Right, Pattern)>);

impl Pattern {
    /// Whether the pattern matches a channel.
    pub fn matches(&self, name: &ChannelName) -> bool {
        match self {
            Self::All => true,
            Self::Below(beginning) => name.as_str().starts_with(&**beginning),
            Self::One(one) => one == name,
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

impl Scope {
    /// Parses the claim. Unknown words and invalid patterns are ignored, because a token may have
    /// rights for other services too.
    pub fn parse(claim: &str) -> Self {
        let right = |word: &str| {
            let (right, pattern) = word.split_once(':')?;
            let right = match right {
                "publish" => Right::Publish,
                "subscribe" => Right::Subscribe,
                _ => return None,
            };
            Some((right, pattern.parse().ok()?))
        };
        Self(claim.split(' ').filter_map(right).collect())
    }

    /// Creates a scope of these rights.
    pub fn of(rights: Vec<(Right, Pattern)>) -> Self {
        Self(rights)
    }

    /// Whether the scope grants a right to a channel.
    pub fn grants(&self, right: Right, name: &ChannelName) -> bool {
        self.0.iter().any(|(granted, pattern)| *granted == right && pattern.matches(name))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (right, pattern)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            let right = match right {
                Right::Publish => "publish",
                Right::Subscribe => "subscribe",
            };
            write!(f, "{space}{right}:{pattern}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
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
    fn a_scope_grants_what_it_says_and_nothing_by_mistake() {
        let scope =
            Scope::parse("openid publish:prices.* subscribe:a  subscribe: publish:x/y publish");
        assert!(scope.grants(Right::Publish, &name("prices.eur")));
        assert!(!scope.grants(Right::Subscribe, &name("prices.eur")));
        assert!(scope.grants(Right::Subscribe, &name("a")));
        assert!(!scope.grants(Right::Publish, &name("a")));
        assert_eq!(scope.to_string(), "publish:prices.* subscribe:a");
        assert!(!Scope::parse("").grants(Right::Subscribe, &name("a")));
        assert!(!Scope::parse("PUBLISH:*").grants(Right::Publish, &name("a")));
    }

    proptest! {
        #[test]
        fn any_claim_is_read_and_reads_back(claim in "(publish|subscribe|\\PC{0,5}):[a-z.*]{0,6}( [a-z:.*]{0,12}){0,4}") {
            let scope = Scope::parse(&claim);
            prop_assert_eq!(Scope::parse(&scope.to_string()), scope);
        }
    }
}
