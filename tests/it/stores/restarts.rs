//! Planned restarts of an origin whose store no other origin has.

use crate::kit::history::{ClientHistory, History};
use crate::kit::{Origin, alone};
use headwater::client::http::Address;
use headwater::client::{EventSource, Signal};
use headwater_hunt::history::MayLose;
use std::net::TcpListener;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const CLIENTS: usize = 300;
/// So many of them have their part in the history.
const RECORDED: usize = 30;
/// The time from one publish to the next.
const PACE: Duration = Duration::from_millis(10);
const LAST: &str = "the last";
/// The segments are much longer than any client has to wait.
const SEGMENT: &str = "60s";
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Reads to the last event. Returns the data of all events, and the longest pause between two.
async fn read(address: Address, history: Option<ClientHistory>) -> (Vec<String>, Duration) {
    let mut source = EventSource::new(address, "/channels/a?after=0-0", None);
    let (mut seen, mut at, mut longest) = (Vec::new(), Instant::now(), Duration::ZERO);
    loop {
        let signal = source.next().await;
        history.iter().for_each(|history| history.note(&signal));
        match signal {
            Signal::Message(message) if message.kind == "message" => {
                longest = longest.max(at.elapsed());
                at = Instant::now();
                seen.push(message.data);
                if seen.last().is_some_and(|data| data == LAST) {
                    return (seen, longest);
                }
            }
            Signal::Message(message) => assert_eq!(message.kind, "segment", "{message:?}"),
            Signal::Opened | Signal::Reconnecting { .. } => {}
            Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_origin_is_replaced_while_its_sockets_stay_open() {
    let _alone = alone().await;
    headwater::telemetry::process::raise_file_limit();
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let directory = tempfile::tempdir().expect("a directory");
    let store = format!("disk:{}", directory.path().display());
    let flags = ["--store", &store, "--segment", SEGMENT, "--drain", "now"];
    let mut origin = Origin::inheriting(&socket, &flags);
    let mut clients = JoinSet::new();
    let history = History::begin();
    for number in 0..CLIENTS {
        let recorded = (number < RECORDED).then(|| history.client("a"));
        clients.spawn(read(origin.address(), recorded));
    }
    let (stop, stopped) = watch::channel(false);
    let publish = history.clone().publish_until(origin.address(), PACE, stopped, LAST);
    let publisher = tokio::spawn(publish);
    for _ in 0..2 {
        sleep(Duration::from_secs(2)).await;
        origin.signal("TERM");
        assert!(origin.ended().await.success());
        origin.start_again();
    }
    sleep(Duration::from_secs(1)).await;
    stop.send_replace(true);
    let published = publisher.await.expect("every publish is accepted");
    for (seen, pause) in clients.join_all().await {
        assert_eq!(seen, published);
        assert!(pause < PAUSE_MAX, "a client waited for {pause:?}");
    }
    let summary = history.judge(&origin, &["a"], MayLose::Nothing).await;
    assert_eq!((summary.clients, summary.logged), (RECORDED, published.len()));
}
