//! Redis fails while origins use it: a failover by Sentinel, a failover in a cluster, and a replica
//! that lagged.

use crate::kit::history::{ClientHistory, History};
use crate::kit::redis::{Cluster, RedisServer, Relay, Sentinels, wait_until};
use crate::kit::{Origin, PATIENCE, next_message, request};
use headwater::client::http::Address;
use headwater::client::{EventSource, Signal};
use headwater_hunt::history::MayLose;
use hyper::Method;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const CHANNELS: u64 = 6;
const LAST: &str = "the last";

/// Publishes one event until it is acknowledged.
async fn publish_surely(address: &Address, channel: u64, data: &str, history: &History) {
    history.published(&channel.to_string(), data);
    loop {
        let path = format!("/channels/{channel}");
        let headers = [("idempotency-key", data)];
        let publish = request(address, Method::POST, &path, &headers, data.to_owned().into());
        if let Ok(Ok(answer)) = timeout(Duration::from_secs(5), publish).await
            && (answer.status == 201 || answer.status == 200)
        {
            let id = answer.json()["id"].as_str().expect("an id").to_owned();
            return history.acknowledged(&channel.to_string(), &id, data);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn publish_until(
    address: Address,
    channel: u64,
    mut stop: watch::Receiver<bool>,
    count: watch::Sender<u64>,
    history: History,
) {
    for number in 0.. {
        if *stop.borrow_and_update() {
            break;
        }
        publish_surely(&address, channel, &number.to_string(), &history).await;
        count.send_modify(|count| *count += 1);
        sleep(Duration::from_millis(5)).await;
    }
    publish_surely(&address, channel, LAST, &history).await;
}

/// Reads to the last event. Returns the numbers of events and of gaps.
async fn follow(mut source: EventSource, history: ClientHistory) -> (usize, usize) {
    let (mut events, mut gaps) = (0, 0);
    loop {
        let signal = source.next().await;
        history.note(&signal);
        match signal {
            Signal::Message(message) if message.kind == "message" => {
                events += 1;
                if message.data == LAST {
                    return (events, gaps);
                }
            }
            Signal::Message(message) if message.kind == "gap" => gaps += 1,
            Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
            _ => {}
        }
    }
}

/// Publishes to several channels at two origins while `fail` runs. Afterwards every client has the
/// log exactly once and in order, except where a gap event covers the difference. If the origins
/// wait for replicas, every acknowledged event is in the log.
async fn survives(url: &str, wait_replicas: &str, fail: impl AsyncFnOnce()) {
    let flags = ["--store", url, "--segment", "2s", "--redis-wait-replicas", wait_replicas];
    let origins = [Origin::with(&flags), Origin::with(&flags)];
    let history = History::begin();
    for channel in 0..CHANNELS {
        publish_surely(&origins[0].address(), channel, "the first", &history).await;
    }
    let (mut clients, mut publishers) = (JoinSet::new(), JoinSet::new());
    let (stop, stopped) = watch::channel(false);
    let (count, mut counted) = watch::channel(0);
    for channel in 0..CHANNELS {
        for origin in &origins {
            let source = origin.source(&format!("/channels/{channel}?after=0-0"), None);
            clients.spawn(follow(source, history.client(&channel.to_string())));
        }
        let address = origins[channel as usize % 2].address();
        let (stopped, count) = (stopped.clone(), count.clone());
        publishers.spawn(publish_until(address, channel, stopped, count, history.clone()));
    }
    let mut some_more = async || {
        let before = *counted.borrow_and_update();
        let more = counted.wait_for(|count| *count >= before + 50 * CHANNELS);
        timeout(Duration::from_secs(60), more).await.expect("publishing goes on").expect("a count");
    };
    some_more().await;
    fail().await;
    some_more().await;
    stop.send_replace(true);
    let published = timeout(Duration::from_secs(40), publishers.join_all()).await;
    published.expect("publishing goes on");
    let clients = timeout(Duration::from_secs(40), clients.join_all()).await;
    let seen = clients.expect("every client has the last event");
    let may_lose = match wait_replicas {
        "0" => MayLose::Acknowledged,
        _ => MayLose::Unacknowledged,
    };
    let channels: Vec<String> = (0..CHANNELS).map(|channel| channel.to_string()).collect();
    let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
    let summary = history.judge(&origins[0], &channels, may_lose).await;
    assert!(summary.logged > 20 * channels.len(), "too few events prove little: {summary:?}");
    assert_eq!(summary.received, seen.iter().map(|(events, _)| events).sum::<usize>());
    let gaps: usize = seen.iter().map(|(_, gaps)| gaps).sum();
    assert!(summary.lost == 0 || gaps > 0, "a loss is never silent: {summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_failover_loses_nothing_that_a_replica_had() {
    let mut sentinels = Sentinels::start();
    let url = sentinels.url();
    survives(&url, "1", async || {
        sentinels.fail_over();
        // The old master comes back as a replica, without which no publish is acknowledged.
        sentinels.master.start_again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_of_a_cluster_loses_nothing_that_a_replica_had() {
    let mut cluster = Cluster::start(1);
    let url = cluster.url();
    survives(&url, "1", async || {
        cluster.nodes[0].kill();
        wait_until("a replica takes over", || {
            cluster.nodes[3].command(&["ROLE"]).starts_with("master")
        });
        cluster.nodes[0].start_again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sentinel_failover_loses_is_announced() {
    let mut sentinels = Sentinels::start();
    let url = sentinels.url();
    survives(&url, "0", async || sentinels.fail_over()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_master_of_a_cluster_loses_is_announced() {
    let mut cluster = Cluster::start(1);
    let url = cluster.url();
    survives(&url, "0", async || {
        cluster.nodes[0].kill();
        wait_until("a replica takes over", || {
            cluster.nodes[3].command(&["ROLE"]).starts_with("master")
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_a_failover_lost_are_announced_to_everyone() {
    let mut master = RedisServer::start();
    let to_master = Relay::to(master.port).await;
    let replica = RedisServer::with(&["--replicaof", &format!("127.0.0.1 {}", to_master.port)]);
    let entry = Relay::to(master.port).await;
    let flags = ["--store", &format!("redis://127.0.0.1:{}", entry.port), "--segment", "2s"];
    let origin = Origin::with(&flags);
    origin.publish("a", "kept").await;
    let kept = origin.publish("a", "kept too").await;
    let mut ahead = origin.source("/channels/a?after=0-0", None);
    wait_until("the replica has it", || {
        replica.command(&["INFO", "replication"]).contains("master_link_status:up")
            && replica.command(&["DBSIZE"]) == master.command(&["DBSIZE"])
    });
    to_master.freeze(true);
    let lost = origin.publish("a", "lost").await;
    for data in ["kept", "kept too", "lost"] {
        assert_eq!(next_message(&mut ahead).await.data, data);
    }
    // The address now leads to the replica, which never had the event.
    entry.lead_to(replica.port);
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    master.kill();
    let gap = timeout(PATIENCE, next_message(&mut ahead)).await.expect("a gap event comes");
    assert_eq!(gap.kind, "gap", "{}", gap.data);
    // A client that had not yet received the lost event gets the gap event as well.
    let mut behind = origin.source("/channels/a", Some(&kept));
    let gap = next_message(&mut behind).await;
    assert_eq!(gap.kind, "gap");
    assert!(gap.data.contains(&lost), "{}", gap.data);
    let publish = async { while origin.post("/channels/a", &[], "after").await.status != 201 {} };
    timeout(PATIENCE, publish).await.expect("publishing goes on");
    for source in [&mut ahead, &mut behind] {
        let after = async {
            loop {
                let message = next_message(source).await;
                if message.kind == "message" {
                    return message.data;
                }
            }
        };
        assert_eq!(timeout(PATIENCE, after).await.expect("it goes on"), "after");
    }
}

/// The publish was acknowledged, and the master died before the origin had read it and before a
/// replica had it. The loss is announced although nothing is published afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_event_that_was_lost_before_it_was_read_is_announced() {
    let mut master = RedisServer::start();
    let to_master = Relay::to(master.port).await;
    let replica = RedisServer::with(&["--replicaof", &format!("127.0.0.1 {}", to_master.port)]);
    let entry = Relay::to(master.port).await;
    let store = format!("redis://127.0.0.1:{}", entry.port);
    let origin = Origin::with(&["--store", &store, "--segment", "2s", "--redis-shards", "1"]);
    let kept = origin.publish("a", "kept").await;
    wait_until("the replica has it", || {
        replica.command(&["INFO", "replication"]).contains("master_link_status:up")
            && replica.command(&["DBSIZE"]) == master.command(&["DBSIZE"])
    });
    to_master.freeze(true);
    entry.freeze_connection(follower_port(&master));
    let lost = origin.publish("a", "lost").await;
    entry.lead_to(replica.port);
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    master.kill();
    let mut client = origin.source("/channels/a", Some(&kept));
    let gap = timeout(PATIENCE, next_message(&mut client)).await.expect("a gap event comes");
    assert_eq!(gap.kind, "gap", "{}", gap.data);
    assert!(gap.data.contains(&lost), "{}", gap.data);
    let losses = origin.metric("headwater_store_errors_total{kind=\"lost\"}").await;
    assert_eq!(losses, 1.0);
}

/// The port from which the origin's follower of the only shard reads the log.
fn follower_port(server: &RedisServer) -> u16 {
    let port = || {
        let clients = server.command(&["CLIENT", "LIST"]);
        let reader = clients.lines().find(|client| client.contains("cmd=xread"))?;
        let (_, address) = reader.split_once(" addr=127.0.0.1:")?;
        address.split_once(' ')?.0.parse().ok()
    };
    wait_until("the origin reads the log", || port().is_some());
    port().expect("the reader is still there")
}
