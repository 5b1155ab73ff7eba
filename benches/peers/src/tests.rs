//! The load client against a bare loop that makes faults on purpose: what it counts must be exactly
//! what the loop did.

use crate::baseline::{BareLoop, Faults};
use crate::measure::measure;
use crate::plan::Plan;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const SUBSCRIBERS: usize = 20;

/// What the client counts with these faults.
fn counted(faults: &Faults, rate: f64) -> Value {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let address = "127.0.0.1:0".parse().expect("an address");
        let server = BareLoop::bind(address, faults).expect("a free port");
        let address = server.address();
        scope.spawn(|| server.serve(|| !ended.load(Relaxed)));
        let head = "POST /c HTTP/1.1\r\nContent-Length: 200\r\n\r\n";
        let plan = Plan {
            subscribe_address: address,
            publish_address: address,
            subscribe: b"GET /c HTTP/1.1\r\n\r\n".into(),
            publish: [head.into(), Vec::new()],
            server: std::process::id(),
            run: 7,
            subscribers: SUBSCRIBERS,
            publishers: 3,
            rate,
            warm_up: Duration::from_millis(200),
            time: Duration::from_millis(800),
            open_time: Duration::from_secs(10),
            drain_time: Duration::from_secs(10),
        };
        let result = measure(&plan);
        ended.store(true, Relaxed);
        result
    })
}

fn assert_counts(result: &Value, lost: u64, duplicates: u64) {
    let events = result["events_acknowledged"].as_u64().expect("a count");
    assert!(events > 100, "{result}");
    assert_eq!(result["streams_opened"], SUBSCRIBERS);
    for (name, count) in [("lost", lost), ("duplicates", duplicates)] {
        assert_eq!(result[name], count, "{name}: {result}");
    }
    for name in ["reordered", "damaged", "replayed", "streams_ended", "events_unanswered"] {
        assert_eq!(result[name], 0, "{name}: {result}");
    }
}

#[test]
fn a_server_without_faults_loses_nothing() {
    let faults = Faults::default();
    let result = counted(&faults, 500.0);
    assert_counts(&result, 0, 0);
    let rate = result["events_per_second"].as_f64().expect("a rate");
    assert!((450.0..550.0).contains(&rate), "{result}");
    let latency = result["receive_ms"]["count"].as_u64().expect("a count");
    let events = result["answer_ms"]["count"].as_u64().expect("a count");
    assert_eq!(latency, events * SUBSCRIBERS as u64, "{result}");
}

#[test]
fn every_dropped_event_is_counted_as_lost() {
    let faults = Faults { drop_every: Some(97), ..Faults::default() };
    let result = counted(&faults, 500.0);
    let dropped = faults.dropped.load(Relaxed);
    assert!(dropped > 50);
    assert_counts(&result, dropped, 0);
}

#[test]
fn every_repeated_event_is_counted_as_a_duplicate() {
    let faults = Faults { repeat_every: Some(53), chunk_bytes: Some(7), ..Faults::default() };
    let result = counted(&faults, 500.0);
    let repeated = faults.repeated.load(Relaxed);
    assert!(repeated > 50);
    assert_counts(&result, 0, repeated);
}

#[test]
fn a_latency_has_the_time_for_which_the_server_holds_an_event() {
    let faults = Faults { hold: Some(Duration::from_millis(15)), ..Faults::default() };
    let result = counted(&faults, 40.0);
    assert_eq!(result["lost"], 0, "{result}");
    for name in ["receive_ms", "answer_ms"] {
        let p50 = result[name]["p50"].as_f64().expect("a time");
        assert!((15.0..60.0).contains(&p50), "{name}: {result}");
    }
}

#[test]
fn without_a_rate_each_publisher_sends_when_it_has_its_answer() {
    let faults = Faults { chunk_bytes: Some(33), ..Faults::default() };
    let result = counted(&faults, 0.0);
    assert_counts(&result, 0, 0);
    assert!(result["events_per_second"].as_f64().expect("a rate") > 1_000.0, "{result}");
}
