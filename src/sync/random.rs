//! Random numbers for names, for spreading waits, and for the checksums of a log.
//!
//! `fastrand` was considered: it seeds itself from the time and the thread, so two origins could
//! have the same numbers. In Redis, the publishes of two origins are distinguished only by such a
//! number.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static SIMULATED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on [`random`] returns the numbers of a simulation in this thread, which begin with
/// `first`. It has an effect only with the feature `plants`.
pub fn simulate(first: u64) {
    SIMULATED.set(Some(first));
}

/// Returns a random number. The keys of the hash come from the operating system.
pub fn random() -> u64 {
    if cfg!(feature = "plants")
        && let Some(number) = SIMULATED.get()
    {
        SIMULATED.set(Some(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)));
        return number >> 16;
    }
    RandomState::new().build_hasher().finish()
}
