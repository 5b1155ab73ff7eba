//! `/metrics` as Prometheus reads it.

use crate::kit::socket::Socket;
use crate::kit::{Origin, PATIENCE, get, read_until, wait_for_phase};
use headwater::client::Signal;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

/// The metrics with the type that `curl` reports.
fn scrape(origin: &Origin, accept: &str) -> (String, String) {
    let url = format!("http://{}/metrics", origin.admin);
    let accept = format!("Accept: {accept}");
    let words = ["-sS", "-H", &accept, "-w", "%{stderr}%{content_type}", &url];
    let output = Command::new("curl").args(words).output().expect("curl runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_in_the_metrics() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    let (text, kind) = scrape(&origin, "*/*");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{text}");
}

#[tokio::test]
async fn metrics_are_openmetrics_for_clients_that_ask_for_it() {
    let origin = Origin::start();
    let (text, kind) = scrape(&origin, OPENMETRICS);
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE headwater_events_in counter\n"));
}

#[tokio::test]
async fn the_process_is_described_by_standard_names() {
    let origin = Origin::start();
    let now = crate::kit::now_ms() as f64 / 1_000.0;
    let start = origin.metric("process_start_time_seconds").await;
    assert!((now - 60.0..=now + 2.0).contains(&start), "{start} is not just before {now}");
    let (open, most) =
        (origin.metric("process_open_fds").await, origin.metric("process_max_fds").await);
    assert!(open > 5.0 && open < most, "{open} of {most}");
    assert!(origin.metric("process_cpu_seconds_total").await > 0.0);
    let (text, _) = scrape(&origin, "*/*");
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("headwater_build_info{{version=\"{version}\"}} 1\n")), "{text}");
}

#[tokio::test]
async fn the_tasks_of_clients_are_counted_until_they_have_left() {
    const CLIENTS: usize = 20;
    let origin = Origin::start();
    let tasks = async || origin.metric("headwater_tasks").await;
    let before = tasks().await;
    let mut sources = Vec::new();
    for _ in 0..CLIENTS {
        let mut source = origin.source("/channels/a", None);
        assert!(matches!(source.next().await, Signal::Opened));
        sources.push(source);
    }
    let with_clients = tasks().await;
    assert!(with_clients >= before + CLIENTS as f64, "{with_clients} after {before}");
    drop(sources);
    let is_idle = async || tasks().await <= before;
    crate::hardening::wait_for("tasks remain", is_idle).await;
}

#[tokio::test]
async fn requests_that_a_cache_could_have_shared_are_counted_as_repeats() {
    // The requests shall all be in one segment.
    crate::kit::wait_for_phase(60_000, 0, 40_000).await;
    let token = "the-secret-of-tokens-with-32-bytes";
    let origin = Origin::with(&[
        "--store",
        "memory",
        "--segment",
        "60s",
        "--token-secret",
        token,
        "--private",
        "own.*",
        "--edge-auth",
        "0123456789abcdef",
    ]);
    let open = async |path: &str, headers: &[(&str, &str)]| {
        let address = origin.address();
        let mut connection = headwater::client::http::Connection::open(&address).await.unwrap();
        let mut request = connection.request(hyper::Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = connection.send(request, Default::default()).await.unwrap();
        assert_eq!(answer.status(), 200);
        (connection, answer)
    };
    let mut held = Vec::new();
    for path in ["/channels/a?after=0-0", "/channels/a?after=0-0", "/channels/a", "/channels/b"] {
        held.push(open(path, &[]).await);
    }
    // The same position in a header, and another format.
    held.push(open("/channels/a", &[("last-event-id", "0-0")]).await);
    held.push(open("/channels/a?after=0-0&format=json", &[]).await);
    // An edge that vouches for its clients shares the response too.
    let edge = [("headwater-edge-auth", "0123456789abcdef")];
    held.push(open("/channels/own.a", &edge).await);
    held.push(open("/channels/own.a", &edge).await);
    let requests = async |kind: &str| {
        origin.metric(&format!("headwater_shareable_requests_total{{kind=\"{kind}\"}}")).await
    };
    assert_eq!((requests("first").await, requests("repeat").await), (5.0, 3.0));
}

#[tokio::test]
async fn publishes_and_deliveries_are_timed() {
    let origin = Origin::start();
    let mut source = origin.source("/channels/a?after=0-0", None);
    for event in ["1", "2", "3"] {
        origin.publish("a", event).await;
        crate::kit::next_message(&mut source).await;
    }
    assert_eq!(origin.metric("headwater_publish_seconds_count").await, 3.0);
    let sum = origin.metric("headwater_publish_seconds_sum").await;
    assert!((0.000_001..3.0).contains(&sum), "{sum}");
    // The stream may have caught up by itself at first; then the pump sends.
    let passes = origin.metric("headwater_delivery_seconds_count").await;
    assert!((2.0..=3.0).contains(&passes), "{passes}");
}

#[tokio::test]
async fn what_is_sent_is_counted_while_the_streams_are_open() {
    wait_for_phase(60_000, 0, 50_000).await;
    let origin = Origin::with(&["--store", "memory", "--segment", "60s"]);
    let cursor = origin.publish("a", "first").await;
    let mut stream = origin.raw(&get("/channels/a", Some(&cursor))).await;
    read_until(&mut stream, |text| text.contains("event: segment")).await;
    let mut socket = Socket::connect(origin.listen).await;
    socket.subscribe("a", Some(&cursor)).await;
    for data in ["one", "two", "three"] {
        origin.publish("a", data).await;
    }
    read_until(&mut stream, |text| text.contains("three")).await;
    socket.hear_all(3).await;
    let give_up = Instant::now() + PATIENCE;
    loop {
        let metrics = origin.metrics().await;
        let events = metrics.value("headwater_events_out_total");
        if events == 6.0 {
            return assert!(metrics.value("headwater_streams_out_bytes_total") > 50.0);
        }
        assert!(events < 6.0 && Instant::now() < give_up, "{events} events were counted, not 6");
        sleep(Duration::from_millis(20)).await;
    }
}
