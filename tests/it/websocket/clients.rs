//! The WebSocket clients in wide use, Python's `websockets`, Node.js's `ws` and Chromium's, against
//! the compiled binary.

use crate::browsers::browser::Browser;
use crate::kit::websocket::{Client, Socket};
use crate::kit::{BINARY, Origin, PATIENCE, next_message};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SECRET: &str = "a secret of at least thirty-two bytes";
const FRAMES_IN: &str = "headwater_websocket_frames_in_total";

fn origin(flags: &[&str]) -> Origin {
    let fixed = ["--store", "memory", "--token-secret", SECRET, "--private", "desk.*"];
    Origin::with(&[&fixed[..], flags].concat())
}

/// Starts another web origin. Its home page may connect to any host, unlike the pages of the demo.
fn elsewhere() -> Origin {
    Origin::start()
}

/// Makes a token that may publish to any channel and read the private channels.
fn token() -> String {
    let mut command = Command::new(BINARY);
    command.args(["token", "--token-secret", SECRET, "--publish", "*", "--subscribe", "desk.*"]);
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Publishes over HTTP and returns the id.
async fn publish(origin: &Origin, channel: &str, data: &str) -> String {
    let bearer = format!("Bearer {}", token());
    let headers = [("authorization", bearer.as_str())];
    let answer = origin.post(&format!("/channels/{channel}"), &headers, data).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn subscribe(socket: &mut Socket<'_>, channel: &str) {
    socket.say(json!({ "type": "subscribe", "channels": [channel], "ref": channel })).await;
    assert_eq!(socket.ack(channel).await["channel"], channel);
}

/// Checks subscribing and publishing with two sockets of a client and a publisher over HTTP, on the
/// same channels.
async fn hears_and_says(client: Client<'_>) {
    let origin = origin(&[]);
    let bearer = format!("bearer.{}", token());
    let protocols = ["headwater", bearer.as_str()];
    let first = publish(&origin, "desk.a", "first").await;
    let second = publish(&origin, "desk.a", "second").await;
    let mut one = client.welcome(origin.listen, &protocols).await;
    one.say(json!({ "type": "subscribe", "channels": ["desk.a"], "after": first, "ref": 1 })).await;
    assert_eq!(one.ack(1).await["channel"], "desk.a");
    assert_eq!(one.event().await, (second, "second".to_owned()));
    subscribe(&mut one, "open").await;
    let mut other = client.welcome(origin.listen, &protocols).await;
    subscribe(&mut other, "open").await;

    let mine = json!({ "type": "publish", "channel": "open", "data": "mine", "echo": false });
    let id = said(&mut one, mine).await;
    assert_eq!(other.event().await, (id, "mine".to_owned()));
    let theirs = json!({ "type": "publish", "channel": "open", "data": "theirs" });
    let id = said(&mut other, theirs).await;
    assert_eq!(other.event().await, (id.clone(), "theirs".to_owned()));
    assert_eq!(one.event().await, (id, "theirs".to_owned()), "its own does not come to it");
    for number in 0..20 {
        publish(&origin, "open", &number.to_string()).await;
    }
    let log = origin.log("open").await;
    assert_eq!(log.len(), 22);
    for expected in &log[2..] {
        assert_eq!(one.event().await, *expected);
        assert_eq!(other.event().await, *expected);
    }
    one.order(&json!(["close"])).await;
    let (code, _) = one.closed().await;
    assert!([1000, 1005].contains(&code), "{code}: we have not agreed to part");
}

/// Publishes over the socket and returns the id in the acknowledgement.
async fn said(socket: &mut Socket<'_>, mut frame: Value) -> String {
    frame["ref"] = "p".into();
    socket.say(frame).await;
    socket.ack("p").await["id"].as_str().expect("an id").to_owned()
}

/// Moves from a WebSocket to a stream and back, each time with the cursor of the one before.
async fn keeps_one_cursor(client: Client<'_>) {
    let origin = origin(&[]);
    let mut socket = client.welcome(origin.listen, &["headwater"]).await;
    subscribe(&mut socket, "a").await;
    subscribe(&mut socket, "b").await;
    for (channel, data) in [("a", "a1"), ("b", "b1")] {
        publish(&origin, channel, data).await;
    }
    let mut events = [socket.event().await, socket.event().await];
    events.sort_by(|one, other| one.1.cmp(&other.1));
    let [(a, a1), (b, b1)] = events;
    assert_eq!([a1, b1], ["a1", "b1"]);
    socket.order(&json!(["close"])).await;
    socket.closed().await;

    for (channel, data) in [("a", "a2"), ("b", "b2")] {
        publish(&origin, channel, data).await;
    }
    let mut source = origin.source("/channels/a,b", Some(&format!("{a}_{b}")));
    let mut streamed = [next_message(&mut source).await, next_message(&mut source).await];
    let joined = source.last_event_id().to_owned();
    streamed.sort_by(|one, other| one.data.cmp(&other.data));
    assert_eq!(streamed.map(|message| message.data), ["a2", "b2"]);
    drop(source);

    for (channel, data) in [("a", "a3"), ("b", "b3")] {
        publish(&origin, channel, data).await;
    }
    for (after, expected) in
        [(json!(joined), &["a3", "b3"][..]), (json!({ "a": a, "b": b }), &["a2", "a3", "b2", "b3"])]
    {
        let mut socket = client.welcome(origin.listen, &["headwater"]).await;
        let channels = ["a", "b"];
        socket.say(json!({ "type": "subscribe", "channels": channels, "after": after })).await;
        let mut data = Vec::new();
        while data.len() < expected.len() {
            let frame = socket.frame().await;
            match frame["type"].as_str() {
                Some("ack") => {}
                Some("event") => data.push(frame["data"].as_str().expect("a text").to_owned()),
                _ => panic!("{frame}"),
            }
        }
        data.sort();
        assert_eq!(data, expected, "after {after}");
    }
}

/// A client that leaves two pings unanswered is disconnected; this client stays connected over many
/// pings.
async fn answers_pings(client: Client<'_>) {
    let origin = origin(&["--ws-ping", "2s"]);
    let mut socket = client.welcome(origin.listen, &["headwater"]).await;
    let before = origin.metric(FRAMES_IN).await;
    // The client sends nothing by itself, so the incoming frames are its answers to pings. One that
    // never answers is gone before the third ping.
    let answered = async {
        while origin.metric(FRAMES_IN).await < before + 3.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("it answers");
    socket.say(json!({ "type": "ping", "ref": 1 })).await;
    assert_eq!(socket.frame().await, json!({ "type": "pong", "ref": 1 }));
}

async fn is_told_why_it_has_to_go(client: Client<'_>) {
    let origin = origin(&["--max-ws-message", "4KiB"]);
    let mut socket = client.welcome(origin.listen, &["headwater", "bearer.forged"]).await;
    let (code, reason) = socket.closed().await;
    assert!(code == 1008 && reason.contains("the token is not signed"), "{code} {reason}");
    for (order, expected, why) in [
        (json!(["text", "x".repeat(5_000)]), 1009, "4096 bytes (--max-ws-message)"),
        (json!(["text", "x".repeat(500_000)]), 1009, "4096 bytes (--max-ws-message)"),
        (json!(["binary", [1, 2, 3]]), 1003, "only text frames"),
    ] {
        let mut socket = client.welcome(origin.listen, &["headwater"]).await;
        socket.order(&order).await;
        let (code, reason) = socket.closed().await;
        assert!(code == expected && reason.contains(why), "{code} {reason}");
    }
    let mut socket = client.welcome(origin.listen, &["headwater"]).await;
    origin.signal("TERM");
    let (code, reason) = socket.closed().await;
    assert!(code == 1012 && reason.contains("connect again"), "{code} {reason}");
}

async fn does_it_all(client: Client<'_>) {
    hears_and_says(client).await;
    keeps_one_cursor(client).await;
    answers_pings(client).await;
    is_told_why_it_has_to_go(client).await;
}

#[tokio::test]
async fn python_hears_and_says_all() {
    does_it_all(Client::Python).await;
}

#[tokio::test]
async fn node_hears_and_says_all() {
    does_it_all(Client::Node).await;
}

#[tokio::test]
async fn chromium_hears_and_says_all() {
    let (elsewhere, browser) = (elsewhere(), Browser::start().await);
    show_page_of(&browser, &elsewhere).await;
    does_it_all(Client::Chromium(&browser)).await;
}

/// Shows the home page of `origin`. From a page that is not HTML, Chromium sends no cookie at all.
async fn show_page_of(browser: &Browser, origin: &Origin) {
    browser.open(&format!("http://{}/", origin.listen)).await;
}

/// Returns whether a socket of the page may read a private channel, with the credentials that the
/// browser sends.
async fn may_read(client: Client<'_>, origin: &Origin) -> bool {
    let mut socket = client.welcome(origin.listen, &["headwater"]).await;
    socket.say(json!({ "type": "subscribe", "channels": ["desk.a"] })).await;
    let frame = socket.frame().await;
    match frame["type"].as_str() {
        Some("ack") => true,
        Some("error") => {
            assert_eq!(frame["problem"]["type"], "urn:headwater:problem:token", "{frame}");
            false
        }
        _ => panic!("{frame}"),
    }
}

#[tokio::test]
async fn a_page_gets_no_right_by_a_cookie_where_it_is_not_named() {
    let (elsewhere, own) = (elsewhere(), origin(&[]));
    let browser = Browser::start().await;
    show_page_of(&browser, &elsewhere).await;
    // A cookie belongs to a host, whatever the port, so the browser sends this one to all origins
    // here.
    browser.run(&format!("document.cookie = 'headwater={}'", token())).await;
    let client = Client::Chromium(&browser);
    let named = format!("http://{}", elsewhere.listen);
    assert!(may_read(client, &origin(&["--cors-origin", &named])).await);
    assert!(!may_read(client, &own).await, "anyone's page could read what is private");
    let mut socket = client.welcome(own.listen, &["headwater"]).await;
    socket.say(json!({ "type": "publish", "channel": "open", "data": "x" })).await;
    let frame = socket.frame().await;
    assert_eq!(frame["problem"]["type"], "urn:headwater:problem:token", "{frame}");
    // The page may use a token that it has itself, although the cookie gives it no rights.
    let bearer = format!("bearer.{}", token());
    let mut socket = client.welcome(own.listen, &["headwater", &bearer]).await;
    subscribe(&mut socket, "desk.a").await;
    // The same cookie is valid on a page of the origin itself.
    show_page_of(&browser, &own).await;
    assert!(may_read(client, &own).await);
}

#[tokio::test]
async fn a_page_does_not_get_in_where_others_are_named() {
    let closed_to_it = origin(&["--cors-origin", "https://app.example"]);
    let (elsewhere, browser) = (elsewhere(), Browser::start().await);
    show_page_of(&browser, &elsewhere).await;
    let bearer = format!("bearer.{}", token());
    let client = Client::Chromium(&browser);
    let mut socket = client.open(closed_to_it.listen, &["headwater", &bearer]).await;
    // There is no report `open` before this one: the handshake failed.
    assert_eq!(socket.report().await, json!(["closed", 1006, ""]));
    show_page_of(&browser, &closed_to_it).await;
    client.welcome(closed_to_it.listen, &["headwater", &bearer]).await;
}
