//! Where a stream and a page of history begin: of several start positions in one request, the one
//! with the highest precedence counts.

use crate::kit::redis::RedisServer;
use crate::kit::{BINARY, Origin, next_message, now_ms};
use headwater::client::EventSource;
use hyper::Method;
use serde_json::{Value, json};
use std::process::Command;

/// Returns the data of the first event of a stream, after any gap events.
async fn first_data(mut source: EventSource) -> String {
    loop {
        let message = next_message(&mut source).await;
        if message.kind != "gap" {
            return message.data;
        }
    }
}

async fn with_five() -> (Origin, Vec<String>) {
    let origin = Origin::start();
    let mut ids = Vec::new();
    for number in 1..=5 {
        ids.push(origin.publish("a", &number.to_string()).await);
    }
    (origin, ids)
}

#[tokio::test]
async fn last_event_id_takes_precedence_over_query_parameters() {
    let (origin, ids) = with_five().await;
    let check = async |query: String, cursor: Option<&str>, expected: &str| {
        let source = origin.source(&format!("/channels/a?{query}"), cursor);
        assert_eq!(first_data(source).await, expected, "{query} {cursor:?}");
    };
    check(format!("lastEventId={}&after={}", ids[1], ids[0]), Some(&ids[2]), "4").await;
    check(format!("after={}&lastEventId={}", ids[0], ids[1]), None, "3").await;
    check(format!("since=0&last=1&after={}", ids[0]), None, "2").await;
    check("last=1&since=0".to_owned(), None, "1").await;
    check("last=2".to_owned(), None, "4").await;
    check(format!("lastEventId=&after={}", ids[3]), None, "5").await;
    // An invalid position of lower precedence is ignored.
    check(format!("since=nonsense&last=-1&after={}", ids[3]), None, "5").await;
}

#[tokio::test]
async fn an_invalid_cursor_leads_to_a_gap_in_every_parameter_and_header() {
    let (origin, _) = with_five().await;
    for (query, cursor) in [("", Some("abc")), ("after=abc", None), ("lastEventId=abc", None)] {
        let mut source = origin.source(&format!("/channels/a?{query}"), cursor);
        let gap = next_message(&mut source).await;
        assert_eq!(gap.kind, "gap", "{query}");
        let gap: Value = serde_json::from_str(&gap.data).unwrap();
        assert_eq!((&gap["reason"], &gap["requested"]), (&"unknown".into(), &"abc".into()));
    }
}

