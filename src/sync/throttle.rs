//! Bounds how often a message is logged.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Most messages of one kind in a period. Further ones are counted.
const MESSAGES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// The messages of one kind.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Period>);

#[derive(Debug, Default)]
struct Period {
    begun: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl Throttle {
    /// Decides whether a message at the time `now` is logged. If it is, the result is the number of
    /// messages that were not logged since the last one that was.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.0.lock();
        if period.begun.is_none_or(|begun| now.duration_since(begun) >= PERIOD) {
            period.begun = Some(now);
            period.logged = 0;
        }
        if period.logged == MESSAGES_MAX {
            period.suppressed += 1;
            return None;
        }
        period.logged += 1;
        Some(std::mem::take(&mut period.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_logged() {
        let (throttle, begun) = (Throttle::default(), Instant::now());
        let admitted = (0..1_000).filter(|_| throttle.admit(begun).is_some()).count();
        assert_eq!(admitted, MESSAGES_MAX as usize);
        let later = begun + PERIOD;
        assert_eq!(throttle.admit(later), Some(1_000 - u64::from(MESSAGES_MAX)));
        assert_eq!(throttle.admit(later), Some(0));
    }
}
