//! Settings of single channels and of patterns, and the deletion of channels, with every store.

use crate::kit::redis::RedisServer;
use crate::kit::socket::Socket;
use crate::kit::{Answer, BINARY, Origin, PATIENCE, get, next_message, read_until, request};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::process::Output;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

async fn admin(
    origin: &Origin,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let address = format!("http://{}", origin.admin).parse().expect("an address");
    let body = Bytes::from(body.to_owned());
    request(&address, method, path, headers, body).await.expect("it answers")
}

/// Runs `headwater channels`, which must succeed.
async fn channels(origin: &Origin, words: &[&str]) -> String {
    let output = try_channels(origin, words).await;
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

async fn try_channels(origin: &Origin, words: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("channels").args(words);
    command.args(["--admin-url", &format!("http://{}", origin.admin)]);
    command.stdin(std::process::Stdio::null()).output().await.expect("it runs")
}

async fn data(origin: &Origin, channel: &str) -> Vec<String> {
    origin.log(channel).await.into_iter().map(|(_, data)| data).collect()
}

async fn status_of_key(origin: &Origin, channel: &str, key: &str) -> u16 {
    let answer = origin.post(&format!("/channels/{channel}?key={key}"), &[], "x").await;
    answer.status.as_u16()
}

/// Waits until a publish of a new key has this status, because another origin learns of a change
/// with a delay.
async fn key_becomes(origin: &Origin, channel: &str, status: u16) {
    let give_up = Instant::now() + PATIENCE;
    for n in 0.. {
        let found = status_of_key(origin, channel, &format!("new{n}")).await;
        if found == status {
            return;
        }
        assert!(Instant::now() < give_up, "a new key of {channel} gives {found}, not {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Starts the process again after a kill, if its store survives that.
fn restart(origins: &mut [Origin], is_durable: bool) {
    for origin in origins.iter_mut().filter(|_| is_durable) {
        origin.kill();
        origin.start_again();
    }
}

const PATTERNS: &str = "tiny.* max-keys=1,tiny.not max-keys=3,short.* retain-age=1s";

async fn check_settings(origins: &mut [Origin], is_durable: bool) {
    let last = origins.len() - 1;
    // The most precise pattern applies.
    assert_eq!(status_of_key(&origins[0], "tiny.a", "one").await, 201);
    let refused = origins[last].post("/channels/tiny.a?key=two", &[], "x").await;
    let problem = refused.assert_problem(507, "limit-reached");
    assert!(problem["detail"].as_str().expect("text").contains("the limit is 1"), "{problem}");
    for key in ["one", "two", "three"] {
        assert_eq!(status_of_key(&origins[0], "tiny.not", key).await, 201);
    }
    assert_eq!(status_of_key(&origins[0], "tiny.not", "four").await, 507);

    // Settings of one channel go before those of a pattern, at every origin, and survive a kill.
    let said = channels(&origins[0], &["set", "tiny.a", "--max-keys", "2"]).await;
    assert_eq!(said, "tiny.a has these settings of its own: max-keys 2\n");
    channels(&origins[0], &["set", "board", "--max-keys", "1", "--retain-events", "5000"]).await;
    let early = admin(&origins[0], Method::GET, "/channels/board", &[], "").await.json();
    assert_eq!(early["settings"], json!({ "max_keys": 1, "retain_events": 5000 }));
    key_becomes(&origins[last], "board", 507).await;
    restart(origins, is_durable);
    for origin in &*origins {
        assert_eq!(status_of_key(origin, "board", "another").await, 507);
        let shown = channels(origin, &["show", "board"]).await;
        assert!(shown.contains("max-keys            1  (set for this channel)"), "{shown}");
        assert!(shown.contains("retain-age          1day\n"), "{shown}");
    }
    assert_eq!(status_of_key(&origins[last], "tiny.a", "two").await, 201);
    assert_eq!(status_of_key(&origins[last], "tiny.a", "three").await, 507);

    let said = channels(&origins[last], &["set", "board", "--max-keys", "default"]).await;
    assert_eq!(said, "board has these settings of its own: retain-events 5000\n");
    key_becomes(&origins[0], "board", 201).await;

    // An age of its own.
    origins[0].publish("short.a", "gone soon").await;
    origins[0].publish("long.a", "stays").await;
    let give_up = Instant::now() + PATIENCE;
    while !data(&origins[0], "short.a").await.is_empty() {
        assert!(Instant::now() < give_up, "the event is too old");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(data(&origins[0], "long.a").await, ["stays"]);
}

async fn check_deletion(origins: &mut [Origin], is_durable: bool) {
    let last = origins.len() - 1;
    let before = origins[0].publish_with("old", "key=k", "secret").await;
    for n in 0..300 {
        origins[0].publish_with("old", &format!("key=k{n}"), "secret").await;
    }
    channels(&origins[0], &["set", "old", "--max-keys", "1000"]).await;
    // The other origin has the events in memory.
    let mut stream = origins[last].raw(&get("/channels/old?after=0-0", None)).await;
    read_until(&mut stream, |text| text.matches("secret").count() > 300).await;

    let refused = try_channels(&origins[0], &["delete", "old"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--yes"), "{refused:?}");
    channels(&origins[0], &["delete", "old", "--yes"]).await;
    read_until(&mut stream, |text| text.contains("event: end")).await;

    for round in 0..2 {
        for origin in &*origins {
            let give_up = Instant::now() + PATIENCE;
            let path = format!("/channels/old?after={before}");
            // The events may stay in the memory of the other origin for an instant.
            let text = loop {
                let mut stream = origin.raw(&get(&path, None)).await;
                let text = read_until(&mut stream, |text| text.contains("event: end")).await;
                if !text.contains("secret") {
                    break text;
                }
                assert!(Instant::now() < give_up, "{text}");
            };
            assert!(text.contains("event: gap"), "round {round}: {text}");
            assert!(data(origin, "old").await.is_empty());
            let state = origin.get("/channels/old/state").await.json();
            assert_eq!(state["events"], json!([]), "round {round}");
            let mut fresh = origin.raw(&get("/channels/old", None)).await;
            let text = read_until(&mut fresh, |text| text.contains("event: end")).await;
            assert!(!text.contains("secret"), "{text}");
            let answer = origin.post("/channels/old", &[], "x").await;
            answer.assert_problem(409, "channel-closed");
            let shown = admin(origin, Method::GET, "/channels/old", &[], "").await.json();
            let fields = ["events", "keys", "state_bytes", "ended", "settings"];
            let shown: Vec<&Value> = fields.iter().map(|field| &shown[*field]).collect();
            assert_eq!(json!(shown), json!([1, 0, 0, true, {}]));
        }
        restart(origins, is_durable);
    }

    // The channel can be used again.
    let end = admin(&origins[0], Method::GET, "/channels/old", &[], "").await.json();
    let end = end["last"].as_str().expect("an id").to_owned();
    origins[0].request(Method::DELETE, "/channels/old?reopen=1", &[], "").await;
    origins[0].publish_with("old", "key=k", "new").await;
    restart(origins, is_durable);
    assert_eq!(data(&origins[last], "old").await, ["new"]);
    let mut source = origins[last].source("/channels/old", Some(&end));
    assert_eq!(next_message(&mut source).await.data, "new");
    let error = try_channels(&origins[0], &["delete", "never", "--yes"]).await;
    assert!(String::from_utf8_lossy(&error.stderr).contains("no such channel"), "{error:?}");
}

#[tokio::test]
async fn a_channel_has_the_settings_that_it_was_given_in_a_local_store() {
    let flags = ["--channel-settings", PATTERNS];
    check_settings(&mut [Origin::with(&[&["--store", "memory"][..], &flags].concat())], false)
        .await;
    let directory = tempfile::tempdir().expect("a directory");
    let disk = format!("disk:{}", directory.path().display());
    check_settings(&mut [Origin::with(&[&["--store", &disk][..], &flags].concat())], true).await;
}

#[tokio::test]
async fn a_channel_has_the_settings_that_it_was_given_at_every_origin_on_redis() {
    let redis = RedisServer::start();
    let start = || Origin::with(&["--store", &redis.url(), "--channel-settings", PATTERNS]);
    check_settings(&mut [start(), start()], true).await;
}

#[tokio::test]
async fn a_deleted_channel_stays_deleted_in_a_local_store() {
    check_deletion(&mut [Origin::start()], false).await;
    let directory = tempfile::tempdir().expect("a directory");
    let disk = format!("disk:{}", directory.path().display());
    check_deletion(&mut [Origin::with(&["--store", &disk])], true).await;
}

#[tokio::test]
async fn a_deleted_channel_stays_deleted_at_every_origin_on_redis() {
    let redis = RedisServer::start();
    let start = || Origin::with(&["--store", &redis.url()]);
    check_deletion(&mut [start(), start()], true).await;
}

#[tokio::test]
async fn no_client_reaches_the_channel_of_the_settings() {
    let origin = Origin::start();
    channels(&origin, &["set", "a", "--max-keys", "1"]).await;
    let own = "headwater~channels";
    for path in ["", "/history", "/state"].map(|end| format!("/channels/{own}{end}")) {
        let problem = origin.get(&path).await.assert_problem(400, "bad-field");
        assert!(problem.to_string().contains("reserved for Headwater"), "{problem}");
    }
    origin.post(&format!("/channels/a,{own}"), &[], "x").await.assert_problem(400, "bad-field");
    origin.post(&format!("/channels/{own}"), &[], "x").await.assert_problem(400, "bad-field");
    let mut socket = Socket::connect(origin.listen).await;
    socket.say(json!({ "type": "subscribe", "channels": [own] })).await;
    let answer = socket.hear().await;
    assert!(answer.to_string().contains("reserved for Headwater"), "{answer}");
    let list = admin(&origin, Method::GET, "/channels", &[], "").await.json();
    assert_eq!(list["channels"], json!([]));
}

#[tokio::test]
async fn only_operators_change_channels() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    let (path, body) = ("/channels/a/settings", r#"{"max_keys":1}"#);
    let page = [("origin", "http://localhost:3000")];
    let answer = admin(&origin, Method::PATCH, path, &page, body).await;
    answer.assert_problem(403, "origin");
    let answer = admin(&origin, Method::DELETE, "/channels/a", &page, "").await;
    answer.assert_problem(403, "origin");
    let mut rebound = TcpStream::connect(origin.admin).await.expect("it listens");
    let delete = "DELETE /channels/a HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    rebound.write_all(delete.as_bytes()).await.expect("it reads");
    read_until(&mut rebound, |text| text.contains("urn:headwater:problem:host")).await;
    // The public listener has neither.
    let answer = origin.request(Method::PATCH, path, &[], body).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    for bad in
        ["", "[]", r#"{"max_key":1}"#, r#"{"max_keys":0}"#, &format!("\"{}\"", "x".repeat(5000))]
    {
        admin(&origin, Method::PATCH, path, &[], bad).await.assert_problem(400, "bad-field");
    }
    let shown = admin(&origin, Method::GET, "/channels/a", &[], "").await.json();
    assert_eq!((&shown["settings"], &shown["ended"]), (&json!({}), &json!(false)));
    assert_eq!(data(&origin, "a").await, ["x"]);

    admin(&origin, Method::PATCH, path, &[], body).await;
    admin(&origin, Method::DELETE, "/channels/a", &[], "").await;
    origin.logs("the settings of a channel were changed").await;
    origin.logs("a channel was deleted").await;
    assert_eq!(origin.logged("a channel was ended"), 0);
}
