//! How responses and the process end. A response ends cleanly if its last cursor is right, and is
//! aborted in every other case.

use crate::kit::{Origin, get, next_message, now_ms, read_until, unchunk, wait_for_phase};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// Stores only a few events, so that a client that stops reading soon falls off the tail.
const SHORT_MEMORY: [&str; 10] = [
    "--store",
    "memory",
    "--retain-events",
    "5",
    "--live-bytes",
    "32KiB",
    "--segment",
    "30s",
    "--max-event",
    "128KiB",
];

/// A connection with a small receive buffer in the kernel.
async fn narrow(origin: &Origin) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(origin.listen).await.unwrap()
}

async fn publish_much(origin: &Origin) {
    let large = "x".repeat(100_000);
    for _ in 0..200 {
        origin.publish("a", &large).await;
    }
}

// protocol §6.9
#[tokio::test]
async fn a_reader_whose_next_events_are_trimmed_is_aborted_and_then_gets_a_gap() {
    let origin = Origin::with(&SHORT_MEMORY);
    wait_for_phase(30_000, 0, 15_000).await;
    let mut stream = narrow(&origin).await;
    stream.write_all(&get("/channels/a", None)).await.unwrap();
    let head = read_until(&mut stream, |text| text.contains("ends_at")).await;
    publish_much(&origin).await;
    let rest = read_until(&mut stream, |_| false).await;
    let (body, is_whole) = unchunk(&(head + &rest));
    assert!(!is_whole, "a body with a hole may not look whole");
    assert!(!body.contains("retry: 100\n"));
    let last = body.rsplit("id: ").next().unwrap().lines().next().unwrap().to_owned();
    let ended = origin.metric("headwater_streams_ended_total{reason=\"fell_behind\"}").await;
    assert_eq!(ended, 1.0);
    let mut source = origin.source("/channels/a", Some(&last));
    let message = next_message(&mut source).await;
    assert_eq!(message.kind, "gap");
    assert!(message.data.contains("\"trimmed\""), "{}", message.data);
}

