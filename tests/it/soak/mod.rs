//! A soak: subscribers of every kind come and go for minutes or hours while publishers publish and
//! processes fail. Each subscriber receives each event once and in order, and the memory, the
//! descriptors and the tasks of the origin do not grow. `tests/soak` runs it with other settings.

mod deployment;
mod ledger;
mod publisher;
mod samples;
mod subscriber;

use crate::kit::alone;
use deployment::{CHANNELS, Deployment, LARGE, Store};
use ledger::{Fault, Place};
use parking_lot::Mutex;
use samples::{Sample, judge, judge_idle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use subscriber::Subscriber;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const SAMPLE_PAUSE: Duration = Duration::from_secs(1);
/// Samples between two lines of progress.
const SAMPLES_OF_LINE: u32 = 10;
/// Time after a restart of the measured origin from which its samples count.
const SETTLE_TIME: Duration = Duration::from_secs(20);
/// Longest time in which the subscribers come, receive their last events, or leave.
const CROWD_TIME_MAX: Duration = Duration::from_secs(90);
/// The pause between two events of a channel, unless `tests/soak` sets another one.
const PAUSE: Duration = Duration::from_millis(200);
/// Subscribers from which on the memory of idle subscribers is measured, too.
const IDLE_MEASURED_FROM: usize = 5_000;
/// Failures that are kept. Further ones are counted.
const FAILURES_MAX: usize = 20;

/// A bug of the soak's own clients, which shows that a soak can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    /// Connections of clients that have left stay open.
    Leak,
    /// Events are published that nobody reads, into ever more channels.
    Memory,
    /// One subscriber loses one event.
    Loss,
}

struct Options {
    length: Duration,
    subscribers: usize,
    store: Store,
    /// The pause between two events of a channel.
    pause: Duration,
    planted: Vec<Planted>,
}

/// What the subscribers and publishers share.
struct Run {
    addresses: Vec<SocketAddr>,
    pause: Duration,
    planted: Vec<Planted>,
    /// The last event of each channel before the first subscriber.
    filled: Vec<Place>,
    counts: Counts,
    gaps: Mutex<BTreeMap<String, u64>>,
    failures: Mutex<Vec<String>>,
    /// Becomes true when the publishers have to end.
    is_over: watch::Sender<bool>,
    /// The number of the last event of each channel, when the publishers have ended.
    last: watch::Sender<Option<Vec<u64>>>,
    /// Becomes true when the subscribers have to end without the last events.
    given_up: watch::Sender<bool>,
}

#[derive(Default)]
struct Counts {
    published: AtomicU64,
    /// Publishes that had to be repeated.
    retries: AtomicU64,
    /// Repeated publishes whose first attempt had been stored.
    repeated: AtomicU64,
    events: AtomicU64,
    visits: AtomicU64,
    responses: AtomicU64,
    shed: AtomicU64,
    missing: AtomicU64,
    doubled: AtomicU64,
    unordered: AtomicU64,
    failures: AtomicU64,
}

struct Report {
    text: String,
    failures: Vec<String>,
}

impl Options {
    /// The settings of `tests/soak`, or those of the run with all other tests.
    fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let minutes = variable("SOAK_MINUTES").map_or(2.0, |text| text.parse().expect("a number"));
        let subscribers = variable("SOAK_SUBSCRIBERS");
        let pause = variable("SOAK_PAUSE_MS").map(|text| text.parse().expect("a number"));
        let store = match variable("SOAK_STORE").as_deref() {
            None | Some("disk") => Store::Disk,
            Some("memory") => Store::Memory,
            Some("redis") => Store::Redis,
            Some(other) => panic!("SOAK_STORE is {other}, and not disk, memory or redis"),
        };
        let planted = variable("SOAK_PLANTED").map(|name| match &*name {
            "leak" => Planted::Leak,
            "memory" => Planted::Memory,
            "loss" => Planted::Loss,
            other => panic!("SOAK_PLANTED is {other}, and not leak, memory or loss"),
        });
        Self {
            length: Duration::from_secs_f64(minutes * 60.0),
            subscribers: subscribers.map_or(1_000, |text| text.parse().expect("a number")),
            store,
            pause: pause.map_or(PAUSE, Duration::from_millis),
            planted: planted.into_iter().collect(),
        }
    }
}

impl Run {
    fn has(&self, planted: Planted) -> bool {
        self.planted.contains(&planted)
    }

