//! Random numbers that depend on a seed alone.
//!
//! Every operation of a run draws from a stream of its own, named by the seed, a label and a number.
//! So an operation that is left out of a run does not change the numbers of the others, and a
//! failing run can be made shorter.

use std::ops::Range;

/// A stream of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Returns the stream of one operation of a run.
    pub fn of(seed: u64, label: &str, number: u64) -> Self {
        let mut state = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        for byte in label.bytes().chain(number.to_le_bytes()) {
            state = mix(state ^ u64::from(byte));
        }
        Self(state)
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// Returns a number of a range.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// Returns an index of a list of `length` elements.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// Returns true once in `times`, on average.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Returns one of the elements.
    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }
}

fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_its_name_alone() {
        let numbers = |seed, label, number| {
            let mut random = Random::of(seed, label, number);
            [random.number(), random.number()]
        };
        assert_eq!(numbers(1, "a", 1), numbers(1, "a", 1));
        let others =
            [numbers(1, "a", 1), numbers(2, "a", 1), numbers(1, "b", 1), numbers(1, "a", 2)];
        let distinct: std::collections::HashSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn numbers_are_spread_over_their_range() {
        let mut random = Random::of(7, "spread", 0);
        let mut counts = [0; 10];
        (0..10_000).for_each(|_| counts[random.index(10)] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
