//! Limits the rate at which the requests of one connection are answered, if the connection sends
//! requests before it has the responses to the earlier ones.
//!
//! A connection that sends its requests without a pause, pipelined or over many streams of HTTP/2,
//! would occupy the processors. Its requests may therefore use up a burst, and are then answered at
//! a fixed rate. A publish that is accepted does not count, because publishes have limits of their
//! own.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    unanswered: AtomicUsize,
}

/// A request that has no response yet. Dropping it notes that it has one, or was given up.
pub struct Unanswered {
    pace: Arc<RequestPace>,
    is_alone: bool,
}

/// A request that waits. Dropping it removes it from the count.
struct Waiting<'a>(&'a RequestPace);

impl Default for RequestPace {
    fn default() -> Self {
        Self { free_at: Mutex::new(Instant::now()), unanswered: AtomicUsize::new(0) }
    }
}

impl RequestPace {
    /// Notes that a request has begun.
    pub fn begin(self: &Arc<Self>) -> Unanswered {
        let others = self.unanswered.fetch_add(1, Ordering::Relaxed);
        Unanswered { pace: self.clone(), is_alone: others == 0 }
    }

    /// Counts a request, and waits until it may be answered. A request that is given up while it
    /// waits does not count.
    pub async fn request(&self) {
        if let Some(instant) = self.count(Instant::now()) {
            let waiting = Waiting(self);
            tokio::time::sleep_until(instant).await;
            std::mem::forget(waiting);
        }
    }

    /// Counts a request that arrives `now`. Returns when it may be answered, if it has to wait.
    fn count(&self, now: Instant) -> Option<Instant> {
        let mut free_at = self.free_at.lock();
        *free_at = now.max(*free_at) + REQUEST_TIME;
        let wait = free_at.saturating_duration_since(now).saturating_sub(BURST * REQUEST_TIME);
        (!wait.is_zero()).then(|| now + wait)
    }
}

impl Unanswered {
    /// The pace of the connection, if another request had no response when this one began.
    pub fn pace(&self) -> Option<&RequestPace> {
        (!self.is_alone).then_some(&*self.pace)
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.pace.unanswered.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.free_at.lock() -= REQUEST_TIME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

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

    #[tokio::test]
    async fn a_request_that_is_given_up_does_not_count() {
        let pace = RequestPace::default();
        let now = Instant::now();
        // The next request would wait for some seconds.
        let waits = (0..10_000).filter(|_| pace.count(now).is_some()).count();
        assert_eq!(waits, 10_000 - BURST as usize);
        let free_at = *pace.free_at.lock();
        for _ in 0..10_000 {
            assert!(pace.request().now_or_never().is_none());
        }
        assert_eq!(*pace.free_at.lock(), free_at);
    }

    #[test]
    fn only_a_request_beside_another_one_has_a_pace() {
        let pace = Arc::new(RequestPace::default());
        for _ in 0..2 {
            let first = pace.begin();
            assert!(first.pace().is_none() && pace.begin().pace().is_some());
        }
    }
}
