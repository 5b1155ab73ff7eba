//! Attacks on the origin's memory: answers that the client requests and then does not read, or does
//! not wait for.

use super::{assert_calm, assert_sane, memory, wait_for};
use crate::kit::{Origin, PATIENCE, get, next_message, read_until};
use crate::stores::overload::h2_on;
use crate::websocket::raw::Peer;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The memory that the origin may use for answers, and beside them (MiB).
const ANSWERS: f64 = 64.0;
const REST: f64 = 64.0;

fn origin(more: &[&str]) -> Origin {
    let flags = ["--store", "memory", "--answer-bytes", "64MiB", "--write-timeout", "2s"];
    Origin::with(&[&flags[..], &["--segment", "10m", "--heartbeat", "1s"], more].concat())
}

/// Fills a channel with 10,000 keys; its state is 600 KB.
async fn with_keys(origin: &Origin) {
    let line = |n: usize| format!("{{\"key\":\"k{n}\",\"data\":\"{}\"}}\n", "x".repeat(40));
    origin.publish_lines("keys", &(0..10_000).map(line).collect::<String>()).await;
}

/// Fills a channel with `count` events of a megabyte each.
async fn with_large(origin: &Origin, channel: &str, count: usize) {
    for _ in 0..count {
        origin.publish(channel, &"y".repeat(1_000_000)).await;
    }
}

