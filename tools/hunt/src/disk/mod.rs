//! The simulator of the store on disk: publishers and readers, until the process ends or the power
//! fails; then the log is opened again, and a checker compares what it serves with what was said.

mod checker;
pub mod files;
mod machine;
mod regressions;

use crate::random::Random;
use crate::run::{Outcome, Run, Simulator};
use checker::{CHANNELS, Unclear};
use files::Faults;
use headwater::core::event::{Event, Field};
use machine::{Machine, Write};

/// The store on a disk that fails, by seed.
pub struct DiskSimulator;

/// What a seed decides for the whole run.
struct Plan {
    operations: u64,
    file_bytes: u64,
    retain: usize,
    trouble: Trouble,
    /// Whether the wall clock may be set back between two processes.
    clock_steps: bool,
}

/// The kind of trouble in a run, beside processes that end and power that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Writes and syncs fail, and the disk is full at times.
    Failing,
    /// Reads fail.
    Unreadable,
    /// Syncs report success without an effect.
    Lying,
    /// At the end, bytes of the files are damaged.
    Damaged,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut random = Random::of(seed, "disk plan", 0);
        let trouble = match random.below(10) {
            0..4 => Trouble::None,
            4..7 => Trouble::Failing,
            7 => Trouble::Unreadable,
            8 => Trouble::Lying,
            _ => Trouble::Damaged,
        };
        Self {
            operations: random.range(20..120),
            file_bytes: random.choose(&[1_024, 4_096, 16_384]),
            retain: random.choose(&[15, 60, 100_000, 100_000]),
            trouble,
            clock_steps: random.one_in(2),
        }
    }

    fn faults(&self) -> Faults {
        let none = Faults::default();
        match self.trouble {
            Trouble::Failing => Faults { write_fails: 60, sync_fails: 15, ..none },
            Trouble::Unreadable => Faults { read_fails: 20, ..none },
            Trouble::Lying => Faults { sync_lies: 6, ..none },
            Trouble::None | Trouble::Damaged => none,
        }
    }
}

impl Simulator for DiskSimulator {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn run(&self, run: &Run) -> Outcome {
        let plan = Plan::of(run.seed);
        headwater::sync::random::simulate(Random::of(run.seed, "log", 0).number());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let is_lying = plan.trouble == Trouble::Lying;
        let mut machine = Machine::new(plan.file_bytes, plan.retain, is_lying);
        let finding = match runtime {
            Ok(runtime) => {
                // The simulation is one task that never yields.
                let drive = tokio::task::unconstrained(drive(run, &plan, &mut machine));
                runtime.block_on(drive).err()
            }
            Err(error) => Some(format!("the simulator cannot start: {error}")),
        };
        let mut history = vec![format!(
            "the log has files of {} bytes and keeps {} events a channel; trouble: {:?}",
            plan.file_bytes, plan.retain, plan.trouble
        )];
        history.append(&mut machine.history);
        Outcome { finding, history, operations: plan.operations }
    }
}

async fn drive(run: &Run, plan: &Plan, machine: &mut Machine) -> Result<(), String> {
    machine.open(Random::of(run.seed, "first open", 0)).await?;
    for number in (0..plan.operations).filter(|number| run.has(*number)) {
        let mut random = Random::of(run.seed, "disk operation", number);
        machine.disk.begin(Random::of(run.seed, "disk", number), plan.faults());
        machine.time.pass(random.choose(&[0, 0, 1, 7, 300]));
        operate(plan, machine, number, &mut random).await?;
        if machine.disk.is_off() {
            restart(plan, machine, &mut random, true).await?;
        }
        if machine.has_lied() {
            return Ok(());
        }
    }
    let mut random = Random::of(run.seed, "disk end", 0);
    let is_damaged = plan.trouble == Trouble::Damaged;
    restart(plan, machine, &mut random, !is_damaged).await?;
    if is_damaged { machine.damage(&mut random).await } else { Ok(()) }
}

