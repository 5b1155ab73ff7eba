//! Real failures of Redis, its clock, its replicas and its operators. An acknowledged event is
//! delivered intact or its loss is announced, a refused event is not stored, and `/readyz`, the log
//! and the metrics name the cause.

use crate::kit::machine::SteppedClock;
use crate::kit::redis::{RedisServer, distant, wait_until};
use crate::kit::{Origin, PATIENCE, next_message};
use headwater::client::{EventSource, Message};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

const FLAGS: [&str; 4] = ["--redis-shards", "1", "--store-timeout", "10s"];

fn on(redis: &RedisServer, flags: &[&str]) -> Origin {
    Origin::with(&[&["--store", &*redis.url()], &FLAGS[..], flags].concat())
}

/// Returns the name of the metric that counts the store's errors of this kind.
fn errors(kind: &str) -> String {
    format!("headwater_store_errors_total{{kind=\"{kind}\"}}")
}

/// Waits until the origin's log has a line with these words.
async fn says(origin: &Origin, words: &str) {
    let said = async {
        while origin.logged(words) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("the log says: {words}"));
}

async fn next_kind(source: &mut EventSource, kind: &str) -> Message {
    let message = next_message(source).await;
    assert_eq!(message.kind, kind, "{}", message.data);
    message
}

/// Rewrites every entry of a Redis stream with a line of Lua, `change`, which sees the entry's `id`
/// and the text `e` of each field.
fn rewrite(redis: &RedisServer, key: &str, change: &str) {
    let script = format!(
        "local entries = redis.call('XRANGE', KEYS[1], '-', '+') redis.call('DEL', KEYS[1]) \
         for _, entry in ipairs(entries) do local id, fields = entry[1], entry[2] \
         for at = 2, #fields, 2 do local e = fields[at] {change} fields[at] = e end \
         redis.call('XADD', KEYS[1], id, unpack(fields)) end return #entries"
    );
    assert_ne!(redis.command(&["EVAL", &script, "1", key]), "0", "{key} has entries");
}

#[tokio::test]
async fn a_clock_of_redis_that_goes_back_withholds_no_event() {
    let clock = SteppedClock::new();
    let wrapper = clock.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let redis = RedisServer::wrapped(&wrapper, &["--save", ""]);
    let origin = on(&redis, &["--segment", "2s"]);
    let mut ids = vec![origin.publish("a", "0").await];
    let mut source = origin.source("/channels/a?after=0-0", None);
    next_kind(&mut source, "message").await;
    clock.set("-30s");
    says(&origin, "the wall clock was set to another time").await;
    // The test runs over several segments, and each event must arrive before the next is published.
    let over = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::time::Instant::now() < over {
        ids.push(origin.publish("a", &ids.len().to_string()).await);
        let message = timeout(Duration::from_secs(10), next_message(&mut source)).await;
        assert_eq!(message.expect("it is not withheld").last_event_id, *ids.last().unwrap());
    }
    let offset = ("headwater_store_clock_offset_seconds", -31.0..=-29.0);
    origin.shows(Ok(()), "the wall clock was set to another time", offset).await;
    clock.set("+0");
    ids.push(origin.publish("a", "back").await);
    assert_eq!(next_kind(&mut source, "message").await.data, "back");
    let log: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(log, ids);
}

