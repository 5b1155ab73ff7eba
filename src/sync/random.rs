//! Random numbers for names and for spreading waits.
//!
//! `fastrand` was considered: it seeds itself from the time and the thread, so two origins could
//! have the same numbers. In Redis, the publishes of two origins are distinguished only by such a
//! number.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Returns a random number. The keys of the hash come from the operating system.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
