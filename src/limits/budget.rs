//! The memory of answers that are being made or sent, bounded for all of them together.
//!
//! Whatever an answer needs is charged before it is made, and given back when its last byte was
//! handed to the kernel. Requests get memory in the order in which they ask. A reader gives its
//! charge back before it waits for a larger one, and a reader of several channels waits once for all
//! of them. Two requests wait while they hold a charge, and each of these waits has an end: a join
//! of several channels (the store's timeout) and a long poll (its deadline).

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Unit in which memory is counted, in bytes.
const UNIT_BYTES: usize = 1024;
/// The part of a request's time in which it may wait for memory; the rest is for the store.
const PATIENCE_PART: f64 = 0.75;
/// One part of so many may hold copies that are kept for later requests.
const COPY_PARTS: usize = 4;

/// The memory.
#[derive(Clone, Debug)]
pub struct Budget {
    answers: Arc<Semaphore>,
    copies: Arc<Semaphore>,
    units: u32,
    patience: Duration,
    waiting: Arc<AtomicUsize>,
}

/// One more request that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

/// A part of the memory that is in use.
#[derive(Debug)]
pub struct Charge {
    permit: Option<OwnedSemaphorePermit>,
    /// Given back with it.
    _turn: Option<OwnedSemaphorePermit>,
}

/// Other answers did not leave enough in time.
#[derive(Clone, Copy, Debug)]
pub struct Exhausted;

/// Bytes that give their charge back when the last handle on them is gone.
struct Charged {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl Budget {
    /// `bytes`: all of it. `request_time`: how long a request may take to begin its answer.
    pub fn new(bytes: usize, request_time: Duration) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let copies = units as usize / COPY_PARTS;
        Self {
            answers: Arc::new(Semaphore::new(units as usize - copies)),
            copies: Arc::new(Semaphore::new(copies)),
            units: units - copies as u32,
            waiting: Arc::default(),
            patience: request_time.mul_f64(PATIENCE_PART),
        }
    }

    /// As [`Budget::charge`], but not for ever.
    ///
    /// # Errors
    /// When other answers do not leave so much in time.
    pub async fn charge_in_time(&self, bytes: usize) -> Result<Charge, Exhausted> {
        tokio::time::timeout(self.patience, self.charge(bytes)).await.map_err(|_| Exhausted)
    }

    /// Waits until so many bytes are free, behind those that asked before. More than there is at
    /// all waits for all of it.
    pub async fn charge(&self, bytes: usize) -> Charge {
        let wanted = units(bytes).min(self.units);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        Charge { permit: self.answers.clone().acquire_many_owned(wanted).await.ok(), _turn: None }
    }

    /// Whether a request is waiting for memory now.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Charges a copy that is kept for later requests, if there is room for it.
    pub fn keep(&self, bytes: usize) -> Option<Charge> {
        let permit = self.copies.clone().try_acquire_many_owned(units(bytes)).ok()?;
        Some(Charge { permit: Some(permit), _turn: None })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Charge {
    /// Gives another permit back together with this charge.
    #[must_use]
    pub fn with_turn(self, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { _turn: turn, ..self }
    }

    /// Puts bytes in the place of what was charged for them.
    pub fn hold(mut self, bytes: Vec<u8>) -> Bytes {
        if let Some(permit) = &mut self.permit {
            let excess = permit.num_permits().saturating_sub(units(bytes.len()) as usize);
            drop(permit.split(excess));
        }
        Bytes::from_owner(Charged { bytes, _charge: self })
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn memory_is_given_in_order_and_back_with_the_last_handle() {
        let budget = Budget::new(100 * UNIT_BYTES, Duration::from_millis(10));
        let first = budget.charge(60 * UNIT_BYTES).await;
        let (mut large, mut small) =
            (Box::pin(budget.charge(40 * UNIT_BYTES)), Box::pin(budget.charge(1)));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(small.as_mut().now_or_never().is_none(), "the large one asked before");
        let bytes = first.hold(vec![1; 10 * UNIT_BYTES]);
        let large = large.await;
        small.await;
        let handle = bytes.slice(1..2);
        drop((bytes, large));
        let rest = budget.charge(65 * UNIT_BYTES).await;
        let mut all = Box::pin(budget.charge(75 * UNIT_BYTES));
        assert!(all.as_mut().now_or_never().is_none());
        drop((handle, rest));
        all.await;
        // More than there is does not wait for ever.
        budget.charge(1_000 * UNIT_BYTES).await;
        let rest = budget.charge(70 * UNIT_BYTES).await;
        assert!(budget.charge_in_time(10 * UNIT_BYTES).await.is_err());
        drop(rest);
        assert!(budget.charge_in_time(10 * UNIT_BYTES).await.is_ok());
        let kept = budget.keep(25 * UNIT_BYTES);
        assert!(kept.is_some() && budget.keep(1).is_none());
    }
}
