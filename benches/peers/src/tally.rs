//! Counts of what arrived, exact to the single event, and what the threads of the client share.

use crate::event::Stamp;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// A number of an event above this one is damage: no measurement sends so many.
const SEQUENCE_MAX: u32 = 50_000_000;
const LONGEST_NS: u64 = 300_000_000_000;

/// Nanoseconds, exact to a hundredth.
pub fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 2).expect("good bounds")
}

/// What publishers and subscribers tell the thread that measures.
pub struct Shared {
    begun: Instant,
    pub opened: AtomicUsize,
    /// Streams that the server refused, or that could not connect.
    pub refused: AtomicUsize,
    /// Streams that ended before the client closed them.
    pub ended: AtomicUsize,
    pub delivered: AtomicU64,
    pub acknowledged: AtomicU64,
    /// Latencies count for events that are sent from the first instant to the second.
    window: [AtomicU64; 2],
    pub publishing: AtomicBool,
    pub subscribing: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            opened: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            window: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            publishing: AtomicBool::new(true),
            subscribing: AtomicBool::new(true),
        }
    }
}

impl Shared {
    pub fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    pub fn open_window(&self) {
        self.window[0].store(self.now(), Ordering::Relaxed);
    }

    pub fn close_window(&self) {
        self.window[1].store(self.now(), Ordering::Relaxed);
    }

    pub fn in_window(&self, instant: u64) -> bool {
        let [from, to] = &self.window;
        (from.load(Ordering::Relaxed)..to.load(Ordering::Relaxed)).contains(&instant)
    }
}

/// A set of numbers of events.
#[derive(Clone, Default)]
pub struct Numbers {
    words: Vec<u64>,
}

impl Numbers {
    /// Whether the number is new.
    pub fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if self.words.len() <= word {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many numbers are in this set and not in the other.
    pub fn count_without(&self, other: &Self) -> u64 {
        let words = self.words.iter().enumerate();
        let missing = words.map(|(at, word)| word & !other.words.get(at).unwrap_or(&0));
        missing.map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What the subscribers received.
pub struct Received {
    run: u16,
    publishers: usize,
    /// The events that arrived, for each subscriber and each publisher.
    numbers: Vec<Numbers>,
    /// One more than the newest number of each subscriber and publisher.
    next: Vec<u32>,
    pub latency: Histogram<u64>,
    pub duplicates: u64,
    /// Events that arrived after a later one of their publisher.
    pub reordered: u64,
    /// Events whose bytes are not those that were sent.
    pub damaged: u64,
    /// Events of an earlier measurement that the server sent again.
    pub replayed: u64,
}

impl Received {
    pub fn new(run: u16, subscribers: usize, publishers: usize) -> Self {
        let pairs = subscribers * publishers;
        Self {
            run,
            publishers,
            numbers: vec![Numbers::default(); pairs],
            next: vec![0; pairs],
            latency: times(),
            duplicates: 0,
            reordered: 0,
            damaged: 0,
            replayed: 0,
        }
    }

    /// Counts an event that arrived at an instant; whether it is the first copy.
    pub fn count(
        &mut self,
        shared: &Shared,
        subscriber: usize,
        stamp: Option<Stamp>,
        now: u64,
    ) -> bool {
        let known = |stamp: &Stamp| {
            usize::from(stamp.publisher) < self.publishers && stamp.sequence <= SEQUENCE_MAX
        };
        let Some(stamp) = stamp.filter(known) else {
            self.damaged += 1;
            return false;
        };
        if stamp.run != self.run {
            self.replayed += 1;
            return false;
        }
        let pair = subscriber * self.publishers + usize::from(stamp.publisher);
        if !self.numbers[pair].insert(stamp.sequence) {
            self.duplicates += 1;
            return false;
        }
        self.reordered += u64::from(stamp.sequence < self.next[pair]);
        self.next[pair] = self.next[pair].max(stamp.sequence + 1);
        if shared.in_window(stamp.sent) {
            self.latency.saturating_record(now.saturating_sub(stamp.sent).max(1));
        }
        true
    }

    /// Deliveries that are missing: acknowledged events, once for each of these subscribers that
    /// did not get them.
    pub fn lost(&self, acknowledged: &[Numbers], subscribers: impl Iterator<Item = usize>) -> u64 {
        let of = |subscriber: usize| {
            let received = &self.numbers[subscriber * self.publishers..];
            acknowledged
                .iter()
                .zip(received)
                .map(|(sent, got)| sent.count_without(got))
                .sum::<u64>()
        };
        subscribers.map(of).sum()
    }
}
