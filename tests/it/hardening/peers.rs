//! Peers that are slow, that do not read, or that vanish without closing the connection.

use super::{QUIET, assert_calm, assert_sane, memory, wait_for};
use crate::kit::{Origin, PATIENCE, get, read_until};
use crate::stores::overload::{h2_on, lines, memory_with_streams, publish_past, send, small_store};
use crate::websocket::raw::{self, Peer, connect_from, frame, handshake};
use hyper::Method;
use socket2::{SockFilter, SockRef};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

/// Another address of this machine, which the origin sees as another client.
const ELSEWHERE: &str = "127.0.0.2";

#[tokio::test]
async fn slow_loris_on_the_head() {
    let origin = Origin::with(&["--store", "memory", "--head-timeout", "2s"]);
    let kept = origin.publish("a", "x").await;
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut silent = origin.raw(b"").await;
    let mut idle = origin.raw(request.as_bytes()).await;
    read_until(&mut idle, |text| text.ends_with("ok\n")).await;
    let begun = Instant::now();
    // "P" and "PRI" are also the first bytes of the HTTP/2 preface.
    let heads = ["G", "P", "PRI * HTTP/", "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nX:"];
    let mut slow = Vec::new();
    for head in heads {
        slow.push(origin.raw(head.as_bytes()).await);
    }
    let mut second = origin.raw(request.as_bytes()).await;
    read_until(&mut second, |text| text.ends_with("ok\n")).await;
    second.write_all(b"GET /").await.expect("it is open");
    slow.push(second);
    // A client that sends one byte from time to time gets no more time.
    let mut dripping = origin.raw(b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\nX-Drip: ").await;
    while dripping.write_all(b"x").await.is_ok() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    assert!((1.9..6.0).contains(&took), "a byte now and then was cut after {took} s");
    for (head, stream) in heads.iter().chain([&"a second head"]).zip(&mut slow) {
        let answer = read_until(stream, |_| false).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{head:?} is answered {answer:?}");
        assert!(answer.contains("\r\ncontent-type: application/problem+json\r\n"), "{answer}");
        assert!(answer.contains("urn:headwater:problem:slow-head"), "{answer}");
        assert!(answer.contains("\r\ncache-control: no-store\r\ndate: "), "{answer}");
    }
    // Idle connections still work, and do not block others.
    for stream in [&mut silent, &mut idle] {
        stream.write_all(request.as_bytes()).await.expect("it is open");
        read_until(stream, |text| text.ends_with("ok\n")).await;
    }
    assert_sane(&origin, "a", &[kept]).await;
    drop((silent, idle, dripping, slow));
    assert_calm(&origin).await;
}

#[tokio::test]
async fn slow_loris_on_the_body() {
    let origin = Origin::with(&["--store", "memory", "--body-timeout", "2s"]);
    let kept = origin.publish("a", "x").await;
    let begun = Instant::now();
    let head = "POST /channels/slow HTTP/1.1\r\nHost: localhost\r\n";
    let bodies = [
        (format!("{head}Content-Length: 1000\r\n\r\n"), "x"),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n"), "1\r\nx\r\n"),
    ];
    let mut slow = Vec::new();
    for (head, _) in &bodies {
        slow.push(origin.raw(head.as_bytes()).await);
    }
    let still_read = |stream: &TcpStream| stream.try_read(&mut [0]).is_err();
    while slow.iter().all(still_read) && begun.elapsed() < 2 * PATIENCE {
        for ((_, drip), stream) in bodies.iter().zip(&mut slow) {
            let _cut = stream.write_all(drip.as_bytes()).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(2), "a body has its time");
    let refused = "headwater_publishes_refused_total{problem=\"slow-body\"}";
    wait_for("a slow publish is still held", async || origin.metric(refused).await == 2.0).await;
    assert_eq!(origin.get("/channels/slow/history").await.json()["next"], "0-0");
    assert_sane(&origin, "a", &[kept]).await;
    drop(slow);
    assert_calm(&origin).await;
}

#[tokio::test]
async fn slow_loris_on_a_frame() {
    let origin = Origin::with(&[&QUIET[..], &["--ws-ping", "1s"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut peer = Peer::connect(&origin).await;
    let begun = Instant::now();
    // A peer that sends a frame byte by byte cannot answer a ping before the frame's end.
    peer.send(&raw::head(raw::TEXT, 60_000)).await;
    let (code, reason) = loop {
        assert!(begun.elapsed() < PATIENCE, "it may go on for ever");
        peer.send(b"x").await;
        if let Ok(end) = timeout(Duration::from_millis(50), peer.goodbye()).await {
            break end.expect("a close frame comes");
        }
    };
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("--ws-ping"), "{reason}");
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_request_that_trickles_in_tiny_chunks_takes_no_more_memory_than_it_has_bytes() {
    let limits = ["--max-batch", "1MiB", "--publish-buffer", "2MiB"];
    let origin = Origin::with(&[&QUIET[..], &limits].concat());
    // 10,000 chunks: at a KiB each, they would fill the buffer for all publishes five times.
    let mut stream = origin
        .raw(b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    stream.write_all("1\r\nx\r\n".repeat(10_000).as_bytes()).await.expect("it reads");
    let kept = origin.publish("a", &"y".repeat(900_000)).await;
    stream.write_all(b"0\r\n\r\n").await.expect("it reads");
    let answer = read_until(&mut stream, |text| text.contains("\"id\"")).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    drop(stream);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn subscribers_that_never_read_cost_neither_time_nor_memory() {
    let _alone = crate::kit::alone().await;
    const SLOW: usize = 200;
    let origin = small_store();
    let kept = origin.publish("kept", "x").await;
    let mut never_read = Vec::new();
    for _ in 0..SLOW {
        never_read.push(origin.raw(&get("/channels/a", None)).await);
    }
    let before = memory_with_streams(&origin, SLOW).await;
    let mut fast = origin.source("/channels/a?after=0-0", None);
    publish_past(&origin, &mut fast, 20, &lines(100, 10_000)).await;
    let grown = memory(&origin).await - before;
    // 32 MiB for the store's cache, 4 MiB for recent events, and for each reader the 64 KiB that it
    // takes at once and the 32 KiB that hyper holds: 55 MiB. A queue for each reader would need 200
    // times 20 MB.
    assert!(grown < 64.0, "{grown} MiB more");
    assert_sane(&origin, "kept", &[kept]).await;
}

#[tokio::test]
async fn a_subscriber_that_never_reads() {
    let origin = Origin::with(&[&QUIET[..], &["--write-timeout", "2s"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut never_read = Vec::new();
    for _ in 0..10 {
        let mut stream = connect_from(&origin, ELSEWHERE, true).await;
        stream.write_all(&get("/channels/a?after=0-0", None)).await.expect("it is open");
        never_read.push(stream);
    }
    let open = async || origin.metric("headwater_streams_open").await == 10.0;
    wait_for("not all streams began", open).await;
    let begun = Instant::now();
    origin.publish_lines("a", &lines(100, 10_000)).await;
    assert_calm(&origin).await;
    let took = begun.elapsed().as_secs_f64();
    assert!((1.5..12.0).contains(&took), "they were let go after {took} s");
    assert_sane(&origin, "a", &[kept]).await;
    drop(never_read);
}

#[tokio::test]
async fn a_websocket_that_never_reads() {
    let _alone = crate::kit::alone().await;
    const SLOW: usize = 100;
    let flags = ["--write-timeout", "4s", "--retain-bytes", "2MiB"];
    let origin = Origin::with(&[&QUIET[..], &flags].concat());
    let kept = origin.publish("kept", "x").await;
    let mut never_read = Vec::new();
    for _ in 0..SLOW {
        let stream = connect_from(&origin, ELSEWHERE, true).await;
        let mut peer = Peer::on(stream, &handshake("/ws", &[])).await.expect("it shakes hands");
        let ack = peer.ask(r#"{"type":"subscribe","channels":["a"]}"#).await;
        assert_eq!(ack["type"], "ack");
        never_read.push(peer);
    }
    let before = memory(&origin).await;
    for _ in 0..10 {
        origin.publish_lines("a", &lines(100, 10_000)).await;
    }
    let grown = memory(&origin).await - before;
    // 4 MiB for recent events, the part of 10 MB that the store holds, and about 100 KiB for each
    // socket. A queue for each socket would need 100 times 10 MB.
    assert!(grown < 64.0, "{grown} MiB more");
    assert_calm(&origin).await;
    let left = origin.metric("headwater_websockets_closed_total{code=\"none\"}").await;
    assert_eq!(left, SLOW as f64, "nobody can be told who does not read");
    assert_sane(&origin, "kept", &[kept]).await;
    drop(never_read);
}

#[tokio::test]
async fn answers_that_are_asked_for_and_never_read() {
    let origin = Origin::with(&[&QUIET[..], &["--write-timeout", "2s"]].concat());
    let kept = origin.publish("a", &"x".repeat(500_000)).await;
    let before = memory(&origin).await;
    let asked = get("/channels/a/history", None).repeat(400);
    let pings = frame(raw::TEXT, br#"{"type":"ping"}"#).repeat(90);
    let mut never_read = Vec::new();
    for _ in 0..10 {
        let mut stream = connect_from(&origin, ELSEWHERE, true).await;
        stream.write_all(&asked).await.expect("it is open");
        never_read.push(stream);
        let mut stream = connect_from(&origin, ELSEWHERE, true).await;
        stream.write_all(&[handshake("/ws", &[]), pings.clone()].concat()).await.expect("open");
        never_read.push(stream);
    }
    // Each connection may cost one answer of 500 KB, not 400 of them.
    let grown = memory(&origin).await - before;
    assert!(grown < 48.0, "{grown} MiB more");
    let calm = async || origin.metric("headwater_connections_open").await <= 10.0;
    wait_for("answers wait for ever", calm).await;
    drop(never_read);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

/// The kernel has no time limit for a Unix socket, as it has for TCP.
#[tokio::test]
async fn a_client_on_a_unix_socket_that_never_reads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("headwater.sock");
    let listen = format!("unix:{}", path.display());
    let times = ["--write-timeout", "2s", "--listen", &listen];
    let origin = Origin::with(&[&QUIET[..], &times].concat());
    let kept = origin.publish("a", &"x".repeat(500_000)).await;
    let mut never_read = Vec::new();
    for path_and_query in ["/channels/a?after=0-0", "/channels/b?after=0-0", "/channels/a/history"]
    {
        let mut stream = UnixStream::connect(&path).await.expect("it listens");
        stream.write_all(&get(path_and_query, None)).await.expect("it is open");
        never_read.push(stream);
    }
    let open = async || origin.metric("headwater_connections_open").await >= 3.0;
    wait_for("not all have connected", open).await;
    // More than the socket and the window of a pump can hold.
    for _ in 0..4 {
        origin.publish_lines("b", &lines(100, 10_000)).await;
    }
    let calm = async || origin.metric("headwater_connections_open").await <= 1.0;
    wait_for("responses wait for ever", calm).await;
    drop(never_read);
    assert_sane(&origin, "a", &[kept]).await;
}

/// Makes the socket silent, as when its machine has failed: the kernel drops incoming packets
/// before they can be acknowledged, and the origin receives no FIN and no reset.
fn vanish(stream: &TcpStream) {
    const DROP_ALL: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(stream).attach_filter(&[DROP_ALL]).expect("the kernel filters");
}

#[tokio::test]
async fn half_open_tcp() {
    let times = ["--write-timeout", "3s", "--head-timeout", "8s", "--ws-ping", "3s"];
    let quick = ["--store", "memory", "--heartbeat", "1s", "--long-poll-timeout", "8s"];
    let origin = Origin::with(&[&quick[..], &["--segment", "10m"], &times].concat());
    let kept = origin.publish("a", "x").await;
    let mut gone = Vec::new();
    for request in [
        get("/channels/a?after=0-0", None),
        get("/channels/a?mode=hold", None),
        b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec(),
    ] {
        gone.push(origin.raw(&request).await);
    }
    read_until(&mut gone[0], |text| text.contains("data: x\n\n")).await;
    for wants in [r#"{"type":"ping"}"#, r#"{"type":"subscribe","channels":["a"]}"#] {
        let mut peer = Peer::connect(&origin).await;
        peer.ask(wants).await;
        gone.push(peer.stream);
    }
    let open = async || origin.metric("headwater_connections_open").await == 5.0;
    wait_for("not all connections are served", open).await;
    gone.iter().for_each(vanish);
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
    drop(gone);
}

#[tokio::test]
async fn half_open_http_2() {
    let quick = ["--store", "memory", "--heartbeat", "1s", "--segment", "10m"];
    let origin = Origin::with(&[&quick[..], &["--write-timeout", "3s"]].concat());
    let kept = origin.publish("a", "x").await;
    let stream = TcpStream::connect(origin.listen).await.expect("it listens");
    let mirror = SockRef::from(&stream).try_clone().expect("a second handle");
    let mut sender = h2_on(stream).await;
    let body = send(&mut sender, Method::GET, "/channels/a?after=0-0", "").await;
    let open = async || origin.metric("headwater_streams_open").await == 1.0;
    wait_for("the stream did not begin", open).await;
    mirror.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).expect("the kernel filters");
    assert_calm(&origin).await;
    assert_sane(&origin, "a", &[kept]).await;
    drop((body, sender));
}
