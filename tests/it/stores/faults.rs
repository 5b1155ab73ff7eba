//! Real faults of disks and mistakes of operators. An acknowledged event is served intact or its
//! loss is announced, a refused publish is really not stored, and `/readyz`, the log and the
//! metrics report the fault.

use crate::kit::machine::{LoopDisk, SmallDisk};
use crate::kit::{Answer, Origin, PATIENCE, next_message, read_until};
use hyper::Method;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub fn disk(path: &Path) -> String {
    format!("disk:{}", path.display())
}

/// The name of the metric that counts the store's errors of one kind.
pub fn errors(kind: &str) -> String {
    format!("headwater_store_errors_total{{kind=\"{kind}\"}}")
}

/// The files of the log in a directory, oldest first.
pub fn log_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|one| one == "log");
    let mut files: Vec<_> = entries.filter(is_log).collect();
    files.sort();
    files
}

/// Changes one bit of the first place in a file that has these bytes.
pub fn flip_a_bit_of(file: &Path, data: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(data.len()).position(|window| window == data.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// Publishes all events at the same time, each with an idempotency key of its own.
async fn publish_all(origin: &Origin, datas: &[String]) -> HashMap<String, Answer> {
    let all = datas.iter().map(async |data| {
        let key = [("idempotency-key", data.as_str())];
        (data.clone(), origin.post("/channels/a", &key, data).await)
    });
    futures_util::future::join_all(all).await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_was_refused_while_the_disk_hung_is_not_stored_later() {
    let disk = LoopDisk::new();
    let store = format!("disk:{}", disk.path().join("data").display());
    let origin = Origin::with(&["--store", &store, "--store-timeout", "1s"]);
    origin.publish("a", "before").await;
    origin.becomes(200).await;
    let frozen = disk.freeze();
    let datas: Vec<_> = (0..40).map(|n| format!("event {n}")).collect();
    // The first publish is inside a commit before the others come.
    let first = publish_all(&origin, &datas[..1]);
    let others = async {
        sleep(Duration::from_millis(200)).await;
        publish_all(&origin, &datas[1..]).await
    };
    let (mut answers, others) = tokio::join!(first, others);
    answers.extend(others);
    let slug = |answer: &Answer| {
        let kind = answer.json()["type"].as_str().expect("a problem").to_owned();
        kind.rsplit(':').next().unwrap().to_owned()
    };
    assert!(answers.values().all(|answer| answer.status == 503));
    let kinds: HashSet<_> = answers.values().map(&slug).collect();
    // The publishes that wait behind the commit are withdrawn.
    assert_eq!(kinds, HashSet::from(["store-down".to_owned(), "store-unclear".to_owned()]));
    let unconfirmed = "does not confirm a commit";
    origin.shows(Err("has waited"), unconfirmed, (&errors("stall"), 1.0..=1.0)).await;
    assert_eq!(origin.logged(unconfirmed), 1);
    assert_eq!(origin.metric("headwater_store_up").await, 0.0);
    // Reads still work.
    assert_eq!(origin.get("/channels/a/history").await.json()["events"][0]["data"], "before");
    drop(frozen);
    origin.shows(Ok(()), "has confirmed the commit", ("headwater_store_up", 1.0..)).await;
    let stored = async || -> HashSet<String> {
        origin.log("a").await.into_iter().map(|(_, data)| data).collect()
    };
    let after = stored().await;
    for (data, answer) in &answers {
        let is_refused = slug(answer) == "store-down";
        assert!(!(is_refused && after.contains(data)), "{data} was refused and is stored");
    }
    // The advice is to repeat a publish with the same key: then each event is stored once.
    let again = publish_all(&origin, &datas).await;
    assert!(again.values().all(|answer| answer.status.is_success()));
    assert_eq!(origin.log("a").await.len(), 41);
    assert_eq!(stored().await.len(), 41);
}

#[tokio::test]
async fn a_data_directory_that_is_removed_is_noticed() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let origin = Origin::with(&["--store", &disk(&path)]);
    origin.publish("a", "kept").await;
    std::fs::remove_dir_all(&path).unwrap();
    let refused = origin.post("/channels/a", &[], "lost").await;
    refused.assert_problem(503, "store-down");
    let gone = "the data directory is gone";
    origin.shows(Err(gone), gone, (&errors("write"), 1.0..)).await;
    // A new directory at the same path does not hold the log.
    std::fs::create_dir(&path).unwrap();
    sleep(Duration::from_millis(1_500)).await;
    origin.post("/channels/a", &[], "lost").await.assert_problem(503, "store-down");
    assert_eq!(origin.log("a").await.len(), 1, "what is open can be read");
    assert_eq!(origin.logged("the data directory is gone"), 1, "it is said once");
    assert_eq!(origin.metric("headwater_store_up").await, 0.0);
}

#[tokio::test]
async fn what_is_damaged_on_disk_is_a_gap_in_its_place() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    let mut ids = Vec::new();
    for n in 0..9 {
        ids.push(origin.publish_with("a", &format!("key=k{n}"), &format!("event {n}")).await);
    }
    origin.kill();
    let file = log_files(data.path()).pop().unwrap();
    flip_a_bit_of(&file, "event 4");
    origin.start_again();
    assert_eq!(origin.logged("a part of the log is damaged"), 1);
    assert_eq!(origin.metric(&errors("damaged")).await, 1.0);
    let mut source = origin.source("/channels/a", Some(&ids[2]));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let message = next_message(&mut source).await;
        seen.push((message.kind, message.last_event_id, message.data));
    }
    assert_eq!(seen[0], ("message".to_owned(), ids[3].clone(), "event 3".to_owned()));
    assert_eq!((&*seen[1].0, &seen[1].1), ("gap", &ids[4]), "{seen:?}");
    assert!(seen[1].2.contains(r#""reason":"damaged""#), "{seen:?}");
    assert_eq!(seen[2].2, "event 5");
    assert_eq!(seen[5].2, "event 8");
    // The history reports the same gap: a lost event has one fixed place in the log.
    let history = origin.get("/channels/a/history").await.json();
    assert_eq!(history["events"][4]["type"], "gap");
    assert_eq!(history["events"][4]["id"], ids[4].as_str());
    let ids_there = history["events"].as_array().unwrap().iter().map(|event| &event["id"]);
    assert!(ids_there.eq(ids.iter()), "{history}");
    // Damage that occurs while the origin runs is reported as well.
    flip_a_bit_of(&file, "event 6");
    let before = origin.metric(&errors("damaged")).await;
    let history = origin.get("/channels/a/history").await.json();
    assert_eq!(history["events"][6]["reason"], "damaged");
    let state = origin.get("/channels/a/state").await.json();
    let is_gap = |event: &&serde_json::Value| event["type"] == "gap";
    assert_eq!(state["events"].as_array().unwrap().iter().filter(is_gap).count(), 1, "{state}");
    let damaged = "a record of the log is damaged";
    origin.shows(Ok(()), damaged, (&errors("damaged"), before + 1.0..)).await;
    // The record is named each time that it is read.
    let lines = origin.logged(damaged);
    origin.get("/channels/a/history").await;
    origin.logs_times(damaged, lines + 1).await;
    origin.publish("a", "and it goes on").await;
}

#[tokio::test]
async fn an_empty_file_of_the_log_is_refused_and_so_is_the_former_format() {
    let refused = |data: &Path, expected: &str| {
        let flags = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let output =
            Command::new(crate::kit::BINARY).args(flags).args(["--store", &disk(data)]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // The process does not serve, so operators see only its exit status and its output.
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    origin.publish("a", "x").await;
    origin.kill();
    std::fs::write(log_files(data.path()).pop().unwrap(), "").unwrap();
    refused(data.path(), "is empty");
    let former = tempfile::tempdir().unwrap();
    std::fs::write(former.path().join("events.redb"), "redb").unwrap();
    refused(former.path(), "format of an earlier version");
}

/// Copies the files one after the other, as `cp -r` does, while the log is written.
fn copy_plainly(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        // A temporary file may have got its final name meanwhile.
        std::fs::copy(&path, to.join(path.file_name().unwrap())).ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_copy_under_load_is_whole_or_says_that_it_is_not() {
    let data = tempfile::tempdir().unwrap();
    let origin = Origin::with(&["--store", &disk(data.path()), "--store-timeout", "20s"]);
    let padding = "x".repeat(4_000);
    let (mut stored, mut copies) = (Vec::new(), Vec::new());
    for n in 0..8 {
        let before = stored.len();
        let copy = tempfile::tempdir().unwrap();
        let copied = async {
            let (from, to) = (data.path().to_owned(), copy.path().to_owned());
            tokio::task::spawn_blocking(move || copy_plainly(&from, &to)).await.unwrap();
        };
        let published = async {
            for m in 0..600 {
                stored.push(origin.publish("a", &format!("{n} {m} {padding}")).await);
            }
        };
        tokio::join!(copied, published);
        copies.push((copy, before));
    }
    for (copy, before) in copies {
        let origin = Origin::with(&["--store", &disk(copy.path())]);
        let (mut found, mut told) = (HashSet::new(), String::new());
        let mut after = "0-0".to_owned();
        loop {
            let path = format!("/channels/a/history?after={after}&limit=200");
            let page = origin.get(&path).await.json();
            let events = page["events"].as_array().unwrap();
            for event in events {
                let id = event["id"].as_str().unwrap().to_owned();
                match event["type"] == "gap" {
                    true => told = id,
                    false => drop(found.insert(id)),
                }
            }
            after = page["next"].as_str().unwrap().to_owned();
            if events.is_empty() {
                break;
            }
        }
        let id = |text: &str| headwater::core::cursor::EventId::parse(text).unwrap();
        for acknowledged in &stored[..before] {
            let is_told = !told.is_empty() && id(acknowledged) <= id(&told);
            assert!(found.contains(acknowledged) || is_told, "{acknowledged} is gone in silence");
        }
        if !told.is_empty() {
            origin.shows(Ok(()), "of the log", (&errors("damaged"), 1.0..)).await;
        }
        origin.publish("a", "and it goes on").await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_before_it_is_full_and_heals_by_itself() {
    let small = SmallDisk::of("48m");
    let flags = ["--store", &disk(small.path()), "--segment", "2s"];
    let origin = Origin::with(&flags);
    let large = "x".repeat(100_000);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let answer = origin.post("/channels/a", &[], &large).await;
        if answer.status != 201 {
            break answer;
        }
        acknowledged.push(answer.json()["id"].as_str().unwrap().to_owned());
    };
    let problem = refused.assert_problem(503, "store-down");
    assert!(problem["detail"].as_str().unwrap().contains("--disk-reserve"), "{problem}");
    assert!(acknowledged.len() > 50);
    // A publish that would still fit into the file is refused as well.
    origin.post("/channels/a", &[], "x").await.assert_problem(503, "store-down");
    let full = (&*errors("write"), 1.0..);
    origin.shows(Err("--disk-reserve"), "cannot be written", full).await;
    assert_eq!(origin.metric("headwater_store_up").await, 0.0);
    // Ten clients read the whole log meanwhile.
    let readers = (0..10).map(async |_| {
        let mut source = origin.source("/channels/a?after=0-0", None);
        for id in &acknowledged {
            assert_eq!(next_message(&mut source).await.last_event_id, *id);
        }
    });
    futures_util::future::join_all(readers).await;
    for _ in 0..100 {
        origin.post("/channels/a", &[], &large).await.assert_problem(503, "store-down");
    }
    assert_eq!(origin.logged("cannot be written"), 1, "one line, however many publishes");
    small.resize("128m");
    origin.shows(Ok(()), "can be written again", ("headwater_store_up", 1.0..)).await;
    acknowledged.push(origin.publish("a", "after").await);
    let kept: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, acknowledged);
}

#[tokio::test]
async fn a_limit_of_the_size_of_files_refuses_publishes_and_kills_nothing() {
    let data = tempfile::tempdir().unwrap();
    let origin = Origin::with(&["--store", &disk(data.path())]);
    let limit = |size: &str| {
        let words = [format!("--pid={}", origin.pid()), format!("--fsize={size}:unlimited")];
        assert!(Command::new("prlimit").args(words).status().unwrap().success());
    };
    let first = origin.publish("a", "first").await;
    limit("1200000");
    let large = "x".repeat(200_000);
    let refused = loop {
        let answer = origin.post("/channels/a", &[], &large).await;
        if answer.status != 201 {
            break answer;
        }
    };
    refused.assert_problem(503, "store-down");
    let full = (&*errors("write"), 1.0..);
    origin.shows(Err("File too large"), "cannot be written", full).await;
    assert_eq!(origin.logged("cannot be written"), 1);
    assert_eq!(origin.log("a").await[0].0, first);
    limit("unlimited");
    origin.becomes(200).await;
    origin.publish("a", "again").await;
    // If not even the first file can be created, the start fails with the reason.
    let data = tempfile::tempdir().unwrap();
    let serve = [crate::kit::BINARY, "serve", "--listen", "127.0.0.1:0"];
    let elsewhere = ["--admin-listen", "127.0.0.1:0", "--store"];
    let refused = Command::new("prlimit")
        .args(["--fsize=65536:unlimited"])
        .args(serve)
        .args(elsewhere)
        .arg(disk(data.path()))
        .output()
        .unwrap();
    assert!(refused.status.code().is_some_and(|code| code != 0), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("File too large") && said.contains("--store"), "{said}");
}

#[tokio::test]
async fn a_disk_with_too_little_space_is_known_before_the_first_publish() {
    let small = SmallDisk::of("16m");
    let origin = Origin::with(&["--store", &disk(small.path())]);
    assert!(origin.metric("headwater_store_disk_free_bytes").await > 0.0);
    let full = (&*errors("write"), 1.0..);
    origin.shows(Err("--disk-reserve"), "cannot be written", full).await;
    assert_eq!(origin.metric("headwater_store_up").await, 0.0);
    origin.post("/channels/a", &[], "x").await.assert_problem(503, "store-down");
    small.resize("128m");
    origin.becomes(200).await;
    origin.publish("a", "x").await;
}

#[tokio::test]
async fn a_full_store_accepts_publishes_that_replace_old_events() {
    let flags = ["--store", "memory", "--retain-events", "100", "--max-store-bytes", "20000"];
    let origin = Origin::with(&flags);
    let data = "x".repeat(100);
    for _ in 0..100 {
        origin.publish("full", &data).await;
    }
    let refused = loop {
        let answer = origin.post("/channels/other", &[], &data).await;
        if answer.status != 201 {
            break answer;
        }
    };
    refused.assert_problem(507, "limit-reached");
    for _ in 0..200 {
        origin.publish("full", &data).await;
    }
    assert_eq!(origin.log("full").await.len(), 100);
    // The origin stays ready: publishes that only replace events are accepted.
    let fill = ("headwater_store_fill_ratio", 0.95..=1.0);
    origin.shows(Ok(()), "the store is almost full", fill).await;
    assert_eq!(origin.logged("the store is almost full"), 1);
}

#[tokio::test]
async fn clients_are_shed_until_the_jwks_is_fetched() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    let flags = ["--store", "memory", "--private", "secret", "--token-jwks"];
    let flags: Vec<&str> = flags.into_iter().chain([file.to_str().unwrap()]).collect();
    let origin = Origin::with(&flags);
    let token = [("authorization", "Bearer eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.e30.AA")];
    let stream = origin.request(Method::GET, "/channels/secret", &token, "").await;
    assert_eq!((stream.status.as_u16(), stream.header("headwater-shed")), (200, Some("keys")));
    let refused = origin.post("/channels/a", &token, "x").await;
    refused.assert_problem(503, "keys");
    assert!(refused.header("retry-after").is_some());
    let shed = ("headwater_streams_shed_total{reason=\"keys\"}", 1.0..=1.0);
    origin.shows(Err("--token-jwks"), "the keys of tokens cannot be fetched", shed).await;
    assert_eq!(origin.logged("the keys of tokens cannot be fetched"), 1, "the cause is said once");
    assert_eq!(origin.get("/healthz").await.status, 200);
    // The key of RFC 8037, appendix A.2.
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    std::fs::write(&file, format!(r#"{{"keys":[{key}]}}"#)).unwrap();
    let refusals = ("headwater_publishes_refused_total{problem=\"keys\"}", 1.0..=1.0);
    origin.shows(Ok(()), "the keys of tokens were fetched", refusals).await;
    let refused = origin.post("/channels/a", &token, "x").await;
    refused.assert_problem(401, "token");
}

#[tokio::test]
async fn connections_cannot_use_the_file_descriptors_of_the_log_and_of_operators() {
    let data = tempfile::tempdir().unwrap();
    let store = disk(data.path());
    let origin = Origin::wrapped(&["prlimit", "--nofile=64:64"], &["--store", &store]);
    assert_eq!(origin.logged("may open few files only"), 1);
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(tokio::net::TcpStream::connect(origin.listen).await.unwrap());
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(origin.metric("headwater_store_up").await, 1.0, "operators are answered");
    drop(held);
    let closed = async { while origin.metric("headwater_connections_open").await > 0.0 {} };
    timeout(PATIENCE, closed).await.expect("they are closed");
    origin.becomes(200).await;
    origin.publish("a", "x").await;
}

/// Sends a request over an open connection, and reads the answer's head and body.
async fn ask_over(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(stream, |text| {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let length = head.to_lowercase();
        let length = length.split("content-length: ").nth(1);
        length.is_some_and(|rest| rest.lines().next().unwrap().parse() == Ok(body.len()))
    })
    .await
}

#[tokio::test]
async fn an_origin_that_has_no_file_left_for_a_connection_is_not_ready() {
    let data = tempfile::tempdir().unwrap();
    let origin = Origin::with(&["--store", &disk(data.path())]);
    origin.becomes(200).await;
    // The load balancer's connection was opened before.
    let mut held = TcpStream::connect(origin.listen).await.unwrap();
    assert!(ask_over(&mut held, "/readyz").await.starts_with("HTTP/1.1 200 "));
    let limit = |files: &str| {
        let words = [format!("--pid={}", origin.pid()), format!("--nofile={files}:")];
        assert!(Command::new("prlimit").args(words).status().unwrap().success());
    };
    limit("8");
    let refused = TcpStream::connect(origin.listen).await.unwrap();
    let not_ready = async {
        loop {
            let said = ask_over(&mut held, "/readyz").await;
            if said.starts_with("HTTP/1.1 503 ") {
                return said;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let said = timeout(PATIENCE, not_ready).await.expect("it is not ready");
    assert!(said.contains("connections cannot be accepted"), "{said}");
    origin.logs("connections cannot be accepted").await;
    assert_eq!(origin.logged("connections cannot be accepted"), 1, "it is said once");
    limit("1024");
    drop(refused);
    origin.shows(Ok(()), "connections are accepted again", ("headwater_store_up", 1.0..)).await;
    origin.publish("a", "x").await;
}

#[tokio::test]
async fn a_commit_that_a_crash_has_cut_off_is_removed() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    let mut ids = vec![origin.publish("a", "first").await];
    origin.kill();
    let file = log_files(data.path()).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    // The first half of one more record, as a commit that was cut off leaves it.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let at = bytes.windows(5).position(|window| window == b"first").unwrap();
    let record = bytes[at - 40..at].to_vec();
    bytes.resize(bytes.len().max(end + 64), 0);
    bytes[end..end + record.len()].copy_from_slice(&record);
    std::fs::write(&file, bytes).unwrap();
    origin.start_again();
    origin.shows(Ok(()), "the last commit was cut off", (&errors("damaged"), 0.0..=0.0)).await;
    ids.push(origin.publish("a", "second").await);
    let kept: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, ids);
    assert_eq!(origin.get("/channels/a/history").await.json()["events"][1]["data"], "second");
}
