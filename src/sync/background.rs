//! Runs work of one request that takes much processor time and must not delay other requests. The
//! work runs on separate threads, to which the kernel gives a lower priority.

use std::cell::Cell;
use tokio::task::{JoinError, spawn_blocking};

/// Niceness of the background threads (`nice`, 0 to 19). The higher it is, the less of a busy
/// processor they get.
const NICENESS: i32 = 10;

thread_local! {
    static IS_NICE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` in the background. Once the work has begun, it runs to its end, even if the caller
/// stops waiting for it.
///
/// # Errors
/// Fails when the work panics.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if cfg!(feature = "plants") {
        // A simulation has one thread, so that one seed is one schedule.
        return Ok(work());
    }
    spawn_blocking(|| {
        if !IS_NICE.replace(true) {
            lower_priority();
        }
        work()
    })
    .await
}

/// Gives the calling thread the low priority of a background thread.
pub fn lower_priority() {
    // If the system refuses the lower priority, the work is done all the same.
    rustix::process::setpriority_process(None, NICENESS).unwrap_or_default();
}
