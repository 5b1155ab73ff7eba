//! A run of a simulator, and its outcome.

use std::collections::BTreeSet;

/// A run: a seed, without some of its operations.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// The numbers of the operations that are left out.
    pub left_out: BTreeSet<u64>,
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The promise that was broken, as a sentence.
    pub finding: Option<String>,
    /// What happened, one line each.
    pub history: Vec<String>,
    /// The number of operations that the seed has, including those that were left out.
    pub operations: u64,
}

/// A simulator.
pub trait Simulator: Sync {
    /// The name of the simulator.
    fn name(&self) -> &'static str;
    /// Does one run.
    fn run(&self, run: &Run) -> Outcome;
}

impl Run {
    /// Returns the whole run of a seed.
    pub fn whole(seed: u64) -> Self {
        Self { seed, left_out: BTreeSet::new() }
    }

    /// Whether an operation takes place.
    pub fn has(&self, operation: u64) -> bool {
        !self.left_out.contains(&operation)
    }
}
