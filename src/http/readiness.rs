//! `/readyz`: whether this origin is ready for requests, and the reason if it is not.

use super::problem::Problem;
use super::{AppState, HttpResponse, text};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// An origin that becomes unready stays so for at least this time, so that a load balancer does not
/// react to every short fault.
const STEADY_TIME: Duration = Duration::from_secs(1);
/// Value of `Retry-After`, in seconds, when the origin is not ready.
const RETRY_S: u64 = 1;

/// The reason for which the origin is not ready, and the one for which it accepts no connections.
#[derive(Default)]
pub(super) struct Readiness {
    /// Since when the origin has been unready, and why; `None` while it is ready.
    bad: Mutex<Option<(Instant, Problem)>>,
    accept_fault: Mutex<Option<String>>,
}

impl Readiness {
    /// Records that a connection was accepted (`None`), or the error if it could not be. Only a
    /// change is logged, because there may be thousands of equal errors.
    pub fn accepted(&self, fault: Option<&std::io::Error>) {
        let mut known = self.accept_fault.lock();
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
        self.accept_fault.lock().clone()
    }

    /// Returns the verdict. A good verdict counts only when [`STEADY_TIME`] has passed since the
    /// origin became unready.
    fn steady(&self, verdict: Result<(), Problem>, now: Instant) -> Result<(), Problem> {
        let mut bad = self.bad.lock();
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

/// Answers `/readyz`.
pub(super) async fn answer(app: &AppState) -> Result<HttpResponse, Problem> {
    if app.hub.is_draining() {
        return Err(Problem::unavailable("draining", "the process is about to end", RETRY_S));
    }
    let verdict = verdict(app).await;
    app.readiness.steady(verdict, Instant::now())?;
    Ok(text("ready\n".to_owned()))
}

/// Checks whether a publish would be accepted and a stream could be served.
async fn verdict(app: &AppState) -> Result<(), Problem> {
    if let Some(why) = app.readiness.accept_fault() {
        let detail = format!("connections cannot be accepted ({why}); raise ulimit -n");
        return Err(Problem::unavailable("connections", detail, RETRY_S));
    }
    if let Some(why) = app.access.missing_keys() {
        return Err(keys_missing(&why));
    }
    app.hub.ready().await?;
    Ok(())
}

/// The problem `keys`: tokens cannot be checked yet, because no keys have been fetched.
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
