//! Whether this origin should be sent work: what `/readyz` says, and why not.

use super::problem::Problem;
use super::{AppState, HttpResponse, text};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An origin that was not ready stays so for this long: a load balancer shall not follow every
/// hiccup.
const STEADY_TIME: Duration = Duration::from_secs(1);
/// Seconds after which an origin that is not ready may be asked again.
const RETRY_S: u64 = 1;

/// Why it is not ready, and why connections cannot be accepted.
#[derive(Default)]
pub(super) struct Readiness {
    /// Since when it is not ready, and why.
    bad: Mutex<Option<(Instant, Problem)>>,
    accept_fault: Mutex<Option<String>>,
}

impl Readiness {
    /// A connection was accepted, or could not be. A change is logged, not each of thousands.
    fn accepted(&self, fault: Option<&std::io::Error>) {
        let mut known = self.accept_fault.lock().unwrap_or_else(PoisonError::into_inner);
        match (fault, &*known) {
            (Some(fault), None) => {
                tracing::error!(%fault, "connections cannot be accepted; raise ulimit -n");
            }
            (None, Some(_)) => tracing::info!("connections are accepted again"),
            _ => {}
        }
        *known = fault.map(ToString::to_string);
    }

    fn accept_fault(&self) -> Option<String> {
        self.accept_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The verdict; one that is good only once the last bad one is old enough.
    fn steady(&self, verdict: Result<(), Problem>, now: Instant) -> Result<(), Problem> {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        match (verdict, &*bad) {
            (Ok(()), Some((since, before))) if now.duration_since(*since) < STEADY_TIME => {
                return Err(before.clone());
            }
            (Ok(()), _) => *bad = None,
            (Err(problem), None) => *bad = Some((now, problem)),
            (Err(problem), Some((since, _))) => *bad = Some((*since, problem)),
        }
        bad.as_ref().map_or(Ok(()), |(_, problem)| Err(problem.clone()))
    }
}

impl AppState {
    /// Notes whether connections can be accepted; `fault` says why not.
    pub fn note_accept(&self, fault: Option<&std::io::Error>) {
        self.readiness.accepted(fault);
    }

    pub(super) async fn ready(&self) -> Result<HttpResponse, Problem> {
        if self.hub.is_draining() {
            return Err(Problem::unavailable("draining", "the process is about to end", RETRY_S));
        }
        let verdict = self.verdict().await;
        self.readiness.steady(verdict, Instant::now())?;
        Ok(text("ready\n".to_owned()))
    }

    /// Whether a publish would be accepted and a stream could be served.
    async fn verdict(&self) -> Result<(), Problem> {
        if let Some(why) = self.readiness.accept_fault() {
            let detail = format!("connections cannot be accepted ({why}); raise ulimit -n");
            return Err(Problem::unavailable("connections", detail, RETRY_S));
        }
        if let Some(why) = self.access.missing_keys() {
            return Err(keys_missing(&why));
        }
        self.hub.ready().await?;
        Ok(())
    }
}

/// No token can be checked yet.
pub(super) fn keys_missing(why: &str) -> Problem {
    let detail = format!(
        "the keys that tokens are checked with could not be fetched yet (--token-jwks: {why}); \
         nothing was done, try again"
    );
    Problem::unavailable("keys", detail, RETRY_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_again_after_a_second_at_the_earliest() {
        let readiness = Readiness::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let check = |verdict: Result<(), Problem>, ms, expected| {
            assert_eq!(readiness.steady(verdict, at(ms)).is_ok(), expected, "{ms}");
        };
        check(Ok(()), 0, true);
        check(Err(keys_missing("x")), 500, false);
        check(Ok(()), 1_200, false);
        check(Err(keys_missing("x")), 1_400, false);
        check(Ok(()), 1_500, true);
        check(Err(keys_missing("x")), 9_000, false);
    }
}
