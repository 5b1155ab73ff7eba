//! Streams and WebSockets on the same channel: subscribers and publishers of both kinds see one log
//! in one order.

use crate::kit::socket::{Heard, Socket};
use crate::kit::{Origin, Random};
use headwater::client::{EventSource, Signal};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

const LISTENERS: u64 = 500;
const PUBLISHERS: u64 = 4;
const EVENTS_EACH: u64 = 40;
/// Percentage of the subscribers that disconnect in each second.
const BREAK_OFF: u64 = 10;
/// The time within which every event in flight must arrive. An event that takes longer is lost.
const ARRIVAL: Duration = Duration::from_secs(60);
const LAST: &str = "the last one";

type Ids = Vec<String>;

/// Returns whether the subscriber disconnects in this second. It is called once per second.
fn breaks(random: &mut Random) -> bool {
    random.below(100) < BREAK_OFF
}

async fn listen_to_a_stream(mut source: EventSource, mut random: Random) -> Ids {
    let (mut ids, mut seconds) = (Ids::new(), interval(Duration::from_secs(1)));
    loop {
        tokio::select! {
            signal = source.next() => match signal {
                Signal::Message(message) if message.kind == "message" => {
                    ids.push(message.last_event_id);
                    if message.data == LAST {
                        return ids;
                    }
                }
                Signal::Message(message) => assert_eq!(message.kind, "segment"),
                Signal::Closed { why, .. } => panic!("closed: {why}"),
                Signal::Opened | Signal::Reconnecting { .. } => {}
            },
            _ = seconds.tick() => if breaks(&mut random) {
                source.disconnect(Duration::from_millis(random.below(300)));
            }
        }
    }
}

async fn listen_to_a_socket(server: SocketAddr, mut random: Random) -> Ids {
    let mut ids = Ids::new();
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        let mut socket = Socket::connect(server).await;
        let after = ids.last().cloned().unwrap_or("0-0".to_owned());
        socket.say(json!({ "type": "subscribe", "channels": ["a"], "after": after })).await;
        loop {
            tokio::select! {
                heard = socket.next() => match heard {
                    Heard::Frame(frame) if frame["type"] == "event" => {
                        ids.push(frame["id"].as_str().expect("an id").to_owned());
                        if frame["data"] == LAST {
                            return ids;
                        }
                    }
                    Heard::Frame(frame) => assert_eq!(frame["type"], "ack", "{frame}"),
                    Heard::Closed(why) => panic!("closed: {why:?}"),
                },
                _ = seconds.tick() => if breaks(&mut random) {
                    break;
                }
            }
        }
        // The TCP connection ends without a close frame, as after a network failure.
        drop(socket);
        sleep(Duration::from_millis(random.below(300))).await;
    }
}

/// Publishes like a client that does not know whether its last publish arrived: it repeats the
/// publish with the same idempotency key.
async fn publish_over_a_socket(server: SocketAddr, name: u64, mut random: Random) {
    let mut socket = Socket::connect(server).await;
    let mut pace = interval(Duration::from_millis(200));
    for number in 0..EVENTS_EACH {
        pace.tick().await;
        let key = format!("socket {name} {number}");
        let frame =
            json!({ "type": "publish", "channel": "a", "data": key, "idempotency_key": key });
        if random.below(100) < 2 * BREAK_OFF {
            // The acknowledgement is not awaited, so the event may or may not be stored.
            socket.say(frame.clone()).await;
            socket = Socket::connect(server).await;
        }
        socket.say(frame).await;
        assert_eq!(socket.hear().await["type"], "ack");
    }
}

async fn publish_over_http(origin: &Origin, name: u64) {
    let mut pace = interval(Duration::from_millis(200));
    for number in 0..EVENTS_EACH {
        pace.tick().await;
        origin.publish("a", &format!("http {name} {number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_sockets_and_five_hundred_streams_see_one_order() {
    let _alone = crate::kit::alone().await;
    headwater::telemetry::process::raise_file_limit();
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let flags = ["--store", &store, "--segment", "4s", "--store-timeout", "20s"];
    let origin = Origin::with(&flags);
    let mut listeners = JoinSet::new();
    for number in 0..LISTENERS {
        let source = origin.source("/channels/a", Some("0-0"));
        listeners.spawn(listen_to_a_stream(source, Random::new(number)));
        listeners.spawn(listen_to_a_socket(origin.listen, Random::new(LISTENERS + number)));
    }
    let sockets = (0..PUBLISHERS)
        .map(|name| publish_over_a_socket(origin.listen, name, Random::new(2 * LISTENERS + name)));
    let requests = (0..PUBLISHERS).map(|name| publish_over_http(&origin, name));
    futures_util::future::join(
        futures_util::future::join_all(sockets),
        futures_util::future::join_all(requests),
    )
    .await;
    origin.publish("a", LAST).await;
    let log = origin.log("a").await;
    let mut expected: Vec<String> = (0..PUBLISHERS)
        .flat_map(|name| (0..EVENTS_EACH).map(move |number| (name, number)))
        .flat_map(|(name, number)| ["socket", "http"].map(|way| format!("{way} {name} {number}")))
        .chain([LAST.to_owned()])
        .collect();
    let mut stored: Vec<String> = log.iter().map(|(_, data)| data.clone()).collect();
    expected.sort();
    stored.sort();
    assert_eq!(stored, expected, "an event is lost or doubled");
    let order: Ids = log.into_iter().map(|(id, _)| id).collect();
    let all = async {
        while let Some(heard) = listeners.join_next().await {
            assert_eq!(heard.expect("no listener complains"), order);
        }
    };
    timeout(ARRIVAL, all).await.expect("everyone has the last event");
    let opened = origin.metric("headwater_streams_opened_total{kind=\"cursor\"}").await;
    let closed = origin.metric("headwater_websockets_closed_total{code=\"none\"}").await;
    println!("{opened} streams and {closed} sockets for {} listeners", 2 * LISTENERS);
    assert!(closed > LISTENERS as f64 * 1.2, "{closed} sockets prove little");
}
