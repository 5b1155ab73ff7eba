//! Long polls (`?mode=hold`): each response is complete, and it has the same SSE events as a
//! stream.

use crate::kit::{Origin, get, now_ms, read_until, wait_for_phase};
use hyper::Method;
use std::time::Duration;

const PATH: &str = "/channels/a?mode=hold";

#[tokio::test]
async fn a_long_poll_waits_for_an_event_and_its_response_stays_cacheable() {
    let origin = Origin::start();
    let first = origin.publish("a", "1").await;
    let cursor = [("last-event-id", first.as_str())];
    let held = origin.request(Method::GET, PATH, &cursor, "");
    let publish = async {
        while origin.metric("headwater_streams_opened_total{kind=\"long_poll\"}").await == 0.0 {}
        origin.publish("a", "2").await
    };
    let (answer, second) = tokio::join!(held, publish);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(answer.header("vary"), Some("Last-Event-ID"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let ms: u64 = second.split('-').next().unwrap().parse().unwrap();
    let (number, ends_at) = (ms / 30_000, (ms / 30_000 + 1) * 30_000);
    let expected = format!(
        "retry: 3000\nevent: segment\nid: {first}\ndata: {{\"segment\":{number},\"ends_at\":{ends_at}}}\n\n\
         id: {second}\ndata: 2\n\n\
         retry: 100\nevent: segment\nid: {second}.{ends_at}\ndata: {{\"segment\":{}}}\n\n",
        number + 1
    );
    assert_eq!(answer.body, expected);
    // The response to a repeated request is the same, whenever the request arrives.
    let again = origin.request(Method::GET, PATH, &cursor, "").await;
    assert_eq!(again.body, expected);
}

#[tokio::test]
async fn one_long_poll_collects_events_that_arrive_close_together() {
    let origin = Origin::with(&["--store", "memory", "--long-poll-linger", "2s"]);
    let first = origin.publish("a", "0").await;
    let cursor = [("last-event-id", first.as_str())];
    let held = origin.request(Method::GET, PATH, &cursor, "");
    let publish = async {
        while origin.metric("headwater_streams_opened_total{kind=\"long_poll\"}").await == 0.0 {}
        for number in 1..=5 {
            origin.publish("a", &number.to_string()).await;
        }
    };
    let (answer, ()) = tokio::join!(held, publish);
    assert_eq!(answer.body.matches("\ndata: ").count(), 2 + 5, "{}", answer.body);
}

#[tokio::test]
async fn a_long_poll_without_events_gives_a_new_cursor_and_a_retry_of_one_second() {
    let origin = Origin::with(&["--store", "memory", "--long-poll-timeout", "300ms"]);
    let id = origin.publish("a", "1").await;
    let cursor = [("last-event-id", id.as_str())];
    let answer = origin.request(Method::GET, PATH, &cursor, "").await;
    assert_eq!(answer.header("cache-control"), Some("public, max-age=1"));
    assert!(answer.body.contains("\n\nretry: 1000\nevent: segment\n"), "{}", answer.body);
    assert!(answer.body.contains(&format!("\nid: {id}.")), "{}", answer.body);
}

// protocol §3.5
#[tokio::test]
async fn a_long_poll_without_events_ends_with_a_later_mark_than_that_of_its_request() {
    let origin = Origin::with(&["--store", "memory", "--long-poll-timeout", "300ms"]);
    let id = origin.publish("a", "1").await;
    let mark = now_ms() + 3_600_000;
    let cursor = format!("{id}.{mark}");
    let answer = origin.request(Method::GET, PATH, &[("last-event-id", &cursor)], "").await;
    assert!(answer.body.contains(&format!("\nid: {id}.{}\n", mark + 1)), "{}", answer.body);
}

#[tokio::test]
async fn a_long_poll_waits_for_the_events_that_the_store_is_reading() {
    let origin =
        Origin::with(&["--store", "memory", "--retain-events", "1", "--long-poll-linger", "0s"]);
    origin.publish_lines("a", "{\"data\":1}\n{\"data\":2}").await;
    let gap = origin.get("/channels/a?mode=hold&after=0-0").await;
    assert!(gap.body.contains("event: gap\n") && gap.body.contains("data: 2\n"), "{}", gap.body);
}

#[tokio::test]
async fn a_long_poll_is_answered_at_once_when_the_origin_drains() {
    // It would wait for longer than the process waits for the end of a request.
    let mut origin = Origin::with(&["--store", "memory", "--long-poll-timeout", "50s"]);
    let id = origin.publish("a", "1").await;
    let mut stream = origin.raw(&get(PATH, Some(&id))).await;
    // The origin has begun to wait when the gauge counts the long poll.
    while origin.metric("headwater_streams_open").await < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    origin.signal("TERM");
    let answer = read_until(&mut stream, |_| false).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("max-age=1\r\n"), "{answer}");
    assert!(answer.contains("\n\nretry: 3000\nevent: segment\n"), "{answer}");
    assert!(answer.contains(&format!("\nid: {id}.")), "{answer}");
    assert!(origin.ended().await.success());
}

#[tokio::test]
async fn a_long_poll_with_state_or_a_gap_is_cacheable_for_one_second() {
    let origin = Origin::with(&["--store", "memory", "--retain-events", "1"]);
    wait_for_phase(30_000, 0, 24_000).await;
    origin.publish_lines("a", "{\"data\":1}\n{\"data\":2}").await;
    let fresh = origin.get(PATH).await;
    assert!(fresh.body.contains("data: 2\n\nretry: 1000\n"), "{}", fresh.body);
    assert_eq!(fresh.header("cache-control"), Some("public, max-age=1"));
    let gap = origin.get("/channels/a?mode=hold&after=0-0").await;
    assert!(gap.body.contains("event: gap\n") && gap.body.contains("data: 2\n"), "{}", gap.body);
    assert_eq!(gap.header("cache-control"), Some("public, max-age=1"));
}

#[tokio::test]
async fn a_long_poll_response_is_limited_by_long_poll_bytes() {
    let origin = Origin::with(&["--store", "memory", "--long-poll-bytes", "10KiB"]);
    let line = format!("{{\"data\":\"{}\"}}\n", "x".repeat(1_000));
    let ids = origin.publish_lines("a", &line.repeat(30)).await;
    let (mut cursor, mut seen) = ("0-0".to_owned(), Vec::new());
    while seen.len() < ids.len() {
        let headers = [("last-event-id", cursor.as_str())];
        let answer = origin.request(Method::GET, PATH, &headers, "").await;
        assert!(answer.body.len() < 20_000);
        let mut new: Vec<_> =
            answer.body.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        cursor = new.pop().unwrap().to_owned();
        seen.extend(new[1..].iter().map(|id| id.to_string()));
    }
    assert_eq!(seen, ids);
}
