//! Squid with the shipped configuration. A request passes through nginx with the profile `squid`,
//! then through Squid, then through the same nginx again, to the origin. Squid passes the same
//! tests as Varnish, and nothing of one client's request reaches another client.

use crate::caches::varnish::{
    crowd_is_one_request_a_channel_and_segment, requests_of_idle_clients, storm,
};
use crate::kit::edge::{Asked, Cache, Tap};
use crate::kit::{Origin, get, read_until, request, wait_for_phase};
use crate::protocol::access::{SECRET, minted};
use hyper::Method;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Sends a request on its own connection, and reads until `enough` returns true.
async fn ask(port: u16, head: &str, enough: fn(&str) -> bool) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    read_until(&mut stream, enough).await
}

fn is_whole_head(answer: &str) -> bool {
    answer.contains("\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_are_one_request_a_channel_and_segment() {
    crowd_is_one_request_a_channel_and_segment(Cache::squid, 1_000, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_costs_nobody_an_event_and_the_origin_one_request_a_cursor_and_max_age() {
    let (asked, cursors) = storm(Cache::squid, 500, Asked::answers_by_max_age).await;
    // The max-age ends two seconds before the segment; in this time the cursor is requested again.
    assert!(asked * 2 <= cursors * 3, "{asked} requests, {cursors} cursors");
}

#[tokio::test]
async fn an_idle_channel_does_not_loop() {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let cache = Cache::squid(origin.listen.port());
    assert!(requests_of_idle_clients(&cache, 10).await <= 2);
}

#[tokio::test]
async fn an_idle_channel_does_not_loop_behind_a_cache_that_keeps_all_too_long() {
    let origin = Origin::with(&["--store", "memory", "--segment", "2s"]);
    let cache = Cache::squid_with(origin.listen.port(), [&[], &[]], |text| {
        // Squid keeps each answer for a minute, whatever its headers say.
        let too_long = "refresh_pattern . 1 0% 1 override-expire";
        let changed = text.replace("refresh_pattern . 0 0% 0", too_long);
        let changed = changed.replace("max_stale 0 seconds", "max_stale 1 minute");
        assert!(changed.contains(too_long));
        changed
    });
    // Squid does serve an outdated answer: both answers are the same response of the origin.
    let mut answers = Vec::new();
    for _ in 0..2 {
        let answer = ask(cache.port, "GET /channels/old HTTP/1.1\r\nHost: x\r\n\r\n", |text| {
            text.ends_with("0\r\n\r\n")
        });
        let answer = answer.await;
        let name = answer.lines().find(|line| line.starts_with("headwater-response:"));
        answers.push(name.expect("a name").to_owned());
    }
    assert_eq!(answers[0], answers[1]);
    assert!(requests_of_idle_clients(&cache, 10).await <= 2);
}

#[tokio::test]
async fn a_late_joiner_gets_the_backlog_at_once_and_from_the_same_origin_request() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid(tap.port);
    wait_for_phase(10_000, 100, 2_000).await;
    let stream = TcpStream::connect(("127.0.0.1", cache.port)).await;
    let mut first = stream.expect("it listens");
    first.write_all(&get("/channels/a", None)).await.expect("it reads");
    read_until(&mut first, |text| text.contains("event: segment")).await;
    for number in 1..=5 {
        origin.publish("a", &number.to_string()).await;
    }
    read_until(&mut first, |text| text.contains("data: 5\n")).await;
    // The fetch continues without the client that caused it.
    drop(first);
    origin.publish("a", "6").await;
    let head = String::from_utf8(get("/channels/a", None)).expect("text");
    let backlog = ask(cache.port, &head, |text| text.contains("data: 6\n")).await;
    assert!(backlog.contains("data: 1\n"), "{backlog}");
    assert_eq!(tap.count(), 1, "{:?}", tap.asked());
}

#[tokio::test]
async fn a_cut_off_answer_stays_cut_off_and_is_never_handed_out_again() {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let mut origin = Origin::with(&["--store", &store, "--segment", "20s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid(tap.port);
    let cursor = origin.publish("a", "0").await;
    wait_for_phase(20_000, 100, 5_000).await;
    origin.publish("a", "1").await;
    let mut stream = TcpStream::connect(("127.0.0.1", cache.port)).await.expect("it listens");
    stream.write_all(&get("/channels/a", Some(&cursor))).await.expect("it reads");
    read_until(&mut stream, |text| text.contains("data: 1\n")).await;
    origin.kill();
    let rest = read_until(&mut stream, |_| false).await;
    assert!(!rest.contains("0\r\n\r\n"), "a killed origin looks like a planned end: {rest}");
    origin.start_again();
    origin.publish("a", "2").await;
    // According to its max-age, the truncated response would be fresh for ten more seconds.
    let head = String::from_utf8(get("/channels/a", Some(&cursor))).expect("text");
    let answer = ask(cache.port, &head, |text| text.contains("data: 2\n")).await;
    assert!(answer.contains("data: 1\n"), "{answer}");
    assert_eq!(tap.count(), 2);
}

#[tokio::test]
async fn each_place_in_a_stream_has_one_url() {
    let origin = Origin::with(&["--store", "memory", "--lanes", "4", "--long-poll-timeout", "1s"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid(tap.port);
    for (asked, header, expected, cursor) in [
        ("a?z=1&after=5-0&after=1-0", None, "a?after=5-0", Some("5-0")),
        ("b?lastEventId=5-0&after=1-0&last=3", None, "b?after=5-0", Some("5-0")),
        ("c?lastEventId=&after=1-0&since=-5m", Some("5-0"), "c?after=5-0", Some("5-0")),
        ("d?mode=stream&format=raw&lane=1", None, "d?lane=1", None),
        ("e?format=json&lane=1&last=3&since=-5m", None, "e?since=-5m&lane=1&format=json", None),
        ("f?last=3&mode=hold", None, "f?last=3&mode=hold", None),
        (
            "g%2Ch?lane=x&mode=y&format=z",
            None,
            "g,h?lane=malformed&mode=malformed&format=malformed",
            None,
        ),
        ("i?access_token=t", None, "i?access_token=t", None),
    ] {
        let header = header.map(|cursor| format!("Last-Event-ID: {cursor}\r\n"));
        let head = format!(
            "GET /channels/{asked} HTTP/1.1\r\nHost: x\r\n{}\r\n",
            header.unwrap_or_default()
        );
        ask(cache.port, &head, is_whole_head).await;
        let last = tap.asked().pop().expect("the origin is asked");
        let target = format!("/channels/{expected}");
        assert_eq!((&*last.target, last.cursor.as_deref()), (&*target, cursor), "{asked}");
    }
    for foreign in ["Last-Event-ID: <script>\r\n", "Last-Event-ID: x y\r\n", "Cookie: a=b\r\n"] {
        let path = if foreign.starts_with("Last") { "" } else { "?after=%0d%0aX:1" };
        let head = format!("GET /channels/j{path} HTTP/1.1\r\nHost: x\r\n{foreign}\r\n");
        ask(cache.port, &head, |text| text.contains("\"reason\":\"unknown\"")).await;
    }
    let foreign = tap.asked().into_iter().filter(|asked| asked.target.starts_with("/channels/j"));
    let foreign: Vec<Asked> = foreign.collect();
    assert_eq!((foreign.len(), foreign[0].cursor.as_deref()), (1, Some("unknown")), "{foreign:?}");
}

#[tokio::test]
async fn nothing_of_one_client_reaches_another() {
    let origin = Origin::with(&["--store", "memory"]);
    let cursor = origin.publish("a", "0").await;
    origin.publish("a", "1").await;
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid(tap.port);
    let after = format!("/channels/a?mode=hold&after={cursor}");
    for headers in [
        vec![("cookie", "who=me"), ("accept-encoding", "gzip"), ("accept", "application/json")],
        vec![
            ("cache-control", "no-cache"),
            ("range", "bytes=0-3"),
            ("origin", "https://a.example"),
        ],
        vec![("if-none-match", "\"x\""), ("pragma", "no-cache"), ("x-forwarded-host", "b.example")],
        vec![("last-event-id", &*cursor), ("cache-control", "max-age=0")],
    ] {
        let answer = request(&cache.address(), Method::GET, &after, &headers, "".into()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{headers:?}");
        assert!(answer.body.contains("data: 1\n"), "{}", answer.body);
    }
    assert_eq!(tap.count(), 1, "{:?}", tap.asked());
}

#[tokio::test]
async fn what_a_token_opens_is_for_its_bearer_alone() {
    let origin = Origin::with(&[
        "--store",
        "memory",
        "--token-secret",
        SECRET,
        "--private",
        "desk.*",
        "--cookie-name",
        "desk",
    ]);
    let good = minted(&["--publish", "*", "--subscribe", "*"]);
    let bearer = format!("Bearer {good}");
    let publish = origin.post("/channels/desk.a", &[("authorization", &bearer)], "secret").await;
    assert_eq!(publish.status, 201, "{}", publish.body);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid_with(tap.port, [&["--private", "desk.*"], &[]], |text| text);
    let path = "/channels/desk.a?after=0-0&mode=hold";
    let with_query = format!("{path}&access_token={good}");
    let cookie = format!("desk={good}");
    for (path, header) in [
        (path, Some(("authorization", &*bearer))),
        (&*with_query, None),
        (path, Some(("cookie", &*cookie))),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        for _ in 0..2 {
            let before = tap.count();
            let address = cache.address();
            let answer = request(&address, Method::GET, path, &headers, "".into()).await.unwrap();
            assert!(answer.body.contains("data: secret"), "{header:?}: {}", answer.body);
            assert_eq!(tap.count(), before + 1, "{header:?} is answered from the cache");
        }
        for foreign in [path.split("&access").next().expect("a path"), "/channels/desk.a/history"] {
            let answer = request(&cache.address(), Method::GET, foreign, &[], "".into()).await;
            assert_eq!(answer.unwrap().status, 401, "{foreign} after {header:?}");
        }
    }
    // A stream that is not shared ends at the origin when its client disconnects.
    let head =
        format!("GET /channels/desk.b HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n");
    ask(cache.port, &head, |text| text.contains("event: segment")).await;
    let left = async {
        while origin.metric("headwater_streams_open").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), left).await.expect("nobody listens any longer");
}

#[tokio::test]
async fn pages_of_several_origins_are_one_request_each() {
    let (one, two) = ("https://one.example", "https://two.example:8443");
    let origins = ["--cors-origin", one, "--cors-origin", two];
    let origin = Origin::with(&[&["--store", "memory", "--segment", "20s"][..], &origins].concat());
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid_with(tap.port, [&[], &origins], |text| text);
    wait_for_phase(20_000, 100, 15_000).await;
    for _ in 0..3 {
        for page in [Some(one), Some(two), Some("https://three.example"), None] {
            let header = page.map(|page| format!("Origin: {page}\r\n")).unwrap_or_default();
            let head = format!("GET /channels/a HTTP/1.1\r\nHost: x\r\n{header}\r\n");
            let answer = ask(cache.port, &head, is_whole_head).await;
            let allowed = answer.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("access-control-allow-origin").then_some(value)
            });
            assert_eq!(allowed, page.filter(|page| *page != "https://three.example"), "{page:?}");
        }
    }
    assert_eq!(tap.count(), 3, "{:?}", tap.asked());
}

#[tokio::test]
async fn websockets_pass_and_squid_itself_takes_reads_of_channels_alone() {
    let origin = Origin::with(&["--store", "memory"]);
    let cache = Cache::squid(origin.listen.port());
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        origin.listen
    );
    let answer = ask(cache.port, &upgrade, is_whole_head).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    for (head, status) in [
        ("GET /channels/a/state", "200"),
        ("PURGE /channels/a", "403"),
        ("POST /channels/a", "403"),
        ("TRACE /channels/a", "403"),
        ("CONNECT example.com:443", "40"),
        ("GET /healthz", "403"),
        ("GET http://example.com/", "403"),
        ("GET /squid-internal-mgr/info", "403"),
        ("GET /squid-internal-static/icons/SN.png", "403"),
    ] {
        let head = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = ask(cache.own_port, &head, is_whole_head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
    }
}

/// Squid refuses a path that does not begin as a channel's, and pages cannot read its refusal.
#[tokio::test]
async fn a_path_with_doubled_slashes_or_dots_is_answered_as_the_origin_reads_it() {
    let origin = Origin::with(&["--store", "memory"]);
    origin.publish_with("a", "key=k", "v").await;
    let cache = Cache::squid(origin.listen.port());
    for path in ["//channels/a/history", "//channels/a/state", "/x/../channels/a/history?limit=3"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://page.example\r\n\r\n");
        let answer = ask(cache.port, &head, is_whole_head).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.to_lowercase().contains("access-control-allow-origin"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn an_origin_that_is_down_sees_one_try_a_second_and_cursor() {
    let origin = Origin::with(&["--store", "memory"]);
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid(tap.port);
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        let head = "GET /channels/headwater.fault HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = ask(cache.port, head, |text| text.contains("retry: ")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let seconds = begun.elapsed().as_secs() as usize;
    assert!(tap.count() <= seconds + 2, "{} tries in {seconds} s", tap.count());
}

/// The `Vary` header that nginx hides from Squid must reach the clients, because browsers' caches
/// need it.
#[tokio::test]
async fn clients_are_told_what_an_answer_varies_by() {
    let origin = Origin::with(&["--store", "memory", "--long-poll-timeout", "1s"]);
    let head = "GET /channels/a?mode=hold HTTP/1.1\r\nHost: x\r\n\r\n";
    for (flags, expected) in [
        (&[][..], "\r\nVary: Last-Event-ID\r\n"),
        (&["--cors-origin", "https://a.example"], "\r\nVary: Last-Event-ID, Origin\r\n"),
    ] {
        let cache = Cache::squid_with(origin.listen.port(), [&[], flags], |text| text);
        let answer = ask(cache.port, head, is_whole_head).await;
        assert!(answer.contains(expected), "{answer}");
        assert_eq!(answer.to_lowercase().matches("\r\nvary:").count(), 1, "{answer}");
    }
}

/// `httpx-sse` sends `no-store` with every request. Squid follows some directives of requests, and
/// preconditions, also where it does not follow `no-cache`.
#[tokio::test]
async fn no_header_of_a_client_makes_a_request_of_its_own() {
    let origin = Origin::with(&["--store", "memory", "--segment", "30s"]);
    crate::kit::wait_for_phase(30_000, 0, 20_000).await;
    let id = origin.publish("a", "x").await;
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::squid(tap.port);
    for header in [
        "Accept: text/event-stream",
        "Cache-Control: no-store",
        "Cache-Control: no-cache, no-store",
        "Cache-Control: only-if-cached",
        "Pragma: no-cache",
        "If-Match: \"x\"",
        "If-None-Match: *",
        "If-Modified-Since: Wed, 25 Nov 2026 10:00:00 GMT",
    ] {
        let head = format!("GET /channels/a?after=0-0 HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n");
        let answer = ask(cache.port, &head, |text| text.contains("data: x")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{header}: {answer}");
        assert!(answer.contains(&format!("id: {id}\n")), "{header}: {answer}");
    }
    assert_eq!(tap.count(), 1, "{:?}", tap.asked());
}
