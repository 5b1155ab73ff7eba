//! The log of `serve`.

use crate::kit::{BINARY, Origin};
use crate::protocol::access::signed;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tokio::io::AsyncReadExt;

#[test]
fn every_line_of_a_json_log_is_an_object_with_a_level() {
    let mut origin = Command::new(BINARY)
        .args(["serve", "--store", "memory", "--log-format", "json"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(origin.stderr.take().expect("a pipe")).lines();
    let mut messages = Vec::new();
    for line in lines {
        let line = line.expect("text");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(message["level"].is_string() && message["timestamp"].is_string(), "{line}");
        // The listeners are announced in their order, and the one for operators is the last.
        if message["what"] == "metrics" {
            assert!(
                message["url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:"))
            );
            let kill = Command::new("kill").arg(origin.id().to_string()).status();
            assert!(kill.expect("kill runs").success());
        }
        messages.push(message["message"].as_str().expect("a message").to_owned());
    }
    assert!(origin.wait().expect("it ends").success());
    for wanted in ["serving", "draining", "stopped"] {
        assert!(messages.iter().any(|message| message == wanted), "{wanted}: {messages:?}");
    }
}

const SECRET: &str = "the-secret-of-tokens-with-32-bytes";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn a_refusal_has_the_id_of_the_request_in_the_log_and_in_the_problem() {
    let origin = Origin::with(&["--store", "memory", "--token-secret", SECRET]);
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let too_long = "x".repeat(200);
    for (headers, expected) in [
        (vec![("traceparent", traceparent.as_str()), ("x-request-id", "other")], Some(TRACE)),
        (vec![("x-request-id", "from-the-edge.7")], Some("from-the-edge.7")),
        // Ids that could forge a line or fill the log are replaced.
        (vec![("x-request-id", "a b")], None),
        (vec![("x-request-id", too_long.as_str())], None),
        (vec![("traceparent", "00-xyz-1-01")], None),
    ] {
        let answer = origin.post("/channels/a?event=secret-query", &headers, "secret-body").await;
        assert_eq!(answer.status, 401);
        let id = answer.json()["request_id"].as_str().expect("an id").to_owned();
        match expected {
            Some(expected) => assert_eq!(id, expected),
            None => assert_eq!(id.len(), 16, "{id}"),
        }
        let line = format!("request_id=\"{id}\"");
        origin.logs(&line).await;
    }
    assert_eq!(origin.logged("a request was refused"), 5);
    assert_eq!(origin.logged("secret-"), 0, "neither queries nor bodies are logged");
}

#[tokio::test]
async fn ends_of_channels_and_shed_streams_are_logged_and_floods_are_not() {
    let origin = Origin::with(&["--store", "memory", "--token-secret", SECRET, "--private", "p.*"]);
    let words = ["token", "--token-secret", SECRET, "--publish", "*"];
    let token = Command::new(BINARY).args(words).output().expect("the binary runs").stdout;
    let token = format!("Bearer {}", String::from_utf8(token).expect("text").trim());
    let headers = [("authorization", token.as_str())];
    assert_eq!(origin.post("/channels/a", &headers, "x").await.status, 201);
    for (query, message) in [("", "a channel was ended"), ("?reopen=1", "a channel was opened")] {
        let path = format!("/channels/a{query}");
        let answer = origin.request(hyper::Method::DELETE, &path, &headers, "").await;
        assert_eq!(answer.status, 200);
        origin.logs(message).await;
    }
    // A token that has expired: the stream is shed, because the client may get a new one.
    let claims = json!({ "scope": "subscribe:*", "exp": 1_000_000_000 });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let expired = format!("Bearer {}", signed(Algorithm::HS256, &key, &claims));
    let headers = [("authorization", expired.as_str()), ("accept", "text/event-stream")];
    assert_eq!(origin.request(hyper::Method::GET, "/channels/p.a", &headers, "").await.status, 200);
    origin.logs("a stream was shed reason=\"token-expired\"").await;
    // A flood of refusals fills no log.
    for _ in 0..100 {
        assert_eq!(origin.post("/channels/a", &[], "x").await.status, 401);
    }
    // The last line is not among them, so it comes after all of theirs.
    let headers = [("authorization", token.as_str())];
    let ended = origin.request(hyper::Method::DELETE, "/channels/a", &headers, "").await;
    assert_eq!(ended.status, 200);
    origin.logs_times("a channel was ended", 2).await;
    assert!(origin.logged("a request was refused") <= 20);
}

#[tokio::test]
async fn each_connection_is_logged_at_debug_and_a_flood_of_them_is_not() {
    let origin = Origin::with(&["--store", "memory", "--log", "debug"]);
    // One request, and the end of its connection.
    origin.publish("a", "secret-data").await;
    origin.logs("a connection was opened client=127.0.0.1 transport=http/1.1").await;
    origin.logs("reason=finished").await;
    // A client that leaves its stream.
    let mut stream = origin.raw(b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stream.read_exact(&mut [0; 12]).await.expect("a response");
    drop(stream);
    origin.logs("reason=in-stream").await;
    // Bytes that are no request.
    drop(origin.raw(b"\0\0\0\0\r\n\r\n").await);
    origin.logs("reason=failed").await;
    const FLOOD: usize = 3_000;
    for _ in 0..FLOOD {
        let mut stream = origin.raw(b"\0\0\0\0\r\n\r\n").await;
        stream.read_to_end(&mut Vec::new()).await.ok();
    }
    // This line comes after all lines of the connections.
    origin.signal("TERM");
    origin.logs("stopped").await;
    for words in ["a connection was opened", "a connection was closed"] {
        let count = origin.logged(words);
        assert!((1_000..FLOOD).contains(&count), "{words}: {count}");
    }
    assert_eq!(origin.logged("secret-data"), 0);
}
