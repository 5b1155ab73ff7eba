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

/// Does one run twice. It is a finding, too, when the second history differs from the first one: the
/// schedule then depends on something else than the seed.
pub fn run_twice(simulator: &dyn Simulator, run: &Run) -> Outcome {
    let first = simulator.run(run);
    if first.finding.is_some() {
        return first;
    }
    let second = simulator.run(run);
    let lines = first.history.iter().zip(&second.history);
    let equal = lines.take_while(|(first, second)| first == second).count();
    let finding = (first.history != second.history).then(|| {
        let line =
            |history: &[String]| history.get(equal).map_or("its end", |line| line).to_owned();
        let (one, other) = (line(&first.history), line(&second.history));
        format!("two runs of one seed differ after {equal} lines: {one:?} and {other:?}")
    });
    Outcome { finding, ..first }
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
