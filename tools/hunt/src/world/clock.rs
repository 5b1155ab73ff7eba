//! Virtual time, which all parts of a world share, and the clocks of its machines, which drift and
//! step.

use crate::time::BEGINNING_MS;
use headwater::sync::clock::TimeSource;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The true time.
#[derive(Debug)]
pub struct VirtualTime {
    begun: Instant,
}

/// The clock of one machine.
#[derive(Debug)]
pub struct MachineTime {
    time: Arc<VirtualTime>,
    started_us: u64,
    /// How much faster the clock is than the true time, in parts of a million.
    drift: i64,
    ahead_us: AtomicI64,
}

impl VirtualTime {
    /// Returns the time, which begins now.
    pub fn new() -> Self {
        Self { begun: Instant::now() }
    }

    /// Returns the time since the beginning, in us.
    pub fn passed_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// Returns the time since the beginning, in ms.
    pub fn passed_ms(&self) -> u64 {
        self.passed_us() / 1_000
    }

    /// Returns the true time since the Unix epoch, in ms.
    pub fn true_ms(&self) -> u64 {
        BEGINNING_MS + self.passed_ms()
    }

    /// Waits.
    pub async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

impl Default for VirtualTime {
    fn default() -> Self {
        Self::new()
    }
}

impl MachineTime {
    /// Returns the clock of a machine that starts now.
    pub fn new(time: Arc<VirtualTime>, drift: i64, ahead_ms: i64) -> Self {
        let started_us = time.passed_us();
        Self { time, started_us, drift, ahead_us: AtomicI64::new(ahead_ms * 1_000) }
    }

    /// Sets the clock forward or back.
    pub fn step(&self, ms: i64) {
        self.ahead_us.fetch_add(ms * 1_000, Ordering::Relaxed);
    }

    /// Returns how far the true time is ahead of this clock, in ms.
    pub fn behind_ms(&self) -> i64 {
        (self.time.true_ms() as i64 * 1_000 - self.wall_us()).div_euclid(1_000)
    }
}

impl TimeSource for MachineTime {
    fn passed_us(&self) -> u64 {
        self.time.passed_us() - self.started_us
    }

    fn wall_us(&self) -> i64 {
        let passed = self.time.passed_us() as i64;
        let drifted = passed + passed * self.drift / 1_000_000;
        BEGINNING_MS as i64 * 1_000 + drifted + self.ahead_us.load(Ordering::Relaxed)
    }
}
