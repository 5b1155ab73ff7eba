//! Makes a failing run shorter: operations are left out, first many and then single ones, for as
//! long as the run still breaks a promise.

use crate::run::{Outcome, Run, Simulator};
use std::time::{Duration, Instant};

/// Longest time that is spent on one finding.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Returns a shorter run that still fails, with its outcome. `outcome` is that of `run`.
pub fn shrink(simulator: &dyn Simulator, run: Run, outcome: Outcome) -> (Run, Outcome) {
    let begun = Instant::now();
    let mut best = (run, outcome);
    let mut size = best.1.operations.div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut is_shorter = false;
        while from < best.1.operations && begun.elapsed() < TIME_MAX {
            let mut candidate = best.0.clone();
            let known = candidate.left_out.len();
            candidate.left_out.extend(from..(from + size).min(best.1.operations));
            from += size;
            if candidate.left_out.len() == known {
                continue;
            }
            let outcome = simulator.run(&candidate);
            if outcome.finding.is_some() {
                best = (candidate, outcome);
                is_shorter = true;
            }
        }
        if begun.elapsed() >= TIME_MAX || (size == 1 && !is_shorter) {
            return best;
        }
        size = if size > 1 { size / 2 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when its operations 13 and 77 take place.
    struct Pair;

    impl Simulator for Pair {
        fn name(&self) -> &'static str {
            "pair"
        }

        fn run(&self, run: &Run) -> Outcome {
            let finding = (run.has(13) && run.has(77)).then(|| "both".to_owned());
            Outcome { finding, history: Vec::new(), operations: 100 }
        }
    }

    #[test]
    fn only_the_operations_that_matter_are_left() {
        let run = Run::whole(1);
        let outcome = Pair.run(&run);
        let (run, outcome) = shrink(&Pair, run, outcome);
        let left: Vec<u64> = (0..100).filter(|operation| run.has(*operation)).collect();
        assert_eq!((left, outcome.finding.as_deref()), (vec![13, 77], Some("both")));
    }
}