/// Sends the request repeatedly, and resets each connection before the answer.
async fn ask_and_leave(origin: &Origin, path: &str, until: Instant) {
    while Instant::now() < until {
        let Ok(mut stream) = TcpStream::connect(origin.listen).await else { continue };
        stream.set_zero_linger().expect("a socket");
        stream.write_all(&get(path, None)).await.ok();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes until the given instant. Returns the latencies, and the highest memory use meanwhile
/// (MiB).
pub async fn honest(origin: &Origin, until: Instant) -> (String, f64) {
    let (mut times, mut most) = (Vec::new(), 0.0_f64);
    while Instant::now() < until {
        let sent = Instant::now();
        origin.publish("a", "honest").await;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
        if times.len() % 20 == 0 {
            most = most.max(memory(origin).await);
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let count = times.len();
    (format!("{count} publishes, p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99)), most)
}

/// Publishes until the given instant beside an attack, on a thread of its own, so that the
/// publisher shares no task queue with the attackers.
pub fn honest_beside(attack: impl Future, origin: &Origin, until: Instant) -> (String, f64) {
    let publish = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(honest(origin, until))
    };
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let publisher = scope.spawn(publish);
            tokio::runtime::Handle::current().block_on(attack);
            publisher.join().expect("it publishes")
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_before_their_response_use_bounded_memory() {
    let _alone = crate::kit::alone().await;
    let origin = origin(&[]);
    with_keys(&origin).await;
    with_large(&origin, "large", 8).await;
    let before = memory(&origin).await;
    let (quiet, _) = honest(&origin, Instant::now() + Duration::from_secs(2)).await;
    println!("quiet: {quiet}");
    for path in [
        "/channels/a/history?limit=1",
        "/channels/keys/state",
        "/channels/large/history?limit=1000",
    ] {
        let until = Instant::now() + Duration::from_secs(4);
        let attack =
            futures_util::future::join_all((0..60).map(|_| ask_and_leave(&origin, path, until)));
        let (times, most) = honest_beside(attack, &origin, until);
        println!("{path}: {times}, at most {most:.0} MiB after {before:.0} MiB");
        assert!(most - before < ANSWERS + REST, "{path}: {before} MiB, then {most} MiB");
    }
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

/// Opens an HTTP/2 connection whose streams have a flow control window of 0.
async fn h2_without_window(origin: &Origin) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(origin.listen).await.expect("it listens");
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    sender
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://localhost{path}")).body(Full::default()).expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_over_http_2_that_are_not_read() {
    let _alone = crate::kit::alone().await;
    let mut origin = origin(&["--drain-timeout", "20m"]);
    with_keys(&origin).await;
    with_large(&origin, "large", 8).await;
    let before = memory(&origin).await;
    let paths =
        ["/channels/large/history?limit=1000", "/channels/keys/state", "/channels/large?after=0-0"];
    let mut senders = Vec::new();
    for _ in 0..10 {
        let mut sender = h2_without_window(&origin).await;
        for n in 0..300 {
            // Answers come as far as the connection's window allows; the client does not wait for
            // them.
            let answer = sender.send_request(request(paths[n % 3]));
            tokio::spawn(async move {
                let answer = answer.await;
                tokio::time::sleep(PATIENCE).await;
                drop(answer);
            });
        }
        senders.push(sender);
    }
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        origin.publish("a", "honest").await;
        let now = memory(&origin).await;
        assert!(now - before < ANSWERS + REST, "{before} MiB, then {now} MiB");
    }
    // The origin closed the connections.
    let gone = async || senders.iter().all(SendRequest::is_closed);
    wait_for("a connection that does not read is kept", gone).await;
    assert_sane(&origin, "a", &[]).await;
    // Such a stream does not keep the process from ending either.
    let mut sender = h2_without_window(&origin).await;
    let held = sender.send_request(request("/channels/a?after=0-0"));
    let held = tokio::spawn(held);
    let open = async || origin.metric("headwater_streams_open").await >= 1.0;
    wait_for("the stream is open", open).await;
    origin.signal("TERM");
    origin.signal("TERM");
    origin.ended().await;
    drop((held, sender));
}

#[tokio::test]
async fn streams_over_http_2_count_like_connections() {
    let flags = ["--max-connections", "20", "--max-connections-per-client", "10"];
    let origin = origin(&flags);
    origin.publish("a", "x").await;
    let mut held = Vec::new();
    let mut shed = 0;
    for _ in 0..2 {
        let mut sender = h2_on(TcpStream::connect(origin.listen).await.unwrap()).await;
        for _ in 0..50 {
            // A connection over the limit ends with its first answer.
            let answer = sender.send_request(request("/channels/a?after=0-0")).await;
            let Ok(answer) = answer else { break };
            shed += usize::from(answer.headers().contains_key("headwater-shed"));
            held.push(answer);
        }
    }
    // The first connection counts as one, and nine streams fit beside it.
    assert_eq!((held.len() - shed, shed), (9, 42));
    drop(held);
    assert_calm(&origin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_with_many_channels_that_are_not_read() {
    let _alone = crate::kit::alone().await;
    let origin = origin(&[]);
    let channels: Vec<String> = (0..100).map(|n| format!("large{n}")).collect();
    for channel in &channels {
        with_large(&origin, channel, 1).await;
    }
    let before = memory(&origin).await;
    let names = channels.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    let subscribe = format!(r#"{{"type":"subscribe","channels":[{names}],"after":"0-0"}}"#);
    let mut peers = Vec::new();
    for _ in 0..30 {
        let mut peer = Peer::connect(&origin).await;
        peer.say(&subscribe).await;
        peers.push(peer);
    }
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        origin.publish("a", "honest").await;
        let now = memory(&origin).await;
        assert!(now - before < ANSWERS + REST, "{before} MiB, then {now} MiB");
    }
    drop(peers);
    assert_sane(&origin, "a", &[]).await;
    assert_calm(&origin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_state_for_each_lane() {
    let _alone = crate::kit::alone().await;
    let origin = origin(&["--lanes", "64", "--max-state-bytes", "16MiB"]);
    for batch in 0..7 {
        let line =
            |n: usize| format!("{{\"key\":\"{batch}.{n}\",\"data\":\"{}\"}}\n", "x".repeat(900));
        origin.publish_lines("keys", &(0..1_000).map(line).collect::<String>()).await;
    }
    // Without a reader, the channel would not stay in memory.
    let mut source = origin.source("/channels/keys", None);
    next_message(&mut source).await;
    let reader = tokio::spawn(async move {
        loop {
            source.next().await;
        }
    });
    origin.publish_with("keys", "key=0.0", "first").await;
    let before = memory(&origin).await;
    for round in 0..3 {
        for lane in 0..64 {
            let mut stream = TcpStream::connect(origin.listen).await.expect("it listens");
            let head =
                format!("HEAD /channels/keys?lane={lane} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("it reads");
            let text = read_until(&mut stream, |text| text.contains("\r\n\r\n")).await;
            assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        }
        // The state has changed, and each lane begins with it at another instant.
        origin.publish_with("keys", "key=0.0", &format!("round {round}")).await;
        let now = memory(&origin).await;
        assert!(now - before < ANSWERS + REST, "{before} MiB, then {now} MiB");
    }
    reader.abort();
    assert_sane(&origin, "a", &[]).await;
}

/// Streams of several channels whose pages together need more memory than the limit allows. Each
/// stream gets every event, because no stream waits for memory while it holds some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_many_channels_that_share_little_memory() {
    const STREAMS: usize = 40;
    const EVENTS: usize = 3;
    let flags = ["--store", "memory", "--answer-bytes", "16MiB", "--live-bytes", "1MiB"];
    let origin = Origin::with(&[&flags[..], &["--segment", "10m"]].concat());
    let channels: Vec<String> = (0..8).map(|n| format!("large{n}")).collect();
    for channel in channels.iter().cycle().take(EVENTS * channels.len()) {
        origin.publish(channel, &"y".repeat(200_000)).await;
    }
    let path = format!("/channels/{}?after=0-0", channels.join(","));
    let read_all = |mut source: headwater::client::EventSource| async move {
        let mut ids = std::collections::BTreeSet::new();
        while ids.len() < EVENTS * 8 {
            let message = next_message(&mut source).await;
            assert_eq!(message.data.len(), 200_000);
            assert!(ids.insert(message.last_event_id), "an event came twice");
        }
    };
    let readers: Vec<_> =
        (0..STREAMS).map(|_| tokio::spawn(read_all(origin.source(&path, None)))).collect();
    for reader in readers {
        reader.await.expect("each stream gets all events");
    }
    assert_calm(&origin).await;
}

/// Many channels with a reader, each with some recent events: `--live-bytes` limits the memory of
/// all of them together, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recent_events_of_many_channels() {
    const CHANNELS: usize = 6_000;
    const LIVE_MIB: f64 = 4.0;
    let _alone = crate::kit::alone().await;
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let flags = ["--live-bytes", "4MiB", "--max-ws-channels", "6000", "--max-ws-message", "1MiB"];
    let store = ["--store", &*store, "--store-timeout", "20s"];
    let origin = Origin::with(&[&store[..], &flags[..]].concat());
    let names: Vec<String> = (0..CHANNELS).map(|n| format!("channel{n}")).collect();
    let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    let mut peer = Peer::connect(&origin).await;
    peer.say(&format!(r#"{{"type":"subscribe","channels":[{list}]}}"#)).await;
    let reader = tokio::spawn(async move { while peer.frame().await.is_some() {} });
    wait_for("the channels are open", async || {
        origin.metric("headwater_channels_live").await >= CHANNELS as f64
    })
    .await;
    let before = memory(&origin).await;
    let batch = format!("{{\"data\":\"{}\"}}\n", "z".repeat(1_000)).repeat(30);
    let publishers = (0..8).map(async |publisher| {
        for name in names.iter().skip(publisher).step_by(8) {
            origin.publish_lines(name, &batch).await;
        }
    });
    futures_util::future::join_all(publishers).await;
    let now = memory(&origin).await;
    // The newest event of each channel stays in memory, beside the index of 180,000 events on disk.
    assert!(now - before < LIVE_MIB + REST, "{before} MiB, then {now} MiB");
    reader.abort();
    assert_sane(&origin, "a", &[]).await;
}
