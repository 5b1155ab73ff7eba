//! The command line commands, used as an operator would use them.

use crate::kit::{BINARY, Origin};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

fn headwater(origin: &Origin, words: &[&str], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(words).env("HEADWATER_URL", origin.address().to_string());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).expect("text")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

#[tokio::test]
async fn what_publish_sends_tail_prints() {
    let origin = Origin::start();
    let one =
        headwater(&origin, &["publish", "a", "Grüße\n2", "--event", "e x", "--key", "k&"], "");
    let id = stdout(&one).trim();
    let state = origin.get("/channels/a/state").await.json();
    assert_eq!((&state["events"][0]["id"], &state["events"][0]["key"]), (&id.into(), &"k&".into()));
    let lines: String = (0..2_500).map(|number| format!("line {number}\n")).collect();
    headwater(&origin, &["publish", "a"], &lines);
    let tail = headwater(&origin, &["tail", "a", "--after", "0-0", "--count", "2501"], "");
    assert_eq!(stdout(&tail), format!("e x: Grüße\n2\n{lines}"));
    let as_json =
        headwater(&origin, &["tail", "a", "--after", "0-0", "--count", "1", "--json"], "");
    let event: Value = serde_json::from_str(stdout(&as_json)).expect("a JSON line");
    assert_eq!((&event["event"], &event["data"]), (&"e x".into(), &"Grüße\n2".into()));
    assert_eq!(event["id"], id);
}

#[tokio::test]
async fn tail_ends_when_its_channel_does_and_complains_of_what_is_wrong() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    origin.request(hyper::Method::DELETE, "/channels/a", &[], "").await;
    let tail = headwater(&origin, &["tail", "a", "--after", "0-0"], "");
    assert_eq!(stdout(&tail), "x\n");
    let said = stderr(&tail);
    assert!(said.contains("has ended: {\"type\":\"end\",\"channel\":\"a\""), "{said}");
    for words in [&["tail", "not/a/name"][..], &["tail", "a,bad name"], &["publish", "b/c", "x"]] {
        let wrong = headwater(&origin, words, "");
        assert_eq!(wrong.status.code(), Some(2), "{words:?}");
        let said = stderr(&wrong);
        assert!(said.contains("a channel's name may not "), "{said}");
    }
    let refused = headwater(&origin, &["publish", "a", "y"], "");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("The channel has ended"));
}

