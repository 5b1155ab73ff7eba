//! One timer for all who wait for the same instant.
//!
//! Ten thousand responses that end at one boundary are one timer here, and a heartbeat every few
//! seconds costs a response no timer of its own. An alarm may also wait, once its instant has
//! come, until the store has settled: until everything it gave an earlier id has been seen, so
//! that all responses that end at a boundary end after the same event.

use crate::sync::clock::Clock;
use crate::sync::waiters::{HasWaiters, Registration, WaiterList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// The clock may be set while a timer sleeps; no sleep is longer than this.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// The instants that somebody waits for.
#[derive(Debug)]
pub struct Timers {
    clock: Clock,
    pending: Mutex<BTreeMap<u64, Weak<Timer>>>,
    earlier: Notify,
}

/// One instant. Goes from silent to rung, never back.
#[derive(Debug)]
pub struct Timer {
    at: u64,
    fired: AtomicBool,
    waiters: WaiterList,
}

impl Timers {
    /// No alarms yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, pending: Mutex::new(BTreeMap::new()), earlier: Notify::new() }
    }

    /// A place to wait for the instant `at` (ms).
    pub fn at(&self, at: u64) -> Registration<Timer> {
        let mut pending = self.lock();
        if let Some(timer) = pending.get(&at).and_then(Weak::upgrade) {
            return Registration::new(timer);
        }
        let timer =
            Arc::new(Timer { at, fired: AtomicBool::new(false), waiters: WaiterList::default() });
        let is_first = pending.first_key_value().is_none_or(|(first, _)| at < *first);
        pending.insert(at, Arc::downgrade(&timer));
        drop(pending);
        if is_first {
            self.earlier.notify_one();
        }
        Registration::new(timer)
    }

    /// The next instant's alarms, once it has come. Cancel safe: nothing is taken before that.
    pub async fn next_due(&self) -> Arc<Timer> {
        loop {
            let now = self.clock.now();
            let sleep = {
                let mut pending = self.lock();
                match pending.first_key_value().map(|(at, _)| *at) {
                    Some(at) if at <= now => match pending.remove(&at).and_then(|a| a.upgrade()) {
                        Some(timer) => return timer,
                        None => continue,
                    },
                    Some(at) => Duration::from_millis(at - now).min(SLEEP_MAX),
                    None => SLEEP_MAX,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Timer>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer {
    /// The instant, in ms.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether the instant has come, and the store has settled up to it.
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Lets everyone who waits go on.
    pub fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.waiters.wake_all();
    }
}

impl HasWaiters for Timer {
    fn waiters(&self) -> &WaiterList {
        &self.waiters
    }
}

impl Registration<Timer> {
    /// Whether it has rung; when not, the task of `waker` is woken once it does.
    pub fn poll_fired(&mut self, waker: &std::task::Waker) -> bool {
        if self.on().has_fired() {
            return true;
        }
        self.register(waker);
        self.on().has_fired()
    }
}