#[tokio::test]
async fn zero_is_the_beginning_of_any_number_of_channels() {
    let (origin, _) = with_five().await;
    origin.publish("b", "6").await;
    let mut source = origin.source("/channels/a,b?after=0-0", None);
    for number in 1..=6 {
        let message = next_message(&mut source).await;
        assert_eq!((message.kind.as_str(), message.data), ("message", number.to_string()));
    }
    let mut tail = Command::new(BINARY);
    tail.args(["tail", "a,b", "--after", "0-0", "--count", "6"]);
    let output = tail.env("HEADWATER_URL", origin.address().to_string()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n3\n4\n5\n6\n");
}

#[tokio::test]
async fn a_stream_begins_at_an_instant_in_any_spelling() {
    let (origin, ids) = with_five().await;
    let third_ms: u64 = ids[2].split('-').next().unwrap().parse().unwrap();
    let seconds = format!("{}.{:03}", third_ms / 1_000, third_ms % 1_000);
    // Several events may share a millisecond.
    let in_time = |id: &&String| id.split('-').next().unwrap().parse::<u64>().unwrap() >= third_ms;
    let first = ids.iter().position(|id| in_time(&id)).unwrap() + 1;
    let check = async |since: &str, expected: usize| {
        let source = origin.source(&format!("/channels/a?since={since}"), None);
        assert_eq!(first_data(source).await, expected.to_string(), "{since}");
    };
    check(&seconds, first).await;
    check("-5m", 1).await;
    check("2026-01-01T00:00:00Z", 1).await;
    check("2026-01-01T00%3A00%3A00%2B01%3A00", 1).await;
    check("2026-01-01T00:00:00+01:00", 1).await;
    for bad in ["yesterday", "-", "1e9"] {
        let refused = origin.get(&format!("/channels/a?since={bad}")).await;
        let problem = refused.assert_problem(400, "bad-field");
        assert!(problem["detail"].as_str().unwrap().contains("Unix seconds"), "{problem}");
    }
    for bad in ["0", "1001", "-1", "x"] {
        let refused = origin.get(&format!("/channels/a?last={bad}")).await;
        assert_eq!(refused.assert_problem(400, "bad-field")["limit"], 1_000);
    }
}

#[tokio::test]
async fn an_instant_before_what_is_kept_is_a_gap() {
    let origin = Origin::with(&["--store", "memory", "--retain-events", "2"]);
    for number in 1..=5 {
        origin.publish("a", &number.to_string()).await;
    }
    let mut source = origin.source("/channels/a?since=-1h", None);
    let gap = next_message(&mut source).await;
    assert_eq!(gap.kind, "gap");
    let gap: Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!((&gap["reason"], &gap["requested"]), (&"trimmed".into(), &"-1h".into()));
    assert_eq!(next_message(&mut source).await.data, "4");
    let page = origin.get("/channels/a/history?since=-1h").await.json();
    assert_eq!(page["trimmed_to"], origin.get("/channels/a/history").await.json()["trimmed_to"]);
    assert!(page["trimmed_to"].is_string(), "{page}");
    // The request asks for the newest events that are still stored, so there is no gap.
    let mut source = origin.source("/channels/a?last=1000", None);
    assert_eq!(next_message(&mut source).await.data, "4");
}

#[tokio::test]
async fn the_last_events_of_each_channel_leave_its_end_out_of_the_count() {
    let (origin, _) = with_five().await;
    origin.publish("b", "6").await;
    origin.publish("b", "7").await;
    origin.request(Method::DELETE, "/channels/b", &[], "").await;
    let mut source = origin.source("/channels/a,b?last=1", None);
    for expected in ["5", "7"] {
        assert_eq!(next_message(&mut source).await.data, expected);
    }
    assert_eq!(next_message(&mut source).await.kind, "end");
}

// protocol §13.3
#[tokio::test]
async fn long_polls_and_history_with_since_or_last_are_cacheable_for_one_second() {
    let (origin, ids) = with_five().await;
    let check = async |query: &str, expected: &str| {
        let answer = origin.get(&format!("/channels/a?mode=hold&{query}")).await;
        assert_eq!(answer.header("cache-control"), Some(expected), "{query}");
    };
    check(&format!("after={}", ids[0]), "public, max-age=60").await;
    check("since=-5m", "public, max-age=1").await;
    check("last=2", "public, max-age=1").await;
    let check = async |query: &str, expected: &str| {
        let answer = origin.get(&format!("/channels/a/history?{query}")).await;
        assert_eq!(answer.header("cache-control"), Some(expected), "{query}");
    };
    check("limit=2", "public, max-age=3600, immutable").await;
    check(&format!("before={}&limit=2", ids[4]), "public, max-age=3600, immutable").await;
    check("since=-5m&limit=2", "public, max-age=1").await;
    check("last=2", "public, max-age=1").await;
    let nothing = origin.get("/channels/a/history?before=0-0").await.json();
    assert_eq!((&nothing["events"], &nothing["next"]), (&json!([]), &"0-0".into()));
    // The position lies in the future, so the newest events before it will change.
    check(&format!("before={}-0&limit=2", now_ms() + 1_000_000), "public, max-age=1").await;
}

/// Returns the data of a history page, and the value of one member of the page.
async fn page(origin: &Origin, query: &str, member: &str) -> (Vec<String>, Value) {
    let page = origin.get(&format!("/channels/a/history?{query}")).await.json();
    let data = page["events"].as_array().expect("events").iter();
    let data = data.map(|event| event["data"].as_str().expect("text").to_owned());
    (data.collect(), page[member].clone())
}

async fn history_reads_backwards(origin: &Origin) {
    let mut ids = Vec::new();
    for number in 1..=5 {
        ids.push(origin.publish("a", &number.to_string()).await);
    }
    let (data, previous) = page(origin, "last=2", "previous").await;
    assert_eq!((data, &previous), (vec!["4".to_owned(), "5".to_owned()], &ids[3].clone().into()));
    let (data, previous) = page(origin, &format!("before={}&limit=2", ids[3]), "previous").await;
    assert_eq!((data, &previous), (vec!["2".to_owned(), "3".to_owned()], &ids[1].clone().into()));
    let (data, previous) = page(origin, &format!("before={}&limit=2", ids[1]), "previous").await;
    assert_eq!((data, previous), (vec!["1".to_owned()], Value::Null));
    let (data, _) = page(origin, &format!("before={}", ids[0]), "previous").await;
    assert!(data.is_empty());
    let (data, next) = page(origin, "since=-5m&limit=3", "next").await;
    assert_eq!((data.len(), next), (3, ids[2].clone().into()));
    let (data, _) = page(origin, "last=1000", "previous").await;
    assert_eq!(data, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn history_reads_backwards_from_a_place() {
    history_reads_backwards(&Origin::start()).await;
}

#[tokio::test]
async fn history_reads_backwards_from_redis() {
    let redis = RedisServer::start();
    let origin = Origin::with(&["--store", &redis.url()]);
    history_reads_backwards(&origin).await;
    let mut source = origin.source("/channels/a?last=2", None);
    assert_eq!(next_message(&mut source).await.data, "4");
}

// protocol §13.5
#[tokio::test]
async fn history_takes_one_place_and_known_parameters_only() {
    let (origin, ids) = with_five().await;
    let check = async |query: &str, expected: &str| {
        let refused = origin.get(&format!("/channels/a/history?{query}")).await;
        let problem = refused.assert_problem(400, "bad-field");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{query}: {detail}");
    };
    check(&format!("after={}&before={}", ids[0], ids[4]), "exclude each other").await;
    check("last=2&limit=2", "leave ?limit= out").await;
    check("limit=0", "from 1 to 1000").await;
    check("limit=-3", "from 1 to 1000").await;
    check("before=abc", "takes a cursor of one channel").await;
    check("lmit=3", "did you mean \"limit\"?").await;
    let refused = origin.get("/channels/a/state?limit=3").await;
    refused.assert_problem(400, "bad-field");
}
