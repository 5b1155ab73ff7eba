//! Several origins on one Redis: consistency between them, failures of Redis, and refusals of wrong
//! settings.

use crate::kit::history::{ClientHistory, History};
use crate::kit::redis::{RedisServer, Relay};
use crate::kit::{
    Origin, PATIENCE, Random, get, next_message, read_until, request, unchunk, wait_for_phase,
};
use headwater::client::http::Address;
use headwater::client::{EventSource, Signal};
use headwater_hunt::history::MayLose;
use hyper::Method;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

const CLIENTS: u64 = 300;
/// So many of them have their part in the history.
const RECORDED: u64 = 30;
const PUBLISHERS: u64 = 3;
const RATE: u64 = 200;
const LAST: &str = "the last";

fn on(url: &str, segment: &str) -> Origin {
    Origin::with(&["--store", url, "--segment", segment])
}

/// Publishes with an idempotency key, at one origin after another, until the event is acknowledged.
async fn publish_surely(addresses: &[Address], path: &str, key: &str, data: &str) -> String {
    let mut turns = addresses.iter().cycle();
    loop {
        let address = turns.next().expect("an origin");
        let headers = [("idempotency-key", key)];
        let body = data.to_owned().into();
        let publish = request(address, Method::POST, path, &headers, body);
        if let Ok(Ok(answer)) = timeout(Duration::from_secs(5), publish).await
            && (answer.status == 201 || answer.status == 200)
        {
            return answer.json()["id"].as_str().expect("an id").to_owned();
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Subscribes to a channel until its last event, at a random origin after every reconnect.
async fn wander(
    addresses: Vec<Address>,
    path: &'static str,
    mut random: Random,
    history: Option<ClientHistory>,
) -> Vec<(String, String)> {
    let first = addresses[random.below(addresses.len() as u64) as usize].clone();
    let mut source = EventSource::new(first, path, None);
    let mut seen = Vec::new();
    loop {
        let signal = source.next().await;
        history.iter().for_each(|history| history.note(&signal));
        match signal {
            Signal::Message(message) if message.kind == "message" => {
                let is_last = message.data == LAST;
                seen.push((message.last_event_id, message.data));
                if is_last {
                    return seen;
                }
            }
            // A client that reconnects while Redis is unavailable receives a `shed` event.
            Signal::Message(message) => {
                assert!(["segment", "shed"].contains(&message.kind.as_str()), "{message:?}");
            }
            Signal::Opened => {}
            Signal::Reconnecting { .. } => {
                let next = random.below(addresses.len() as u64) as usize;
                source.move_to(addresses[next].clone());
            }
            Signal::Closed { status, why } => panic!("closed for good: {status:?} {why}"),
        }
    }
}

/// Publishes at the origins in turn until `stop` becomes true.
async fn publish_until(
    publisher: u64,
    addresses: Vec<Address>,
    mut stop: watch::Receiver<bool>,
    history: History,
) {
    let mut ticks = interval(Duration::from_millis(1_000 * PUBLISHERS / RATE));
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let data = format!("{publisher} {number}");
        publish_and_note(&addresses, &data, &history).await;
    }
}

async fn publish_and_note(addresses: &[Address], data: &str, history: &History) {
    history.published("a", data);
    let id = publish_surely(addresses, "/channels/a", data, data).await;
    history.acknowledged("a", &id, data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wander_between_origins_miss_nothing_whatever_fails() {
    let _alone = crate::kit::alone().await;
    headwater::telemetry::process::raise_file_limit();
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let relay = Relay::to(redis.port).await;
    let mut origins = [
        on(&redis.url(), "2s"),
        on(&redis.url(), "2s"),
        on(&format!("redis://127.0.0.1:{}", relay.port), "2s"),
    ];
    let addresses: Vec<Address> = origins.iter().map(Origin::address).collect();
    let mut clients = JoinSet::new();
    let history = History::begin();
    for index in 0..CLIENTS {
        let recorded = (index < RECORDED).then(|| history.client("a"));
        clients.spawn(wander(addresses.clone(), "/channels/a", Random::new(index), recorded));
    }
    let (stop, stopped) = watch::channel(false);
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let mut addresses = addresses.clone();
        addresses.rotate_left(publisher as usize);
        publishers.spawn(publish_until(publisher, addresses, stopped.clone(), history.clone()));
    }
    for round in 0..3 {
        sleep(Duration::from_secs(3)).await;
        origins[round % 2].kill();
        origins[round % 2].start_again();
        match round {
            0 => {
                redis.signal("STOP");
                sleep(Duration::from_secs(5)).await;
                redis.signal("CONT");
            }
            1 => {
                redis.kill();
                sleep(Duration::from_millis(500)).await;
                redis.start_again();
            }
            _ => {
                relay.freeze(true);
                sleep(Duration::from_secs(5)).await;
                relay.freeze(false);
            }
        }
    }
    sleep(Duration::from_secs(3)).await;
    stop.send_replace(true);
    publishers.join_all().await;
    publish_and_note(&addresses, LAST, &history).await;
    let seen =
        timeout(Duration::from_secs(40), clients.join_all()).await.expect("all have the last");
    let summary = history.judge(&origins[0], &["a"], MayLose::Nothing).await;
    assert!(summary.logged > 1_000, "too few events prove little: {summary:?}");
    let log = origins[0].log("a").await;
    for seen in seen {
        let first = log.iter().position(|event| *event == seen[0]).expect("it is in the log");
        assert_eq!(seen, log[first..], "exactly once and in order");
    }
}

// protocol §4.1, §6.10
#[tokio::test]
async fn two_origins_with_different_clocks_answer_with_the_same_bytes() {
    let redis = RedisServer::start();
    let flags = ["--store", &redis.url(), "--segment", "4s"];
    let origins = [
        Origin::with(&flags),
        Origin::with_clock("+0.2s", &flags),
        Origin::with_clock("-0.2s", &flags),
    ];
    // Each origin must have read the clock of Redis.
    for origin in &origins {
        timeout(PATIENCE, async { while origin.get("/readyz").await.status != 200 {} })
            .await
            .expect("it is ready");
    }
    let cursor = origins[0].publish("a", "first").await;
    wait_for_phase(4_000, 300, 1_000).await;
    let streams = origins.each_ref().map(|origin| async {
        let mut stream = origin.raw(&get("/channels/a", Some(&cursor))).await;
        let answer = read_until(&mut stream, |text| text.ends_with("\r\n0\r\n\r\n")).await;
        let (body, is_whole) = unchunk(&answer);
        assert!(is_whole, "{answer}");
        body.split_inclusive("\n\n").filter(|block| !block.starts_with(':')).collect::<String>()
    });
    // The events are published at each origin in turn, over the segment boundary and beyond.
    let publish = async {
        for number in 0..400 {
            origins[number % 3].publish("a", &number.to_string()).await;
        }
    };
    let [one, two, three] = streams;
    let (one, two, three, ()) = tokio::join!(one, two, three, publish);
    assert!(one.matches("\ndata: ").count() > 50, "{one}");
    assert_eq!(one, two);
    assert_eq!(one, three);
}

#[tokio::test]
async fn while_redis_is_away_streams_go_on_and_publishes_say_so_and_then_all_resumes() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let flags = ["--store", &redis.url(), "--store-timeout", "1s", "--heartbeat", "1s"];
    let origin = Origin::with(&flags);
    let first = origin.publish("a", "first").await;
    let mut source = origin.source("/channels/a", Some("0-0"));
    assert_eq!(next_message(&mut source).await.data, "first");
    for is_silent in [true, false] {
        if is_silent {
            redis.signal("STOP")
        } else {
            redis.kill()
        }
        let begun = std::time::Instant::now();
        let refused = origin.post("/channels/a", &[], "refused").await;
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        // The publish may have reached Redis before the answer was lost. After a kill, the origin may
        // know already that it has no connection, and then sends nothing.
        let is_unsent = refused.json()["type"] == "urn:headwater:problem:store-down";
        let (name, words) = match is_unsent && !is_silent {
            true => ("store-down", "nothing was stored"),
            false => ("store-unclear", "same Idempotency-Key"),
        };
        let problem = refused.assert_problem(503, name);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
        assert!(refused.header("retry-after").is_some());
        let stalled = ("headwater_store_errors_total{kind=\"stall\"}", 1.0..);
        origin.shows(Err("redis: "), "the log is not followed", stalled).await;
        assert_eq!(origin.metric("headwater_store_up").await, 0.0);
        // A stream that is served from the origin's memory still starts, and sends heartbeats.
        let mut stream = origin.raw(&get("/channels/a", Some(&first))).await;
        let text = read_until(&mut stream, |text| text.contains("\r\n:\n\r\n")).await;
        assert!(text.contains("ends_at"), "{text}");
        // A stream that needs Redis is shed, for an `EventSource` and for other clients.
        let shed = origin.get("/channels/other").await;
        assert_eq!((shed.status.as_u16(), shed.header("headwater-shed")), (200, Some("store")));
        let accept = [("accept", "application/json")];
        let refused = origin.request(Method::GET, "/channels/other", &accept, "").await;
        refused.assert_problem(503, "store");
        if is_silent {
            redis.signal("CONT")
        } else {
            redis.start_again()
        }
        let back = async { while origin.post("/channels/b", &[], "probe").await.status != 201 {} };
        timeout(PATIENCE, back).await.expect("it comes back by itself");
        let data = format!("after {is_silent}");
        let id = origin.publish("a", &data).await;
        let message = next_message(&mut source).await;
        assert_eq!(
            (message.data, message.last_event_id),
            (data, id),
            "what was refused is not stored"
        );
    }
    origin.shows(Ok(()), "the log is followed again", ("headwater_store_up", 1.0..)).await;
}

#[tokio::test]
async fn a_full_or_read_only_redis_refuses_publishes_and_keeps_what_it_has() {
    let redis = RedisServer::start();
    let origin = on(&redis.url(), "4s");
    let id = origin.publish("a", "kept").await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    origin.post("/channels/a", &[], "x").await.assert_problem(503, "store-down");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    origin.post("/channels/a", &[], "x").await.assert_problem(503, "store-down");
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let after = origin.publish("a", "after").await;
    let ids: Vec<String> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [id, after]);
}

#[tokio::test]
async fn a_publisher_that_repeats_through_a_restart_of_redis_is_stored_once() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let origin = on(&redis.url(), "4s");
    let addresses = [origin.address()];
    let (count, mut counted) = watch::channel(0);
    let publish = async {
        for number in 0..200 {
            count.send_replace(number);
            let data = number.to_string();
            // Each event is published twice, as by a publisher that did not receive the first
            // answer.
            publish_surely(&addresses, "/channels/a", &data, &data).await;
            publish_surely(&addresses, "/channels/a", &data, &data).await;
        }
    };
    let restart = async {
        for round in 1..=3 {
            counted.wait_for(|number| *number >= 50 * round).await.expect("it publishes");
            redis.kill();
            redis.start_again();
        }
    };
    tokio::join!(publish, restart);
    let datas: Vec<String> = origin.log("a").await.into_iter().map(|(_, data)| data).collect();
    assert_eq!(datas, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn origins_must_agree_on_the_number_of_shards() {
    let redis = RedisServer::start();
    let _first = on(&redis.url(), "4s");
    let second = std::process::Command::new(crate::kit::BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--store", &redis.url(), "--redis-shards", "7", "--store-timeout", "20s"])
        .output()
        .expect("it starts");
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains("start with --redis-shards 4"), "{error}");
}

#[tokio::test]
async fn origins_must_agree_on_the_shards_also_when_redis_comes_later() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    on(&redis.url(), "4s").publish("a", "x").await;
    redis.kill();
    let flags = ["--store", &redis.url(), "--redis-shards", "7", "--store-timeout", "1s"];
    let origin = Origin::with(&flags);
    redis.start_again();
    let told = async {
        loop {
            let answer = origin.post("/channels/a", &[], "y").await;
            let problem = answer.assert_problem(503, "store-down");
            if problem["detail"].to_string().contains("start with --redis-shards 4") {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it says what is wrong");
}

/// Returns how many commands Redis processes in 4 s while the origin is idle.
async fn commands_while_idle(redis: &RedisServer) -> u64 {
    let count = || -> u64 {
        let info = redis.command(&["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        line.expect("a count").trim().parse().expect("a number")
    };
    let before = count();
    sleep(Duration::from_secs(4)).await;
    count() - before
}

#[tokio::test]
async fn idle_channels_cost_redis_nothing() {
    let redis = RedisServer::start();
    let origin = on(&redis.url(), "60s");
    let few = commands_while_idle(&redis).await;
    for number in 0..500 {
        origin.publish(&format!("idle{number}"), "x").await;
    }
    // Some of the channels have subscribers and are still idle.
    let mut streams = Vec::new();
    for number in 0..100 {
        let mut stream = origin.raw(&get(&format!("/channels/idle{number}"), Some("0-0"))).await;
        read_until(&mut stream, |text| text.contains("data: x")).await;
        streams.push(stream);
    }
    let many = commands_while_idle(&redis).await;
    // One command for each subscribed channel would make 100 more, and one for each channel 500.
    // The commands that an origin sends each second, 19 for four shards, may fall into one of the
    // two periods and not into the other, at both ends of it.
    assert!(many < few + 50, "{few} commands with no channel, {many} with 500");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cause_is_named_when_redis_cannot_be_reached() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x"];
    let made = std::process::Command::new("openssl")
        .args(words)
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl runs");
    assert!(made.status.success());
    let tls_port = crate::kit::redis::free_port();
    let redis = RedisServer::with(&[
        "--save",
        "",
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    redis.command(&["CONFIG", "SET", "requirepass", "right"]);
    let plain = redis.port;
    let closed = crate::kit::redis::free_port();
    let causes = [
        (format!("redis://127.0.0.1:{closed}"), "nothing listens there"),
        (format!("redis://:wrong@127.0.0.1:{plain}"), "correct the user and password"),
        ("redis://nowhere.invalid:6379".to_owned(), "cannot be resolved"),
        (format!("rediss://127.0.0.1:{tls_port}"), "certificate is not trusted"),
        (format!("rediss://127.0.0.1:{plain}"), "does not speak TLS"),
        (format!("redis://127.0.0.1:{tls_port}"), "if the server wants TLS"),
    ];
    let checks = causes.iter().map(async |(url, cause)| {
        let origin = Origin::with(&["--store", url, "--store-timeout", "1s"]);
        let said = async {
            while !origin.becomes(503).await.contains(cause) || origin.logged(cause) == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(timeout(PATIENCE, said).await.is_ok(), "{url}: {}", origin.becomes(503).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(origin.logged(cause), 1, "{url}: once for each cause");
        origin.shows(Err(cause), cause, ("headwater_store_up", 0.0..=0.0)).await;
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn serve_names_the_commands_that_the_redis_user_may_not_run() {
    let redis = RedisServer::start();
    redis.command(&["ACL", "SETUSER", "part", "on", ">secret", "~*", "+@all", "-xtrim", "-hset"]);
    let url = format!("redis://part:secret@127.0.0.1:{}", redis.port);
    let flags = ["--store", &url, "--store-timeout", "20s"];
    let refused = std::process::Command::new(crate::kit::BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(flags)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("may not run"), "{said}");
    assert!(said.contains("+xtrim") && said.contains("hset"), "{said}");
    assert_eq!(redis.command(&["--scan", "--pattern", "*log*"]), "", "nothing is stored");
    redis.command(&["ACL", "SETUSER", "part", "+xtrim", "+hset", "-wait"]);
    Origin::with(&flags).publish("a", "x").await;
    let waits = [&flags[..], &["--redis-wait-replicas", "1"]].concat();
    let refused = std::process::Command::new(crate::kit::BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(waits)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("+wait"), "{said}");
}
