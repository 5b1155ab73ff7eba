//! Bounds the memory of all responses that are being made or sent, except the windows of the pumps
//! (`limits::memory`). The size is `--answer-bytes`. If it is used up, requests wait; then a stream
//! is shed (`http/subscribe.rs`), and another request gets a `503` (`http/problem.rs`). An open
//! stream waits (`hub/reader.rs`).
//!
//! A charge is the memory that one response has reserved. It is taken before the response is made,
//! and released when the last byte of the response was handed to the kernel. Charges are granted in
//! the order in which they were requested. A reader never waits for memory while it holds a charge:
//! it releases its charge before it waits for a larger one, and reserves the memory for several
//! channels in one step. A join of several channels may wait for memory while it holds a charge,
//! but not longer than the timeout of the store. A long poll may do so until its deadline.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Unit in which memory is counted, in bytes.
const UNIT_BYTES: usize = 1024;
/// Part of a request's time in which it may wait for memory. The rest is for the store.
const PATIENCE_PART: f64 = 0.75;
/// One part in this many of the memory is reserved for copies that are kept for later requests.
const COPY_PARTS: usize = 4;

/// The memory budget.
#[derive(Clone, Debug)]
pub struct Budget {
    answers: Arc<Semaphore>,
    copies: Arc<Semaphore>,
    units: u32,
    patience: Duration,
    waiting: Arc<AtomicUsize>,
}

/// Counts one waiting request until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

/// A part of the memory that is in use. Dropping it releases the memory.
#[derive(Debug)]
pub struct Charge {
    permit: Option<OwnedSemaphorePermit>,
    /// Another permit, which is released together with the memory.
    _turn: Option<OwnedSemaphorePermit>,
}

/// Error: other responses did not leave enough memory in time.
#[derive(Clone, Copy, Debug)]
pub struct Exhausted;

/// Bytes that release their charge when the last handle on them is dropped.
struct Charged {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl Budget {
    /// Returns a budget of `bytes` bytes. `request_time` is the time within which a request has to
    /// begin its response.
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

    /// Charges memory like [`Budget::charge`], but waits for a limited time.
    ///
    /// # Errors
    /// Fails when other responses do not leave enough memory in time.
    pub async fn charge_in_time(&self, bytes: usize) -> Result<Charge, Exhausted> {
        tokio::time::timeout(self.patience, self.charge(bytes)).await.map_err(|_| Exhausted)
    }

    /// Charges `bytes` bytes, and waits until they are free, behind earlier requests. If `bytes` is
    /// more than the whole memory for responses, the charge is all of it.
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

    /// Charges a copy of `bytes` bytes that is kept for later requests. Returns `None` if there is
    /// no room for it.
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
    /// Adds another permit, which is released together with this charge.
    #[must_use]
    pub fn with_turn(self, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { _turn: turn, ..self }
    }

    /// Attaches the charge to `bytes`, and releases the part of it that they do not need.
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
        // A charge for more than the whole memory does not wait forever.
        budget.charge(1_000 * UNIT_BYTES).await;
        let rest = budget.charge(70 * UNIT_BYTES).await;
        assert!(budget.charge_in_time(10 * UNIT_BYTES).await.is_err());
        drop(rest);
        assert!(budget.charge_in_time(10 * UNIT_BYTES).await.is_ok());
        let kept = budget.keep(25 * UNIT_BYTES);
        assert!(kept.is_some() && budget.keep(1).is_none());
    }
}
