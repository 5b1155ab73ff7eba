//! Every alert of deploy/prometheus is raised by a real fault of a real origin. The test of the
//! shipped waiting times is deploy/prometheus/alerts_test.yml, which promtool runs.

use crate::kit::machine::{LoopDisk, SmallDisk, SteppedClock};
use crate::kit::prometheus::{Prometheus, RULES};
use crate::kit::redis::RedisServer;
use crate::kit::{Origin, get, next_message, read_until, wait_for_phase};
use crate::stores::faults::{disk, flip_a_bit_of, log_files};
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Requests that are shed, or streams that are cut, of which at least 150 within five minutes raise
/// an alert.
const MANY: usize = 300;
/// A delay that is too long by every alert.
const LONG: Duration = Duration::from_secs(2);

/// The waiting times, the limits and the texts of the alerts, and a document that explains each.
#[test]
fn promtool_finds_each_alert_at_its_time_and_the_documents_explain_each() {
    for words in [["check", "rules", RULES], ["test", "rules", "deploy/prometheus/alerts_test.yml"]]
    {
        let output = Command::new("promtool").args(words).output().expect("promtool runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    let read = |path| std::fs::read_to_string(path).expect("a file");
    let rules = read(RULES);
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let timed = read("deploy/prometheus/alerts_test.yml");
    let raised = read("tests/it/cli/alerts.rs");
    for document in ["docs/operations.md", "docs/reliability.md"] {
        let document = read(document);
        for alert in &alerts {
            assert!(document.contains(&format!("| `{alert}` |")), "no document has {alert}");
            let is_timed = timed.contains(&format!("alertname: {alert}\n        exp_alerts:"));
            assert!(is_timed, "promtool does not test {alert}");
            assert!(raised.contains(&format!("fires(\"{alert}\")")), "no fault raises {alert}");
        }
        let rows = document.lines().filter(|line| line.starts_with("| `Headwater")).count();
        assert_eq!(rows, alerts.len(), "a document has an alert that the rules have not");
    }
}

#[tokio::test]
async fn a_killed_origin() {
    let mut origin = Origin::start();
    let prometheus = Prometheus::of(&[&origin]).await;
    origin.kill();
    prometheus.fires("HeadwaterDown").await;
}

#[tokio::test]
async fn a_data_directory_that_is_removed() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let origin = Origin::with(&["--store", &disk(&path)]);
    let prometheus = Prometheus::of(&[&origin]).await;
    std::fs::remove_dir_all(&path).unwrap();
    origin.post("/channels/a", &[], "x").await.assert_problem(503, "store-down");
    prometheus.fires("HeadwaterNotReady").await;
    prometheus.fires("HeadwaterStoreFaults").await;
    prometheus.fires("HeadwaterPublishesRefused").await;
}

#[tokio::test]
async fn an_event_that_is_damaged_on_disk() {
    let data = tempfile::tempdir().unwrap();
    let mut origin = Origin::with(&["--store", &disk(data.path())]);
    origin.publish("a", "event 1").await;
    origin.publish("a", "event 2").await;
    // The next process has no event in its memory.
    origin.kill();
    origin.start_again();
    let prometheus = Prometheus::of(&[&origin]).await;
    flip_a_bit_of(&log_files(data.path())[0], "event 1");
    let history = origin.get("/channels/a/history").await.json();
    assert_eq!(history["events"][0]["reason"], "damaged", "{history}");
    prometheus.fires("HeadwaterEventsLost").await;
}

#[tokio::test]
async fn a_store_that_is_nearly_full() {
    // Each event is more than a tenth of the store.
    let flags = ["--store", "memory", "--max-store-bytes", "1MiB", "--max-event", "200KiB"];
    let origin = Origin::with(&[&flags[..], &["--retain-bytes", "4MiB"]].concat());
    let prometheus = Prometheus::of(&[&origin]).await;
    let body = "x".repeat(190 * 1024);
    for channel in 0..8 {
        let path = format!("/channels/c{channel}");
        let status = origin.post(&path, &[], &body).await.status;
        assert!(status == 201 || status == 507, "{status}");
    }
    prometheus.fires("HeadwaterStoreNearlyFull").await;
}

/// The alert comes while there is space, so every publish is accepted.
#[tokio::test]
async fn a_disk_that_fills_up() {
    let small = SmallDisk::of("256m");
    let origin = Origin::with(&["--store", &disk(small.path())]);
    let prometheus = Prometheus::of(&[&origin]).await;
    let body = "x".repeat(200_000);
    let fill = async {
        loop {
            origin.publish("a", &body).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = fill => unreachable!("publishing does not end"),
        () = prometheus.fires("HeadwaterDiskFillsUp") => {}
    }
}

#[tokio::test]
async fn a_disk_that_confirms_late() {
    let disk = LoopDisk::new();
    let store = format!("disk:{}", disk.path().join("data").display());
    let origin = Origin::with(&["--store", &store, "--store-timeout", "30s"]);
    origin.publish("a", "before").await;
    let prometheus = Prometheus::of(&[&origin]).await;
    let frozen = disk.freeze();
    let thaw = async {
        sleep(LONG).await;
        drop(frozen);
    };
    tokio::join!(origin.publish("a", "late"), thaw);
    prometheus.fires("HeadwaterPublishesSlow").await;
}

/// One of two origins stands still while the other one takes a publish.
#[tokio::test]
async fn an_origin_that_reads_late_from_redis() {
    let redis = RedisServer::start();
    let (origin, late) =
        (Origin::with(&["--store", &redis.url()]), Origin::with(&["--store", &redis.url()]));
    origin.publish("a", "before").await;
    let mut source = late.source("/channels/a?after=0-0", None);
    assert_eq!(next_message(&mut source).await.data, "before");
    // Deliveries are measured from the time at which the stream has joined the fan-out.
    while late.metric("headwater_delivery_seconds_count").await == 0.0 {
        origin.publish("a", "live").await;
        assert_eq!(next_message(&mut source).await.data, "live");
    }
    let prometheus = Prometheus::of(&[&origin, &late]).await;
    late.signal("STOP");
    origin.publish("a", "late").await;
    sleep(LONG).await;
    late.signal("CONT");
    assert_eq!(next_message(&mut source).await.data, "late");
    prometheus.fires("HeadwaterRedisLag").await;
    prometheus.fires("HeadwaterDeliverySlow").await;
}

/// Opens streams of a channel that has one event, and reads up to it.
async fn streams(origin: &Origin, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = origin.raw(&get("/channels/a?after=0-0", None)).await;
        read_until(&mut stream, |text| text.contains("data: x\n\n")).await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn a_redis_that_was_emptied() {
    let redis = RedisServer::start();
    wait_for_phase(600_000, 0, 560_000).await;
    let origin = Origin::with(&["--store", &redis.url(), "--segment", "10m"]);
    origin.publish("a", "x").await;
    let prometheus = Prometheus::of(&[&origin]).await;
    let mut streams = streams(&origin, MANY).await;
    redis.command(&["FLUSHALL"]);
    for stream in &mut streams {
        let rest = read_until(stream, |_| false).await;
        assert!(!rest.ends_with("0\r\n\r\n"), "a stream that lacks events may not look whole");
    }
    prometheus.fires("HeadwaterStreamsCut").await;
    prometheus.fires("HeadwaterEventsLost").await;
}

#[tokio::test]
async fn more_clients_than_connections() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m", "--max-connections", "1"]);
    origin.publish("a", "x").await;
    let prometheus = Prometheus::of(&[&origin]).await;
    let _held = streams(&origin, 1).await;
    for _ in 0..MANY {
        let answer = origin.get("/channels/a").await;
        assert_eq!(answer.header("headwater-shed"), Some("connections"), "{}", answer.body);
    }
    prometheus.fires("HeadwaterStreamsShed").await;
}

#[tokio::test]
async fn clients_without_a_cache_in_front() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    origin.publish("a", "x").await;
    let prometheus = Prometheus::of(&[&origin]).await;
    let _held = streams(&origin, 30).await;
    prometheus.fires("HeadwaterCachesDoNotCollapse").await;
}

#[tokio::test]
async fn origins_with_different_settings() {
    let redis = RedisServer::start();
    let origin = Origin::with(&["--store", &redis.url()]);
    let prometheus = Prometheus::of(&[&origin]).await;
    let _other = Origin::with(&["--store", &redis.url(), "--retain-events", "7"]);
    prometheus.fires("HeadwaterSettingsDiffer").await;
}

#[tokio::test]
async fn a_clock_that_is_set_back() {
    let clock = SteppedClock::new();
    let origin = clock.origin(&["--store", "memory"]);
    let prometheus = Prometheus::of(&[&origin]).await;
    clock.set("-1h");
    prometheus.fires("HeadwaterClockAhead").await;
}

#[tokio::test]
async fn more_connections_than_descriptors() {
    let flags = ["--store", "memory", "--head-timeout", "60s"];
    let origin = Origin::wrapped(&["prlimit", "--nofile=1024:1024"], &flags);
    let prometheus = Prometheus::of(&[&origin]).await;
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(TcpStream::connect(origin.listen).await.unwrap());
    }
    prometheus.fires("HeadwaterFewDescriptorsLeft").await;
}
