//! Work that takes processor time for one request and that no other request should wait for: on
//! threads of their own, which the kernel puts behind those that serve.

use std::cell::Cell;
use tokio::task::{JoinError, spawn_blocking};

/// How much less of a busy processor such a thread gets (`nice`, 0 to 19).
const NICENESS: i32 = 10;

thread_local! {
    static IS_NICE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` in the background. Once it has begun, it runs to its end, even if nobody waits for it.
///
/// # Errors
/// When the work panics.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    spawn_blocking(|| {
        if !IS_NICE.replace(true) {
            // Where the machine does not allow it, the work is done all the same.
            rustix::process::setpriority_process(None, NICENESS).unwrap_or_default();
        }
        work()
    })
    .await
}
