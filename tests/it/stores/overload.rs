//! Clients that open too many connections, read too slowly or send too much: the cost of such a
//! client must not affect the other clients.

use crate::hardening::{QUIET, assert_sane, memory, wait_for};
use crate::kit::{Answer, Origin, PATIENCE, get, next_message, read_until};
use bytes::Bytes;
use headwater::client::EventSource;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

#[tokio::test]
async fn ten_thousand_idle_connections_slow_nobody_down() {
    let _alone = crate::kit::alone().await;
    const COUNT: usize = 10_000;
    let files = headwater::telemetry::process::raise_file_limit();
    assert!(files > COUNT as u64 + 1_000, "raise the limit on open files: it is {files}");
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let before = origin.metric("process_resident_memory_bytes").await;
    let mut idle = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        let mut stream = TcpStream::connect(origin.listen).await.expect("it accepts");
        // Every second connection has served a request, because hyper keeps the buffers of such a
        // connection.
        if number % 2 == 0 {
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await
                .expect("it reads");
        }
        idle.push(stream);
    }
    for stream in idle.iter_mut().step_by(2) {
        read_until(stream, |text| text.ends_with("ok\n")).await;
    }
    let open = async || origin.metric("headwater_connections_open").await >= COUNT as f64;
    wait_for("not all connections are accepted", open).await;
    let mut source = origin.source("/channels/a", Some(&kept));
    let began = Instant::now();
    let id = origin.publish("a", "beside many others").await;
    assert_eq!(next_message(&mut source).await.last_event_id, id);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let grown = origin.metric("process_resident_memory_bytes").await - before;
    let each = grown / COUNT as f64;
    // Measured: 1.4 KiB for a task that waits for its first byte, 11 KiB for a connection that has
    // served a request, most of it hyper's read buffer of 8 KiB. The bound is twice their mean: 125
    // MB for all connections.
    assert!(each < 12.5 * 1024.0, "{each} bytes a connection");
    assert_sane(&origin, "a", &[kept, id]).await;
    drop(idle);
    let closed = async || origin.metric("headwater_connections_open").await < 100.0;
    wait_for("closed connections are still held", closed).await;
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_waits_and_is_served() {
    let _alone = crate::kit::alone().await;
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    // The process is stopped and accepts no connection; only the kernel's queue takes them.
    origin.signal("STOP");
    let mut crowd = Vec::new();
    for _ in 0..1_000 {
        let connect = TcpStream::connect(origin.listen);
        let connected = tokio::time::timeout(PATIENCE, connect).await;
        let mut stream = connected.expect("one finds the queue full").expect("it listens");
        stream.write_all(&get("/channels/a?after=0-0", None)).await.expect("it is open");
        crowd.push(stream);
    }
    origin.signal("CONT");
    for stream in &mut crowd {
        read_until(stream, |text| text.contains("data: x\n\n")).await;
    }
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn streams_over_the_connection_limit_are_shed() {
    let origin = Origin::with(&[&QUIET[..], &["--max-connections", "2"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let one_left = async || origin.metric("headwater_connections_open").await < 2.0;
        wait_for("a closed connection still counts", one_left).await;
        let mut stream = origin.raw(&get("/channels/a?after=0-0", None)).await;
        read_until(&mut stream, |text| text.contains("data: x\n\n")).await;
        streams.push(stream);
    }
    let answer = origin.get("/channels/a").await;
    assert_shed(&answer, "connections");
    assert_eq!(answer.header("connection"), Some("close"));
    let json = [("accept", "application/json")];
    let answer = origin.request(Method::GET, "/channels/a", &json, "").await;
    answer.assert_problem(503, "connections");
    let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
    assert!(wait.is_some_and(|wait| (5..=15).contains(&wait)), "{wait:?}");
    // The limit applies to streams, because they keep a connection open for long. A publish is
    // accepted, and its event reaches the open streams.
    let id = origin.publish("a", "y").await;
    for stream in &mut streams {
        read_until(stream, |text| text.contains(&format!("id: {id}\n"))).await;
    }
    let mut sender = h2(&origin).await;
    assert_shed(&whole(&mut sender, "/channels/a").await, "connections");
    // The HTTP/2 connection is closed too, so that the client's next streams may reach another
    // origin.
    wait_for("the connection stays", async || sender.is_closed()).await;
    drop(streams);
    let room = async || origin.metric("headwater_connections_open").await == 0.0;
    wait_for("closed connections are still held", room).await;
    assert_sane(&origin, "a", &[kept, id]).await;
}

/// Checks that the answer is a `200` that sheds an `EventSource`. Caches may serve it to many
/// clients.
pub fn assert_shed(answer: &Answer, why: &str) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=1"));
    assert_eq!(answer.header("headwater-shed"), Some(why));
    let retry = answer.body.lines().next().and_then(|line| line.strip_prefix("retry: "));
    let retry: u64 = retry.and_then(|retry| retry.parse().ok()).expect("a wait");
    assert!((5_000..=15_000).contains(&retry), "{retry}");
    let data = format!("event: shed\ndata: {{\"reason\":\"{why}\",\"retry_ms\":{retry}}}\n\n");
    assert_eq!(answer.body, format!("retry: {retry}\n{data}"));
}

async fn h2(origin: &Origin) -> SendRequest<Full<Bytes>> {
    h2_on(TcpStream::connect(origin.listen).await.expect("it listens")).await
}

pub async fn h2_on(stream: TcpStream) -> SendRequest<Full<Bytes>> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("it speaks HTTP/2");
    // The task ends with the sender and its streams, which report any error.
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    sender
}

pub async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: &'static str,
) -> hyper::Response<Incoming> {
    let request = Request::builder().method(method).uri(format!("http://localhost{path}"));
    let request = request.body(Full::new(body.into())).expect("a request");
    sender.ready().await.expect("it is open");
    sender.send_request(request).await.expect("it answers")
}