async fn operate(
    plan: &Plan,
    machine: &mut Machine,
    number: u64,
    random: &mut Random,
) -> Result<(), String> {
    match random.below(100) {
        0..60 => {
            // Several commands share a commit.
            let count = random.choose(&[1, 1, 1, 2, 5]);
            let writes = (0..count).map(|part| write(machine, number, part, random)).collect();
            machine.write(writes).await
        }
        60..72 => machine.check().await,
        72..80 => machine.sweep().await,
        80..86 => {
            machine.maintain();
            Ok(())
        }
        86..91 => {
            let changes = random.choose(&[1, 2, 3, 5, 9, 20, 70, 300, 600]);
            machine.say(format!("the power fails after {changes} more changes of the disk"));
            machine.disk.fail_after(changes);
            Ok(())
        }
        91..93 if plan.trouble == Trouble::Failing => {
            let is_full = random.one_in(2);
            machine.say(format!("the disk is full: {is_full}"));
            machine.disk.set_full(is_full);
            Ok(())
        }
        91..95 => restart(plan, machine, random, false).await,
        _ => restart(plan, machine, random, true).await,
    }
}

fn write(machine: &Machine, number: u64, part: u64, random: &mut Random) -> Write {
    let channel = random.choose(&CHANNELS[..if number < 15 { 4 } else { 3 }]);
    let none = Unclear { channel, events: Vec::new(), key: None, reopens: false, erases: false };
    match random.below(20) {
        0 => return Write::Close(Unclear { events: vec![Event::end()], ..none }),
        5 if random.one_in(2) => {
            return Write::Erase(Unclear { events: vec![Event::end()], erases: true, ..none });
        }
        1..4 => return Write::Reopen(Unclear { reopens: true, ..none }),
        4 => {
            if let Some(write) = machine.earlier_write(random) {
                return Write::Publish(write);
            }
        }
        _ => {}
    }
    let count = random.choose(&[1, 1, 1, 1, 3, 12]);
    let event = |index: u64, random: &mut Random| {
        let key = random.one_in(2).then(|| format!("key {}", random.below(6)));
        let key = key.and_then(|key| Field::key(&key).ok());
        let padding = "x".repeat(random.choose(&[0, 10, 90, 700]));
        let data = format!("{number}.{part}.{index} {padding}");
        Event::new(None, key, data, random.one_in(5))
    };
    let events = (0..count).map(|index| event(index, random)).collect();
    let key = random.one_in(2).then(|| format!("publish {number}.{part}"));
    Write::Publish(Unclear { events, key, ..none })
}

/// Ends the process, and opens the log again: after a failure of the power if it is `by_power`,
/// otherwise after a stop.
async fn restart(
    plan: &Plan,
    machine: &mut Machine,
    random: &mut Random,
    by_power: bool,
) -> Result<(), String> {
    machine.disk.begin(Random::of(random.number(), "calm", 0), Faults::default());
    match (by_power, machine.disk.is_off()) {
        // A process that is killed leaves what it wrote in the memory of the system.
        (_, true) if random.one_in(3) => machine.kill(),
        (true, _) | (_, true) => machine.fail_power(random),
        (false, false) => machine.stop(),
    }
    if plan.clock_steps && random.one_in(2) {
        let step = random.choose(&[-3_600_000, -20_000, -50, 40_000]);
        machine.say(format!("the wall clock is set by {step} ms"));
        machine.time.step(step);
    }
    // The power may fail again while the log is opened.
    while random.one_in(4) {
        machine.disk.fail_after(random.choose(&[1, 2, 4, 8, 30, 300]));
        machine.open_or_fail(Random::of(random.number(), "open", 0));
        match random.one_in(3) {
            true => machine.kill(),
            false => machine.fail_power(random),
        }
    }
    machine.open(Random::of(random.number(), "open", 0)).await
}
