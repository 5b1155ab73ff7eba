//! The limits for the connections of one client and for the rate of one publisher, and the answers
//! beyond these limits.

use super::{QUIET, assert_calm, assert_sane, wait_for};
use crate::kit::{Answer, BINARY, Origin, get, now_ms, read_until};
use crate::protocol::access::{SECRET, signed};
use crate::websocket::raw::{Peer, connect_from, handshake};
use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use std::process::Command;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The address of another client than the test itself, which is 127.0.0.1.
const GREEDY: &str = "127.0.0.2";
const TWO_EACH: [&str; 2] = ["--max-connections-per-client", "2"];

/// Sends a request from an address, and returns the connection.
async fn from(origin: &Origin, address: &str, request: &[u8]) -> TcpStream {
    let mut stream = connect_from(origin, address, false).await;
    // The origin may close the connection at once.
    let _cut = stream.write_all(request).await;
    stream
}

/// Opens a stream, and reads its first event.
async fn begun(origin: &Origin, address: &str, headers: &str) -> TcpStream {
    let request = format!("GET /channels/a?after=0-0 HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let mut stream = from(origin, address, request.as_bytes()).await;
    let text = read_until(&mut stream, |text| text.contains("data: x\n\n")).await;
    assert!(text.contains("data: x\n\n"), "{text}");
    stream
}

#[tokio::test]
async fn more_connections_than_one_client_may_have() {
    let origin = Origin::with(&[&QUIET[..], &TWO_EACH].concat());
    let kept = origin.publish("a", "x").await;
    let streams = [begun(&origin, GREEDY, "").await, begun(&origin, GREEDY, "").await];
    // An `EventSource` is shed, and reconnects by itself.
    let mut shed = from(&origin, GREEDY, &get("/channels/a", None)).await;
    let text = read_until(&mut shed, |_| false).await.to_lowercase();
    assert!(text.starts_with("http/1.1 200 ok\r\n"), "{text}");
    for line in [
        "content-type: text/event-stream; charset=utf-8",
        "headwater-shed: client",
        "connection: close",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} is not in {text}");
    }
    assert!(text.contains("\r\n\r\nretry: "), "{text}");
    // A publisher receives the time after which it may try again.
    let publish = b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let text = read_until(&mut from(&origin, GREEDY, publish).await, |_| false).await;
    assert!(text.starts_with("HTTP/1.1 429 ") && text.contains("problem:client"), "{text}");
    assert!(text.contains("\r\nretry-after: 10\r\n"), "{text}");
    // A WebSocket receives the same time in its close reason.
    let stream = connect_from(&origin, GREEDY, false).await;
    let mut peer = Peer::on(stream, &handshake("/ws", &[])).await.expect("it shakes hands");
    let (code, reason) = peer.goodbye().await.expect("a close frame comes");
    assert_eq!(code, 1013, "{reason}");
    assert!(reason.contains("--max-connections-per-client"), "{reason}");
    assert!(reason.contains("try again in 10 s") && reason.len() <= 123, "{reason}");
    drop((peer, shed));
    // When a client has twice as many connections as it may have, the origin closes further ones
    // without an answer.
    let calm = async || origin.metric("headwater_connections_open").await == 2.0;
    wait_for("refused connections are still held", calm).await;
    let told = [from(&origin, GREEDY, b"").await, from(&origin, GREEDY, b"").await];
    let four = async || origin.metric("headwater_connections_open").await == 4.0;
    wait_for("the next two are not accepted", four).await;
    for _ in 0..20 {
        let mut closed = from(&origin, GREEDY, &get("/channels/a", None)).await;
        assert_eq!(read_until(&mut closed, |_| false).await, "");
    }
    // Other clients are not affected.
    let other = begun(&origin, "127.0.0.3", "").await;
    assert_sane(&origin, "a", std::slice::from_ref(&kept)).await;
    drop((streams, told, other));
    assert_calm(&origin).await;
    drop([begun(&origin, GREEDY, "").await, begun(&origin, GREEDY, "").await]);
    assert_calm(&origin).await;
}

/// A header that makes caches pass the request on for its client alone, so that it counts for the
/// client.
const OF_ITS_OWN: (&str, &str) = ("authorization", "Bearer none");

fn counted(headers: &str) -> String {
    format!("{headers}\r\nAuthorization: Bearer none\r\n")
}

/// Checks that the answer sheds the client, and that no cache may give it to another client.
fn assert_shed_alone(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("headwater-shed"), Some("client"));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
}

