//! Limits the memory that publish bodies take while they are read, in total and per publisher.
//! `read_body` and `gunzip` in `publish.rs` reserve it, for the received and for the decoded bytes.
//!
//! A publish that does not fit is refused at once, and the publisher repeats it; no publisher waits
//! for another one. One publisher may use at most a quarter of the memory, and an eighth is
//! reserved for small bodies, so that neither one slow publisher nor many large batches block the
//! others.

use super::problem::Problem;
use crate::limits::client_address::Client;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The memory is counted in units of this many bytes.
const UNIT_BYTES: usize = 1024;
/// A body up to this size, in bytes, may use the memory that is reserved for small bodies.
pub const SMALL_BYTES: usize = 64 * 1024;
/// The memory is divided into this many parts, of which one is reserved for small bodies.
const SMALL_PARTS: usize = 8;
/// The memory is divided into this many parts, of which one publisher may use at most one.
const SHARE_PARTS: usize = 4;

/// The publisher of a request, identified by the `sub` of its token, or without one by the address
/// of the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PublisherId {
    /// The `sub` claim of the token.
    Subject(String),
    /// The client, by its address.
    Client(Client),
}

/// The memory for publish bodies, and how much of it each publisher uses.
pub struct Intake {
    general: Semaphore,
    small: Semaphore,
    share_bytes: usize,
    shares: Mutex<HashMap<PublisherId, usize>>,
}

/// The memory that one body has reserved. Dropping it releases the memory.
pub struct Room<'a> {
    intake: &'a Intake,
    publisher: PublisherId,
    bytes: usize,
    permits: Vec<SemaphorePermit<'a>>,
}

impl Intake {
    /// Creates a limit of `bytes` in total. `largest` is the most memory, in bytes, that one
    /// publish needs; the limit for large bodies and the share of a publisher are at least this
    /// large.
    pub fn new(bytes: usize, largest: usize) -> Self {
        let small = bytes / SMALL_PARTS;
        Self {
            general: Semaphore::new((bytes - small).max(largest) / UNIT_BYTES),
            small: Semaphore::new(small / UNIT_BYTES),
            share_bytes: (bytes / SHARE_PARTS).max(largest),
            shares: Mutex::default(),
        }
    }

    /// Starts a reservation for the body of one publish, with 0 bytes.
    pub fn room(&self, publisher: PublisherId) -> Room<'_> {
        Room { intake: self, publisher, bytes: 0, permits: Vec::new() }
    }
}

impl Room<'_> {
    /// Returns the publisher of the body.
    pub fn publisher(&self) -> &PublisherId {
        &self.publisher
    }

    /// Reserves memory for more bytes of the body. The total size of the body is rounded up to
    /// whole units, not the size of each chunk, so a body in chunks of one byte takes no more
    /// memory.
    ///
    /// # Errors
    /// Fails with `503` when the publisher has used up its share, or when no memory is left.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let units = |length: usize| length.div_ceil(UNIT_BYTES) as u32;
        let more = units(self.bytes + bytes) - units(self.bytes);
        {
            let mut shares = self.intake.shares.lock();
            let share = shares.entry(self.publisher.clone()).or_default();
            if *share + bytes > self.intake.share_bytes {
                return Err(busy("by this publisher"));
            }
            *share += bytes;
        }
        self.bytes += bytes;
        if more > 0 {
            let is_small = self.bytes <= SMALL_BYTES;
            let general = self.intake.general.try_acquire_many(more);
            let permit = match general {
                Err(_) if is_small => self.intake.small.try_acquire_many(more),
                general => general,
            };
            self.permits.push(permit.map_err(|_| busy("by all publishers"))?);
        }
        Ok(())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut shares = self.intake.shares.lock();
        if let Entry::Occupied(mut share) = shares.entry(self.publisher.clone()) {
            *share.get_mut() -= self.bytes;
            if *share.get() == 0 {
                share.remove();
            }
        }
    }
}

fn busy(whose: &str) -> Problem {
    let detail = format!(
        "too many bytes are being published at once {whose} (--publish-buffer); nothing was stored, \
         send it again"
    );
    Problem::unavailable("publish-buffer", detail, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_publisher_leaves_room_for_others_and_all_leave_some_for_small_bodies() {
        let intake = Intake::new(64 << 20, 8 << 20);
        let publisher = |name: &str| PublisherId::Subject(name.to_owned());
        let mut greedy = intake.room(publisher("greedy"));
        greedy.grow(16 << 20).unwrap();
        let mut more = intake.room(publisher("greedy"));
        assert!(more.grow(1).is_err());
        let mut others = Vec::new();
        for n in 0..10 {
            let mut other = intake.room(publisher(&n.to_string()));
            let is_in = other.grow(8 << 20).is_ok();
            assert_eq!(is_in, n < 5, "{n}");
            others.push(other);
        }
        let mut small = intake.room(publisher("small"));
        small.grow(SMALL_BYTES).unwrap();
        assert!(small.grow(1).is_err(), "it is small no more");
        drop((greedy, more, others, small));
        assert!(intake.shares.lock().is_empty());
        let mut again = intake.room(publisher("greedy"));
        again.grow(16 << 20).unwrap();
    }
}
