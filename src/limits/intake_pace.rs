//! Limits how fast the bytes of a connection are read.
//!
//! A connection that always has bytes to read would occupy its thread, so after each `TURN_BYTES`
//! it waits until other tasks have run. Over HTTP/2 a client can also send frames that belong to no
//! request (PRIORITY, PING, SETTINGS, frames of unknown types) as fast as its network allows. Bytes
//! of requests and of their bodies have limits of their own; all other bytes of such a connection
//! are read at a fixed rate.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Largest number of bytes that are read before other tasks of the thread run.
const TURN_BYTES: usize = 64 * 1024;
/// Bytes per second that are read of frames that belong to no request. `FRAME_BURST` is how many
/// bytes of them may be read at once.
const FRAME_RATE: i64 = 64 * 1024;
const FRAME_BURST: i64 = 1024 * 1024;
/// Bytes that a request allows: its head, and the frames about its response.
const REQUEST_BYTES: u64 = 4 * 1024;
/// Bytes that a chunk of a body allows beyond its own size: the head of its frame, and padding.
const PIECE_BYTES: u64 = 512;

/// The number of bytes that the requests of an HTTP/2 connection allow it to send.
#[derive(Debug, Default)]
pub struct ByteCredit(AtomicU64);

/// The reading pace of one connection.
#[derive(Default)]
pub struct IntakePace {
    /// Bytes that were read in this turn.
    turn: usize,
    frames: Option<Box<Frames>>,
}

struct Frames {
    credit: Arc<ByteCredit>,
    /// Bytes that may be read now. The number is negative after a large read.
    left: i64,
    filled_at: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl ByteCredit {
    /// Adds the credit of a request that has begun.
    pub fn request(&self) {
        self.0.fetch_add(REQUEST_BYTES, Ordering::Relaxed);
    }

    /// Adds the credit of a chunk of a request's body, which had `bytes` bytes.
    pub fn body(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64 + PIECE_BYTES, Ordering::Relaxed);
    }
}

impl IntakePace {
    /// Returns the pace of an HTTP/2 connection, with the credit of its requests.
    pub fn of_frames(credit: Arc<ByteCredit>) -> Self {
        let now = Instant::now();
        let sleep = Box::pin(tokio::time::sleep_until(now));
        let frames = Frames { credit, left: FRAME_BURST, filled_at: now, sleep };
        Self { turn: 0, frames: Some(Box::new(frames)) }
    }

    /// Waits until the connection may be read.
    pub fn poll_may_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.frames.as_mut().map_or(Poll::Ready(()), |frames| frames.poll_may_read(context))
    }

    /// Counts bytes that were read. 0 means that the connection has no more bytes for now.
    pub fn read(&mut self, bytes: usize) {
        self.turn = if bytes == 0 { 0 } else { self.turn + bytes };
        if let Some(frames) = &mut self.frames {
            frames.left -= bytes as i64;
        }
    }
}

impl Frames {
    fn poll_may_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            self.fill();
            if self.left > 0 {
                return Poll::Ready(());
            }
            if self.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            // The next read comes a sixteenth of a second later, so that several frames are read at
            // once.
            self.sleep.as_mut().reset(Instant::now() + Duration::from_secs(1) / 16);
        }
    }

    fn fill(&mut self) {
        let passed = self.filled_at.elapsed().as_millis() as i64;
        if passed > 0 {
            self.filled_at += Duration::from_millis(passed as u64);
            self.left = self.left.max(FRAME_BURST.min(self.left + passed * FRAME_RATE / 1_000));
        }
        self.left += self.credit.0.swap(0, Ordering::Relaxed) as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::poll_fn;

    #[tokio::test]
    async fn frames_without_a_request_are_read_at_a_rate() {
        let credit = Arc::new(ByteCredit::default());
        let mut pace = IntakePace::of_frames(credit.clone());
        let begun = Instant::now();
        let mut read = 0;
        while begun.elapsed() < Duration::from_secs(1) {
            poll_fn(|context| pace.poll_may_read(context)).await;
            pace.read(16_384);
            read += 16_384_i64;
        }
        let allowed = FRAME_BURST + begun.elapsed().as_millis() as i64 * FRAME_RATE / 1_000;
        assert!((FRAME_BURST..=allowed + 16_384).contains(&read), "{read} of {allowed}");
        // The bytes of a body are read as they arrive.
        credit.body(1 << 20);
        for _ in 0..60 {
            pace.turn = 0;
            let may_read = poll_fn(|context| pace.poll_may_read(context)).now_or_never();
            assert!(may_read.is_some());
            pace.read(16_384);
        }
    }

    #[tokio::test]
    async fn a_connection_that_has_more_and_more_waits_for_its_turn() {
        let mut pace = IntakePace::default();
        let may_read = |pace: &mut IntakePace| {
            poll_fn(|context| pace.poll_may_read(context)).now_or_never().is_some()
        };
        pace.read(TURN_BYTES - 1);
        assert!(may_read(&mut pace));
        pace.read(1);
        assert!(!may_read(&mut pace), "the others first");
        assert!(may_read(&mut pace));
    }
}
