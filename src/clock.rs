//! The only reader of a clock.
//!
//! Time here does not go back: when the machine's clock is set back, it goes on from where it was,
//! because events already carry later ids and streams already end at later instants. Segments are
//! cut by the clock of the store, so that origins whose own clocks differ still cut at the same
//! instants: a store that has a clock of its own reports how far ours is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A machine's clock that goes back by less (ms) is waited for instead.
const STEP_MS: u64 = 1_000;

/// Wall-clock time in ms since the Unix epoch. Cheap to clone; clones share the correction.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What to add to the machine's clock, in ms.
    correction_ms: AtomicI64,
    /// The latest time given out, in ms.
    latest: AtomicU64,
}

impl Clock {
    /// Now, by the store's clock. Never earlier than what it said before.
    pub fn now(&self) -> u64 {
        let now = self.corrected();
        // Written once a millisecond at most, read by every stream.
        let latest = match self.0.latest.load(Ordering::Relaxed) {
            latest if now > latest => self.0.latest.fetch_max(now, Ordering::Relaxed),
            latest => latest,
        };
        if now + STEP_MS < latest {
            self.at_least(latest);
        }
        now.max(latest)
    }

    /// Now, by this machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn machine_now(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as u64)
    }

    /// Follows the store's clock, which is `correction_ms` ahead of the machine's.
    pub fn correct(&self, correction_ms: i64) {
        self.0.correction_ms.store(correction_ms, Ordering::Relaxed);
        self.0.latest.store(0, Ordering::Relaxed);
    }

    /// Goes on from `instant` (ms) where it is behind that: the store has events of then.
    pub fn at_least(&self, instant: u64) {
        let behind = instant.saturating_sub(self.corrected());
        if behind > 0 {
            self.0.correction_ms.fetch_add(behind as i64, Ordering::Relaxed);
        }
    }

    fn corrected(&self) -> u64 {
        self.machine_now().saturating_add_signed(self.0.correction_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_where_it_was_when_the_clock_is_set_back() {
        let clock = Clock::default();
        let before = clock.now();
        // The machine's clock goes back an hour.
        clock.0.correction_ms.store(-3_600_000, Ordering::Relaxed);
        let after = clock.now();
        assert!((before..before + 1_000).contains(&after));
        assert!(clock.corrected() >= before, "and it ticks on");
    }

    #[test]
    fn a_store_with_later_events_sets_the_clock_forward() {
        let clock = Clock::default();
        let later = clock.machine_now() + 5_000;
        clock.at_least(later);
        assert!(clock.now() >= later);
        clock.at_least(later - 4_000);
        assert!(clock.now() < later + 1_000);
    }
}
