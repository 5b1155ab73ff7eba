//! The channels of an origin, as operators see them: `GET /channels` on the admin listener,
//! `headwater channels` and `headwater stats`.

use crate::kit::redis::RedisServer;
use crate::kit::socket::Socket;
use crate::kit::{
    Answer, BINARY, Origin, PATIENCE, next_message, read_until, request, wait_for_phase,
};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::process::Output;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

async fn admin(origin: &Origin, path: &str) -> Answer {
    let address = format!("http://{}", origin.admin).parse().expect("an address");
    request(&address, Method::GET, path, &[], Bytes::new()).await.expect("it answers")
}

/// Returns the channels in the list at `path`: one array of these fields for each.
async fn listed(origin: &Origin, path: &str, fields: &[&str]) -> Vec<Value> {
    let list = admin(origin, path).await.json();
    let channels = list["channels"].as_array().expect("channels").iter();
    channels.map(|channel| fields.iter().map(|field| channel[field].clone()).collect()).collect()
}

/// Waits until a channel has this number of subscribers.
async fn has_subscribers(origin: &Origin, channel: &str, count: u64) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let answer = admin(origin, &format!("/channels/{channel}")).await;
        let shown = match answer.status.as_u16() {
            404 => 0,
            _ => answer.json()["subscribers"].as_u64().expect("a number"),
        };
        if shown == count {
            return;
        }
        assert!(Instant::now() < give_up, "{channel} has {shown} subscribers, not {count}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Requests the list with this `Host`, and returns the whole answer.
async fn answer_to(origin: &Origin, host: &str) -> String {
    let mut stream = TcpStream::connect(origin.admin).await.expect("it listens");
    let head = format!("GET /channels HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

async fn headwater(origin: &Origin, words: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(words).args(["--admin-url", &format!("http://{}", origin.admin)]);
    command.output().await.expect("it runs")
}

async fn check_list(origin: &Origin) {
    let first = origin.publish("news.sport", "one").await;
    let last = origin.publish("news.sport", "two").await;
    origin.publish_with("prices", "key=EURUSD", "1.07").await;
    origin.publish_with("prices", "key=GBPUSD", "1.25").await;
    origin.publish_with("prices", "key=EURUSD", "1.08").await;
    origin.publish("news.world", "three").await;
    origin.request(Method::DELETE, "/channels/news.world", &[], "").await;
    let quiet = origin.raw(&crate::kit::get("/channels/quiet", None)).await;
    has_subscribers(origin, "quiet", 1).await;

    let fields = ["name", "events", "keys", "ended", "subscribers"];
    let all = listed(origin, "/channels", &fields).await;
    assert_eq!(
        Value::from(all),
        json!([
            ["news.sport", 2, 0, false, 0],
            ["news.world", 2, 0, true, 0],
            ["prices", 3, 2, false, 0],
            ["quiet", 0, 0, false, 1],
        ])
    );
    let subscribed = listed(origin, "/channels?subscribed=true", &["name"]).await;
    assert_eq!(Value::from(subscribed), json!([["quiet"]]));
    let news = listed(origin, "/channels?prefix=news.", &["name"]).await;
    assert_eq!(Value::from(news), json!([["news.sport"], ["news.world"]]));
    let page = admin(origin, "/channels?limit=2").await.json();
    assert_eq!(page["next"], "news.world");
    let page = admin(origin, "/channels?limit=2&after=news.world").await.json();
    assert_eq!(page["channels"][0]["name"], "prices");
    assert_eq!((page["channels"].as_array().map(Vec::len), &page["next"]), (Some(2), &Value::Null));

    let one = admin(origin, "/channels/news.sport").await.json();
    assert_eq!((&one["first"], &one["last"]), (&json!(first), &json!(last)));
    assert!(one["bytes"].as_u64() > Some(0), "{one}");
    let prices = admin(origin, "/channels/prices").await.json();
    assert!(prices["state_bytes"].as_u64() > Some(0), "{prices}");
    admin(origin, "/channels/nothing").await.assert_problem(404, "not-found");
    drop(quiet);
    has_subscribers(origin, "quiet", 0).await;
}

#[tokio::test]
async fn the_list_has_every_channel_of_a_local_store() {
    check_list(&Origin::start()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let disk = format!("disk:{}", directory.path().display());
    let mut origin = Origin::with(&["--store", &disk]);
    check_list(&origin).await;
    let before = admin(&origin, "/channels").await.json();
    origin.kill();
    origin.start_again();
    assert_eq!(admin(&origin, "/channels").await.json(), before);
}

#[tokio::test]
async fn the_list_has_every_channel_in_redis() {
    let redis = RedisServer::start();
    // The characters of the prefix have a meaning in patterns of Redis.
    for prefix in ["hw", "h[w]*?"] {
        let store = ["--store", &redis.url(), "--redis-prefix", prefix, "--redis-shards", "3"];
        check_list(&Origin::with(&store)).await;
    }
}

#[tokio::test]
async fn the_subscribers_of_every_transport_are_counted() {
    wait_for_phase(60_000, 0, 50_000).await;
    let origin = Origin::with(&["--store", "memory", "--segment", "60s"]);
    let cursor = origin.publish("a", "first").await;
    let mut streams = Vec::new();
    for path in ["/channels/a", "/channels/a?format=json", "/channels/a,b"] {
        let mut stream = origin.raw(&crate::kit::get(path, Some(&cursor))).await;
        read_until(&mut stream, |text| text.contains("event: segment")).await;
        streams.push(stream);
    }
    has_subscribers(&origin, "a", 3).await;
    has_subscribers(&origin, "b", 1).await;
    let path = format!("/channels/a?mode=hold&after={cursor}");
    let long_poll = origin.raw(&crate::kit::get(&path, None)).await;
    has_subscribers(&origin, "a", 4).await;
    let mut socket = Socket::connect(origin.listen).await;
    socket.subscribe("a", None).await;
    has_subscribers(&origin, "a", 5).await;

    // An event reaches all of them, and ends only the long poll.
    origin.publish("a", "second").await;
    for stream in &mut streams {
        read_until(stream, |text| text.contains("second")).await;
    }
    has_subscribers(&origin, "a", 4).await;
    drop((long_poll, socket, streams));
    has_subscribers(&origin, "a", 0).await;
    has_subscribers(&origin, "b", 0).await;
}

#[tokio::test]
async fn only_operators_read_the_names_of_channels() {
    let secret = "0123456789abcdef0123456789abcdef";
    let flags = ["--store", "memory", "--token-secret", secret, "--allowed-host", "ops.internal"];
    let origin = Origin::with(&flags);
    for host in ["evil.example", "evil.example:8081", "127.0.0.1.evil.example"] {
        let refused = answer_to(&origin, host).await;
        assert!(refused.starts_with("HTTP/1.1 403 "), "{host}: {refused}");
        assert!(refused.contains("urn:headwater:problem:host"), "{refused}");
    }
    for host in ["ops.internal:8081", "localhost:8081", "10.1.2.3:8081", "[fd00::1]:8081"] {
        let answer = answer_to(&origin, host).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    // The public listener has no list.
    origin.get("/channels").await.assert_problem(404, "not-found");
    for query in ["limit=0", "limit=1001", "limit=x", "after=-bad", "subscribed=x", "frefix=a"] {
        let answer = admin(&origin, &format!("/channels?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[tokio::test]
async fn the_command_prints_the_channels() {
    let origin = Origin::start();
    for n in 0..3 {
        origin.publish("small", &n.to_string()).await;
    }
    origin.publish_with("large", "key=k", &"x".repeat(5_000)).await;
    let mut source = origin.source("/channels/small?after=0-0", None);
    next_message(&mut source).await;
    has_subscribers(&origin, "small", 1).await;

    let output = headwater(&origin, &["channels", "list", "--sort", "subscribers"]).await;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["CHANNEL", "SUBSCRIBERS", "EVENTS"], "{text}");
    assert_eq!(lines[1][..3], ["small", "1", "3"], "{text}");
    assert_eq!(lines[2][..3], ["large", "0", "1"], "{text}");
    assert!(text.contains(" ago"), "{text}");

    let words = ["channels", "list", "--sort", "bytes", "--limit", "1", "--json"];
    let output = headwater(&origin, &words).await;
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list[0]["name"], "large");
    assert_eq!(list.as_array().map(Vec::len), Some(1));

    let output = headwater(&origin, &["channels", "show", "large"]).await;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("keys of the state") && text.contains("1 ("), "{text}");

    let output = headwater(&origin, &["channels", "show", "nothing"]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(error.contains("nothing was published to nothing"), "{error}");
}

#[tokio::test]
async fn stats_shows_the_load_of_every_origin() {
    let (one, other) = (Origin::start(), Origin::start());
    let mut source = one.source("/channels/a?after=0-0", None);
    let publisher = async {
        loop {
            one.publish("a", "x").await;
            next_message(&mut source).await;
        }
    };
    let both = format!("http://{},http://{}", one.admin, other.admin);
    let stats = async |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["stats", "--count", "1", "--interval", "1s", "--admin-url", &both]);
        let output = command.args(more).output().await.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let shown = async { (stats(&["--json"]).await, stats(&[]).await) };
    let (as_json, table) = tokio::select! {
        shown = shown => shown,
        () = publisher => unreachable!("the publisher has no end"),
    };
    let looked: Value = serde_json::from_str(&as_json).expect("JSON");
    let [busy, idle] = [0, 1].map(|index| &looked["origins"][index]);
    assert_eq!(
        (&busy["ready"], &busy["streams"], &idle["streams"]),
        (&json!(1.0), &json!(1.0), &json!(0.0))
    );
    assert!(busy["events_in_per_second"].as_f64() > Some(1.0), "{looked}");
    assert!(busy["publish_p99_seconds"].as_f64() > Some(0.0), "{looked}");
    assert_eq!(idle["publish_p99_seconds"], Value::Null);
    assert_eq!(looked["channels"], json!([{ "name": "a", "subscribers": 1 }]));
    for words in ["events in a second", "delivery, p99", &one.admin.to_string(), "SUBSCRIBERS"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[tokio::test]
async fn stats_of_an_origin_that_does_not_answer_ends_with_the_reason() {
    let mut origin = Origin::start();
    origin.kill();
    let output = headwater(&origin, &["stats", "--count", "1"]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(error.contains(&origin.admin.to_string()), "{error}");
}
