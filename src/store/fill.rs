//! Writes a warning to the log of the process when a store is almost full.

use std::sync::atomic::{AtomicBool, Ordering};

/// Percentages of `--max-store-bytes`. The store logs that it is almost full from the first
/// percentage on, and that it has room again below the second one.
const ALMOST_FULL_PERCENT: (u64, u64) = (95, 90);

/// Whether a store is almost full, and this was logged.
#[derive(Debug, Default)]
pub struct FillWatch(AtomicBool);

impl FillWatch {
    /// Logs once when the store becomes almost full, and once when it has room again. Called every
    /// second.
    pub fn watch(&self, bytes: u64, bytes_max: u64) {
        let percent = bytes.saturating_mul(100) / bytes_max.max(1);
        let was_almost_full = self.0.load(Ordering::Relaxed);
        if !was_almost_full && percent >= ALMOST_FULL_PERCENT.0 {
            self.0.store(true, Ordering::Relaxed);
            tracing::error!(
                percent,
                "the store is almost full: at --max-store-bytes, each publish that adds to it is \
                 refused (507). Raise --max-store-bytes or lower --retain-bytes"
            );
        } else if was_almost_full && percent < ALMOST_FULL_PERCENT.1 {
            self.0.store(false, Ordering::Relaxed);
            tracing::info!(percent, "the store has room again");
        }
    }
}