#[tokio::test]
async fn a_key_is_removed_without_data_and_a_gap_is_no_event() {
    let origin = Origin::start();
    let keys = async || {
        let state = origin.get("/channels/a/state").await.json();
        let events = state["events"].as_array().expect("events").clone();
        events.iter().map(|event| event["key"].to_string()).collect::<Vec<_>>()
    };
    for key in ["k", "l"] {
        origin.publish_with("a", &format!("key={key}"), "1").await;
    }
    stdout(&headwater(&origin, &["publish", "a", "--key", "k", "--remove"], ""));
    assert_eq!(keys().await, [r#""l""#]);
    let batch = [("content-type", "application/x-ndjson")];
    let removal = r#"{"key":"l","remove":true}"#;
    let stored = origin.request(hyper::Method::POST, "/channels/a", &batch, removal).await;
    assert_eq!((stored.status.as_u16(), keys().await.len()), (201, 0));
    let bare = origin.request(hyper::Method::POST, "/channels/a", &batch, r#"{"key":"l"}"#).await;
    bare.assert_problem(400, "bad-field");
    assert!(bare.body.contains("is missing"), "{}", bare.body);
    let tail = headwater(&origin, &["tail", "a", "--after", "nonsense", "--count", "1"], "");
    assert_eq!(stdout(&tail), "1\n");
    let said = stderr(&tail);
    assert!(said.contains("events are missing: {\"type\":\"gap\""), "{said}");
}

#[tokio::test]
async fn publish_reports_what_it_stored() {
    let origin = Origin::start();
    let published = headwater(&origin, &["publish", "a", "-", "--ids"], "one\ntwo\n");
    let ids: Vec<&str> = stdout(&published).lines().collect();
    let log = origin.log("a").await;
    let stored: Vec<_> = log.iter().map(|(id, data)| (id.as_str(), data.as_str())).collect();
    assert_eq!(stored, [(ids[0], "one"), (ids[1], "two")]);
    let said = stderr(&published);
    assert!(said.contains(&format!("2 events are stored; the last id is {}", ids[1])), "{said}");
    let nothing = headwater(&origin, &["publish", "a"], "");
    assert_eq!(stdout(&nothing), "");
    assert!(stderr(&nothing).contains("nothing was published"), "{}", stderr(&nothing));
}

#[tokio::test]
async fn publish_says_at_once_that_it_repeats_itself() {
    let mut origin = Origin::start();
    origin.kill();
    let mut command = Command::new(BINARY);
    command.args(["publish", "a", "x", "--url", &origin.address().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
    lines.read_line(&mut said).expect("text");
    assert!(said.contains("cannot reach") && said.contains("is repeated"), "{said}");
    origin.start_again();
    let published = child.wait_with_output().expect("it ends");
    assert_eq!(origin.log("a").await[0].0, stdout(&published).trim());
}

#[tokio::test]
async fn bench_ends_when_there_is_no_server() {
    let mut origin = Origin::start();
    let refused = headwater(&origin, &["bench", "--rate", "0"], "");
    assert_eq!(refused.status.code(), Some(2));
    origin.kill();
    let failed = headwater(&origin, &["bench", "--subscribers", "2", "--duration", "1s"], "");
    assert_eq!(failed.status.code(), Some(1));
    let said = stderr(&failed);
    assert!(said.contains("no subscriber has a stream yet: cannot reach"), "{said}");
}

#[tokio::test]
async fn bench_counts_what_arrives() {
    let origin = Origin::with(&["--store", "memory", "--segment", "1s"]);
    let admin = format!("http://{}", origin.admin);
    let words = ["bench", "--subscribers", "20", "--rate", "200", "--duration", "2s", "--json"];
    let output = headwater(&origin, &[&words[..], &["--admin-url", &admin]].concat(), "");
    let result: Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!(result["published"], 400);
    assert_eq!(result["delivered"], 20 * 400);
    assert_eq!((&result["duplicates"], &result["gaps"]), (&0.into(), &0.into()));
    assert!(result["reconnects"].as_u64() >= Some(20), "{result}");
    assert!(result["server_cpu_us_per_delivery"].as_f64() > Some(0.0), "{result}");
    assert!(result["latency_ms"]["p50"].as_f64() > Some(0.0), "{result}");
}

#[test]
fn wrong_flags_are_explained_before_anything_is_opened() {
    let check = |flags: &[&str], expected: &str| {
        let output = Command::new(BINARY).arg("serve").args(flags).output().expect("it starts");
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    };
    check(&["--segment", "500ms"], "--segment takes 1s to 10m");
    check(&["--segment", "30"], "write it as 30s");
    check(&["--lanes", "65"], "--lanes takes 1 to 64");
    check(&["--max-event", "64Kib?"], "write it as 64KiB");
    check(&["--max-event", "1GiB"], "--max-event may not be larger than");
    check(&["--store", "tape"], "write it as disk:<directory>");
    for origin in ["https://a.example/", "a.example", "*", "https://A.example", "null"] {
        check(&["--cors-origin", origin], "--cors-origin: write");
    }
    check(&["--max-ws-message", "2MiB"], "--max-ws-message takes");
    check(&["--ws-ping", "0"], "--ws-ping takes more than 0");
    check(&["--trusted-proxy", "10.0.0.0/33"], "write it as 192.0.2.1 or 10.0.0.0/8");
    check(&["--rejoin-tick", "1m"], "--rejoin-tick takes less than --segment");
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    check(&[&free[..], &["--store", "disk:/proc/nowhere"]].concat(), "cannot open /proc/nowhere");
    let elsewhere = ["--store", "memory", "--open-publish", "--listen", "203.0.113.1:1"];
    check(&elsewhere, "cannot listen on 203.0.113.1:1");
}

#[tokio::test]
async fn a_health_check_fails_when_the_origin_is_not_ready_only_if_it_is_asked_to() {
    let mut redis = crate::kit::redis::RedisServer::start();
    let origin = Origin::with(&["--store", &redis.url()]);
    let url = format!("http://{}", origin.admin);
    let check = |words: &[&str]| {
        headwater(&origin, &[&["healthcheck", "--admin-url", &url], words].concat(), "")
    };
    origin.becomes(200).await;
    assert_eq!(stdout(&check(&["--ready"])), "ready\n");
    redis.kill();
    origin.becomes(503).await;
    let output = check(&["--ready"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("/readyz answers 503"), "{said}");
    assert_eq!(stdout(&check(&[])), "ok\n");
}

#[test]
fn a_command_whose_output_cannot_be_written_ends_without_a_panic() {
    let origin = Origin::start();
    let admin = format!("http://{}", origin.admin);
    for words in [
        vec!["edge", "squid", "--origin", "127.0.0.1:3129"],
        vec!["config", "show"],
        vec!["completions", "bash"],
        vec!["man"],
        vec!["channels", "list", "--admin-url", &admin],
    ] {
        let run = |output: Stdio| {
            let mut command = Command::new(BINARY);
            command.args(&words).env("HEADWATER_CONFIG", "");
            let output = command.stdout(output).output().expect("it runs");
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (code, _) = run(writer.into());
        assert_eq!(code, Some(0), "{words:?}: the reader has read enough");
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let (code, said) = run(full.into());
        assert_eq!(code, Some(1), "{words:?}: {said}");
        assert!(said.contains("cannot write to standard output"), "{words:?}: {said}");
    }
}
