//! The order in which large publish bodies are decoded and parsed (`gunzip` and `batch` in
//! `publish.rs`).
//!
//! Only a few bodies are processed at the same time. Each publisher has at most one body in the
//! queue, and its next body enters the queue when that one is done. So a publisher with many
//! connections delays another publisher by one body at most.

use super::intake::PublisherId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// The turns of all publishers.
pub struct BodyTurns {
    permits: Semaphore,
    /// One permit for each publisher with a body that waits or is processed.
    publishers: Mutex<HashMap<PublisherId, Arc<Semaphore>>>,
}

/// The turn of one body. Dropping it ends the turn.
pub struct Turn<'a> {
    // Neither semaphore is ever closed, so there always is a permit.
    _permit: Option<SemaphorePermit<'a>>,
    _of_publisher: Option<OwnedSemaphorePermit>,
}

impl BodyTurns {
    /// Creates turns for `count` bodies at the same time.
    pub fn new(count: usize) -> Self {
        Self { permits: Semaphore::new(count), publishers: Mutex::default() }
    }

    /// Waits for a turn of a publisher.
    pub async fn take(&self, publisher: &PublisherId) -> Turn<'_> {
        let own = {
            let mut publishers = self.publishers.lock();
            let own = publishers.entry(publisher.clone());
            own.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        let of_publisher = own.acquire_owned().await.ok();
        Turn { _permit: self.permits.acquire().await.ok(), _of_publisher: of_publisher }
    }

    /// Forgets the publishers without a body.
    pub fn sweep(&self) {
        self.publishers.lock().retain(|_, own| Arc::strong_count(own) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_publisher_with_many_bodies_delays_another_one_by_one_body() {
        let turns = BodyTurns::new(1);
        let [greedy, other] = ["greedy", "other"].map(|name| PublisherId::Subject(name.to_owned()));
        let running = turns.take(&greedy).await;
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(turns.take(&greedy))).collect();
        for body in &mut waiting {
            assert!(body.as_mut().now_or_never().is_none());
        }
        let mut own = Box::pin(turns.take(&other));
        assert!(own.as_mut().now_or_never().is_none());
        drop(running);
        // The next body of the same publisher is behind the other publisher.
        assert!(waiting[0].as_mut().now_or_never().is_none());
        drop(own.as_mut().now_or_never().expect("it is the turn of the other publisher"));
        assert!(waiting[0].as_mut().now_or_never().is_some());
        drop((waiting, own));
        turns.sweep();
        assert!(turns.publishers.lock().is_empty());
    }
}
