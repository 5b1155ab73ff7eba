//! The stages of a shutdown, shared by the hub, the server and every connection. `server::run` goes
//! through them, after `cli::signals` has received SIGTERM.
//!
//! `CancellationToken` of `tokio_util` was rejected, because each poll of its future takes a lock
//! that all connections share. A [`Registration`] costs nothing when the same task is polled again.

use crate::sync::waiters::{HasWaiters, Registration, WaiterList};
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Context;

/// A stage of the process. A later stage includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The origin serves requests.
    Running,
    /// The public listeners accept connections until the next boundary of each lane, and no response
    /// runs past it.
    Draining,
    /// The remaining connections close.
    Closing,
}

/// The current stage. It only advances.
#[derive(Debug, Default)]
pub struct Lifecycle {
    stage: AtomicU8,
    waiters: WaiterList,
}

impl Lifecycle {
    /// Advances to `stage`, and wakes the tasks that wait for it.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        self.waiters.wake_all();
    }

    /// Whether `stage` has begun.
    pub fn has_reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) >= stage as u8
    }
}

impl HasWaiters for Lifecycle {
    fn waiters(&self) -> &WaiterList {
        &self.waiters
    }
}

impl Registration<Lifecycle> {
    /// Whether `stage` has begun. If not, the task of `context` is woken when it begins.
    pub fn poll_reached(&mut self, context: &Context<'_>, stage: Stage) -> bool {
        self.register(context.waker());
        self.on().has_reached(stage)
    }
}
