//! One measurement: the streams are opened, events are published for a time, and the costs of the
//! server are those between two instants in the middle of it.

use crate::plan::Plan;
use crate::process::{cpu_seconds, machine_cpu_seconds, resident_bytes, tree};
use crate::publishers::Publishers;
use crate::subscribers::Subscribers;
use crate::tally::{Numbers, Shared};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often the counts are looked at while streams open and the last events arrive.
const LOOK: Duration = Duration::from_millis(20);
/// Time after the last stream has opened, for what servers do after they have sent the head.
const SETTLE: Duration = Duration::from_millis(500);
/// Time without any event after which no more is expected.
const SILENCE: Duration = Duration::from_secs(2);

/// The counts at one instant.
struct Sample {
    at: Instant,
    server_cpu: f64,
    client_cpu: f64,
    machine_cpu: f64,
    delivered: u64,
    acknowledged: u64,
}

impl Sample {
    fn take(processes: &[u32], shared: &Shared) -> Self {
        Self {
            at: Instant::now(),
            server_cpu: cpu_seconds(processes),
            client_cpu: cpu_seconds(&[std::process::id()]),
            machine_cpu: machine_cpu_seconds(),
            delivered: shared.delivered.load(Relaxed),
            acknowledged: shared.acknowledged.load(Relaxed),
        }
    }
}

pub fn measure(plan: &Plan) -> Value {
    let shared = Shared::default();
    let processes = tree(plan.server);
    let memory_before = resident_bytes(&processes);
    std::thread::scope(|scope| {
        let subscribing = scope.spawn(|| Subscribers::new(plan, &shared).run());
        await_streams(plan, &shared);
        // Workers that were started meanwhile count as well.
        let processes = tree(plan.server);
        let publishing = scope.spawn(|| Publishers::new(plan, &shared).run());
        pause(plan.warm_up);
        let before = Sample::take(&processes, &shared);
        shared.open_window();
        pause(plan.time);
        shared.close_window();
        let after = Sample::take(&processes, &shared);
        let memory_after = resident_bytes(&processes);
        shared.publishing.store(false, Relaxed);
        let published = publishing.join().expect("the publishers end");
        await_last_events(plan, &shared, &published.acknowledged);
        shared.subscribing.store(false, Relaxed);
        let outcome = subscribing.join().expect("the subscribers end");
        let received = outcome.received;
        let lost = received.lost(&published.acknowledged, outcome.whole.iter().copied());
        let mut result = between(&before, &after);
        let more = json!({
            "memory_before_bytes": memory_before,
            "memory_after_bytes": memory_after,
            "streams_opened": shared.opened.load(Relaxed),
            "streams_refused": shared.refused.load(Relaxed),
            "streams_ended": shared.ended.load(Relaxed),
            "events_acknowledged": published.acknowledged.iter().map(Numbers::count).sum::<u64>(),
            "events_refused": published.refused,
            "events_unanswered": published.unanswered,
            "refusal": published.refusal,
            "answer_ms": percentiles(&published.answers),
            "receive_ms": percentiles(&received.latency),
            "lost": lost,
            "duplicates": received.duplicates,
            "reordered": received.reordered,
            "damaged": received.damaged,
            "replayed": received.replayed,
        });
        if let (Value::Object(result), Value::Object(more)) = (&mut result, more) {
            result.extend(more);
        }
        result
    })
}

/// Does not return early, unlike `park_timeout` alone.
fn pause(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn await_streams(plan: &Plan, shared: &Shared) {
    let end = Instant::now() + plan.open_time;
    while shared.opened.load(Relaxed) + shared.refused.load(Relaxed) < plan.subscribers
        && Instant::now() < end
    {
        pause(LOOK);
    }
    pause(SETTLE);
}

fn await_last_events(plan: &Plan, shared: &Shared, acknowledged: &[Numbers]) {
    let events = acknowledged.iter().map(Numbers::count).sum::<u64>();
    let streams = shared.opened.load(Relaxed).saturating_sub(shared.ended.load(Relaxed));
    let end = Instant::now() + plan.drain_time;
    let (mut delivered, mut changed) = (0, Instant::now());
    while delivered < events * streams as u64 {
        let now = shared.delivered.load(Relaxed);
        if now != delivered {
            (delivered, changed) = (now, Instant::now());
        }
        if changed.elapsed() > SILENCE || Instant::now() > end {
            return;
        }
        pause(LOOK);
    }
    // Copies of the last events arrive behind them.
    pause(SETTLE);
}

fn between(before: &Sample, after: &Sample) -> Value {
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let delivered = (after.delivered - before.delivered) as f64;
    let acknowledged = (after.acknowledged - before.acknowledged) as f64;
    let server = after.server_cpu - before.server_cpu;
    let client = after.client_cpu - before.client_cpu;
    let others = after.machine_cpu - before.machine_cpu - server - client;
    let each = |cpu: f64| (delivered > 0.0).then(|| cpu / delivered * 1e6);
    json!({
        "seconds": seconds,
        "server_cores": server / seconds,
        "client_cores": client / seconds,
        "other_cores": others.max(0.0) / seconds,
        "deliveries_per_second": delivered / seconds,
        "events_per_second": acknowledged / seconds,
        "server_cpu_us_per_delivery": each(server),
        "client_cpu_us_per_delivery": each(client),
    })
}

fn percentiles(times: &Histogram<u64>) -> Value {
    let at = |part: f64| times.value_at_quantile(part) as f64 / 1e6;
    if times.is_empty() {
        return Value::Null;
    }
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0), "count": times.len() })
}
