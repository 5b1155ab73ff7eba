//! Wakes any number of waiting tasks.
//!
//! A waiter keeps its slot for as long as it waits for anything, so nothing is registered anew for
//! each event, and a wake-up carries no message: the woken task reads the state it waits for. A
//! waiter registers before it reads, so no wake-up is lost. Several small locks instead of one,
//! because waking ten thousand tasks takes milliseconds and new waiters must not queue behind it
//! (measured against `watch`, `Notify` and `broadcast`: a third of their cost a task).

use slab::Slab;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

const SHARDS: usize = 4;

/// The waiters for one thing.
#[derive(Debug, Default)]
pub struct WaiterList {
    shards: [Mutex<Slab<Waker>>; SHARDS],
    next_shard: AtomicUsize,
}

/// What can be waited for.
pub trait HasWaiters {
    /// Its waiters.
    fn waiters(&self) -> &WaiterList;
}

/// One waiter's place; dropping it takes the waiter out.
#[derive(Debug)]
pub struct Registration<W: HasWaiters> {
    on: Arc<W>,
    registered: Option<Registered>,
}

#[derive(Debug)]
struct Registered {
    shard: usize,
    key: usize,
    waker: Waker,
}

impl WaiterList {
    /// Wakes every waiter. Returns how many there were.
    pub fn wake_all(&self) -> usize {
        let mut woken = 0;
        for shard in &self.shards {
            for (_, waker) in lock(shard).iter() {
                waker.wake_by_ref();
                woken += 1;
            }
        }
        woken
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<W: HasWaiters> Registration<W> {
    /// A place that is taken with the first [`Registration::register`].
    pub fn new(on: Arc<W>) -> Self {
        Self { on, registered: None }
    }

    /// What is waited for.
    pub fn on(&self) -> &Arc<W> {
        &self.on
    }

    /// From now on this task is woken. Free when the same task registered before.
    pub fn register(&mut self, waker: &Waker) {
        if self.registered.as_ref().is_some_and(|registered| registered.waker.will_wake(waker)) {
            return;
        }
        self.leave();
        let waiters = self.on.waiters();
        let shard = waiters.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let key = lock(&waiters.shards[shard]).insert(waker.clone());
        self.registered = Some(Registered { shard, key, waker: waker.clone() });
    }

    fn leave(&mut self) {
        let Some(registered) = self.registered.take() else {
            return;
        };
        // Dropped outside the lock: the last handle of a task may drop the task, and that may
        // hold a place here too.
        let waker = lock(&self.on.waiters().shards[registered.shard]).try_remove(registered.key);
        drop(waker);
    }
}

impl<W: HasWaiters> Drop for Registration<W> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Nothing in this crate panics while it holds a lock, and if something did, the slab is whole.
fn lock(shard: &Mutex<Slab<Waker>>) -> MutexGuard<'_, Slab<Waker>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