fn behind_a_proxy(more: &[&str]) -> Origin {
    Origin::with(&[&QUIET[..], &TWO_EACH, &["--trusted-proxy", "127.0.0.1/32"], more].concat())
}

async fn ask_for(origin: &Origin, method: Method, headers: &[(&str, &str)]) -> Answer {
    origin.request(method, "/channels/a", headers, "x").await
}

#[tokio::test]
async fn more_connections_than_one_client_may_have_behind_a_proxy() {
    let origin = behind_a_proxy(&[]);
    let kept = origin.publish("a", "x").await;
    // A cache passes a request with credentials on for its client alone.
    let own = [("x-forwarded-for", "192.0.2.7"), OF_ITS_OWN];
    let proxy = "127.0.0.1";
    // The client has one stream and one socket.
    let stream = begun(&origin, proxy, &counted("X-Forwarded-For: 192.0.2.7")).await;
    let mut peer = Peer::with(&origin, "/ws", &own[..1]).await;
    assert_shed_alone(&ask_for(&origin, Method::GET, &own).await);
    let refused = ask_for(&origin, Method::POST, &own).await;
    refused.assert_problem(429, "client");
    assert_eq!(refused.header("retry-after"), Some("10"));
    for path in ["/channels/a/history", "/channels/a/state"] {
        let refused = origin.request(Method::GET, path, &own, "").await;
        refused.assert_problem(429, "client");
    }
    // A request that a cache sends for all of its clients is not refused because of one of them.
    for path in ["/channels/a/history", "/channels/a/state"] {
        assert_eq!(origin.request(Method::GET, path, &own[..1], "").await.status, 200);
    }
    let shared = begun(&origin, proxy, "X-Forwarded-For: 192.0.2.7\r\n").await;
    let mut second = Peer::with(&origin, "/ws", &own[..1]).await;
    assert_eq!(second.goodbye().await.expect("a close frame comes").0, 1013);
    // Another client behind the same proxy has a share of its own, and so has the proxy itself.
    let other = begun(&origin, proxy, &counted("X-Forwarded-For: 192.0.2.8")).await;
    peer.assert_open().await;
    assert_sane(&origin, "a", std::slice::from_ref(&kept)).await;
    // The end of a stream or socket frees its place, although the connections of the proxy stay
    // open.
    drop((peer, second));
    let again = async || ask_for(&origin, Method::POST, &own).await.status == 201;
    wait_for("the socket's place is still held", again).await;
    drop((stream, shared, other));
    assert_calm(&origin).await;
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn a_forged_x_forwarded_for() {
    let origin = behind_a_proxy(&[]);
    let kept = origin.publish("a", "x").await;
    let held = counted("X-Forwarded-For: 192.0.2.7");
    let streams =
        [begun(&origin, "127.0.0.1", &held).await, begun(&origin, "127.0.0.1", &held).await];
    // A proxy appends the address that it sees to the list that its client wrote.
    let forged: [&[u8]; 9] = [
        b"192.0.2.7",
        b"198.51.100.1, 192.0.2.7",
        b"127.0.0.1, 192.0.2.7",
        b"192.0.2.7:4711",
        b"[::ffff:192.0.2.7]:4711",
        b"nonsense,, ,192.0.2.7",
        b"\xff\xfe, 192.0.2.7",
        b"\"\r\nX-Forwarded-For: 192.0.2.7",
        b"198.51.100.1\r\nX-Forwarded-For: \xff, 192.0.2.7, 127.0.0.1",
    ];
    for value in forged {
        let request = [
            b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
              Authorization: Bearer none\r\nX-Forwarded-For: ",
            value,
            b"\r\n\r\n",
        ];
        let mut stream = from(&origin, "127.0.0.1", &request.concat()).await;
        let text = read_until(&mut stream, |text| text.contains("retry: ")).await;
        let shown = String::from_utf8_lossy(value);
        assert!(text.contains("headwater-shed: client"), "{shown:?} is answered {text}");
    }
    // A client that is not a trusted proxy counts by its own address, whatever its header claims.
    let said = ["198.51.100.1", "198.51.100.2"].map(|said| format!("X-Forwarded-For: {said}\r\n"));
    let greedy = [begun(&origin, GREEDY, &said[0]).await, begun(&origin, GREEDY, &said[1]).await];
    let request =
        b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n";
    let text = read_until(&mut from(&origin, GREEDY, request).await, |_| false).await;
    assert!(text.contains("headwater-shed: client"), "{text}");
    assert_sane(&origin, "a", &[kept]).await;
    drop((streams, greedy));
    assert_calm(&origin).await;
}

#[tokio::test]
async fn the_header_of_another_proxy() {
    let origin = behind_a_proxy(&["--client-header", "Fastly-Client-IP"]);
    let kept = origin.publish("a", "x").await;
    let held = counted("Fastly-Client-IP: 192.0.2.7\r\nX-Forwarded-For: 198.51.100.1");
    let streams =
        [begun(&origin, "127.0.0.1", &held).await, begun(&origin, "127.0.0.1", &held).await];
    let own = [("fastly-client-ip", "192.0.2.7"), ("x-forwarded-for", "198.51.100.2"), OF_ITS_OWN];
    assert_shed_alone(&ask_for(&origin, Method::GET, &own).await);
    let other = [("fastly-client-ip", "192.0.2.8"), ("x-forwarded-for", "192.0.2.7")];
    assert_eq!(ask_for(&origin, Method::POST, &other).await.status, 201);
    drop(streams);
    assert_calm(&origin).await;
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn a_subject_that_publishes_faster_than_it_may() {
    let rate = ["--publish-rate-per-subject", "3"];
    let keys = ["--token-secret", SECRET];
    let origin = Origin::with(&[&QUIET[..], &rate, &keys].concat());
    let token = |subject: &str| {
        let mut claims = json!({ "exp": now_ms() / 1_000 + 3_600, "scope": "publish:*" });
        if !subject.is_empty() {
            claims["sub"] = subject.into();
        }
        signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &claims)
    };
    for subject in ["one", ""] {
        let token = token(subject);
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let path = format!("/ws?access_token={token}");
        let mut peer = Peer::with(&origin, &path, &[]).await;
        let publish = r#"{"type":"publish","channel":"c","data":"x"}"#;
        // There is one allowance for all channels, over HTTP and WebSocket together.
        for channel in ["a", "b"] {
            let answer = origin.post(&format!("/channels/{channel}"), &headers, "x").await;
            assert_eq!(answer.status, 201, "{}", answer.body);
        }
        let mut answer = peer.ask(publish).await;
        assert_eq!(answer["type"], "ack");
        for _ in 0..10 {
            if answer["type"] == "ack" {
                answer = peer.ask(publish).await;
            }
        }
        let problem = &answer["problem"];
        assert_eq!((&answer["type"], &problem["status"]), (&json!("error"), &json!(429)));
        assert_eq!(problem["retry_after"], 1, "{answer}");
        assert!(problem["detail"].to_string().contains("--publish-rate-per-subject"), "{answer}");
        let batch = [headers[0], ("content-type", "application/x-ndjson")];
        let answer = origin.post("/channels/a", &batch, &"{\"data\":1}\n".repeat(3)).await;
        answer.assert_problem(429, "rate");
        assert_eq!(answer.header("retry-after"), Some("1"));
        // The socket stays open, and accepts events again after the announced time.
        let again = async || peer.ask(publish).await["type"] == "ack";
        wait_for("the allowance does not come back", again).await;
    }
    // Another publisher is not delayed.
    let bearer = format!("Bearer {}", token("two"));
    let answer = origin.post("/channels/a", &[("authorization", &bearer)], "x").await;
    assert_eq!(answer.status, 201);
    let refused = "headwater_publishes_refused_total{problem=\"rate\"}";
    assert!(origin.metric(refused).await >= 4.0);
    assert_calm(&origin).await;
}

#[tokio::test]
async fn limits_without_end_do_not_wrap_around() {
    let (huge, half) = (u64::MAX.to_string(), (1u64 << 63).to_string());
    let flags = ["--max-connections", &huge, "--max-connections-per-client", &half];
    let times = ["--ws-ping", "--head-timeout", "--body-timeout"];
    let times: Vec<&str> = times.iter().flat_map(|flag| [*flag, "99years"]).collect();
    let origin = Origin::with(&[&QUIET[..], &flags, &times].concat());
    let kept = origin.publish("a", "x").await;
    Peer::connect(&origin).await.assert_open().await;
    let mut crowd = Vec::new();
    for _ in 0..600 {
        crowd.push(origin.raw(b"G").await);
    }
    assert_sane(&origin, "a", &[kept]).await;
    drop(crowd);
    assert_calm(&origin).await;
    for (flag, value) in [("--ws-ping", "10000years"), ("--head-timeout", "300000000000years")] {
        let output = Command::new("timeout")
            .args(["5", BINARY, "serve", "--store", "memory", flag, value])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .output()
            .expect("it starts");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && why.contains(flag), "{why}");
    }
}
