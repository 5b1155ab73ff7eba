//! Attacks of one publisher on other publishers.

use super::{QUIET, assert_calm, assert_sane};
use crate::kit::{Origin, PATIENCE, read_until, request};
use crate::protocol::access::{SECRET, in_an_hour, signed};
use crate::websocket::raw::Peer;
use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn bearer(subject: &str) -> String {
    let claims = json!({ "exp": in_an_hour(), "sub": subject, "scope": "publish:* subscribe:*" });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    format!("Bearer {}", signed(Algorithm::HS256, &key, &claims))
}

/// Sends most of a batch, and then stops.
async fn stalled(origin: &Origin, token: &str) -> TcpStream {
    let head = format!(
        "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Authorization: {token}\r\nContent-Length: 8000000\r\n\r\n"
    );
    let mut stream = origin.raw(head.as_bytes()).await;
    // The origin may refuse the batch before all of it was sent.
    let _refused = stream.write_all(&vec![b'x'; 7_900_000]).await;
    stream
}

#[tokio::test]
async fn a_publisher_with_many_slow_bodies_does_not_shut_others_out() {
    let _alone = crate::kit::alone().await;
    let origin = Origin::with(&[&QUIET[..], &["--token-secret", SECRET]].concat());
    let (greedy, other) = (bearer("greedy"), bearer("other"));
    let held = futures_util::future::join_all((0..8).map(|_| stalled(&origin, &greedy))).await;
    let headers = [("authorization", other.as_str()), ("content-type", "application/x-ndjson")];
    let batch = format!("{{\"data\":\"{}\"}}\n", "y".repeat(900_000)).repeat(8);
    let begun = Instant::now();
    let answer = origin.post("/channels/b", &headers, &batch).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let small = origin.post("/channels/b", &headers[..1], "small").await;
    assert_eq!(small.status, 201, "{}", small.body);
    // A refused publish is answered, even if its publisher is still sending.
    let mut refused = 0;
    for mut stream in held {
        let text = read_until(&mut stream, |text| text.contains("\r\n\r\n{")).await;
        assert!(text.starts_with("HTTP/1.1 503 ") || text.starts_with("HTTP/1.1 408 "), "{text}");
        assert!(text.contains("publish-buffer") || text.contains("slow-body"), "{text}");
        refused += usize::from(text.starts_with("HTTP/1.1 503 "));
    }
    assert!(refused >= 6, "{refused}");
    assert!(begun.elapsed() < PATIENCE);
    assert_calm(&origin).await;
}

