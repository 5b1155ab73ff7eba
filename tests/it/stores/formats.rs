//! Upgrades and rollbacks between builds that store their events differently. `tests/upgrade` runs
//! these tests with the program of an earlier commit.

use crate::kit::redis::RedisServer;
use crate::kit::{BINARY, Origin, next_message};
use crate::stores::faults::disk;
use hyper::Method;
use std::process::Command;

/// Logs that earlier builds have written, by the commit that they were built from:
/// `write` says what is in them, with the name "earlier".
const EARLIER: [&str; 1] = ["3b91dc2"];
/// Ages at which nothing in such a log is dropped.
const FOREVER: [&str; 4] = ["--retain-age", "36500d", "--channel-idle", "36500d"];

/// The program of the other build: the one that `tests/upgrade` has built, or this one.
fn other_build() -> String {
    std::env::var("TEST_OTHER_BUILD").unwrap_or_else(|_| BINARY.to_owned())
}

/// Starts an origin of the other build. The wrapper replaces the program in the command line.
fn other(flags: &[&str]) -> Origin {
    let script = format!("shift; exec '{}' \"$@\"", other_build());
    Origin::wrapped(&["sh", "-c", &script, "sh"], flags)
}

/// What is in the logs of earlier builds, and in the store of every test here.
async fn write(origin: &Origin, name: &str) {
    for n in 0..100 {
        origin.publish("a", &format!("{name} {n}")).await;
    }
    origin.publish_with("state", "key=k&event=e", name).await;
    let batch = format!("{{\"data\":\"{name} batch\"}}\n").repeat(50);
    origin.publish_lines("batch", &batch).await;
    let once = [("idempotency-key", name)];
    assert_eq!(origin.post("/channels/once", &once, name).await.status, 201);
    let path = format!("/channels/ended.{name}");
    origin.post(&path, &[], "x").await;
    assert_eq!(origin.request(Method::DELETE, &path, &[], "").await.status, 200);
}

/// Checks that an origin has what `names` have written, one after the other.
async fn check(origin: &Origin, names: &[&str]) {
    assert_eq!(origin.becomes(200).await, "ready\n");
    let datas = async |channel: &str| -> Vec<String> {
        origin.log(channel).await.into_iter().map(|(_, data)| data).collect()
    };
    let expected = |count: usize, text: &dyn Fn(&str, usize) -> String| -> Vec<String> {
        names
            .iter()
            .flat_map(|name| (0..count).map(|n| text(name, n)).collect::<Vec<_>>())
            .collect()
    };
    assert_eq!(datas("a").await, expected(100, &|name, n| format!("{name} {n}")));
    assert_eq!(datas("batch").await, expected(50, &|name, _| format!("{name} batch")));
    assert_eq!(datas("once").await, names);
    let state = origin.get("/channels/state/state").await.json();
    assert_eq!(state["events"][0]["data"], *names.last().expect("a name"));
    for name in names {
        let path = format!("/channels/ended.{name}");
        origin.post(&path, &[], "x").await.assert_problem(409, "channel-closed");
    }
    // A client with the cursor of the first event gets the second one, without a gap.
    let first = origin.log("a").await.swap_remove(0).0;
    let message = next_message(&mut origin.source("/channels/a", Some(&first))).await;
    assert_eq!((message.kind.as_str(), message.data), ("message", format!("{} 1", names[0])));
    for kind in ["damaged", "index", "lost"] {
        let errors = format!("headwater_store_errors_total{{kind=\"{kind}\"}}");
        assert_eq!(origin.metric(&errors).await, 0.0, "{errors}");
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_build_is_read_and_goes_on() {
    for commit in EARLIER {
        let data = tempfile::tempdir().unwrap();
        let archive = format!("tests/it/stores/formats/{commit}.tar.gz");
        let unpacked = Command::new("tar").args(["-xzf", &archive, "-C"]).arg(data.path()).status();
        assert!(unpacked.expect("tar runs").success());
        let store = disk(data.path());
        let mut origin = Origin::with(&[&["--store", &*store], &FOREVER[..]].concat());
        check(&origin, &["earlier"]).await;
        write(&origin, "later").await;
        origin.kill();
        origin.start_again();
        check(&origin, &["earlier", "later"]).await;
    }
}

/// Every process but the last one is killed, and every other one is of the other build.
async fn goes_back_and_forth(store: &str) {
    let flags = ["--store", store];
    let mut names = Vec::new();
    for (name, is_other) in [("first", true), ("second", false), ("third", true), ("last", false)] {
        let mut origin = if is_other { other(&flags) } else { Origin::with(&flags) };
        if !names.is_empty() {
            check(&origin, &names).await;
            let once = [("idempotency-key", names[0])];
            let again = origin.post("/channels/once", &once, names[0]).await;
            assert_eq!(again.status, 200, "the key of another build is known");
        }
        write(&origin, name).await;
        names.push(name);
        check(&origin, &names).await;
        origin.kill();
    }
}

#[tokio::test]
async fn an_upgrade_and_a_rollback_keep_every_event_on_disk() {
    let data = tempfile::tempdir().unwrap();
    goes_back_and_forth(&disk(data.path())).await;
}

#[tokio::test]
async fn an_upgrade_and_a_rollback_keep_every_event_in_redis() {
    let redis = RedisServer::start();
    goes_back_and_forth(&redis.url()).await;
}

/// Writes the log of a fixture with the other build into the directory `TEST_FIXTURE`, or into
/// one that is removed, and checks it.
#[tokio::test]
async fn what_a_fixture_has_is_what_the_other_build_writes() {
    let aside = tempfile::tempdir().unwrap();
    let place = std::env::var("TEST_FIXTURE");
    let place = place.unwrap_or_else(|_| aside.path().display().to_string());
    let mut origin = other(&["--store", &format!("disk:{place}")]);
    write(&origin, "earlier").await;
    origin.kill();
    origin.start_again();
    check(&origin, &["earlier"]).await;
    origin.kill();
}
