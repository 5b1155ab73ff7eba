//! The list of revoked tokens (`--token-revoked`), a text file with one rule on each line:
//!
//! ```text
//! # A comment.
//! jti 8f14e45f              the token with this id
//! sub alice                 every token of this subject
//! before 2026-11-26T10:00Z  every token that was issued before this time
//! ```

use crate::core::since::Since;
use serde_json::Value;
use std::collections::HashSet;

/// The most bytes of the list.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The tokens that are not accepted, although their signature is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    ids: HashSet<String>,
    subjects: HashSet<String>,
    /// Tokens that were issued before this instant are revoked, in ms since the Unix epoch.
    issued_before: u64,
}

impl Revoked {
    /// Reads a list.
    ///
    /// # Errors
    /// Fails at the first line that is no rule; the text has the number of the line.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list.len() > LIST_BYTES_MAX {
            return Err(format!("it is longer than {LIST_BYTES_MAX} bytes"));
        }
        let mut revoked = Self::default();
        for (index, line) in list.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let rule = line.split_once(char::is_whitespace).map(|(kind, rest)| (kind, rest.trim()));
            match rule {
                Some(("jti", id)) => revoked.ids.insert(id.to_owned()),
                Some(("sub", subject)) => revoked.subjects.insert(subject.to_owned()),
                Some(("before", time)) if !time.starts_with('-') => {
                    let time = time.parse::<Since>();
                    let time =
                        time.map_err(|error| format!("line {}: the time {error}", index + 1))?;
                    revoked.issued_before = revoked.issued_before.max(time.ms(0));
                    true
                }
                _ => {
                    let number = index + 1;
                    return Err(format!("line {number}: write jti ID, sub NAME or before TIME"));
                }
            };
        }
        Ok(revoked)
    }

    /// Whether a token with these claims is revoked. If the list has a time, a token that does not
    /// say when it was issued is revoked too.
    pub fn has(&self, id: &Value, subject: Option<&str>, issued_at: &Value) -> bool {
        let is_too_old = || {
            let issued_at = issued_at.as_f64();
            issued_at.is_none_or(|seconds| seconds * 1_000.0 < self.issued_before as f64)
        };
        id.as_str().is_some_and(|id| self.ids.contains(id))
            || subject.is_some_and(|subject| self.subjects.contains(subject))
            || self.issued_before > 0 && is_too_old()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_rule_revokes_its_tokens() {
        let list =
            "# old\n\njti a1\n  sub  alice smith \nbefore 1000\nbefore 1970-01-01T00:10:00Z\n";
        let revoked = Revoked::parse(list).unwrap();
        let late = json!(1_000);
        assert!(revoked.has(&json!("a1"), None, &late));
        assert!(revoked.has(&Value::Null, Some("alice smith"), &late));
        assert!(revoked.has(&Value::Null, None, &json!(999.5)));
        assert!(revoked.has(&Value::Null, None, &Value::Null));
        assert!(!revoked.has(&json!("a2"), Some("bob"), &late));
        assert!(!Revoked::default().has(&json!("a1"), Some("alice"), &Value::Null));
    }

    #[test]
    fn a_line_that_is_no_rule_is_named() {
        for (list, line) in
            [("jti a\nalice", 2), ("jti", 1), ("\nbefore soon", 2), ("before -5m", 1)]
        {
            let error = Revoked::parse(list).unwrap_err();
            assert!(error.contains(&format!("line {line}:")), "{list:?}: {error}");
        }
    }
}
