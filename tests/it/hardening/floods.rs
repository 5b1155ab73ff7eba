//! Floods: HTTP/2 frames that request nothing, as many as a connection carries, and requests that do
//! not wait for the response to the one before.

use super::memory::{honest, honest_beside};
use super::{assert_calm, assert_sane, memory};
use crate::kit::{Origin, PATIENCE, read_until};
use crate::stores::overload::{h2_on, send};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CONNECTIONS: usize = 4;
const FLOOD: Duration = Duration::from_secs(1);
/// Requests of one connection that do not wait for a response, and the shortest time in which they
/// are answered: 64 at once, and then 1,600 a second.
const REQUESTS: usize = 700;
const ANSWERED_IN: Duration = Duration::from_millis(350);

/// Returns an HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends the same frame repeatedly, until the given instant or until the origin closes the
/// connection.
async fn flood(origin: &Origin, frame: &[u8], until: Instant) {
    let mut stream = TcpStream::connect(origin.listen).await.expect("it listens");
    // A close discards the bytes that the origin has not read yet.
    stream.set_zero_linger().expect("a socket");
    let settings = self::frame(4, 0, 0, &[]);
    stream.write_all(&[PREFACE, &settings].concat()).await.expect("it reads");
    let (mut answers, mut requests) = stream.split();
    let many = frame.repeat(16_384 / frame.len());
    let send = async { while Instant::now() < until && requests.write_all(&many).await.is_ok() {} };
    let mut buffer = vec![0; 16_384];
    let read = async { while let Ok(1..) = answers.read(&mut buffer).await {} };
    // The origin may read slowly, or close the connection.
    let rest = until.saturating_duration_since(Instant::now());
    tokio::select! { () = send => {}, () = read => {}, () = tokio::time::sleep(rest) => {} }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_frames_without_a_request_do_not_delay_other_clients() {
    let _alone = crate::kit::alone().await;
    let origin = Origin::start();
    let (quiet, _) = honest(&origin, Instant::now() + Duration::from_secs(1)).await;
    println!("quiet: {quiet}");
    let before = memory(&origin).await;
    let kept = origin.publish("kept", "x").await;
    for (name, frame) in [
        ("PRIORITY", frame(2, 0, 3, &[0, 0, 0, 0, 16])),
        ("PING ACK", frame(6, 1, 0, &[0; 8])),
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", frame(4, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("an unknown frame", frame(0xfa, 0, 0, &[0; 16])),
    ] {
        let until = Instant::now() + FLOOD;
        let floods = (0..CONNECTIONS).map(|_| flood(&origin, &frame, until));
        let floods = futures_util::future::join_all(floods);
        let (times, most) = honest_beside(floods, &origin, until);
        println!("{name}: {times}, at most {most:.0} MiB after {before:.0} MiB");
        assert!(most - before < 64.0, "{name}: {before} MiB, then {most} MiB");
    }
    assert_eq!(origin.logged("WARN") + origin.logged("ERROR"), 0, "no line for each frame");
    assert_sane(&origin, "kept", &[kept]).await;
    assert_calm(&origin).await;
}

/// The DATA frames of a body do not count as a flood: large publishes over one connection are read
/// as they come.
#[tokio::test]
async fn large_bodies_over_http_2_are_read_as_they_come() {
    let origin = Origin::start();
    let stream = TcpStream::connect(origin.listen).await.expect("it listens");
    let mut connection = h2_on(stream).await;
    let batch = format!("{{\"data\":\"{}\"}}\n", "x".repeat(100_000)).repeat(70);
    for _ in 0..4 {
        let request = Request::post("http://localhost/channels/a")
            .header("content-type", "application/x-ndjson")
            .body(Full::<Bytes>::from(batch.clone()))
            .expect("a request");
        connection.ready().await.expect("it is open");
        let answer = timeout(PATIENCE, connection.send_request(request)).await;
        assert_eq!(answer.expect("in time").expect("an answer").status(), 201);
    }
}

/// Also requests whose response has to wait for the store, and those after a stream.
#[tokio::test]
async fn pipelined_requests_are_answered_at_a_rate() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    origin.request(Method::DELETE, "/channels/a", &[], "").await;
    for (path, status) in [
        ("/nothing", "HTTP/1.1 404"),
        ("/channels/a/history", "HTTP/1.1 200"),
        ("/channels/a?after=0-0", "HTTP/1.1 200"),
    ] {
        let begun = Instant::now();
        let requests = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(REQUESTS);
        let mut stream = origin.raw(requests.as_bytes()).await;
        let answered = |text: &str| text.matches(status).count();
        let text = read_until(&mut stream, |text| answered(text) == REQUESTS).await;
        assert_eq!(answered(&text), REQUESTS, "{path}");
        assert!(begun.elapsed() >= ANSWERED_IN, "{path}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn concurrent_requests_of_a_connection_over_http_2_are_answered_at_a_rate() {
    let origin = Origin::start();
    let begun = Instant::now();
    let connection = h2_on(TcpStream::connect(origin.listen).await.expect("it listens")).await;
    let requests = (0..REQUESTS).map(|_| {
        let mut connection = connection.clone();
        async move { send(&mut connection, Method::GET, "/nothing", "").await.status() }
    });
    let answers = timeout(PATIENCE, futures_util::future::join_all(requests)).await;
    assert_eq!(answers.expect("in time"), [StatusCode::NOT_FOUND; REQUESTS]);
    assert!(begun.elapsed() >= ANSWERED_IN, "{:?}", begun.elapsed());
}
