//! Samples of the resources of an origin, and the rules by which a soak judges them.

use crate::hardening::memory;
use crate::kit::Origin;
use std::fmt::Write;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Samples that the judgement needs at least.
const SAMPLES_MIN: usize = 12;
/// By so much the median of the last quarter may exceed that of the second one: this part of it, and
/// this number.
const GROWTH_PART: f64 = 0.05;
const GROWTH_MIB: f64 = 4.0;
const GROWTH_COUNT: f64 = 20.0;
/// By so many descriptors and tasks an origin without clients may exceed the one before the first
/// client: the files of the log, and connections to Redis, differ.
const REST_COUNT: f64 = 4.0;

/// Idle subscribers from which on their memory is judged: with fewer, what an origin needs anyway weighs
/// too much.
const IDLE_JUDGED_FROM: usize = 15_000;
/// Most memory for an idle subscriber: 1 KiB, and the noise of one measurement.
const IDLE_KIB_MAX: f64 = 1.1;
/// Time after which the memory of idle subscribers is measured: allocators keep that of their requests
/// for some seconds.
const IDLE_TIME: Duration = Duration::from_secs(15);
/// Longest time in which the idle subscribers come.
const IDLE_ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// The resources of an origin at an instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub at: Duration,
    /// The process; a restart begins another one.
    pub process: u32,
    pub memory_mib: f64,
    pub descriptors: f64,
    pub threads: f64,
    pub tasks: f64,
    /// Streams, long polls and WebSockets that are open.
    pub clients: f64,
}

/// A row of the report: a resource, its value in a sample, and by how much it may grow.
struct Rule {
    name: &'static str,
    of: fn(&Sample) -> f64,
    growth: f64,
    /// Whether it has to return to its value before the first client. The allocator keeps memory.
    returns: bool,
}

const RULES: [Rule; 4] = [
    Rule {
        name: "resident memory, MiB",
        of: |sample| sample.memory_mib,
        growth: GROWTH_MIB,
        returns: false,
    },
    Rule {
        name: "descriptors",
        of: |sample| sample.descriptors,
        growth: GROWTH_COUNT,
        returns: true,
    },
    Rule { name: "tasks", of: |sample| sample.tasks, growth: GROWTH_COUNT, returns: true },
    // Threads for reads of the store are started when they are needed, up to a fixed number.
    Rule { name: "threads", of: |sample| sample.threads, growth: 16.0, returns: false },
];

impl Sample {
    /// Reads the resources of an origin.
    pub async fn of(origin: &Origin, at: Duration) -> Self {
        let metrics = origin.metrics().await;
        let process = origin.pid();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
        Self {
            at,
            process,
            memory_mib: metrics.value("process_resident_memory_bytes") / (1024.0 * 1024.0),
            descriptors: metrics.value("process_open_fds"),
            threads: threads.and_then(|text| text.trim().parse().ok()).unwrap_or_default(),
            tasks: metrics.value("headwater_tasks"),
            clients: metrics.value("headwater_streams_open")
                + metrics.value("headwater_websockets_open"),
        }
    }

    /// Whether this origin has no more descriptors and tasks than it had before its first client.
    pub fn has_returned(&self, before: &Self) -> bool {
        let mut returning = RULES.iter().filter(|rule| rule.returns);
        returning.all(|rule| (rule.of)(self) <= (rule.of)(before) + REST_COUNT)
    }
}

/// Compares the second quarter of the samples with the last one, and the origin after its last client
/// with that before its first. Returns a table for the report, and what is wrong.
pub fn judge(before: &Sample, samples: &[Sample], after: &Sample) -> (String, Vec<String>) {
    let mut failures = Vec::new();
    let mut table = "| the origin that was measured | before the first client | second quarter | \
         last quarter | may grow by | after the last client |\n| --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    if samples.len() < SAMPLES_MIN {
        failures.push(format!("{} samples are too few to judge", samples.len()));
        return (table, failures);
    }
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let clients = |samples: &[Sample]| median(samples, |sample| sample.clients);
    let row = [before.clients, clients(second), clients(last)].map(|value| value.round());
    writeln!(table, "| clients | {} | {} | {} | | {} |", row[0], row[1], row[2], after.clients)
        .ok();
    for Rule { name, of, growth, returns } in &RULES {
        let (earlier, later) = (median(second, *of), median(last, *of));
        let growth = growth.max(earlier * GROWTH_PART);
        let (begun, ended) = (of(before), of(after));
        writeln!(
            table,
            "| {name} | {begun:.0} | {earlier:.1} | {later:.1} | {growth:.1} | {ended:.0} |"
        )
        .ok();
        if later > earlier + growth {
            failures.push(format!("{name}: {earlier:.1} in the second quarter, then {later:.1}"));
        }
        if *returns && ended > begun + REST_COUNT {
            let text = "before the first client, and after the last";
            failures.push(format!("{name}: {begun} {text} {ended}"));
        }
    }
    (table, failures)
}

/// Measures the resident memory of another origin for each of many idle subscribers. Returns a
/// sentence for the report, and what is wrong.
pub async fn judge_idle(subscribers: usize) -> (String, Option<String>) {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m", "--log", "error"]);
    origin.publish("idle", "x").await;
    let before = memory(&origin).await;
    let mut clients = JoinSet::new();
    for index in 0..subscribers as u64 {
        let mut source = origin.source("/channels/idle", None);
        clients.spawn(async move {
            sleep(Duration::from_millis(index)).await;
            loop {
                source.next().await;
            }
        });
    }
    let begun = Instant::now();
    let all = subscribers as f64;
    while origin.metric("headwater_streams_open").await < all && begun.elapsed() < IDLE_ARRIVAL_MAX
    {
        sleep(Duration::from_millis(200)).await;
    }
    sleep(IDLE_TIME).await;
    let open = origin.metric("headwater_streams_open").await;
    let kib = (memory(&origin).await - before) * 1024.0 / open.max(1.0);
    clients.shutdown().await;
    let text = format!("Resident memory for each of {open} idle subscribers: {kib:.2} KiB.");
    let is_judged = subscribers >= IDLE_JUDGED_FROM;
    let is_wrong = open < all || (is_judged && kib > IDLE_KIB_MAX);
    (text.clone(), is_wrong.then_some(text))
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn growth_and_a_rest_are_found_and_noise_is_not() {
    let sample = |index: u32, growth: f64| {
        // The noise repeats every five samples.
        let value = 1_000.0 + f64::from(index % 5) * 8.0 + f64::from(index) * growth;
        Sample { memory_mib: value, descriptors: value, tasks: value, ..Sample::default() }
    };
    let series = |growth| (0..80).map(|index| sample(index, growth)).collect::<Vec<_>>();
    let idle = Sample { descriptors: 20.0, tasks: 30.0, ..Sample::default() };
    let failures = |samples: &[Sample], after| judge(&idle, samples, after).1;
    assert!(failures(&series(0.0), &idle).is_empty());
    assert!(failures(&series(-5.0), &idle).is_empty());
    let grown = failures(&series(1.5), &idle);
    assert_eq!(grown.len(), 3, "memory, descriptors and tasks: {grown:?}");
    let rest = Sample { tasks: 35.0, ..idle };
    assert_eq!(failures(&series(0.0), &rest).len(), 1);
    assert!(!rest.has_returned(&idle) && idle.has_returned(&idle));
    assert_eq!(failures(&series(0.0)[..10], &idle).len(), 1, "too few samples");
}
