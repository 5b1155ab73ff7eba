//! The rights that a token grants: the standard `scope` claim (RFC 8693, section 4.2), as a list of
//! `publish:<pattern>` and `subscribe:<pattern>`.

use crate::core::event::ChannelName;
use crate::core::pattern::Pattern;
use std::fmt;

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
