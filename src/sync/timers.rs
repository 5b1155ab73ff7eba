//! One timer for all tasks that wait for the same instant.
//!
//! Ten thousand responses that end at one boundary share one timer, and a heartbeat every few
//! seconds needs no timer for each response. A timer may fire later than its instant: the hub fires
//! the timer of a boundary when the store has settled, that is, when the store has passed on every
//! event whose id is before the boundary. The hub waits for this for at most half a second. If the
//! store settles in time, all responses that end at the boundary end after the same event.

use crate::sync::clock::Clock;
use crate::sync::waiters::{HasWaiters, Registration, WaiterList};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest sleep. The clock may be set while a timer sleeps, so it is read at least this often.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// The instants for which tasks wait.
#[derive(Debug)]
pub struct Timers {
    clock: Clock,
    pending: Mutex<BTreeMap<u64, Weak<Timer>>>,
    /// Whether all timers fire at once, also those of later instants.
    are_over: AtomicBool,
    earlier: Notify,
}

/// One instant. A timer fires once, and then stays fired.
#[derive(Debug)]
pub struct Timer {
    at: u64,
    fired: AtomicBool,
    waiters: WaiterList,
}

impl Timers {
    /// Returns a set without timers.
    pub fn new(clock: Clock) -> Self {
        let pending = Mutex::new(BTreeMap::new());
        Self { clock, pending, are_over: AtomicBool::new(false), earlier: Notify::new() }
    }

    /// Returns a registration for the timer of the instant `at` (ms).
    pub fn at(&self, at: u64) -> Registration<Timer> {
        let mut pending = self.pending.lock();
        if let Some(timer) = pending.get(&at).and_then(Weak::upgrade) {
            return Registration::new(timer);
        }
        let fired = AtomicBool::new(self.are_over.load(Ordering::Acquire));
        let timer = Arc::new(Timer { at, fired, waiters: WaiterList::default() });
        let is_first = pending.first_key_value().is_none_or(|(first, _)| at < *first);
        pending.insert(at, Arc::downgrade(&timer));
        drop(pending);
        if is_first {
            self.earlier.notify_one();
        }
        Registration::new(timer)
    }

    /// Fires all timers. From now on every timer has fired.
    pub fn fire_all(&self) {
        let mut pending = self.pending.lock();
        self.are_over.store(true, Ordering::Release);
        let timers = std::mem::take(&mut *pending);
        drop(pending);
        timers.values().filter_map(Weak::upgrade).for_each(|timer| timer.fire());
    }

    /// Waits until the next instant has come, and returns its timer. Cancellation-safe: the timer
    /// is not removed before its instant has come.
    pub async fn next_due(&self) -> Arc<Timer> {
        loop {
            let now = self.clock.now();
            let sleep = {
                let mut pending = self.pending.lock();
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
                biased;
                () = tokio::time::sleep(sleep) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}

impl Timer {
    /// Returns the instant of the timer, in ms.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether the timer has fired.
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Fires the timer, and wakes all tasks that wait for it.
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
    /// Whether the timer has fired. If not, the task of `waker` is woken when it fires.
    pub fn poll_fired(&mut self, waker: &std::task::Waker) -> bool {
        if self.on().has_fired() {
            return true;
        }
        self.register(waker);
        self.on().has_fired()
    }
}