    fn fail(&self, text: String) {
        self.counts.failures.fetch_add(1, Relaxed);
        let mut failures = self.failures.lock();
        if failures.len() < FAILURES_MAX {
            failures.push(text);
        }
    }

    /// Counts a broken promise.
    fn fault(&self, fault: Fault, text: String) {
        let counter = match fault {
            Fault::Missing => Some(&self.counts.missing),
            Fault::Doubled => Some(&self.counts.doubled),
            Fault::Unordered => Some(&self.counts.unordered),
            Fault::Foreign => None,
        };
        counter.map(|counter| counter.fetch_add(1, Relaxed));
        self.fail(format!("{fault:?}: {text}"));
    }

    fn gap(&self, gap: &Value) {
        let reason = gap["reason"].as_str().unwrap_or("none").to_owned();
        *self.gaps.lock().entry(reason).or_default() += 1;
    }
}

/// Runs a soak, and returns its report.
async fn soak(options: &Options) -> Report {
    let mut deployment = tokio::task::block_in_place(|| Deployment::start(options.store));
    let run = Arc::new(Run {
        addresses: deployment.addresses(),
        pause: options.pause,
        planted: options.planted.clone(),
        filled: deployment.fill().await,
        counts: Counts::default(),
        gaps: Mutex::default(),
        failures: Mutex::default(),
        is_over: watch::Sender::new(false),
        last: watch::Sender::new(None),
        given_up: watch::Sender::new(false),
    });
    sleep(SAMPLE_PAUSE).await;
    let before = Sample::of(deployment.measured(), Duration::ZERO).await;
    let mut subscribers = JoinSet::new();
    for index in 0..options.subscribers {
        subscribers.spawn(Subscriber::new(index, run.clone()).follow());
    }
    let mut publishers = JoinSet::new();
    for channel in 0..=LARGE {
        publishers.spawn(publisher::publish(run.clone(), channel));
    }
    if run.has(Planted::Memory) {
        publishers.spawn(publisher::publish_for_nobody(run.clone()));
    }
    let (samples, faults) = watch_run(options, &mut deployment, &run).await;
    run.is_over.send_replace(true);
    let mut last = publishers.join_all().await;
    last.sort_unstable();
    run.last.send_replace(Some(last.iter().map(|(_, number)| *number).collect()));
    finish(&mut subscribers, &run).await;
    let after = rest(&deployment, &before).await;
    report(options, &run, &faults, &before, &samples, &after)
}

