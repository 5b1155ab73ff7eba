//! Acknowledged events survive kills of the process and a clock that is set back.

use crate::kit::history::History;
use crate::kit::{Origin, PATIENCE, next_message};
use headwater::client::Signal;
use headwater_hunt::history::MayLose;
use hyper::Method;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

fn disk(path: &std::path::Path) -> String {
    format!("disk:{}", path.display())
}

/// Publishes from several tasks until the origin is killed. Returns the acknowledged events.
async fn publish_until_killed(
    origin: &Arc<Mutex<Origin>>,
    round: usize,
    history: &History,
) -> HashMap<String, String> {
    let mut publishers = JoinSet::new();
    let (count, mut counted) = watch::channel(0);
    for publisher in 0..4 {
        let (origin, count, history) = (origin.lock().await, count.clone(), history.clone());
        let address = origin.address();
        publishers.spawn(async move {
            let mut acknowledged = HashMap::new();
            for number in 0.. {
                let data = format!("{round} {publisher} {number}");
                let body = data.clone().into();
                let path = "/channels/a";
                history.published("a", &data);
                let answer = crate::kit::request(&address, Method::POST, path, &[], body).await;
                let Ok(answer) = answer else { break };
                assert_eq!(answer.status, 201, "{}", answer.body);
                let id = answer.json()["id"].as_str().expect("an id").to_owned();
                history.acknowledged("a", &id, &data);
                acknowledged.insert(id, data);
                count.send_modify(|count| *count += 1);
            }
            acknowledged
        });
    }
    // The kill happens while all tasks are publishing.
    let enough = counted.wait_for(|count| *count >= 400);
    tokio::time::timeout(PATIENCE, enough).await.expect("they publish").expect("a count");
    origin.lock().await.kill();
    publishers.join_all().await.into_iter().flatten().collect()
}

/// How often the origin is killed; `tests/durability` sets a larger number.
fn kills() -> usize {
    std::env::var("TEST_KILLS").map_or(5, |kills| kills.parse().expect("a number"))
}

// protocol §2.3, §2.5, §12.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_to_a_kill_and_no_id_is_used_twice() {
    let data = tempfile::tempdir().unwrap();
    let flags = ["--segment", "2s", "--publish-rate", "0", "--store-timeout", "20s"];
    let store = disk(data.path());
    let flags = [&["--store", &*store], &flags[..]].concat();
    let origin = Arc::new(Mutex::new(Origin::with(&flags)));
    let history = History::begin();
    history.published("a", "first");
    let first = origin.lock().await.publish("a", "first").await;
    let mut source = origin.lock().await.source("/channels/a?after=0-0", None);
    let client = history.client("a");
    let mut acknowledged = HashMap::from([(first, "first".to_owned())]);
    let follower = tokio::spawn(async move {
        loop {
            let signal = source.next().await;
            client.note(&signal);
            match signal {
                Signal::Message(message) if message.data == "last" => return,
                Signal::Message(message) => assert_ne!(message.kind, "gap", "{}", message.data),
                Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
                Signal::Opened | Signal::Reconnecting { .. } => {}
            }
        }
    });
    for round in 0..kills() {
        let newest: Option<String> = origin.lock().await.log("a").await.pop().map(|(id, _)| id);
        let new = publish_until_killed(&origin, round, &history).await;
        assert!(new.len() > 10, "{} publishes prove little", new.len());
        origin.lock().await.start_again();
        assert_eq!(origin.lock().await.becomes(200).await, "ready\n");
        let after = |id: &str| headwater::core::cursor::EventId::parse(id).unwrap();
        let newest = after(&newest.unwrap());
        assert!(new.keys().all(|id| after(id) > newest), "ids only go up");
        for (id, data) in new {
            assert_eq!(acknowledged.insert(id, data), None, "no id is given twice");
        }
    }
    history.published("a", "last");
    origin.lock().await.publish("a", "last").await;
    tokio::time::timeout(PATIENCE, follower).await.expect("it has the last").unwrap();
    // A client that was connected all the time has the whole log, in order and without duplicates.
    let summary = history.judge(&*origin.lock().await, &["a"], MayLose::Nothing).await;
    assert!(summary.logged > acknowledged.len(), "{summary:?}");
    assert_eq!(summary.received, summary.logged);
}

#[tokio::test]
async fn a_kill_keeps_state_idempotency_and_the_end_of_a_channel() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    origin.publish_with("a", "key=k&event=e", "v").await;
    let key = [("idempotency-key", "once")];
    let first = origin.post("/channels/a", &key, "x").await;
    origin.publish("ended", "x").await;
    let end = origin.request(Method::DELETE, "/channels/ended", &[], "").await.json();
    origin.kill();
    origin.start_again();
    assert_eq!(origin.get("/channels/a/state").await.json()["events"][0]["data"], "v");
    let again = origin.post("/channels/a", &key, "x").await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &first.body));
    origin.post("/channels/ended", &[], "x").await.assert_problem(409, "channel-closed");
    assert_eq!(origin.request(Method::DELETE, "/channels/ended", &[], "").await.json(), end);
}

/// A restart loses everything that the memory store of a process held, so no cursor of one process
/// may be valid in the next.
#[tokio::test]
async fn a_memory_store_that_starts_again_announces_what_is_lost() {
    let mut origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let seen = origin.publish("a", "seen").await;
    // The cursor of a client that waits for a first event.
    let waiting = origin.beginning().await;
    origin.publish("a", "lost").await;
    origin.publish("empty", "lost").await;
    origin.kill();
    origin.start_again();
    let mut known = origin.source("/channels/a", Some(&seen));
    let gap = next_message(&mut known).await;
    assert_eq!(gap.kind, "gap", "{}", gap.data);
    for (channel, cursor) in [("a", &seen), ("empty", &waiting)] {
        origin.publish(channel, "new").await;
        let mut source = origin.source(&format!("/channels/{channel}"), Some(cursor));
        let gap = next_message(&mut source).await;
        assert_eq!(gap.kind, "gap", "{channel}: {}", gap.data);
        assert!(gap.data.contains("\"trimmed\""), "{channel}: {}", gap.data);
        assert_eq!(next_message(&mut source).await.data, "new", "what is kept follows");
        // The cursor `0-0` stands for the beginning of any log.
        let mut all = origin.source(&format!("/channels/{channel}?after=0-0"), None);
        assert_eq!(next_message(&mut all).await.data, "new");
    }
}

// protocol §2.3
#[tokio::test]
async fn ids_go_on_when_the_machine_starts_again_with_its_clock_behind() {
    let data = tempfile::tempdir().unwrap();
    let store = disk(data.path());
    let id = |text: String| headwater::core::cursor::EventId::parse(&text).unwrap();
    let before = {
        let origin = Origin::with(&["--store", &store]);
        id(origin.publish("a", "x").await)
    };
    let origin = Origin::with_clock("-1h", &["--store", &store]);
    let after = id(origin.publish("a", "y").await);
    assert!(after > before);
    assert!(after.ms < before.ms + 60_000, "time goes on from there");
    let mut source = origin.source("/channels/a", Some(&before.to_string()));
    assert_eq!(next_message(&mut source).await.data, "y");
}

#[tokio::test]
async fn two_processes_do_not_share_a_directory() {
    let data = tempfile::tempdir().unwrap();
    let store = disk(data.path());
    let first = Origin::with(&["--store", &store]);
    let second = std::process::Command::new(crate::kit::BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--store", &store])
        .output()
        .unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    let holder = format!("another process (process {}) has it open", first.pid());
    assert!(error.contains(&holder), "{error}");
}
