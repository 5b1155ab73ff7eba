//! Runs one seed after another, on all processors, until one of them breaks a promise.

use crate::run::{Outcome, Run, Simulator, run_twice};
use crate::shrink::shrink;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Pause between two lines about the progress.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// One of so many seeds is run twice, to show that a seed is one schedule.
const REPEATED_SEEDS: u64 = 10;

/// The seeds of a hunt.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// The first seed.
    pub from: u64,
    /// The number of seeds.
    pub seeds: u64,
    /// The longest time; no seed begins after it.
    pub time: Option<Duration>,
}

/// A run that breaks a promise.
#[derive(Clone, Debug)]
pub struct Found {
    /// The name of the simulator.
    pub simulator: &'static str,
    /// The shortest run that was found.
    pub run: Run,
    /// The outcome of that run.
    pub outcome: Outcome,
}

/// The result of a hunt.
#[derive(Debug)]
pub struct Summary {
    /// The first run that broke a promise, if there is one.
    pub found: Option<Found>,
    /// The number of runs of each simulator.
    pub counts: Vec<(&'static str, u64)>,
    /// The time that the hunt took.
    pub elapsed: Duration,
}

struct Shared<'a> {
    hunt: &'a Hunt,
    simulators: &'a [&'static dyn Simulator],
    begun: Instant,
    /// The number of the next seed, counted from the first one.
    next: AtomicU64,
    counts: Vec<AtomicU64>,
    is_over: AtomicBool,
    found: Mutex<Option<(&'static dyn Simulator, Run, Outcome)>>,
    reported: Mutex<Instant>,
}

/// Hunts until a run breaks a promise, the seeds are used up, or the time is over. It reports its
/// progress on standard error.
pub fn run(hunt: &Hunt, simulators: &[&'static dyn Simulator]) -> Summary {
    let begun = Instant::now();
    let shared = Shared {
        hunt,
        simulators,
        begun,
        next: AtomicU64::new(0),
        counts: simulators.iter().map(|_| AtomicU64::new(0)).collect(),
        is_over: AtomicBool::new(false),
        found: Mutex::new(None),
        reported: Mutex::new(begun),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..workers).for_each(|_| drop(scope.spawn(|| shared.work())));
    });
    let found = shared.found.lock().take().map(|(simulator, run, outcome)| {
        let (run, outcome) = shrink(simulator, run, outcome);
        Found { simulator: simulator.name(), run, outcome }
    });
    Summary { found, counts: shared.counts(), elapsed: begun.elapsed() }
}

impl Shared<'_> {
    fn work(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let is_late = self.hunt.time.is_some_and(|time| self.begun.elapsed() >= time);
            if number >= self.hunt.seeds || is_late {
                return;
            }
            self.run(self.hunt.from.wrapping_add(number));
            self.report();
        }
    }

    fn run(&self, seed: u64) {
        for (simulator, count) in self.simulators.iter().zip(&self.counts) {
            let run = Run::whole(seed);
            let outcome = match seed % REPEATED_SEEDS {
                0 => run_twice(*simulator, &run),
                _ => simulator.run(&run),
            };
            count.fetch_add(1, Ordering::Relaxed);
            if outcome.finding.is_some() {
                self.is_over.store(true, Ordering::Relaxed);
                self.found.lock().get_or_insert((*simulator, run, outcome));
                return;
            }
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        self.simulators.iter().map(|simulator| simulator.name()).zip(counts).collect()
    }

    fn report(&self) {
        let mut reported = self.reported.lock();
        if reported.elapsed() < PROGRESS_PAUSE {
            return;
        }
        *reported = Instant::now();
        let counts = self.counts();
        let counts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{count} of {name}")).collect();
        let seconds = self.begun.elapsed().as_secs();
        eprintln!("tests/hunt: {seconds} s: seeds: {}", counts.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks a promise with seed 70.
    struct Seventy;

    impl Simulator for Seventy {
        fn name(&self) -> &'static str {
            "seventy"
        }

        fn run(&self, run: &Run) -> Outcome {
            let finding = (run.seed == 70).then(|| "it is 70".to_owned());
            Outcome { finding, history: Vec::new(), operations: 1 }
        }
    }

    /// Has another history in each run.
    struct Counter(AtomicU64);

    impl Simulator for Counter {
        fn name(&self) -> &'static str {
            "counter"
        }

        fn run(&self, _: &Run) -> Outcome {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let history = vec!["begun".to_owned(), format!("run {number}")];
            Outcome { finding: None, history, operations: 1 }
        }
    }

    #[test]
    fn a_seed_that_is_not_one_schedule_is_found() {
        static COUNTER: Counter = Counter(AtomicU64::new(0));
        let found = run(&Hunt { from: 10, seeds: 1, time: None }, &[&COUNTER]).found;
        let finding = found.expect("the second run differs").outcome.finding;
        let expected = r#"two runs of one seed differ after 1 lines: "run 0" and "run 1""#;
        assert_eq!(finding.as_deref(), Some(expected));
    }

    #[test]
    fn a_hunt_ends_with_its_seeds_or_with_a_finding() {
        let hunt = |from, seeds| run(&Hunt { from, seeds, time: None }, &[&Seventy]);
        let nothing = hunt(71, 500);
        assert!(nothing.found.is_none());
        assert_eq!(nothing.counts, [("seventy", 500)]);
        let found = hunt(0, 500).found.expect("seed 70");
        assert_eq!((found.run.seed, found.simulator), (70, "seventy"));
        let no_time = Hunt { from: 0, seeds: 500, time: Some(Duration::ZERO) };
        assert_eq!(run(&no_time, &[&Seventy]).counts, [("seventy", 0)]);
    }
}
