//! Limits the rate at which the requests of one connection are answered, if the connection sends
//! requests before it has the responses to the earlier ones.
//!
//! A connection that sends its requests without a pause, pipelined or over many streams of HTTP/2,
//! would occupy the processors. Its requests may therefore use up a burst, and are then answered at
//! a fixed rate. A publish that was accepted does not count, because publishes have limits of their
//! own.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The time for which each request counts: 1,600 requests a second.
const REQUEST_TIME: Duration = Duration::from_micros(625);
/// The requests that are answered at once if there were none before.
const BURST: u32 = 64;

/// The requests of one connection.
pub struct RequestPace {
    /// The instant at which no request counts any longer.
    free_at: Mutex<Instant>,
}

impl Default for RequestPace {
    fn default() -> Self {
        Self { free_at: Mutex::new(Instant::now()) }
    }
}

impl RequestPace {
    /// Counts a request, and waits until it may be answered.
    pub async fn request(&self) {
        if let Some(instant) = self.count(Instant::now()) {
            tokio::time::sleep_until(instant).await;
        }
    }

    /// Removes an answered request from the count.
    pub fn forget(&self) {
        *self.free_at.lock() -= REQUEST_TIME;
    }

    /// Counts a request that arrives `now`. Returns when it may be answered, if it has to wait.
    fn count(&self, now: Instant) -> Option<Instant> {
        let mut free_at = self.free_at.lock();
        *free_at = now.max(*free_at) + REQUEST_TIME;
        // In this form the time of the burst is not subtracted from an instant near the beginning of
        // the machine's clock.
        let wait = free_at.saturating_duration_since(now).saturating_sub(BURST * REQUEST_TIME);
        (!wait.is_zero()).then(|| now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_after_a_burst_are_answered_at_a_rate() {
        let pace = RequestPace::default();
        let now = Instant::now() + Duration::from_secs(1);
        let waits: Vec<_> = (0..BURST + 3).map(|_| pace.count(now).map(|at| at - now)).collect();
        assert!(waits[..BURST as usize].iter().all(Option::is_none));
        let later: Vec<_> = (1..=3).map(|n| Some(n * REQUEST_TIME)).collect();
        assert_eq!(waits[BURST as usize..], later);
        // After as much time as they all count for, there is a whole burst again.
        let later = now + (BURST + 3) * REQUEST_TIME;
        assert!((0..BURST).all(|_| pace.count(later).is_none()));
        assert_eq!(pace.count(later), Some(later + REQUEST_TIME));
    }

    #[test]
    fn a_forgotten_request_does_not_count() {
        let pace = RequestPace::default();
        let now = Instant::now() + Duration::from_secs(1);
        for _ in 0..10 * BURST {
            assert_eq!(pace.count(now), None);
            pace.forget();
        }
    }
}
