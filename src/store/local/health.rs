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
    pub fn work_begins(&self, now: Instant) {
        *self.work.lock() = Some(Work { began: now, is_noted: false });
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
    pub fn watch_work(&self, now: Instant) {
        let mut work = self.work.lock();
        let slow = work.as_mut().filter(|work| now.duration_since(work.began) > WORK_TIME_MAX);
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
    pub fn check(&self, now: Instant) -> Result<(), StoreError> {
        if self.is_dead.load(Ordering::Relaxed) {
            return Err(StoreError::Down(DEAD.to_owned()));
        }
        if let Some(fault) = &*self.fault.lock() {
            return Err(StoreError::Down(fault.why.clone()));
        }
        let waited = self.work.lock().map(|work| now.duration_since(work.began));
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn stalls(health: &Health) -> u64 {
        health.metrics.faults(StoreFault::Stall)
    }

    #[test]
    fn work_that_takes_long_is_noticed_once_and_until_it_ends() {
        let (health, begun) = (Health::default(), Instant::now());
        health.work_begins(begun);
        let (limit, later) =
            (begun + WORK_TIME_MAX, begun + WORK_TIME_MAX + Duration::from_nanos(1));
        health.watch_work(limit);
        assert!(health.check(limit).is_ok() && stalls(&health) == 0);
        let refused = health.check(later + Duration::from_secs(4)).unwrap_err();
        assert!(refused.to_string().contains("waited 5 s"), "{refused}");
        health.watch_work(later);
        health.watch_work(later);
        assert_eq!(stalls(&health), 1);
        health.work_ends();
        assert!(health.check(later).is_ok());
        health.watch_work(later);
        assert_eq!(stalls(&health), 1);
    }

    #[test]
    fn failures_in_a_row_are_counted_and_end_with_a_success() {
        let (health, now) = (Health::default(), Instant::now());
        for number in 1..=3 {
            health.fails(format!("failure {number}"));
            let fault = health.fault.lock().as_ref().map(|fault| fault.count);
            assert_eq!(fault, Some(number));
        }
        assert!(health.check(now).unwrap_err().to_string().contains("failure 3"));
        health.works();
        assert!(health.check(now).is_ok());
    }

    #[test]
    fn a_checkpoint_is_due_once_after_each_commit() {
        let health = Health::default();
        assert!(!health.take_checkpoint_due());
        for note in [Health::works, Health::must_checkpoint] {
            note(&health);
            assert!(health.take_checkpoint_due() && !health.take_checkpoint_due());
        }
    }

    #[test]
    fn a_thread_that_ends_without_being_stopped_is_reported() {
        let (health, now) = (Arc::new(Health::default()), Instant::now());
        health.watch().ended_well();
        assert!(health.check(now).is_ok() && health.died().now_or_never().is_none());
        drop(health.watch());
        assert!(health.check(now).unwrap_err().to_string().contains("has died"));
        assert!(health.died().now_or_never().is_some());
    }

    #[test]
    fn a_command_is_taken_or_withdrawn_but_not_both() {
        let (taken, withdrawn) = (Ticket::default(), Ticket::default());
        assert!(taken.take() && !taken.withdraw() && !taken.take());
        assert!(withdrawn.withdraw() && !withdrawn.take());
    }
}
