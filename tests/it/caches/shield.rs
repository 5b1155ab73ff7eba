//! A cache behind a cache: two edges send their requests to a third Varnish, the shield, and only the
//! shield sends requests to the origin.

use crate::kit::edge::{Cache, Tap};
use crate::kit::history::History;
use crate::kit::{Origin, PATIENCE, now_ms, wait_for_phase};
use headwater_hunt::history::MayLose;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SEGMENT_MS: u64 = 10_000;
const SEGMENTS: u64 = 1;
const CLIENTS: usize = 20;
const LAST: &str = "the last";

// protocol §16.2, §16.3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_with_a_shield_are_one_request_a_segment_for_the_origin() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10s"]);
    let to_origin = Tap::to(origin.listen.port()).await;
    let shield = Cache::varnish(to_origin.port);
    let to_shield = Tap::to(shield.port).await;
    let edges = [Cache::varnish(to_shield.port), Cache::varnish(to_shield.port)];
    let history = History::begin();
    let publish = async |data: String| {
        history.published("a", &data);
        history.acknowledged("a", &origin.publish("a", &data).await, &data);
    };
    publish("the first".to_owned()).await;
    wait_for_phase(SEGMENT_MS, 100, 3_000).await;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut source = edges[number % 2].source("/channels/a?after=0-0", None);
        let client = history.client("a");
        clients.spawn(async move { client.read_to(&mut source, LAST).await });
    }
    let end = (now_ms() / SEGMENT_MS + SEGMENTS) * SEGMENT_MS + 1_500;
    for number in 0.. {
        if now_ms() >= end {
            break;
        }
        publish(number.to_string()).await;
        sleep(Duration::from_millis(100)).await;
    }
    publish(LAST.to_owned()).await;
    timeout(PATIENCE, clients.join_all()).await.expect("each client has the last event");
    let summary = history.judge(&origin, &["a"], MayLose::Nothing).await;
    assert_eq!(summary.received, CLIENTS * summary.logged, "{summary:?}");
    // The first segment, and one after each boundary.
    let segments = SEGMENTS as usize + 1;
    assert_eq!(to_origin.count(), segments, "{:?}", to_origin.asked());
    assert_eq!(to_shield.count(), segments * edges.len(), "{:?}", to_shield.asked());
}
