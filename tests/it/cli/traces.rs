//! Traces of publishes, as a real collector of OpenTelemetry receives them.

use crate::kit::collector::{Collector, Span};
use crate::kit::redis::RedisServer;
use crate::kit::socket::Socket;
use crate::kit::{BINARY, Origin, next_message};
use std::process::Command;
use std::time::{Duration, Instant};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Publishes as part of the trace, and returns the id of the event.
async fn publish_traced(origin: &Origin, channel: &str, flags: &str) -> String {
    let traceparent = format!("00-{TRACE}-{PARENT}-{flags}");
    let path = format!("/channels/{channel}");
    let answer = origin.post(&path, &[("traceparent", &traceparent)], "x").await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn find<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    let span = named.next().unwrap_or_else(|| panic!("{name}: {spans:?}"));
    assert!(named.next().is_none(), "{name} is there once: {spans:?}");
    span
}

fn has_all(spans: &[Span], names: &[&str]) -> bool {
    names.iter().all(|name| spans.iter().any(|span| span.name == *name))
}

// protocol §12.8
#[tokio::test]
async fn a_traced_publish_has_a_span_for_its_request_the_store_and_the_delivery() {
    let collector = Collector::start().await;
    let origin = collector.origin("one", &["--store", "memory"]);
    let mut source = origin.source("/channels/a", None);
    origin.publish("a", "not traced").await;
    assert_eq!(next_message(&mut source).await.data, "not traced");
    publish_traced(&origin, "a", "00").await;
    let id = publish_traced(&origin, "a", "01").await;
    next_message(&mut source).await;
    assert_eq!(next_message(&mut source).await.data, "x");
    let names = ["POST /channels/{name}", "store a", "deliver a"];
    let spans = collector.receives(|spans| has_all(spans, &names)).await;
    assert_eq!(spans.len(), 3, "{spans:?}");
    let [request, store, deliver] = names.map(|name| find(&spans, name));
    assert_eq!(request.parent, PARENT);
    assert_eq!([&store.parent, &deliver.parent], [&request.id; 2]);
    for span in &spans {
        assert_eq!((&*span.trace, &*span.service), (TRACE, "one"));
        assert_eq!(span.attributes["messaging.destination.name"], "a");
        assert!(span.times.0 <= span.times.1, "{span:?}");
    }
    assert_eq!(request.attributes["http.response.status_code"], "201");
    assert_eq!(store.attributes["messaging.batch.message_count"], "1");
    assert_eq!(deliver.attributes["messaging.message.id"], *id);
    assert!(request.times.0 <= store.times.0 && store.times.1 <= request.times.1);
    assert!(deliver.times.0 >= store.times.0);
    assert_eq!(origin.metric("headwater_trace_exports_failed_total").await, 0.0);
    assert!(origin.metric("headwater_trace_exports_accepted_total").await >= 1.0);
}

#[tokio::test]
async fn every_kind_of_response_ends_the_span_of_the_delivery() {
    let collector = Collector::start().await;
    let origin = collector.origin("one", &["--store", "memory"]);
    // A batch has one span, because its newest event takes the trace along.
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("traceparent", &*traceparent), ("content-type", "application/x-ndjson")];
    let long_poll = origin.get("/channels/polled?mode=hold");
    let publish = async {
        // The long poll has to wait for the event.
        while origin.metric("headwater_channels_live").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let batch = "{\"data\":\"1\"}\n{\"data\":\"2\"}\n";
        assert_eq!(origin.post("/channels/polled", &headers, batch).await.status, 201);
    };
    let (polled, ()) = tokio::join!(long_poll, publish);
    assert!(polled.body.contains("data: 1") && polled.body.contains("data: 2"), "{}", polled.body);
    let mut socket = Socket::connect(origin.listen).await;
    socket.subscribe("sent", None).await;
    publish_traced(&origin, "sent", "01").await;
    assert_eq!(socket.hear().await["data"], "x");
    let names = ["deliver polled", "deliver sent", "store polled", "store sent"];
    let spans = collector.receives(|spans| has_all(spans, &names)).await;
    find(&spans, "deliver polled");
    find(&spans, "deliver sent");
    assert_eq!(find(&spans, "store polled").attributes["messaging.batch.message_count"], "2");
}

