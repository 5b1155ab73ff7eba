//! The health of the store: whether the log can be written. The writer's thread updates it and
//! other threads read it.

use super::super::fill::FillWatch;
use super::super::{StoreError, StoreFault, StoreMetrics};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The store is not ready while a commit, or other work of the writer, takes longer than this.
const WORK_TIME_MAX: Duration = Duration::from_secs(1);

/// The error message after a thread of the store has died.
pub const DEAD: &str = "a thread of the log has died (see the messages before this one); \
                        nothing acknowledged is lost, start the process again";

/// The state of the writer.
#[derive(Debug, Default)]
pub struct Health {
    fault: Mutex<Option<Fault>>,
    /// The work that the writer is doing.
    work: Mutex<Option<Work>>,
    is_checkpoint_due: AtomicBool,
    pub fill: FillWatch,
    is_dead: AtomicBool,
    died: Notify,
    pub metrics: StoreMetrics,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    began: Instant,
    /// The work takes long, and this was logged.
    is_noted: bool,
}

#[derive(Debug)]
struct Fault {
    why: String,
    since: Instant,
    count: u64,
}

/// Reports a thread of the store that ends without being stopped, for example because it panics.
pub struct Watch {
    health: Arc<Health>,
    is_stopped: bool,
}

impl Health {
    /// Notes that the writer begins work that may wait for the disk.
    pub fn work_begins(&self) {
        *self.work.lock() = Some(Work { began: Instant::now(), is_noted: false });
    }

    /// Notes that the work is done.
    pub fn work_ends(&self) {
        let Some(work) = self.work.lock().take() else { return };
        if work.is_noted {
            let seconds = work.began.elapsed().as_secs_f64();
            tracing::info!(seconds, "the disk has confirmed the commit");
        }
    }

    /// Logs that the disk does not respond, once for each commit. Called every second.
    pub fn watch_work(&self) {
        let mut work = self.work.lock();
        let slow = work.as_mut().filter(|work| work.began.elapsed() > WORK_TIME_MAX);
        if let Some(work) = slow.filter(|work| !work.is_noted) {
            work.is_noted = true;
            self.metrics.fault(StoreFault::Stall);
            tracing::error!(
                "the disk does not confirm a commit; publishes wait, and are refused after \
                 --store-timeout"
            );
        }
    }

    /// Notes that a commit succeeded.
    pub fn works(&self) {
        self.is_checkpoint_due.store(true, Ordering::Relaxed);
        if let Some(fault) = self.fault.lock().take() {
            let (seconds, tries) = (fault.since.elapsed().as_secs(), fault.count);
            tracing::info!(seconds, tries, "the log can be written again");
        }
    }

    /// Notes that the log cannot be written. Only the first of several failures in a row is logged.
    pub fn fails(&self, why: String) {
        self.metrics.fault(StoreFault::Write);
        match &mut *self.fault.lock() {
            Some(fault) => {
                fault.count += 1;
                fault.why = why;
            }
            fault => {
                tracing::error!("{why}; publishes are refused until it works, reads go on");
                *fault = Some(Fault { why, since: Instant::now(), count: 1 });
            }
        }
    }

    pub fn is_failing(&self) -> bool {
        self.fault.lock().is_some()
    }

    /// Requests a checkpoint in the log as soon as no other command waits.
    pub fn must_checkpoint(&self) {
        self.is_checkpoint_due.store(true, Ordering::Relaxed);
    }

    /// Returns whether a checkpoint is due, and resets this flag. A checkpoint is due after each
    /// commit.
    pub fn take_checkpoint_due(&self) -> bool {
        self.is_checkpoint_due.swap(false, Ordering::Relaxed)
    }

    /// Fails when a publish would be refused.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.is_dead.load(Ordering::Relaxed) {
            return Err(StoreError::Down(DEAD.to_owned()));
        }
        if let Some(fault) = &*self.fault.lock() {
            return Err(StoreError::Down(fault.why.clone()));
        }
        let waited = self.work.lock().map(|work| work.began.elapsed());
        match waited.filter(|waited| *waited > WORK_TIME_MAX) {
            None => Ok(()),
            Some(waited) => {
                let seconds = waited.as_secs();
                Err(StoreError::Down(format!("a commit has waited {seconds} s for the disk")))
            }
        }
    }

    /// Completes once a thread of the store has ended without being stopped.
    pub async fn died(&self) {
        self.died.notified().await;
    }

    pub fn watch(self: &Arc<Self>) -> Watch {
        Watch { health: self.clone(), is_stopped: false }
    }
}

impl Watch {
    /// Notes that the thread was stopped.
    pub fn ended_well(mut self) {
        self.is_stopped = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_stopped {
            self.health.is_dead.store(true, Ordering::Relaxed);
            // The notification is stored for a waiter that comes later.
            self.health.died.notify_one();
        }
    }
}

/// Decides whether the writer takes a command into a commit or the sender withdraws it.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<AtomicU8>);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// Takes the command for the writer. Returns `false` if it was withdrawn.
    pub fn take(&self) -> bool {
        self.leave_for(TAKEN)
    }

    /// Withdraws the command. Returns `false` if the writer has taken it.
    pub fn withdraw(&self) -> bool {
        self.leave_for(WITHDRAWN)
    }

    fn leave_for(&self, next: u8) -> bool {
        let changed = self.0.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }
}