#[tokio::test]
async fn ending_and_opening_a_channel_is_no_way_around_a_rate() {
    let origin = Origin::with(&[&QUIET[..], &["--publish-rate", "3"]].concat());
    let kept = origin.publish("a", "x").await;
    let mut statuses = Vec::new();
    for n in 0..20 {
        let path = format!("/channels/a?reopen={}", n % 2);
        statuses.push(origin.request(Method::DELETE, &path, &[], "").await.status.as_u16());
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    // The end of a channel that never existed does not create it.
    for n in 0..20 {
        let path = format!("/channels/never{n}");
        origin.request(Method::DELETE, &path, &[], "").await.assert_problem(404, "no-channel");
    }
    assert_sane(&origin, "b", &[]).await;
    assert_eq!(origin.log("a").await[0].0, kept);
}

#[tokio::test]
async fn a_publisher_cannot_use_up_the_channels_and_keys_of_all() {
    let quotas = ["--new-channels-per-subject", "5", "--idempotency-keys-per-subject", "4"];
    let limits = ["--token-secret", SECRET, "--max-channels", "20", "--max-idempotency-keys", "20"];
    let origin = Origin::with(&[&QUIET[..], &limits, &quotas].concat());
    let (greedy, other) = (bearer("greedy"), bearer("other"));
    let mut made = Vec::new();
    for n in 0..40 {
        let headers = [("authorization", greedy.as_str())];
        let answer = origin.post(&format!("/channels/made{n}"), &headers, "x").await;
        match answer.status.as_u16() {
            201 => made.push(n),
            _ => {
                let problem = answer.assert_problem(429, "rate");
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains("--new-channels-per-subject"), "{detail}");
                assert!(answer.header("retry-after").is_some());
            }
        }
    }
    assert_eq!(made, [0, 1, 2, 3, 4]);
    let mut taken = 0;
    for n in 0..40 {
        let key = n.to_string();
        let headers = [("authorization", greedy.as_str()), ("idempotency-key", &key)];
        let answer = origin.post("/channels/made0", &headers, "x").await;
        match answer.status.as_u16() {
            201 => taken += 1,
            _ => drop(answer.assert_problem(429, "rate")),
        }
    }
    assert_eq!(taken, 4);
    // An existing channel accepts events without an idempotency key, and another publisher has its
    // own share.
    let headers = [("authorization", greedy.as_str())];
    assert_eq!(origin.post("/channels/made0", &headers, "x").await.status, 201);
    let headers = [("authorization", other.as_str()), ("idempotency-key", "1")];
    for n in 0..4 {
        let answer = origin.post(&format!("/channels/other{n}"), &headers, "x").await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    // The quota also applies to a WebSocket.
    let mut peer = Peer::with(&origin, "/ws", &[("authorization", &greedy)]).await;
    let publish = r#"{"type":"publish","channel":"made99","data":"x"}"#;
    let answer = peer.ask(publish).await.to_string();
    assert!(answer.contains("--new-channels-per-subject"), "{answer}");
}

#[tokio::test]
async fn a_publisher_cannot_take_the_idempotency_key_of_another() {
    let origin = Origin::with(&[&QUIET[..], &["--token-secret", SECRET]].concat());
    let publish = async |subject: &str, data: &str| {
        let token = bearer(subject);
        let headers = [("authorization", token.as_str()), ("idempotency-key", "order-1")];
        origin.post("/channels/a", &headers, data).await.status.as_u16()
    };
    assert_eq!(publish("mallory", "guessed").await, 201);
    assert_eq!(publish("alice", "order").await, 201);
    assert_eq!(publish("alice", "order").await, 200);
    assert_eq!(publish("alice", "another").await, 422);
    let log: Vec<_> = origin.log("a").await.into_iter().map(|(_, data)| data).collect();
    assert_eq!(log, ["guessed", "order"]);
}

#[tokio::test]
async fn a_large_body_that_comes_slowly_is_refused() {
    let origin = Origin::with(&QUIET);
    let head = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n";
    let mut stream = origin.raw(head.as_bytes()).await;
    // The publisher sends more bytes than are accepted at any speed, and then continues without a
    // pause, at 2 KiB a second.
    stream.write_all(&[b'x'; 70_000]).await.unwrap();
    let (mut answer, mut publisher) = stream.split();
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if publisher.write_all(&[b'x'; 200]).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut text = String::new();
    let read = async {
        let mut buffer = [0; 4_096];
        while !text.contains("slow-body") {
            let read = answer.read(&mut buffer).await.expect("an answer");
            assert_ne!(read, 0, "{text}");
            text += &String::from_utf8_lossy(&buffer[..read]);
        }
    };
    tokio::select! {
        () = trickle => {}
        read = tokio::time::timeout(PATIENCE, read) => read.expect("it is refused"),
    }
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("16 KiB a second"), "{text}");
    assert!(origin.log("a").await.is_empty());
}

/// Returns a gzip body with one member for each text.
fn members(texts: &[&str]) -> Vec<u8> {
    use std::io::Write;
    let member = |text: &&str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(text.as_bytes()).expect("it is in memory");
        encoder.finish().expect("it is in memory")
    };
    texts.iter().flat_map(member).collect()
}

#[tokio::test]
async fn a_gzip_body_of_many_empty_members_is_refused() {
    let origin = Origin::start();
    let publish = async |body: Vec<u8>| {
        let headers = [("content-encoding", "gzip")];
        let address = origin.address();
        request(&address, Method::POST, "/channels/a", &headers, body.into()).await.unwrap()
    };
    assert_eq!(publish(members(&["o", "", "n", "e"])).await.status, 201);
    assert_eq!(origin.log("a").await[0].1, "one");
    let problem = publish(members(&[""; 20_000])).await.assert_problem(400, "bad-field");
    assert!(problem["detail"].as_str().unwrap().contains("more than 16 members"), "{problem}");
}
