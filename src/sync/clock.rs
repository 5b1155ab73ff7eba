//! The only module that reads the wall clock.
//!
//! [`Clock`] follows the target time: the wall clock of the machine, plus the difference that the
//! store reports if the store has a clock of its own. Origins on one store therefore end their
//! streams at the same instants. The time of [`Clock`] never goes back, because ids of events and
//! ends of streams may already have later times. Only the first report of a store may set it back:
//! until this report arrives, no event has an id from the machine's clock.
//!
//! When the target time jumps forward, [`Clock`] jumps too. When the target time jumps back,
//! [`Clock`] runs 5 % slower until the target time has caught up. A wall clock that is set back and
//! then corrected therefore has no lasting effect.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Interval between two reads of the wall clock, in us.
const CHECK_US: u64 = 100_000;
/// While the wall clock is behind, this clock runs slower by the reciprocal of this number (5 %).
const SLOWDOWN_PARTS: u64 = 20;
/// A change of the wall clock by less than this (us) does not count as a step, because clocks are
/// adjusted all the time.
const STEP_US: u64 = 1_000_000;

/// Wall-clock time in ms since the Unix epoch. It is cheap to clone, and all clones are the same
/// clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Shared>);

/// The time of a simulated machine.
pub trait TimeSource: fmt::Debug + Send + Sync + 'static {
    /// Returns the time since the machine was started, in us. It does not go back.
    fn passed_us(&self) -> u64;
    /// Returns the time of the machine's wall clock since the Unix epoch, in us. It may step.
    fn wall_us(&self) -> i64;
}

/// Where a clock reads the time.
#[derive(Debug)]
enum Source {
    Machine { started: Instant },
    Simulated(Arc<dyn TimeSource>),
}

#[derive(Debug)]
struct Shared {
    source: Source,
    /// The current time minus the time since the start, in us.
    offset_us: AtomicI64,
    /// How far the store's clock is ahead of the machine's, in ms.
    correction_ms: AtomicI64,
    is_corrected: AtomicBool,
    /// The wall clock minus the time since the start, at the last read of the wall clock, in us.
    /// `checked_at` is the time since the start at that read.
    wall_offset_us: AtomicI64,
    checked_at: AtomicU64,
    /// The latest time that was returned, in ms.
    latest: AtomicU64,
    steps: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(Source::Machine { started: Instant::now() })
    }
}

impl Source {
    fn passed_us(&self) -> u64 {
        match self {
            Self::Machine { started } => started.elapsed().as_micros() as u64,
            Self::Simulated(source) => source.passed_us(),
        }
    }

    fn wall_us(&self) -> i64 {
        match self {
            Self::Machine { .. } => machine_now_us(),
            Self::Simulated(source) => source.wall_us(),
        }
    }
}

impl Shared {
    fn new(source: Source) -> Self {
        let offset_us = source.wall_us() - source.passed_us() as i64;
        Self {
            source,
            offset_us: AtomicI64::new(offset_us),
            correction_ms: AtomicI64::new(0),
            is_corrected: AtomicBool::new(false),
            wall_offset_us: AtomicI64::new(offset_us),
            checked_at: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            steps: AtomicU64::new(0),
        }
    }
}

impl Clock {
    /// Returns a clock of a simulated machine.
    pub fn simulated(source: Arc<dyn TimeSource>) -> Self {
        Self(Arc::new(Shared::new(Source::Simulated(source))))
    }

    /// Returns the current time (ms). It never goes back, except at the first [`Clock::correct`].
    pub fn now(&self) -> u64 {
        let passed = self.passed();
        if passed >= self.0.checked_at.load(Ordering::Relaxed) + CHECK_US {
            self.follow(passed);
        }
        let now = passed.saturating_add_signed(self.0.offset_us.load(Ordering::Relaxed)) / 1_000;
        // This value is written at most once per millisecond and read by every stream.
        match self.0.latest.load(Ordering::Relaxed) {
            latest if now > latest => self.0.latest.fetch_max(now, Ordering::Relaxed).max(now),
            latest => latest,
        }
    }

    /// Returns the current time by this machine's clock (ms).
    pub fn machine_now(&self) -> u64 {
        self.0.source.wall_us() as u64 / 1_000
    }

    /// Returns the current time by the store's wall clock (ms), whatever ids were given. It serves
    /// for instants that people and other servers have set, such as the expiry of a token.
    pub fn wall(&self) -> u64 {
        self.machine_now().saturating_add_signed(self.0.correction_ms.load(Ordering::Relaxed))
    }

    /// Follows the store's clock, which is `correction_ms` ahead of the machine's clock. The first
    /// call takes effect at once in both directions, because no event has a time of the machine's
    /// clock yet.
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

    /// Whether the difference from the store's clock is known.
    pub fn is_corrected(&self) -> bool {
        self.0.is_corrected.load(Ordering::Relaxed)
    }

    /// Advances the clock to `instant` (ms) if it is behind, because the store has events of that
    /// instant.
    pub fn at_least(&self, instant: u64) {
        let behind = instant.saturating_sub(self.now());
        if behind > 0 {
            self.0.offset_us.fetch_add(behind as i64 * 1_000, Ordering::Relaxed);
        }
    }

    /// Returns how far this clock is ahead of the wall clock, in ms.
    pub fn lead_ms(&self) -> u64 {
        self.now().saturating_sub(self.wall())
    }

    /// Returns the time since the machine was started or, on a real machine, since this clock was
    /// made (ms). It does not go back and does not step.
    pub fn uptime(&self) -> u64 {
        self.passed() / 1_000
    }

    /// Returns how often the wall clock was set to another time.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    fn passed(&self) -> u64 {
        self.0.source.passed_us()
    }

    /// Brings this clock closer to the wall clock.
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
        self.0.source.wall_us() + correction * 1_000 - passed as i64
    }
}

/// Returns the change that brings a clock with this lead closer to the wall clock. A clock that is
/// behind advances by all of the difference; a clock that is ahead goes back by at most a
/// `SLOWDOWN_PARTS`th of the elapsed time. All values are in us.
fn steer(lead: i64, elapsed: u64) -> i64 {
    match lead {
        ..0 => -lead,
        _ => -lead.min((elapsed / SLOWDOWN_PARTS) as i64),
    }
}

/// The time of the machine, which may step. It is for `Date` headers only.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn machine_now() -> SystemTime {
    SystemTime::now()
}

fn machine_now_us() -> i64 {
    let since_epoch = machine_now().duration_since(UNIX_EPOCH);
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
