//! Bounds how often a message is logged.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Most messages of one kind in a period, unless another number is given. Further ones are counted.
const MESSAGES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// The messages of one kind.
#[derive(Debug)]
pub struct Throttle {
    messages_max: u32,
    period: Mutex<Period>,
}

#[derive(Debug, Default)]
struct Period {
    begun: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::with(MESSAGES_MAX)
    }
}

impl Throttle {
    /// Creates a throttle that admits so many messages in a period of ten seconds.
    pub const fn with(messages_max: u32) -> Self {
        let period = Period { begun: None, logged: 0, suppressed: 0 };
        Self { messages_max, period: Mutex::new(period) }
    }

    /// Decides whether a message at the time `now` is logged. If it is, the result is the number of
    /// messages that were not logged since the last one that was.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.period.lock();
        if period.begun.is_none_or(|begun| now.duration_since(begun) >= PERIOD) {
            period.begun = Some(now);
            period.logged = 0;
        }
        if period.logged == self.messages_max {
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