// protocol §12.8
#[tokio::test]
async fn a_trace_travels_through_redis_to_the_other_origins() {
    let (collector, redis) = (Collector::start().await, RedisServer::start());
    let flags = ["--store", &*redis.url()];
    let (one, other) = (collector.origin("one", &flags), collector.origin("other", &flags));
    // This origin exports nothing, and the events are the same there.
    let without = Origin::with(&flags);
    let mut sources = [&other, &without].map(|origin| origin.source("/channels/a", None));
    one.publish_with("a", "key=k", "before").await;
    for source in &mut sources {
        assert_eq!(next_message(source).await.data, "before");
    }
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let answer = one.post("/channels/a?key=k", &[("traceparent", &traceparent)], "after").await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    for source in &mut sources {
        assert_eq!(next_message(source).await.data, "after");
    }
    let names = ["POST /channels/{name}", "store a", "deliver a"];
    let spans = collector.receives(|spans| has_all(spans, &names)).await;
    let [request, store, deliver] = names.map(|name| find(&spans, name));
    assert_eq!([&*request.service, &*store.service, &*deliver.service], ["one", "one", "other"]);
    assert_eq!(deliver.parent, request.id);
    // Pages, the state and an origin that starts later read the record as well.
    let late = Origin::with(&flags);
    for origin in [&one, &late] {
        let state = origin.get("/channels/a/state").await.json();
        assert_eq!(state["events"][0]["data"], "after", "{state}");
        assert_eq!(origin.log("a").await.len(), 2);
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let mut collector = Collector::stopped();
    let mut origin = collector.origin("one", &["--store", "memory"]);
    publish_traced(&origin, "a", "01").await;
    origin.logs("traces cannot be exported").await;
    assert!(origin.metric("headwater_trace_exports_failed_total").await >= 1.0);
    collector.run().await;
    let exported = async {
        while collector.spans().is_empty() {
            publish_traced(&origin, "a", "01").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::kit::PATIENCE, exported).await.expect("spans arrive again");
    origin.logs("traces are exported again").await;
    assert_eq!(origin.logged("traces cannot be exported"), 1);
    // The spans that have ended are exported at the end of the process.
    publish_traced(&origin, "last", "01").await;
    let begun = Instant::now();
    origin.signal("TERM");
    assert!(origin.ended().await.success());
    println!("the origin ended after {:?}", begun.elapsed());
    collector.receives(|spans| has_all(spans, &["store last"])).await;
}

#[tokio::test]
async fn publishes_without_a_trace_are_traced_at_the_ratio() {
    let collector = Collector::start().await;
    let origin = collector.origin("one", &["--store", "memory", "--trace-ratio", "1"]);
    origin.publish("a", "x").await;
    let names = ["POST /channels/{name}", "store a"];
    let spans = collector.receives(|spans| has_all(spans, &names)).await;
    assert_eq!(find(&spans, names[0]).parent, "");
    // The client has decided that this trace is not recorded.
    publish_traced(&origin, "not.recorded", "00").await;
    origin.publish("b", "x").await;
    let spans = collector.receives(|spans| has_all(spans, &["store b"])).await;
    assert!(!has_all(&spans, &["store not.recorded"]), "{spans:?}");
}

#[test]
fn wrong_settings_of_traces_are_named() {
    let url = ["--otlp-endpoint", "http://127.0.0.1:4318"];
    for (flags, flag) in [
        (vec!["--otlp-endpoint", "127.0.0.1:4318"], "--otlp-endpoint"),
        (vec!["--otlp-endpoint", "grpc://127.0.0.1:4317"], "--otlp-endpoint"),
        (vec!["--trace-ratio", "0.5"], "--trace-ratio"),
        ([&url[..], &["--trace-ratio", "1.5"]].concat(), "--trace-ratio"),
        ([&url[..], &["--trace-ratio", "NaN"]].concat(), "--trace-ratio"),
    ] {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--store", "memory", "--listen", "127.0.0.1:0"]).args(&flags);
        command.args(["--admin-listen", "127.0.0.1:0"]).env("HEADWATER_CONFIG", "");
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(flag), "{flags:?}: {said}");
    }
}