/// Takes samples and carries out the faults until the time is over. Returns the samples that can be
/// compared, and how often each fault happened.
async fn watch_run(
    options: &Options,
    deployment: &mut Deployment,
    run: &Run,
) -> (Vec<Sample>, BTreeMap<&'static str, u64>) {
    let begun = Instant::now();
    let mut faults = options.store.faults(options.length).into_iter().peekable();
    let mut counts = BTreeMap::new();
    let (mut samples, mut restarted) = (Vec::<Sample>::new(), options.length / 3);
    let mut ticks = interval(SAMPLE_PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1.. {
        ticks.tick().await;
        let at = begun.elapsed();
        if at >= options.length {
            break;
        }
        if faults.next_if(|due| *due <= at).is_some() {
            let what = deployment.fail().await;
            println!("soak: {} s: {what}", at.as_secs());
            *counts.entry(what).or_insert(0) += 1;
        }
        let sample = Sample::of(deployment.measured(), begun.elapsed()).await;
        if samples.last().is_some_and(|last| last.process != sample.process) {
            restarted = restarted.max(sample.at + SETTLE_TIME);
        }
        samples.push(sample);
        if tick % SAMPLES_OF_LINE == 0 {
            progress(run, &sample);
        }
    }
    samples.retain(|sample| sample.at >= restarted);
    (samples, counts)
}

fn progress(run: &Run, sample: &Sample) {
    let Sample { at, memory_mib, descriptors, tasks, clients, .. } = sample;
    let counts = &run.counts;
    let load = |counter: &AtomicU64| counter.load(Relaxed);
    println!(
        "soak: {} s: {clients} clients, {memory_mib:.1} MiB, {descriptors} descriptors, {tasks} tasks; \
         {} published, {} received, {} visits, {} failures",
        at.as_secs(),
        load(&counts.published),
        load(&counts.events),
        load(&counts.visits),
        load(&counts.failures),
    );
}

/// Waits until each subscriber has its last events.
async fn finish(subscribers: &mut JoinSet<Option<String>>, run: &Run) {
    let give_up = async {
        sleep(CROWD_TIME_MAX).await;
        run.given_up.send_replace(true);
    };
    let join = async {
        while let Some(ended) = subscribers.join_next().await {
            match ended {
                Ok(None) => {}
                Ok(Some(place)) => run.fail(format!("not finished: {place}")),
                Err(error) => run.fail(format!("a subscriber: {error}")),
            }
        }
    };
    tokio::pin!(join);
    tokio::select! {
        () = &mut join => {}
        () = give_up => join.await,
    }
}

/// Waits until the measured origin has no more descriptors and tasks than before, and returns the
/// last sample.
async fn rest(deployment: &Deployment, before: &Sample) -> Sample {
    let begun = Instant::now();
    loop {
        sleep(SAMPLE_PAUSE).await;
        let sample = Sample::of(deployment.measured(), Duration::ZERO).await;
        if sample.has_returned(before) || begun.elapsed() > CROWD_TIME_MAX {
            return sample;
        }
    }
}

fn report(
    options: &Options,
    run: &Run,
    faults: &BTreeMap<&'static str, u64>,
    before: &Sample,
    samples: &[Sample],
    after: &Sample,
) -> Report {
    let (table, mut failures) = judge(before, samples, after);
    let counts = &run.counts;
    let load = |counter: &AtomicU64| counter.load(Relaxed);
    let gaps = run.gaps.lock().clone();
    if options.store != Store::Redis && !gaps.is_empty() {
        failures.push(format!("gap events without a loss: {gaps:?}"));
    }
    if load(&counts.failures) > 0 {
        failures.push(format!("{} failures of clients, such as:", load(&counts.failures)));
        failures.append(&mut run.failures.lock());
    }
    let faults = faults.iter().map(|(what, times)| format!("{what} ({times} times)"));
    let faults = faults.collect::<Vec<_>>().join(", ");
    let minutes = options.length.as_secs_f64() / 60.0;
    let Options { subscribers, store, pause, .. } = options;
    let text = format!(
        "{subscribers} subscribers for {minutes:.1} minutes; store: {store:?}; an event of each channel every {pause:?}; faults: {}.\n\n{table}\n\
         | events | |\n| --- | --- |\n\
         | published, in {} channels | {} |\n| publishes that were repeated, and of these stored before | {}, {} |\n\
         | received | {} |\n| visits of subscribers, and responses | {}, {} |\n| shed | {} |\n\
         | missing, doubled, out of order | {}, {}, {} |\n| gap events | {} |\n",
        if faults.is_empty() { "none" } else { &faults },
        CHANNELS + 1,
        load(&counts.published),
        load(&counts.retries),
        load(&counts.repeated),
        load(&counts.events),
        load(&counts.visits),
        load(&counts.responses),
        load(&counts.shed),
        load(&counts.missing),
        load(&counts.doubled),
        load(&counts.unordered),
        if gaps.is_empty() { "none".to_owned() } else { format!("{gaps:?}") },
    );
    Report { text, failures }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_and_nothing_grows() {
    let _alone = alone().await;
    let options = Options::from_environment();
    headwater::telemetry::process::raise_file_limit();
    let idle = match options.subscribers >= IDLE_MEASURED_FROM {
        true => judge_idle(options.subscribers).await,
        false => Default::default(),
    };
    let Report { text, mut failures } = soak(&options).await;
    println!("\n{text}\n{}\n", idle.0);
    failures.extend(idle.1);
    assert!(failures.is_empty(), "the soak has failed:\n{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_on_redis_survives_failovers() {
    let _alone = alone().await;
    let length = Duration::from_secs(60);
    let options = Options {
        length,
        subscribers: 400,
        store: Store::Redis,
        pause: PAUSE,
        planted: Vec::new(),
    };
    let Report { text, failures } = soak(&options).await;
    println!("\n{text}");
    assert!(failures.is_empty(), "{text}\n{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_finds_what_is_planted() {
    let _alone = alone().await;
    let length = Duration::from_secs(45);
    let planted = vec![Planted::Leak, Planted::Memory, Planted::Loss];
    let options = Options { length, subscribers: 400, store: Store::Memory, pause: PAUSE, planted };
    let Report { text, failures } = soak(&options).await;
    println!("\n{text}");
    for words in ["descriptors", "tasks", "resident memory", "Missing"] {
        let is_found = failures.iter().any(|failure| failure.starts_with(words));
        assert!(is_found, "{words}: {failures:?}");
    }
}
