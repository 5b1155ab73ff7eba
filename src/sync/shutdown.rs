//! The handle that stops a running origin.

use std::sync::Arc;
use tokio::sync::Semaphore;

/// Stops an origin from another task. After the first [`Shutdown::stop`] the streams end at their
/// boundaries; the second call cuts the streams that still run.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<Semaphore>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Shutdown {
    /// Signals the origin to stop.
    pub fn stop(&self) {
        self.0.add_permits(1);
    }

    /// Waits for the next call of [`Shutdown::stop`].
    pub async fn next(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}