#[tokio::test]
async fn a_master_that_becomes_a_replica_and_its_origin_lose_nothing() {
    let master = RedisServer::start();
    let origin = on(&master, &[]);
    let mut ids = Vec::new();
    for n in 0..500 {
        ids.push(origin.publish("a", &n.to_string()).await);
    }
    let other =
        RedisServer::with(&["--save", "", "--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let follows = |server: &RedisServer| {
        server.command(&["INFO", "replication"]).contains("master_link_status:up")
    };
    wait_until("the other follows", || follows(&other));
    let mut source = origin.source("/channels/a", ids.last().map(String::as_str));
    origin.publish("a", "before").await;
    assert_eq!(next_kind(&mut source, "message").await.data, "before");
    // The two servers exchange their roles. Without a common replication history, all data is
    // copied again.
    wait_until("the other has it", || other.command(&["DBSIZE"]) == master.command(&["DBSIZE"]));
    other.command(&["REPLICAOF", "NO", "ONE"]);
    other.command(&["DEBUG", "CHANGE-REPL-ID"]);
    master.command(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    origin.shows(Err("READONLY"), "READONLY", ("headwater_store_up", 0.0..=0.0)).await;
    origin.post("/channels/a", &[], "x").await.assert_problem(503, "store-down");
    wait_until("it follows", || follows(&master));
    assert!(origin.becomes(503).await.contains("READONLY"), "a replica takes no publish");
    // Streams continue: an event that is published at another origin arrives.
    let elsewhere = on(&other, &[]);
    elsewhere.publish("a", "elsewhere").await;
    assert_eq!(next_kind(&mut source, "message").await.data, "elsewhere");
    master.command(&["REPLICAOF", "NO", "ONE"]);
    origin.becomes(200).await;
    origin.publish("a", "after").await;
    assert_eq!(next_kind(&mut source, "message").await.data, "after");
    let history = origin.log("a").await;
    assert_eq!(history.len(), 503, "no gap");
    assert_eq!(origin.logged("READONLY"), 1, "a cause is logged once");
    assert_eq!((origin.metric(&errors("lost")).await, origin.logged("has lost events")), (0.0, 0));
}

#[tokio::test]
async fn after_flushall_every_reader_gets_a_gap() {
    let redis = RedisServer::start();
    let mut origin = on(&redis, &[]);
    let first = origin.publish("a", "1").await;
    origin.publish("a", "2").await;
    let mut source = origin.source("/channels/a", Some(&first));
    assert_eq!(next_kind(&mut source, "message").await.data, "2");
    redis.command(&["FLUSHALL"]);
    let told = async { while !next_kind(&mut source, "gap").await.data.contains(r#""lost""#) {} };
    timeout(PATIENCE, told).await.expect("the channel says what is lost");
    origin.shows(Ok(()), "redis has lost events", (&errors("lost"), 1.0..=1.0)).await;
    origin.publish("a", "3").await;
    assert_eq!(next_kind(&mut source, "message").await.data, "3");
    // The origin has stored its settings again, so that an origin with another number of shards is
    // still refused.
    let refused = refused_start(&redis, &["--redis-shards", "7"]);
    assert!(refused.contains("start with --redis-shards 1"), "{refused}");
    on(&redis, &[]).publish("c", "an origin that is refused changes nothing").await;
    // Redis is emptied while no origin runs.
    let before = origin.publish("b", "1").await;
    origin.kill();
    redis.command(&["FLUSHALL"]);
    origin.start_again();
    origin.publish("b", "2").await;
    let mut source = origin.source("/channels/b", Some(&before));
    next_kind(&mut source, "gap").await;
    assert_eq!(next_kind(&mut source, "message").await.data, "2");
    let mut fresh = origin.source("/channels/b?after=0-0", None);
    assert_eq!(
        next_kind(&mut fresh, "message").await.data,
        "2",
        "for a new client nothing is lost"
    );
}

/// Starts an origin that must not start, and returns its standard error.
fn refused_start(redis: &RedisServer, flags: &[&str]) -> String {
    let output = std::process::Command::new(crate::kit::BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--store", &redis.url(), "--store-timeout", "20s"])
        .args(flags)
        .output()
        .expect("it starts");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn an_origin_serves_nothing_from_keys_that_were_made_for_other_shards() {
    let redis = RedisServer::start();
    let origin = on(&redis, &[]);
    origin.publish("a", "1").await;
    // The keys are gone and the origin is stopped when another origin with 7 shards starts.
    origin.signal("STOP");
    redis.command(&["FLUSHALL"]);
    let other = Origin::with(&["--store", &redis.url(), "--redis-shards", "7"]);
    origin.signal("CONT");
    let shards = "start with --redis-shards 7";
    origin.shows(Err(shards), shards, ("headwater_store_up", 0.0..=0.0)).await;
    let refused = origin.post("/channels/a", &[], "2").await;
    refused.assert_problem(503, "store-down");
    assert_eq!(origin.get("/channels/b/history").await.status, 503);
    other.publish("a", "3").await;
    assert_eq!(other.log("a").await.len(), 1);
    other.becomes(200).await;
}

#[tokio::test]
async fn origins_with_different_settings_say_so() {
    let redis = RedisServer::start();
    let first = on(&redis, &["--segment", "20s"]);
    first.becomes(200).await;
    let second = on(&redis, &["--segment", "4s", "--retain-events", "50"]);
    says(&second, "--segment 20s, this one with 4s").await;
    says(&second, "--retain-events").await;
    let differ = ("headwater_store_settings_differ", 2.0..=2.0);
    first.shows(Ok(()), "--segment 4s (not 20s)", differ).await;
    // When the stored settings are lost, no origin may take its own settings for those of all
    // origins.
    redis.command(&["FLUSHALL"]);
    wait_until("they are stored again", || {
        redis.command(&["EXISTS", "{headwater:0}:settings"]) == "1"
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    let differ = [&first, &second].map(|one| one.metric("headwater_store_settings_differ"));
    let differ = futures_util::future::join_all(differ).await;
    assert_eq!(differ.iter().sum::<f64>(), 2.0, "{differ:?}");
    assert_eq!(first.logged("have the same settings") + second.logged("have the same settings"), 0);
    drop((first, second));
    // An operator changes a setting by restarting one origin after another.
    let first = on(&redis, &["--segment", "4s", "--retain-events", "50"]);
    first.publish("a", "x").await;
    assert_eq!(first.logged("another origin of this --redis-prefix"), 0);
    assert_eq!(first.metric("headwater_store_settings_differ").await, 0.0);
}

/// Reads nine events of a channel page by page, and returns the id of each and whether it is a gap.
async fn read_history(origin: &Origin, direction: &str, limit: usize) -> Vec<(String, bool)> {
    let mut places = Vec::new();
    let mut cursor = if direction == "after" { "0-0" } else { "9999999999999-0" }.to_owned();
    while places.len() < 9 {
        let path = format!("/channels/a/history?{direction}={cursor}&limit={limit}");
        let page = origin.get(&path).await.json();
        let events = page["events"].as_array().unwrap_or_else(|| panic!("{page}"));
        assert!((1..=limit).contains(&events.len()), "{path}: {page}");
        let place =
            |event: &Value| (event["id"].as_str().unwrap().to_owned(), event["type"] == "gap");
        let of_page = events.iter().map(place);
        let end = if direction == "after" {
            places.extend(of_page);
            places.last()
        } else {
            places.splice(..0, of_page);
            places.first()
        };
        cursor = end.unwrap().0.clone();
    }
    places
}

#[tokio::test]
async fn a_state_that_is_damaged_or_gone_in_redis_says_so() {
    let redis = RedisServer::start();
    let origin = on(&redis, &[]);
    for n in 0..9 {
        origin.publish_with("a", &format!("key=k{n}"), &n.to_string()).await;
    }
    // Each call starts a new origin, which has not read the channel before.
    let state = async || {
        let other = on(&redis, &[]);
        let state = other.get("/channels/a/state").await.json();
        if state.to_string().contains("damaged") {
            let words = "an event in redis is damaged or gone";
            other.shows(Ok(()), words, (&errors("damaged"), 1.0..)).await;
        } else {
            assert_eq!(other.metric(&errors("damaged")).await, 0.0);
        }
        let events = state["events"].as_array().unwrap().iter();
        let gaps = events.clone().filter(|event| event["reason"] == "damaged").count();
        (gaps, events.len())
    };
    assert_eq!(state().await, (0, 9));
    redis.command(&["HSET", "{headwater:0}:state:a", "k3", "nonsense"]);
    assert_eq!(state().await, (1, 9));
    redis.command(&["DEL", "{headwater:0}:state:a"]);
    assert_eq!(state().await, (1, 1));
    let other = on(&redis, &[]);
    let mut source = other.source("/channels/a", None);
    assert!(next_kind(&mut source, "gap").await.data.contains("damaged"));
}

#[tokio::test]
async fn an_event_that_is_gone_or_damaged_in_redis_is_a_gap_in_its_place() {
    let redis = RedisServer::start();
    let origin = on(&redis, &[]);
    let mut ids = Vec::new();
    for n in 0..9 {
        ids.push(origin.publish_with("a", &format!("key=k{n}"), &format!("event {n}")).await);
    }
    let log = "{headwater:0}:log:a";
    rewrite(
        &redis,
        log,
        "if string.find(e, 'event 4', 1, true) then e = string.gsub(e, '4', '5') end",
    );
    assert_eq!(redis.command(&["XDEL", log, &ids[6]]), "1");
    // This origin has none of the events in memory.
    let other = on(&redis, &[]);
    let mut source = other.source("/channels/a", Some(&ids[2]));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let message = next_message(&mut source).await;
        seen.push((message.kind, message.last_event_id));
    }
    let expected =
        [(3, "message"), (4, "gap"), (5, "message"), (6, "gap"), (7, "message"), (8, "message")];
    let expected: Vec<_> =
        expected.iter().map(|(n, kind)| ((*kind).to_owned(), ids[*n].clone())).collect();
    assert_eq!(seen, expected);
    let expected: Vec<_> =
        ids.iter().enumerate().map(|(n, id)| (id.clone(), n == 4 || n == 6)).collect();
    for limit in 1..10 {
        for direction in ["after", "before"] {
            let places = read_history(&other, direction, limit).await;
            assert_eq!(places, expected, "{direction} {limit}");
        }
    }
    let words = "an event in redis is damaged or gone";
    other.shows(Ok(()), words, (&errors("damaged"), 1.0..)).await;
    // This key is the hash that stores where the log ends.
    redis.command(&["DEL", "{headwater:0}:meta:a"]);
    let next = other.publish("a", "and it goes on").await;
    let message = next_kind(&mut source, "message").await;
    assert_eq!((message.data.as_str(), &message.last_event_id), ("and it goes on", &next));
}

#[tokio::test]
async fn a_damaged_entry_of_the_firehose_delays_nothing_and_loses_nothing() {
    let redis = RedisServer::start();
    let (origin, other) = (on(&redis, &[]), on(&redis, &[]));
    origin.publish("a", "0").await;
    let mut source = other.source("/channels/a?after=0-0", None);
    next_kind(&mut source, "message").await;
    other.signal("STOP");
    origin.publish("a", "1").await;
    origin.publish("a", "2").await;
    rewrite(&redis, "{headwater:0}:firehose", "if string.find(e, '2', -1, true) then e = 'x' end");
    other.signal("CONT");
    for data in ["1", "2"] {
        assert_eq!(next_kind(&mut source, "message").await.data, data);
    }
    let words = "an entry of the firehose is damaged";
    other.shows(Ok(()), words, (&errors("index"), 1.0..=1.0)).await;
    assert_eq!(other.metric(&errors("damaged")).await, 0.0, "no event is damaged");
}

#[tokio::test]
async fn a_key_of_another_type_is_found_before_anything_is_stored() {
    let redis = RedisServer::start();
    let origin = on(&redis, &[]);
    origin.publish("a", "kept").await;
    let mut refusals = 0;
    for key in ["firehose", "head", "state:a", "log:a", "meta:a", "sizes"] {
        let key = format!("{{headwater:0}}:{key}");
        assert_eq!(
            redis.command(&["RENAME", &key, "aside"]),
            if key.contains("state") { "ERR no such key" } else { "OK" }
        );
        redis.command(&["SET", &key, "text"]);
        let before = redis.command(&["XLEN", "{headwater:0}:log:a"]);
        let refused = origin.post("/channels/a", &[], "refused").await;
        let problem = refused.assert_problem(503, "store-down");
        assert!(problem["detail"].as_str().unwrap().contains("WRONGTYPE"), "{problem}");
        assert_eq!(redis.command(&["XLEN", "{headwater:0}:log:a"]), before, "{key}");
        refusals += 1;
        let refused = ("headwater_publishes_refused_total{problem=\"store-down\"}", refusals);
        assert_eq!(origin.metric(refused.0).await as u32, refused.1);
        says(&origin, "WRONGTYPE").await;
        redis.command(&["DEL", &key]);
        redis.command(&["RENAME", "aside", &key]);
    }
    let log: Vec<_> = origin.log("a").await.into_iter().map(|(_, data)| data).collect();
    assert_eq!(log, ["kept"]);
    origin.publish("a", "goes on").await;
}

#[tokio::test]
async fn an_origin_is_not_ready_while_redis_refuses_writes() {
    let redis = RedisServer::start();
    let origin = on(&redis, &[]);
    origin.becomes(200).await;
    for (setting, bad, good, why) in
        [("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")]
    {
        redis.command(&["CONFIG", "SET", setting, bad]);
        origin.shows(Err(why), why, ("headwater_store_up", 0.0..=0.0)).await;
        redis.command(&["CONFIG", "SET", setting, good]);
        let up = ("headwater_store_up", 1.0..=1.0);
        origin.shows(Ok(()), "redis takes writes again", up).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_shards_of_a_distant_redis_are_ready() {
    let redis = RedisServer::start();
    let port = distant(redis.port, Duration::from_millis(40)).await;
    let url = format!("redis://127.0.0.1:{port}");
    // Readiness needs two commands for each shard. Sent one after another, they would take five
    // seconds.
    let flags = ["--store", &url, "--redis-shards", "64", "--store-timeout", "3s"];
    let origin = Origin::with(&flags);
    origin.becomes(200).await;
    for _ in 0..5 {
        assert_eq!(origin.get("/readyz").await.status, 200);
    }
    assert_eq!(origin.metric("headwater_ready").await, 1.0);
    origin.publish("a", "x").await;
    assert_eq!(origin.log("a").await.len(), 1);
}

/// Returns the next event that was published, and whether a gap came before it.
async fn next_event(source: &mut EventSource) -> (Message, bool) {
    let mut is_told = false;
    loop {
        let message = next_message(source).await;
        match message.kind.as_str() {
            "message" => return (message, is_told),
            kind => is_told |= kind == "gap",
        }
    }
}

#[tokio::test]
async fn a_redis_without_persistence_that_restarts_has_lost_all() {
    let mut redis = RedisServer::start();
    let origin = on(&redis, &[]);
    origin.publish("a", "lost").await;
    let mut source = origin.source("/channels/a?after=0-0", None);
    next_kind(&mut source, "message").await;
    redis.kill();
    redis.start_again();
    origin.shows(Ok(()), "redis has lost events", (&errors("lost"), 1.0..=1.0)).await;
    origin.publish("a", "new").await;
    let (message, is_told) = next_event(&mut source).await;
    assert_eq!((message.data.as_str(), is_told), ("new", true));
}

#[tokio::test]
async fn an_origin_that_was_away_for_longer_than_the_firehose_is_kept_loses_nothing() {
    let redis = RedisServer::start();
    let flags = ["--retain-bytes", "1GiB"];
    let (origin, away) = (on(&redis, &flags), on(&redis, &flags));
    origin.publish("a", "0").await;
    let mut source = away.source("/channels/a?after=0-0", None);
    next_kind(&mut source, "message").await;
    // A stopped process still takes what Redis has sent, so its connection is closed as well.
    away.signal("STOP");
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    // A firehose has at most 64 MiB.
    let (mut ids, megabyte) = (Vec::new(), "x".repeat(1_000_000));
    for _ in 0..80 {
        ids.push(origin.publish("a", &megabyte).await);
    }
    away.signal("CONT");
    for id in &ids {
        let (message, is_told) = next_event(&mut source).await;
        assert_eq!((&message.last_event_id, is_told), (id, false));
    }
    let lost = (&*errors("lost"), 0.0..=0.0);
    away.shows(Ok(()), "was away for longer than the firehose is kept", lost).await;
}

#[tokio::test]
async fn a_policy_under_which_redis_drops_events_is_named_at_the_start() {
    let redis = RedisServer::start();
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let origin = on(&redis, &[]);
    says(&origin, "maxmemory-policy must be noeviction").await;
    redis.command(&["ACL", "SETUSER", "part", "on", ">secret", "~*", "+@all", "-config"]);
    let url = format!("redis://part:secret@127.0.0.1:{}", redis.port);
    let origin = Origin::with(&["--store", &url, "--redis-shards", "1"]);
    says(&origin, "maxmemory-policy cannot be looked at").await;
    origin.publish("a", "x").await;
}
