//! `/metrics` as Prometheus reads it.

use crate::kit::Origin;
use std::io::Write;
use std::process::{Command, Stdio};

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
