//! HTTP/2 without TLS (prior knowledge) against h2spec, the protocol's conformance suite.
//!
//! One case of 146 is answered in another way than the suite expects, and RFC 9113 allows it: see
//! [`DEVIATION`]. The suite runs on two paths because each decides cases that the other leaves
//! open. Some cases send the head of a request, leave the request open, and then make a mistake on
//! its stream. A server that does not need the rest of the request may have sent its whole answer
//! by then (RFC 9113, section 8.1), which the suite takes for a failure. A long poll answers a
//! `GET` only after a while, so it decides these cases for `GET`. A channel that has ended answers
//! a `GET` at once, but a `POST` only after it has read the body, so it decides them for `POST`.

use crate::kit::{Origin, quiet, read_until};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// The h2spec program; `tests/run` builds it.
const H2SPEC: &str = "target/h2spec/h2spec";
/// The number of cases, including those of the strict mode.
const CASES: usize = 146;
/// The time limit for all cases together.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a case waits for the expected frame: longer than a long poll waits for an event.
const CASE_SECONDS: &str = "8";

/// The client sends a line of text where HTTP/2 begins, and the suite expects nothing but the end
/// of the connection. The origin serves HTTP/1.1 on the same port, so a connection that does not
/// begin with the preface of HTTP/2 is one of HTTP/1.1: the origin answers `400` and closes it.
/// RFC 9113, section 3.4, does not require a GOAWAY frame here, because an invalid preface says
/// that the client does not use HTTP/2.
const DEVIATION: &str = "http2/3.5 Sends invalid connection preface";
/// The cases with a mistake on the stream of a `GET` that is still open.
const OPEN_GETS: [&str; 4] = [
    "http2/5.1 closed: Sends a DATA frame after sending RST_STREAM frame",
    "http2/5.1 closed: Sends a HEADERS frame after sending RST_STREAM frame",
    "http2/6.9 Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
    "http2/6.9.1 Sends multiple WINDOW_UPDATE frames increasing the flow control window to above \
     2^31-1 on a stream",
];
/// The cases with a mistake on the stream of a `POST` that is still open.
const OPEN_POSTS: [&str; 4] = [
    "http2/8.1 Sends a second HEADERS frame without the END_STREAM flag",
    "http2/8.1.2.1 Sends a HEADERS frame that contains a pseudo-header field as trailers",
    "http2/8.1.2.6 Sends a HEADERS frame with the \"content-length\" header field which does not \
     equal the DATA frame payload length",
    "http2/8.1.2.6 Sends a HEADERS frame with the \"content-length\" header field which does not \
     equal the sum of the multiple DATA frames payload length",
];

/// Reads the report: `None` for a case that passed, otherwise what the suite received instead.
fn outcomes(report: &str) -> BTreeMap<String, Option<String>> {
    let between = |text: &str, from: &str, to: &str| {
        let (_, rest) = text.split_once(from)?;
        Some(rest.split_once(to)?.0.replace("&#34;", "\""))
    };
    let cases = report.split("<testcase ").skip(1).map(|case| {
        let attribute = |name: &str| between(case, &format!("{name}=\""), "\"").expect("it is set");
        assert!(!case.contains("<skipped"), "{case}");
        let name = format!("{} {}", attribute("package"), attribute("classname"));
        let came = between(case, "<error>", "</error>");
        (name, came.map(|error| error.lines().last().unwrap_or_default().to_owned()))
    });
    cases.collect()
}

/// Runs all cases on a path. Returns the failed cases, each with what the suite received.
async fn failures(origin: &Origin, path: &str) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report.xml");
    let (host, port) = (origin.listen.ip().to_string(), origin.listen.port().to_string());
    let mut command = Command::new(H2SPEC);
    command.args(["--strict", "--host", &host, "--port", &port, "--path", path]);
    command.args(["--timeout", CASE_SECONDS, "--junit-report"]).arg(&report).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends in time");
    let output = output.unwrap_or_else(|error| panic!("{H2SPEC} (run tests/run): {error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let outcomes = outcomes(&read(&report).unwrap_or_else(|| panic!("no report: {said}")));
    assert_eq!(outcomes.len(), CASES, "{said}");
    outcomes.into_iter().filter_map(|(case, came)| Some((case, came?))).collect()
}

fn read(report: &Path) -> Option<String> {
    std::fs::read_to_string(report).ok()
}

/// Checks that only the deviation fails. The cases in `open` may also receive a whole answer, or
/// the reset that asks the client to send no more of a request that was answered.
fn assert_only_the_deviation(failures: &BTreeMap<String, String>, open: &[&str]) {
    let is_answer = |came: &str| {
        came.starts_with("RST_STREAM Frame ")
            || (came.starts_with("DATA Frame ") && came.contains("flags:0x01"))
    };
    let is_answered = |case: &str, came: &str| open.contains(&case) && is_answer(came);
    let wrong = failures.iter().filter(|(case, came)| !is_answered(case, came));
    let wrong: Vec<_> = wrong.map(|(case, _)| case.as_str()).collect();
    assert_eq!(wrong, [DEVIATION], "{failures:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_conforms_where_the_answer_is_there_at_once() {
    let _quiet = quiet().await;
    let origin = Origin::start();
    origin.publish("ended", "x").await;
    let ended = origin.request(hyper::Method::DELETE, "/channels/ended", &[], "").await;
    assert_eq!(ended.status, 200);
    assert_only_the_deviation(&failures(&origin, "/channels/ended").await, &OPEN_GETS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_conforms_on_a_long_poll() {
    let _quiet = quiet().await;
    // The suite has no token, so it publishes nothing that would end the wait of a long poll.
    let secret = ["--token-secret", "0123456789abcdef0123456789abcdef"];
    let hold = ["--store", "memory", "--segment", "10m", "--long-poll-timeout", "200ms"];
    let origin = Origin::with(&[&hold[..], &secret].concat());
    assert_only_the_deviation(&failures(&origin, "/channels/x?mode=hold").await, &OPEN_POSTS);
}

#[tokio::test]
async fn what_does_not_begin_as_http_2_is_answered_as_http_1_and_closed() {
    let origin = Origin::start();
    let mut stream = origin.raw(b"INVALID CONNECTION PREFACE\r\n\r\n").await;
    let answer = read_until(&mut stream, |_| false).await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"), "{answer}");
}