async fn whole(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> Answer {
    let answer = send(sender, Method::GET, path, "").await;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
}

/// Reads a body until `enough` returns true for the text received so far.
async fn read_h2(body: &mut Incoming, enough: impl Fn(&str) -> bool) {
    let mut all = String::new();
    let read = async {
        while !enough(&all) {
            let frame = body.frame().await.expect("more of it").expect("it is not broken");
            all.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data")));
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, read).await;
    assert!(outcome.is_ok(), "too little came: {all:?}");
}

#[tokio::test]
async fn http_2_streams_live_on_and_are_let_go_one_by_one() {
    let flags = ["--store", "memory", "--heartbeat", "1s", "--segment", "10m"];
    // A client that is not a trusted proxy may have at most 100 streams on a connection.
    let origin = Origin::with(&[&flags[..], &A_PROXY].concat());
    let kept = origin.publish("a", "x").await;
    let mut sender = h2(&origin).await;
    let mut bodies = Vec::new();
    for _ in 0..100 {
        let stream = send(&mut sender, Method::GET, "/channels/a?after=0-0", "").await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream; charset=utf-8");
        bodies.push(stream.into_body());
    }
    let (quiet, began) =
        (send(&mut sender, Method::GET, "/channels/quiet", "").await, Instant::now());
    assert_eq!(origin.metric("headwater_streams_open").await, 101.0);
    // This is longer than the time allowed for the head of an HTTP/1.1 request.
    let is_late = |_: &str| began.elapsed() > Duration::from_secs(11);
    read_h2(&mut quiet.into_body(), is_late).await;
    let answer = send(&mut sender, Method::POST, "/channels/a", "y").await;
    assert_eq!(answer.status(), 201);
    for body in &mut bodies {
        read_h2(body, |text| text.contains("data: y\n\n")).await;
    }
    // When streams are reset, the origin releases them, and the other streams on the connection
    // continue.
    let mut last = bodies.pop().expect("a hundred");
    drop(bodies);
    let one = async || origin.metric("headwater_streams_open").await == 1.0;
    wait_for("reset streams are still held", one).await;
    origin.publish("a", "z").await;
    read_h2(&mut last, |text| text.contains("data: z\n\n")).await;
    let refused = whole(&mut sender, "/channels/a?mode=x").await;
    refused.assert_problem(400, "bad-field");
    assert_sane(&origin, "a", &[kept]).await;
}

/// Flags that make the test a trusted proxy, so that it may open as many streams on a connection as
/// the cache of a CDN.
const A_PROXY: [&str; 2] = ["--trusted-proxy", "127.0.0.1/32"];

/// Starts an origin that retains little, so that any growth of memory is due to slow readers.
pub fn small_store() -> Origin {
    Origin::with(&[&QUIET[..], &["--retain-bytes", "2MiB"]].concat())
}

/// Waits until `count` streams are open, and returns the memory in use then, in MiB.
pub async fn memory_with_streams(origin: &Origin, count: usize) -> f64 {
    let open = async || origin.metric("headwater_streams_open").await == count as f64;
    wait_for("not all streams began", open).await;
    memory(origin).await
}

/// Publishes the batch `lines` `times` times, and waits after each batch until `fast` has received
/// its events.
pub async fn publish_past(origin: &Origin, fast: &mut EventSource, times: usize, lines: &str) {
    for _ in 0..times {
        for id in origin.publish_lines("a", lines).await {
            assert_eq!(next_message(fast).await.last_event_id, id);
        }
    }
}

pub fn lines(count: usize, data_bytes: usize) -> String {
    format!("{{\"data\":\"{}\"}}\n", "x".repeat(data_bytes)).repeat(count)
}

/// Encodes an HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface and first frames of a client that opens the largest flow-control windows, so that
/// the origin may send without limit.
fn greedy_h2() -> Vec<u8> {
    const WINDOW_MAX: u32 = (1 << 31) - 1;
    let settings = [&4u16.to_be_bytes()[..], &WINDOW_MAX.to_be_bytes()].concat();
    let more = (WINDOW_MAX - 65_535).to_be_bytes();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [preface, frame(4, 0, 0, &settings), frame(8, 0, 0, &more)].concat()
}

/// A `GET /channels/a` request in a single HEADERS frame.
fn get_h2(stream: u32) -> Vec<u8> {
    frame(1, 0b101, stream, b"\x82\x86\x04\x0b/channels/a\x01\x09localhost")
}

#[tokio::test]
async fn http_2_streams_that_are_never_read_cost_little_memory() {
    let _alone = crate::kit::alone().await;
    const SLOW: usize = 1_000;
    let origin = Origin::with(&[&QUIET[..], &["--retain-bytes", "2MiB"], &A_PROXY].concat());
    let kept = origin.publish("kept", "x").await;
    let streams = (0..SLOW as u32).flat_map(|number| get_h2(2 * number + 1));
    let all = greedy_h2().into_iter().chain(streams).collect::<Vec<u8>>();
    let _never_read = origin.raw(&all).await;
    let before = memory_with_streams(&origin, SLOW).await;
    let mut fast = origin.source("/channels/a?after=0-0", None);
    // The batches are small, so that each stream buffers its own copies.
    publish_past(&origin, &mut fast, 200, &lines(10, 250)).await;
    let grown = memory(&origin).await - before;
    // The store's cache takes 32 MiB and the tail buffer 4 MiB. Each stream buffers 16 KiB and the
    // chunk of up to 16 KiB that exceeds it: 67 MiB in all. With hyper's own 400 KiB for each
    // stream it was 440 MiB.
    assert!(grown < 96.0, "{grown} MiB more");
    assert_sane(&origin, "kept", &[kept]).await;
}

#[tokio::test]
async fn http_2_streams_that_are_begun_and_reset_at_once_leave_nothing_behind() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let reset = |stream| [get_h2(stream), frame(3, 0, stream, &8u32.to_be_bytes())].concat();
    let resets = (0..5_000).flat_map(|number| reset(2 * number + 1));
    let mut stream = origin.raw(&greedy_h2()).await;
    let ping = frame(6, 0, 0, b"all done");
    // The origin may close the connection of such a client at any time; otherwise it answers the
    // ping last.
    let _cut = stream.write_all(&resets.chain(ping).collect::<Vec<u8>>()).await;
    read_until(&mut stream, |text| text.contains("all done")).await;
    let none = async || origin.metric("headwater_streams_open").await == 0.0;
    wait_for("reset streams are still held", none).await;
    assert_sane(&origin, "a", &[kept]).await;
}
