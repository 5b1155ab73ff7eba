//! nginx with the shipped profiles: clients share the response to a long poll, streams pass
//! through, and no failure of the origin ends an `EventSource`.

use crate::kit::edge::{Cache, Follower, Notes, Tap};
use crate::kit::{Origin, Random, now_ms, request};
use headwater::client::Signal;
use hyper::Method;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

/// The time after the last publish within which every client must have received every event.
const ARRIVAL: Duration = Duration::from_secs(40);

/// Publishes a number, and repeats the request with the same idempotency key until the origin
/// answers.
async fn publish(origin: &Origin, number: u64) {
    let key = number.to_string();
    let begun = Instant::now();
    loop {
        let headers = [("idempotency-key", key.as_str())];
        let body = number.to_string().into();
        match origin.try_request(Method::POST, "/channels/crowd", &headers, body).await {
            Ok(answer) if answer.status.is_success() => return,
            _ => assert!(begun.elapsed() < ARRIVAL, "the origin comes back"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn publish_until(origin: &Origin, number: &mut u64, until: u64) {
    let mut ticks = interval(Duration::from_millis(500));
    while now_ms() < until {
        ticks.tick().await;
        *number += 1;
        publish(origin, *number).await;
    }
}

struct Crowd {
    clients: JoinSet<u64>,
    last: watch::Sender<Option<u64>>,
}

impl Crowd {
    fn join(cache: &Cache, count: u64) -> Self {
        headwater::telemetry::process::raise_file_limit();
        let (last, lasts) = watch::channel(None);
        let notes = Arc::new(Notes::default());
        let mut clients = JoinSet::new();
        for index in 0..count {
            let (channel, source) = ("crowd".to_owned(), cache.source("/channels/crowd", None));
            let (random, notes) = (Random::new(index), notes.clone());
            let follower = Follower { channel, source, random, abort: 0, notes };
            clients.spawn(follower.follow(lasts.clone()));
        }
        Self { clients, last }
    }

    async fn all_have(mut self, last: u64) {
        self.last.send_replace(Some(last));
        let all = async {
            while let Some(outcome) = self.clients.join_next().await {
                outcome.expect("no client complains");
            }
        };
        timeout(ARRIVAL, all).await.expect("everyone has the last event");
    }
}

// protocol §16.2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_sends_one_long_poll_for_each_event_of_500_clients_over_restarts() {
    let _alone = crate::kit::alone().await;
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "4s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::nginx("collapse", tap.port);
    let begun = now_ms();
    // The channel has an event already, so that no client's first request waits for one.
    publish(&origin, 1).await;
    let crowd = Crowd::join(&cache, 500);
    let mut number = 1;
    publish_until(&origin, &mut number, now_ms() + 8_000).await;
    origin.signal("TERM");
    assert!(origin.ended().await.success());
    origin.start_again();
    publish_until(&origin, &mut number, now_ms() + 8_000).await;
    origin.kill();
    sleep(Duration::from_secs(10)).await;
    origin.start_again();
    publish_until(&origin, &mut number, now_ms() + 8_000).await;
    crowd.all_have(number).await;
    let segments = (now_ms() - begun).div_ceil(4_000);
    println!("{} requests, {number} events, {segments} segments", tap.count());
    assert!(
        tap.count() as u64 <= number + segments,
        "{} requests: {:#?}",
        tap.count(),
        tap.asked()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_collapsed_long_polls_get_an_event_within_600_ms() {
    let _alone = crate::kit::alone().await;
    let origin = Origin::with(&["--store", "memory"]);
    let cache = Cache::nginx("collapse", origin.listen.port());
    origin.publish("crowd", "0").await;
    headwater::telemetry::process::raise_file_limit();
    let delays = Arc::new(Mutex::new(Vec::new()));
    let mut clients = JoinSet::new();
    for _ in 0..500 {
        let (mut source, delays) = (cache.source("/channels/crowd", None), delays.clone());
        clients.spawn(async move {
            loop {
                let Signal::Message(message) = source.next().await else { continue };
                let sent: u64 = message.data.parse().unwrap_or_default();
                if sent > 0 {
                    delays.lock().unwrap().push(now_ms() - sent);
                }
            }
        });
    }
    let mut ticks = interval(Duration::from_millis(500));
    for _ in 0..24 {
        ticks.tick().await;
        origin.publish("crowd", &now_ms().to_string()).await;
    }
    let all_came = async {
        while delays.lock().unwrap().len() < 500 * 20 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(ARRIVAL, all_came).await.expect("the events come");
    clients.shutdown().await;
    let mut delays = delays.lock().unwrap().clone();
    delays.sort_unstable();
    let at = |percent: usize| delays[delays.len() * percent / 100];
    println!("p50 {} ms, p90 {} ms, p99 {} ms", at(50), at(90), at(99));
    // This bound does not depend on the speed of the machine: nginx looks for the answer every 500
    // ms, so a median above 600 ms means that clients wait for a second look.
    assert!(at(50) < 600, "p50 {} ms", at(50));
}

#[tokio::test]
async fn an_idle_channel_does_not_loop() {
    let origin =
        Origin::with(&["--store", "memory", "--segment", "2s", "--long-poll-timeout", "2s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::nginx("collapse", tap.port);
    let opened = crate::caches::varnish::requests_of_idle_clients(&cache, 10).await;
    assert!(opened <= 2, "{opened} requests a client and segment");
    assert!(tap.count() <= 2 * 10 + 2, "{:#?}", tap.asked());
}

#[tokio::test]
async fn an_idle_channel_does_not_loop_behind_a_cache_that_keeps_all_too_long() {
    let origin =
        Origin::with(&["--store", "memory", "--segment", "2s", "--long-poll-timeout", "2s"]);
    let cache = Cache::nginx_before("collapse", &[origin.listen.port()], |text| {
        let too_long = "proxy_ignore_headers Vary Cache-Control; proxy_cache_valid 200 10s;";
        text.replace("proxy_ignore_headers Vary;", too_long)
    });
    let opened = crate::caches::varnish::requests_of_idle_clients(&cache, 10).await;
    assert!(opened <= 2, "{opened} requests a client and segment");
}

#[tokio::test]
async fn the_query_reaches_the_origin_in_one_spelling() {
    let origin = Origin::with(&["--store", "memory", "--long-poll-timeout", "1s", "--lanes", "4"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::nginx("collapse", tap.port);
    for (asked, cursor, expected, sent) in [
        ("/channels/a?z=1&after=0-0&after=1-0", None, "/channels/a?mode=hold", Some("0-0")),
        ("/channels/a?mode=stream&lane=1", None, "/channels/a?mode=hold&lane=1", None),
        ("/channels/a?after=%0d%0aX:1", None, "/channels/a?mode=hold", Some("unknown")),
        ("/channels/a?after=0-0&since=0&last=1", Some("5-0"), "/channels/a?mode=hold", Some("5-0")),
        ("/channels/a%2Cb?lane=x", None, "/channels/a,b?mode=hold&lane=malformed", None),
        ("/channels/a?format=json&last=2", None, "/channels/a?mode=hold&last=2&format=json", None),
        ("/channels/a?last=2&since=-5m", None, "/channels/a?mode=hold&since=-5m", None),
        ("/channels/a?lastEventId=7-0&after=5-0", None, "/channels/a?mode=hold", Some("7-0")),
    ] {
        let headers: Vec<_> = cursor.iter().map(|cursor| ("last-event-id", *cursor)).collect();
        let answer = request(&cache.address(), Method::GET, asked, &headers, "".into()).await;
        assert!(answer.is_ok(), "{asked}");
        let last = tap.asked().pop().expect("the origin is asked");
        assert_eq!((&*last.target, last.cursor.as_deref()), (expected, sent), "{asked}");
    }
    for foreign in ["urn:uuid:1", "<script>", "x y"] {
        let headers = [("last-event-id", foreign)];
        let answer =
            request(&cache.address(), Method::GET, "/channels/f", &headers, "".into()).await;
        assert!(answer.unwrap().body.contains("\"reason\":\"unknown\""));
        assert_eq!(tap.asked().pop().unwrap().cursor.as_deref(), Some("unknown"));
    }
}

// protocol §16.7, §16.4
#[tokio::test]
async fn nothing_of_one_client_reaches_another() {
    let origin = Origin::with(&["--store", "memory", "--long-poll-timeout", "1s"]);
    let cursor = origin.publish("a", "0").await;
    origin.publish("a", "1").await;
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::nginx("collapse", tap.port);
    for headers in [
        vec![("last-event-id", &*cursor), ("cookie", "who=me"), ("accept-encoding", "gzip")],
        vec![("last-event-id", &*cursor), ("cache-control", "no-cache"), ("range", "bytes=0-3")],
        vec![("last-event-id", &*cursor), ("accept", "application/json"), ("pragma", "no-cache")],
    ] {
        let address = cache.address();
        let answer = request(&address, Method::GET, "/channels/a", &headers, "".into());
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200, "{headers:?}");
        assert!(answer.body.contains("data: 1\n"), "{}", answer.body);
        let saw = answer.header("headwater-response").unwrap();
        assert!(saw.ends_with(";http=1.1;mode=hold"), "{saw}");
    }
    assert_eq!(tap.count(), 1);
}

#[tokio::test]
async fn an_outage_is_a_stream_that_says_when_to_come_back_in_every_profile() {
    let mut origin = Origin::with(&["--store", "memory"]);
    let varnish = Cache::varnish(origin.listen.port());
    let caches = [
        Cache::nginx("collapse", origin.listen.port()),
        Cache::nginx("stream", origin.listen.port()),
        varnish,
        Cache::squid(origin.listen.port()),
    ];
    let is_outage = async |cache: &Cache, path: &str| {
        let answer = request(&cache.address(), Method::GET, path, &[], "".into()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert_eq!(answer.header("headwater-shed"), Some("edge"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let retry = answer.body.strip_prefix("retry: ").and_then(|rest| rest.lines().next());
        let retry: u64 = retry.expect("a wait").parse().expect("a number");
        assert!((2_000..=5_000).contains(&retry), "{retry}");
    };
    for cache in &caches {
        is_outage(cache, "/channels/headwater.fault").await;
    }
    origin.kill();
    for cache in &caches {
        is_outage(cache, "/channels/a").await;
        let body = "x".to_owned();
        let answer = request(&cache.address(), Method::POST, "/channels/a", &[], body.into()).await;
        let answer = answer.unwrap();
        assert!(answer.status.is_server_error(), "a publish is not accepted: {}", answer.status);
    }
}

#[tokio::test]
async fn a_publish_passes_through_with_all_it_says() {
    let origin = Origin::with(&["--store", "memory"]);
    let tls_less =
        ["collapse", "stream"].map(|profile| Cache::nginx(profile, origin.listen.port()));
    let behind = [Cache::varnish, Cache::squid].map(|cache| cache(origin.listen.port()));
    for (index, cache) in tls_less.iter().chain(&behind).enumerate() {
        let path = format!("/channels/p{index}?event=price&key=a%20b");
        let answer = request(&cache.address(), Method::POST, &path, &[], "5".into()).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        let history = format!("/channels/p{index}/history?after=0-0");
        let page = request(&cache.address(), Method::GET, &history, &[], "".into()).await.unwrap();
        let event = &page.json()["events"][0];
        assert_eq!(
            (&event["event"], &event["key"], &event["data"]),
            (&"price".into(), &"a b".into(), &"5".into())
        );
        let big = "x".repeat(2_000_000);
        let answer = request(&cache.address(), Method::POST, &path, &[], big.into()).await.unwrap();
        let problem = answer.assert_problem(413, "too-large");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("--max-event"), "the origin's own refusal arrives: {detail}");
        let options =
            request(&cache.address(), Method::OPTIONS, &path, &[], "".into()).await.unwrap();
        assert_eq!(options.status, 204);
    }
}
