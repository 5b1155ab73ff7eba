//! The only reader of a clock.
//!
//! Segments are cut by the clock of the store, so that origins whose own clocks differ still cut
//! at the same instants: a store that has a clock of its own reports how far ours is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall-clock time in ms since the Unix epoch. Cheap to clone; clones share the correction.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// What to add to the machine's clock, in ms.
    correction_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Now, by the store's clock. It may step back when the machine's clock does.
    pub fn now(&self) -> u64 {
        self.machine_now().saturating_add_signed(self.correction_ms.load(Ordering::Relaxed))
    }

    /// Now, by this machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn machine_now(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as u64)
    }

    /// Follows the store's clock, which is `correction_ms` ahead of the machine's.
    pub fn correct(&self, correction_ms: i64) {
        self.correction_ms.store(correction_ms, Ordering::Relaxed);
    }
}
