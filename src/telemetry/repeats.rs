//! Finds out whether a request repeats an earlier request whose response ends at the same instant.
//! A cache that shares responses sends each request once. If many requests repeat earlier ones, the
//! caches in front of the origin do not collapse requests.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};

/// Most requests of one segment that are distinguished. Further requests are not counted.
const REQUESTS_MAX: usize = 65_536;

/// The requests of the running segments.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: Mutex<Seen>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Seen {
    /// The hashes of requests whose responses end at or before `until`, and at the latest one
    /// segment after it.
    older: HashSet<u64>,
    newer: HashSet<u64>,
    until: u64,
}

impl Repeats {
    /// Whether no earlier request for a response that ends at `ends_at` (ms) had the same `key`.
    /// Returns `None` if there are too many requests to distinguish them.
    pub fn is_first(&self, key: &impl Hash, ends_at: u64, now: u64) -> Option<bool> {
        let hash = self.hasher.hash_one((key, ends_at));
        let mut seen = self.seen.lock();
        if now >= seen.until {
            // Responses of the former generation have ended, or are about to.
            seen.older = std::mem::take(&mut seen.newer);
            seen.until = ends_at;
        }
        if seen.older.contains(&hash) || seen.newer.contains(&hash) {
            return Some(false);
        }
        (seen.newer.len() < REQUESTS_MAX).then(|| seen.newer.insert(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_first_once_in_each_segment() {
        let repeats = Repeats::default();
        assert_eq!(repeats.is_first(&"a", 1_000, 100), Some(true));
        assert_eq!(repeats.is_first(&"a", 1_000, 200), Some(false));
        assert_eq!(repeats.is_first(&"b", 1_000, 300), Some(true));
        // The boundary: the same request for the next segment, and a late one for the last.
        assert_eq!(repeats.is_first(&"a", 2_000, 1_000), Some(true));
        assert_eq!(repeats.is_first(&"b", 1_000, 1_001), Some(false));
        assert_eq!(repeats.is_first(&"a", 2_000, 1_900), Some(false));
        assert_eq!(repeats.is_first(&"a", 3_000, 2_000), Some(true));
    }

    #[test]
    fn memory_is_bounded() {
        let repeats = Repeats::default();
        for key in 0..REQUESTS_MAX {
            assert_eq!(repeats.is_first(&key, 1_000, 0), Some(true));
        }
        assert_eq!(repeats.is_first(&REQUESTS_MAX, 1_000, 0), None);
        assert_eq!(repeats.is_first(&1_usize, 1_000, 0), Some(false));
        assert_eq!(repeats.is_first(&REQUESTS_MAX, 2_000, 1_000), Some(true));
    }
}
