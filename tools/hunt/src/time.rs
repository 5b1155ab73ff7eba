//! The clock of a simulated machine that a simulator sets by hand.

use headwater::sync::clock::TimeSource;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// The instant at which every simulation begins, in ms since the Unix epoch.
pub const BEGINNING_MS: u64 = 1_800_000_000_000;

/// A clock that moves only when the simulator says so.
#[derive(Debug)]
pub struct ManualTime {
    passed_us: AtomicU64,
    wall_ahead_us: AtomicI64,
}

impl ManualTime {
    /// Returns a clock at `passed_ms` after the beginning, whose wall clock is wrong by `ahead_ms`.
    pub fn new(passed_ms: u64, ahead_ms: i64) -> Self {
        let ahead = BEGINNING_MS as i64 + ahead_ms;
        Self {
            passed_us: AtomicU64::new(passed_ms * 1_000),
            wall_ahead_us: AtomicI64::new(ahead * 1_000),
        }
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.passed_us.fetch_add(ms * 1_000, Ordering::Relaxed);
    }

    /// Sets the wall clock forward or back.
    pub fn step(&self, ms: i64) {
        self.wall_ahead_us.fetch_add(ms * 1_000, Ordering::Relaxed);
    }

    /// Returns the time since the beginning, in ms.
    pub fn passed_ms(&self) -> u64 {
        self.passed_us.load(Ordering::Relaxed) / 1_000
    }
}

impl TimeSource for ManualTime {
    fn passed_us(&self) -> u64 {
        self.passed_us.load(Ordering::Relaxed)
    }

    fn wall_us(&self) -> i64 {
        self.passed_us.load(Ordering::Relaxed) as i64 + self.wall_ahead_us.load(Ordering::Relaxed)
    }
}
