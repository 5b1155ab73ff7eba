//! Publishes of one channel that are sent to Redis together: each keeps its own answer.

use crate::kit::redis::{RedisServer, distant};
use crate::kit::{Origin, request};
use headwater::client::http::{Address, Connection, text};
use hyper::{Method, StatusCode};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PUBLISHERS: u64 = 48;
const PUBLISHES: u64 = 20;
/// The way to Redis and back. It makes publishes wait for each other.
const ROUND_TRIP: Duration = Duration::from_millis(10);

async fn far_away(redis: &RedisServer, flags: &[&str]) -> Origin {
    let port = distant(redis.port, ROUND_TRIP).await;
    let url = format!("redis://127.0.0.1:{port}");
    Origin::with(&[&["--store", &url], flags].concat())
}

/// Publishes one event after another over one connection, and returns the answers.
async fn publish_all(
    address: Address,
    paths: impl Iterator<Item = (String, String)>,
) -> Vec<(String, StatusCode, serde_json::Value)> {
    let mut connection = Connection::open(&address).await.expect("the origin listens");
    let mut answers = Vec::new();
    for (path, data) in paths {
        let request = connection.request(Method::POST, &path);
        let answer = connection.send(request, data.clone().into()).await.expect("an answer");
        let status = answer.status();
        let body = text(answer).await.expect("a body");
        answers.push((data, status, serde_json::from_str(&body).expect("JSON")));
    }
    answers
}

/// The data of each event of a channel, by its id.
async fn logged(origin: &Origin, channel: &str) -> HashMap<String, String> {
    let (mut log, mut after) = (HashMap::new(), "0-0".to_owned());
    loop {
        let path = format!("/channels/{channel}/history?after={after}&limit=1000");
        let page = origin.get(&path).await.json();
        let events = page["events"].as_array().expect("events");
        if events.is_empty() {
            return log;
        }
        for event in events {
            let text = |name: &str| event[name].as_str().expect("text").to_owned();
            assert_eq!(log.insert(text("id"), text("data")), None, "an id is used twice");
        }
        after = page["next"].as_str().expect("a cursor").to_owned();
    }
}

fn calls(redis: &RedisServer) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]);
    let calls = |name: &str| -> u64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    calls("cmdstat_evalsha:calls=") + calls("cmdstat_eval:calls=")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_that_are_sent_together_keep_their_own_ids() {
    let redis = RedisServer::start();
    let origin = far_away(&redis, &[]).await;
    origin.publish("a", "the first").await;
    let before = calls(&redis);
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let paths = (0..PUBLISHES)
            .map(move |number| ("/channels/a".to_owned(), format!("{publisher} {number}")));
        publishers.spawn(publish_all(origin.address(), paths));
    }
    let answers = publishers.join_all().await.concat();
    let made = calls(&redis) - before;
    let log = logged(&origin, "a").await;
    assert_eq!(log.len() as u64, PUBLISHERS * PUBLISHES + 1);
    for (data, status, answer) in answers {
        assert_eq!(status, 201, "{answer}");
        assert_eq!(log.get(answer["id"].as_str().expect("an id")), Some(&data));
    }
    // Some of the calls are not publishes: the origin also asks for the time of Redis.
    assert!(made < PUBLISHERS * PUBLISHES / 3, "{made} calls of scripts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_over_a_limit_does_not_refuse_those_that_are_sent_with_it() {
    const KEYS: usize = 5;
    let redis = RedisServer::start();
    let origin = far_away(&redis, &["--max-keys", &KEYS.to_string()]).await;
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        // Half of the publishers use keys, each its own.
        let path = match publisher % 2 {
            0 => "/channels/a".to_owned(),
            _ => format!("/channels/a?key=k{publisher}"),
        };
        publishers.spawn(publish_all(origin.address(), std::iter::once((path, "x".to_owned()))));
    }
    let answers = publishers.join_all().await.concat();
    let stored = answers.iter().filter(|(_, status, _)| *status == 201).count();
    let refused = answers.iter().filter(|(_, status, _)| *status == 507).count();
    let keyed = PUBLISHERS as usize / 2;
    assert_eq!((stored, refused), (keyed + KEYS, keyed - KEYS), "{answers:?}");
    assert_eq!(logged(&origin, "a").await.len(), stored);
    let state = origin.get("/channels/a/state").await.json();
    assert_eq!(state["events"].as_array().map(Vec::len), Some(KEYS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_disconnects_does_not_hold_up_the_others() {
    let redis = RedisServer::start();
    let origin = far_away(&redis, &[]).await;
    let hasty = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhasty";
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let address = origin.listen;
        // These connections are gone before Redis can answer: the call is under way or waits.
        tokio::spawn(async move {
            for _ in 0..PUBLISHES {
                let mut stream = TcpStream::connect(address).await.expect("the origin listens");
                stream.write_all(hasty.as_bytes()).await.expect("it is open");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let paths = (0..PUBLISHES)
            .map(move |number| ("/channels/a".to_owned(), format!("{publisher} {number}")));
        publishers.spawn(publish_all(origin.address(), paths));
    }
    for (data, status, answer) in publishers.join_all().await.concat() {
        assert_eq!(status, 201, "{data}: {answer}");
    }
    // Nothing is left over: the next publish is answered, and by its own id.
    let address = origin.address();
    let last = request(&address, Method::POST, "/channels/a", &[], "last".into()).await;
    let id = last.expect("an answer").json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(logged(&origin, "a").await.get(&id).map(String::as_str), Some("last"));
}
