//! The limits of the whole store on Redis: channels, bytes and idempotency keys, over several
//! shards and origins. What Redis drops by itself no longer counts.

use crate::kit::redis::RedisServer;
use crate::kit::{Answer, Origin, PATIENCE};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The time after which Redis drops everything that has no state.
const AGE: [&str; 4] = ["--retain-age", "8s", "--channel-idle", "8s"];

fn on(redis: &RedisServer, flags: &[&str]) -> Origin {
    Origin::with(&[&["--store", &*redis.url()], flags].concat())
}

async fn post(origin: &Origin, channel: &str, key: Option<&str>, data: &str) -> Answer {
    let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    origin.post(&format!("/channels/{channel}"), &headers, data).await
}

fn assert_refused(answer: &Answer, flag: &str) {
    let problem = answer.assert_problem(507, "limit-reached");
    assert!(problem["detail"].as_str().unwrap().contains(flag), "{problem}");
}

/// Repeats a publish until it is accepted, and returns how often it was refused because of `flag`.
async fn refusals(origin: &Origin, flag: &str, channel: &str, key: Option<&str>) -> u32 {
    let accepted = async {
        let mut refusals = 0;
        loop {
            let answer = post(origin, channel, key, &"y".repeat(2_000)).await;
            if answer.status == 201 {
                return refusals;
            }
            assert_refused(&answer, flag);
            refusals += 1;
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, accepted).await.expect("there is room again")
}

#[tokio::test]
async fn channels_are_counted_over_all_shards_and_origins() {
    let redis = RedisServer::start();
    let flags = [&["--max-channels", "10"], &AGE[..]].concat();
    let (one, other) = (on(&redis, &flags), on(&redis, &flags));
    // State has no age, and neither has its channel.
    one.publish_with("kept", "key=k", "x").await;
    for number in 1..10 {
        one.publish(&format!("c{number}"), "x").await;
    }
    assert_refused(&post(&one, "more", None, "x").await, "--max-channels");
    let restarted = on(&redis, &flags);
    assert_refused(&post(&restarted, "more", None, "x").await, "--max-channels");
    // The other origin learns of all shards within a second, and can add a few channels until then.
    let refused = async {
        let mut number = 0;
        while post(&other, &format!("other{number}"), None, "x").await.status == 201 {
            number += 1;
            sleep(Duration::from_millis(300)).await;
        }
        number
    };
    assert!(timeout(PATIENCE, refused).await.expect("it is refused") <= 5);
    // Known channels go on, and are not dropped meanwhile.
    one.publish("kept", "y").await;
    one.publish("c1", "y").await;
    for (number, origin) in [&one, &other].into_iter().enumerate() {
        let name = format!("later{number}");
        let refusals = refusals(origin, "--max-channels", &name, None).await;
        assert!(refusals > 0 || number > 0, "it was refused at first");
    }
    assert_eq!(one.get("/channels/kept/state").await.json()["events"][0]["data"], "x");
}

#[tokio::test]
async fn bytes_are_counted_until_redis_drops_them() {
    let redis = RedisServer::start();
    let origin = on(&redis, &[&["--max-store-bytes", "20000"], &AGE[..]].concat());
    for channel in ["a", "b", "c", "d"] {
        origin.publish(channel, &"x".repeat(4_000)).await;
    }
    origin.publish_with("state", "key=k", &"x".repeat(1_200)).await;
    assert_refused(&post(&origin, "e", None, &"x".repeat(2_000)).await, "--max-store-bytes");
    let filled = async {
        while !(0.9..=1.0).contains(&origin.metric("headwater_store_fill_ratio").await) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, filled).await.expect("the metric follows");
    assert!(refusals(&origin, "--max-store-bytes", "e", None).await > 0);
    // What is left is the state, whose event has expired, and the new event.
    let kept = async {
        while !(3_200.0..3_500.0).contains(&origin.metric("headwater_store_kept_bytes").await) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, kept).await.expect("the rest is counted out");
}

#[tokio::test]
async fn a_full_store_accepts_publishes_that_replace_old_events() {
    let redis = RedisServer::start();
    let flags = ["--retain-events", "300", "--max-store-bytes", "60000"];
    let origin = on(&redis, &flags);
    let data = "x".repeat(100);
    for _ in 0..400 {
        origin.publish("full", &data).await;
    }
    let refused = loop {
        let answer = post(&origin, "other", None, &data).await;
        if answer.status != 201 {
            break answer;
        }
    };
    assert_refused(&refused, "--max-store-bytes");
    for _ in 0..300 {
        origin.publish("full", &data).await;
    }
    assert!((300..=400).contains(&origin.log("full").await.len()));
    let fill = ("headwater_store_fill_ratio", 0.95..=1.2);
    origin.shows(Ok(()), "the store is almost full", fill).await;
    // An end is accepted, too.
    let ended = origin.request(hyper::Method::DELETE, "/channels/other", &[], "").await;
    assert!(ended.status.is_success(), "{}", ended.body);
}

#[tokio::test]
async fn idempotency_keys_are_counted_until_they_expire() {
    let redis = RedisServer::start();
    let flags = ["--max-idempotency-keys", "2", "--idempotency-age", "3s"];
    let origin = on(&redis, &flags);
    assert_eq!(post(&origin, "a", Some("1"), "x").await.status, 201);
    assert_eq!(post(&origin, "b", Some("2"), "x").await.status, 201);
    assert_refused(&post(&origin, "c", Some("3"), "x").await, "--max-idempotency-keys");
    assert_eq!(post(&origin, "b", Some("2"), "x").await.status, 200, "a repetition is answered");
    origin.publish("c", "without a key").await;
    assert!(refusals(&origin, "--max-idempotency-keys", "c", Some("4")).await > 0);
}

#[tokio::test]
async fn what_an_earlier_version_has_written_is_counted_when_it_is_used() {
    let redis = RedisServer::start();
    let origin = on(&redis, &["--redis-shards", "1"]);
    for channel in ["a", "b", "c"] {
        origin.publish_with(channel, "key=k", &"x".repeat(1_000)).await;
    }
    drop(origin);
    // Earlier versions had no such key.
    assert_eq!(redis.command(&["DEL", "{headwater:0}:sizes"]), "1");
    let flags = ["--redis-shards", "1", "--max-channels", "3", "--max-store-bytes", "5000"];
    let origin = on(&redis, &flags);
    assert_eq!(origin.metric("headwater_store_kept_bytes").await, 0.0);
    origin.publish("a", "x").await;
    origin.publish("new", "x").await;
    origin.publish("b", "x").await;
    assert_refused(&post(&origin, "newer", None, "x").await, "--max-channels");
    // Known channels are not refused because of the number of channels, but because of their bytes.
    assert_refused(&post(&origin, "c", None, "x").await, "--max-store-bytes");
    assert_eq!(redis.command(&["HLEN", "{headwater:0}:sizes"]), "4");
}

#[tokio::test]
async fn the_first_event_after_all_others_have_expired_is_kept() {
    let redis = RedisServer::start();
    let flags = ["--redis-shards", "1", "--retain-age", "4s", "--retain-bytes", "2000"];
    let origin = on(&redis, &[&flags[..], &["--max-event", "1000"]].concat());
    for _ in 0..10 {
        origin.publish("a", &"x".repeat(900)).await;
    }
    let expired = async {
        while redis.command(&["EXISTS", "{headwater:0}:log:a"]) == "1" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, expired).await.expect("the log expires");
    assert_eq!(redis.command(&["EXISTS", "{headwater:0}:meta:a"]), "1");
    let id = origin.publish("a", &"y".repeat(900)).await;
    assert_eq!(redis.command(&["XLEN", "{headwater:0}:log:a"]), "1");
    let (first, _) = &origin.log("a").await[0];
    assert_eq!(*first, id);
}
