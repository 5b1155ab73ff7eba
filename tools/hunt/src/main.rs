//! The command `tests/hunt`: looks for a seed whose run breaks a promise.

use clap::Parser;
use clap::error::ErrorKind;
use headwater::sync::plants;
use headwater_hunt::history::{self, MayLose};
use headwater_hunt::hunt::{self, Found, Hunt};
use headwater_hunt::planted::{self, Planted};
use headwater_hunt::run::Run;
use headwater_hunt::shrink::shrink;
use headwater_hunt::simulators;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The number of seeds when neither --seeds nor --seconds is given.
const SEEDS_DEFAULT: u64 = 1_000;

/// Looks for runs in which Headwater breaks a promise. Each seed is one run of each simulator: the
/// store on a disk that fails, and a world of origins, caches and clients. Exits with 1 when a run
/// breaks a promise, and prints the shortest history that still does.
#[derive(Parser)]
#[command(name = "tests/hunt", bin_name = "tests/hunt")]
struct Arguments {
    /// The number of seeds to run (1,000, unless --seconds is given).
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The longest time to hunt, in seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "K", default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Runs this seed alone, and prints its history.
    #[arg(long, value_name = "K", conflicts_with_all = ["seeds", "seconds"])]
    seed: Option<u64>,
    /// Judges the history of a run against real servers, which a failed test has written.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seconds", "seed", "plant"])]
    history: Option<PathBuf>,
    /// With --history: the events that the store may have lost, if each loss was announced.
    #[arg(
        long,
        value_name = "EVENTS",
        value_enum,
        ignore_case = true,
        default_value = "nothing",
        requires = "history"
    )]
    may_lose: MayLose,
    /// Builds a bug in, which the hunt has to find.
    #[arg(long, value_name = "NAME", value_parser = planted::parse)]
    plant: Option<&'static Planted>,
    /// Lists the bugs that can be built in.
    #[arg(long)]
    list_plants: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_help = error.kind() == ErrorKind::DisplayHelp;
            error.print().unwrap_or_default();
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    if arguments.list_plants {
        for planted in planted::ALL {
            println!("{:16} {}", planted.name, planted.sentence);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(file) = &arguments.history {
        return judge(file, arguments.may_lose);
    }
    if let Some(planted) = arguments.plant {
        plants::plant(planted.plant);
        println!("planted: {}: {}", planted.name, planted.sentence);
    }
    match arguments.seed {
        Some(seed) => replay(seed),
        None => search(&arguments),
    }
}

/// Judges a recorded history.
fn judge(file: &Path, may_lose: MayLose) -> ExitCode {
    let lines = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let summary = lines
        .and_then(|lines| history::from_lines(&lines))
        .and_then(|records| history::judge(&records, may_lose));
    match summary {
        Ok(summary) => {
            println!("the history breaks no promise: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{}: {why}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Runs one seed in each simulator.
fn replay(seed: u64) -> ExitCode {
    let mut is_found = false;
    for simulator in simulators() {
        let run = Run::whole(seed);
        let outcome = simulator.run(&run);
        if outcome.finding.is_some() {
            is_found = true;
            let (run, outcome) = shrink(simulator, run, outcome);
            report(&Found { simulator: simulator.name(), run, outcome });
            continue;
        }
        println!("seed {seed} of the simulator {:?} breaks no promise:", simulator.name());
        outcome.history.iter().for_each(|line| println!("  {line}"));
    }
    ExitCode::from(u8::from(is_found))
}

fn search(arguments: &Arguments) -> ExitCode {
    let unlimited = if arguments.seconds.is_some() { u64::MAX } else { SEEDS_DEFAULT };
    let hunt = Hunt {
        from: arguments.from,
        seeds: arguments.seeds.unwrap_or(unlimited),
        time: arguments.seconds.map(Duration::from_secs),
    };
    let summary = hunt::run(&hunt, &simulators());
    summary.found.iter().for_each(report);
    let counts: Vec<String> =
        summary.counts.iter().map(|(name, count)| format!("{count} of {name}")).collect();
    let seconds = summary.elapsed.as_secs_f64();
    let result = if summary.found.is_none() { "found nothing" } else { "found a broken promise" };
    println!("tests/hunt: {result}; seeds: {} in {seconds:.1} s", counts.join(", "));
    ExitCode::from(u8::from(summary.found.is_some()))
}

fn report(found: &Found) {
    let Found { simulator, run, outcome } = found;
    let (seed, operations) = (run.seed, outcome.operations);
    let left = operations - (run.left_out.len() as u64).min(operations);
    println!("seed {seed} of the simulator {simulator:?} breaks a promise:");
    println!("  {}", outcome.finding.as_deref().unwrap_or_default());
    println!("the shortest history that still does has {left} of {operations} operations:");
    outcome.history.iter().for_each(|line| println!("  {line}"));
    println!("replay it with: tests/hunt --seed {seed}");
}
