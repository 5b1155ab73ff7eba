//! The only reader of a clock.
//!
//! Time here passes evenly and does not go back, because events already carry later ids and streams
//! already end at later instants. It follows the wall clock: one that is set forward is followed at
//! once; one that is set back is waited for, by going 5 % slower until it has caught up. So a wall
//! clock that is set back and returns leaves no trace, and a lead over it dissolves.
//!
//! Segments are cut by the clock of the store, so that origins whose own clocks differ still cut at
//! the same instants: a store that has a clock of its own reports how far ours is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How often the wall clock is looked at, in us.
const CHECK_US: u64 = 100_000;
/// Of so many parts of the time one is left out while the wall clock is behind.
const SLOWDOWN_PARTS: u64 = 20;
/// A change of the wall clock by less (us) is no step: clocks are adjusted all the time.
const STEP_US: u64 = 1_000_000;

/// Wall-clock time in ms since the Unix epoch. Cheap to clone; clones are one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// What to add to the time since the start, in us.
    offset_us: AtomicI64,
    /// How far the store's clock is ahead of the machine's, in ms.
    correction_ms: AtomicI64,
    is_corrected: AtomicBool,
    /// The wall clock less the time since the start, and that time, when it was looked at last, in
    /// us.
    wall_offset_us: AtomicI64,
    checked_at: AtomicU64,
    /// The latest time given out, in ms.
    latest: AtomicU64,
    steps: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        let wall = AtomicI64::new(machine_now_us());
        Self {
            started: Instant::now(),
            offset_us: AtomicI64::new(wall.load(Ordering::Relaxed)),
            correction_ms: AtomicI64::new(0),
            is_corrected: AtomicBool::new(false),
            wall_offset_us: wall,
            checked_at: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            steps: AtomicU64::new(0),
        }
    }
}

impl Clock {
    /// Now. Never earlier than before.
    pub fn now(&self) -> u64 {
        let passed = self.passed();
        if passed >= self.0.checked_at.load(Ordering::Relaxed) + CHECK_US {
            self.follow(passed);
        }
        let now = passed.saturating_add_signed(self.0.offset_us.load(Ordering::Relaxed)) / 1_000;
        // Written once a millisecond at most, read by every stream.
        match self.0.latest.load(Ordering::Relaxed) {
            latest if now > latest => self.0.latest.fetch_max(now, Ordering::Relaxed).max(now),
            latest => latest,
        }
    }

    /// Now, by this machine's clock.
    pub fn machine_now(&self) -> u64 {
        machine_now_us() as u64 / 1_000
    }

    /// Now, by the store's wall clock, whatever ids were given: for what people and other servers
    /// have dated, such as the end of a token.
    pub fn wall(&self) -> u64 {
        self.machine_now().saturating_add_signed(self.0.correction_ms.load(Ordering::Relaxed))
    }

    /// Follows the store's clock, which is `correction_ms` ahead of the machine's. The first time
    /// at once, in both directions: nothing was dated by the machine's clock yet.
    pub fn correct(&self, correction_ms: i64) {
        self.0.correction_ms.store(correction_ms, Ordering::Relaxed);
        if self.0.is_corrected.swap(true, Ordering::Relaxed) {
            self.follow(self.passed());
            return;
        }
        let wall_offset = self.wall_offset_us(self.passed());
        self.0.wall_offset_us.store(wall_offset, Ordering::Relaxed);
        self.0.offset_us.store(wall_offset, Ordering::Relaxed);
        self.0.latest.store(0, Ordering::Relaxed);
    }

    /// Whether the store's clock is known.
    pub fn is_corrected(&self) -> bool {
        self.0.is_corrected.load(Ordering::Relaxed)
    }

    /// Goes on from `instant` (ms) where it is behind that: the store has events of then.
    pub fn at_least(&self, instant: u64) {
        let behind = instant.saturating_sub(self.now());
        if behind > 0 {
            self.0.offset_us.fetch_add(behind as i64 * 1_000, Ordering::Relaxed);
        }
    }

    /// How far this clock is ahead of the wall clock, in ms.
    pub fn lead_ms(&self) -> u64 {
        self.now().saturating_sub(self.wall())
    }

    /// How often the wall clock was set to another time.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    fn passed(&self) -> u64 {
        self.0.started.elapsed().as_micros() as u64
    }

    /// Comes closer to the wall clock.
    fn follow(&self, passed: u64) {
        let checked_at = self.0.checked_at.swap(passed, Ordering::Relaxed);
        let Some(elapsed) = passed.checked_sub(checked_at) else { return };
        let wall_offset = self.wall_offset_us(passed);
        let step = wall_offset - self.0.wall_offset_us.swap(wall_offset, Ordering::Relaxed);
        if step.unsigned_abs() >= STEP_US {
            self.0.steps.fetch_add(1, Ordering::Relaxed);
            let seconds = step as f64 / 1e6;
            tracing::warn!(
                seconds,
                "the wall clock was set to another time; ids and segments go on without a break"
            );
        }
        let lead = self.0.offset_us.load(Ordering::Relaxed) - wall_offset;
        self.0.offset_us.fetch_add(steer(lead, elapsed), Ordering::Relaxed);
    }

    fn wall_offset_us(&self, passed: u64) -> i64 {
        let correction = self.0.correction_ms.load(Ordering::Relaxed);
        machine_now_us() + correction * 1_000 - passed as i64
    }
}

/// What brings a clock closer to the wall clock over which it has a lead, after so much time: all
/// of it forward, back no more than the time can bear. All in us.
fn steer(lead: i64, elapsed: u64) -> i64 {
    match lead {
        ..0 => -lead,
        _ => -lead.min((elapsed / SLOWDOWN_PARTS) as i64),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn machine_now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| elapsed.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_clock_that_is_set_back_and_returns_leaves_no_trace() {
        let clock = Clock::default();
        clock.correct(0);
        let before = clock.now();
        clock.correct(-25 * HOUR_MS);
        let during = clock.now();
        assert!((before..before + 1_000).contains(&during), "time goes on");
        assert!(clock.lead_ms() > 24 * HOUR_MS as u64);
        clock.correct(0);
        assert!((during..during + 1_000).contains(&clock.now()));
        assert!(clock.lead_ms() < 1_000);
        assert_eq!(clock.steps(), 2);
    }

    #[test]
    fn a_lead_dissolves_and_time_never_goes_back() {
        assert_eq!(steer(-5, 0), 5, "what is behind catches up at once");
        let hour_us = 3_600_000_000;
        let mut lead = 25 * hour_us;
        for hour in 0..500 {
            assert!(lead > 0, "after {hour} hours");
            let change = steer(lead, hour_us as u64);
            assert!(change > -hour_us, "time goes on");
            lead += change;
        }
        assert_eq!((lead, steer(lead, 1_000)), (0, 0));
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