// protocol §6.9
#[tokio::test]
async fn an_aborted_stream_over_http_2_ends_with_a_reset() {
    let origin = Origin::with(&SHORT_MEMORY);
    wait_for_phase(30_000, 0, 15_000).await;
    let stream = narrow(&origin).await;
    let client = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = client.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/channels/a", origin.listen));
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().get("connection").is_none());
    publish_much(&origin).await;
    let mut body = answer.into_body();
    let error = loop {
        match body.frame().await.expect("no clean end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(source.contains("stream error received"), "{source}");
    drop(sender);
    driver.abort();
}

#[tokio::test]
async fn a_drain_completes_streams_and_still_serves_open_connections() {
    let mut origin = Origin::with(&["--store", "memory", "--segment", "10s"]);
    wait_for_phase(10_000, 0, 4_000).await;
    let id = origin.publish("a", "x").await;
    let mut stream = origin.raw(&get("/channels/a", None)).await;
    read_until(&mut stream, |text| text.contains("data: x")).await;
    // A kept-alive connection of a cache: one answer has already come over it.
    let mut kept = origin.raw(&get("/channels/a/history", None)).await;
    read_until(&mut kept, |text| text.contains("next")).await;
    origin.signal("TERM");
    let ready = loop {
        let admin = format!("http://{}", origin.admin).parse().unwrap();
        let path = "/readyz";
        let answer = crate::kit::request(&admin, hyper::Method::GET, path, &[], Bytes::new()).await;
        let answer = answer.expect("the admin listener answers until the end");
        if answer.status != 200 {
            break answer;
        }
    };
    ready.assert_problem(503, "draining");
    // Publishers that connect now are served too.
    let last = origin.publish("a", "later").await;
    kept.write_all(&get("/channels/a", Some(&id))).await.unwrap();
    let late = read_until(&mut kept, |text| text.ends_with("0\r\n\r\n")).await;
    assert!(late.starts_with("HTTP/1.1 200"), "{late}");
    assert!(late.contains("connection: close\r\n"), "{late}");
    let (body, is_whole) = unchunk(&late);
    let boundary = now_ms() / 10_000 * 10_000;
    assert!(is_whole && body.ends_with("}\n\n"), "{body}");
    assert!(body.contains(&format!("id: {last}.{boundary}\n")), "{body}");
    let rest = read_until(&mut stream, |text| text.ends_with("0\r\n\r\n")).await;
    assert!(rest.contains(&format!("id: {last}.{boundary}\n")), "{rest}");
    assert!(origin.ended().await.success());
}

// protocol §6.9
#[tokio::test]
async fn a_second_signal_or_the_drain_timeout_cuts_what_is_left() {
    for by_signal in [true, false] {
        let timeout = if by_signal { "60s" } else { "300ms" };
        let flags = ["--store", "memory", "--segment", "60s", "--drain-timeout", timeout];
        let mut origin = Origin::with(&flags);
        assert_eq!(origin.logged("--drain-timeout is shorter than the longest response"), 1);
        let mut stream = origin.raw(&get("/channels/a", None)).await;
        let head = read_until(&mut stream, |text| text.contains("ends_at")).await;
        origin.signal("TERM");
        if by_signal {
            origin.becomes(503).await;
            origin.signal("TERM");
        }
        let rest = read_until(&mut stream, |_| false).await;
        assert!(!unchunk(&(head + &rest)).1, "a cut body may not look whole");
        assert_eq!(origin.ended().await.code(), Some(1));
    }
}

// protocol §6.7
#[tokio::test]
async fn with_drain_now_streams_end_at_once_with_their_cursor() {
    // The time limit counts after the delay.
    let drain = ["--drain", "now", "--drain-delay", "600ms", "--drain-timeout", "500ms"];
    let flags = [&["--store", "memory", "--segment", "60s"], &drain[..]].concat();
    let mut origin = Origin::with(&flags);
    let mut streams = Vec::new();
    let other = origin.publish("b", "y").await;
    for path in ["/channels/a", "/channels/a?format=json", "/channels/a,b", "/channels/a"] {
        let mut stream = origin.raw(&get(path, None)).await;
        let begun = read_until(&mut stream, |text| text.contains("ends_at")).await;
        streams.push((path, stream, begun));
    }
    let id = origin.publish("a", "x").await;
    let before = now_ms();
    origin.signal("TERM");
    for (path, mut stream, begun) in streams {
        let text = begun + &read_until(&mut stream, |text| text.ends_with("0\r\n\r\n")).await;
        let (body, is_whole) = unchunk(&text);
        assert!(is_whole, "{path}: {text}");
        let closing = body.rsplit("retry: ").next().expect("a block");
        let (cursor, rest) = closing
            .strip_prefix("3000\nevent: segment\nid: ")
            .and_then(|rest| rest.split_once('\n'))
            .unwrap_or_else(|| panic!("{path}: {closing}"));
        let (positions, mark) = cursor.rsplit_once('.').expect("a mark");
        let both = format!("{id}_{other}");
        assert_eq!(positions, if path.contains(',') { &both } else { &id }, "{path}");
        let mark: u64 = mark.parse().expect("a number");
        assert!((before..=now_ms()).contains(&mark), "{path}: {mark} is not in the drain");
        // The segment goes on: clients come back within it.
        let number = begun_number(&body);
        assert!(rest.starts_with(&format!("data: {{\"segment\":{number}}}")), "{path}: {rest}");
    }
    assert!(origin.ended().await.success());
}

/// The number of the segment in which a stream has begun.
fn begun_number(body: &str) -> &str {
    let rest = body.split("{\"segment\":").nth(1).expect("an opening block");
    rest.split(',').next().expect("a number")
}

#[tokio::test]
async fn all_clients_of_a_boundary_come_back_with_one_cursor() {
    let origin = Origin::with(&["--store", "memory", "--segment", "6s"]);
    let mut streams = Vec::new();
    wait_for_phase(6_000, 0, 500).await;
    for _ in 0..20 {
        let mut stream = origin.raw(&get("/channels/a", None)).await;
        read_until(&mut stream, |text| text.contains("ends_at")).await;
        streams.push(stream);
    }
    // The boundary comes while events are published.
    wait_for_phase(6_000, 5_800, 6_000).await;
    let publish = async {
        for number in 0..400 {
            origin.publish("a", &number.to_string()).await;
        }
    };
    let ends = async {
        let mut ends = Vec::new();
        for stream in &mut streams {
            let text = read_until(stream, |text| text.ends_with("0\r\n\r\n")).await;
            ends.push(text.rsplit("id: ").next().unwrap().to_owned());
        }
        ends
    };
    let ((), ends) = tokio::join!(publish, ends);
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

// protocol §4.3, §4.4
#[tokio::test]
async fn a_client_without_a_mark_rejoins_its_cohort_at_the_next_tick() {
    let flags = ["--store", "memory", "--segment", "10s", "--rejoin-tick", "500ms"];
    let origin = Origin::with(&flags);
    wait_for_phase(10_000, 0, 6_000).await;
    let id = origin.publish("a", "x").await;
    let mut stream = origin.raw(&get("/channels/a", Some(&id))).await;
    let text = read_until(&mut stream, |text| text.ends_with("0\r\n\r\n")).await;
    let (body, is_whole) = unchunk(&text);
    let marked = body.rsplit("id: ").next().unwrap().lines().next().unwrap().to_owned();
    let mark: u64 = marked.split('.').nth(1).unwrap().parse().unwrap();
    assert!(is_whole && mark.is_multiple_of(500) && marked.starts_with(&id), "{body}");
    assert!(body.contains(&format!("\"ends_at\":{mark}}}")), "{body}");
    // A stream whose cursor has a rejoin mark runs to the boundary.
    let mut stream = origin.raw(&get("/channels/a", Some(&marked))).await;
    let head = read_until(&mut stream, |text| text.contains("ends_at")).await;
    assert!(head.contains("0000}\n"), "{head}");
    let quiet = read_until(&mut stream, |text| !text.is_empty());
    let quiet = tokio::time::timeout(Duration::from_millis(700), quiet).await;
    assert!(quiet.is_err(), "it goes on over the next tick");
}

/// Reads a merged stream from a cursor to the event `last`, which this function publishes.
async fn merged_data(origin: &Origin, cursor: &str) -> String {
    let mut stream = origin.raw(&get("/channels/a,b", Some(cursor))).await;
    // The event to the other channel comes after all events that are stored now.
    origin.publish("b", "last").await;
    read_until(&mut stream, |text| text.contains("data: last")).await
}

// protocol §6.8
#[tokio::test]
async fn a_merged_stream_has_nothing_of_a_channel_behind_its_end_event() {
    let origin = Origin::with(&["--store", "memory", "--segment", "30s"]);
    wait_for_phase(30_000, 0, 20_000).await;
    // This stream keeps the channels in memory, so that the tail buffer has all their events.
    let _keeps_open = origin.raw(&get("/channels/a,b", None)).await;
    let beginning = origin.beginning().await;
    let first = origin.publish("b", "first").await;
    origin.publish("a", "before").await;
    origin.request(hyper::Method::DELETE, "/channels/a", &[], "").await;
    origin.request(hyper::Method::DELETE, "/channels/a?reopen=1", &[], "").await;
    origin.publish("a", "after").await;
    let text = merged_data(&origin, &format!("{beginning}_{first}")).await;
    assert!(text.contains("data: before") && text.contains("event: end"), "{text}");
    assert!(!text.contains("data: after"), "{text}");
}
