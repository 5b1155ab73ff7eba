//! The answers that an edge makes itself have the same CORS headers as the answers of the origin,
//! so that pages of other sites can read them. One cohort causes one origin request, in whatever
//! form its clients send the cursor.

use crate::kit::edge::{Cache, Tap};
use crate::kit::engine::{Engine, Home, Page, Site};
use crate::kit::{Answer, Origin, now_ms, request};
use hyper::Method;
use hyper::header::VARY;
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinSet;

const PAGE: &str = "https://www.example.com";
const EXPOSED: &str = "Headwater-Shed, Headwater-Response, Headwater-Fresh, Retry-After";

/// Every shipped edge that can run here, in front of an origin.
fn caches(port: u16) -> [(&'static str, Cache); 4] {
    [
        ("varnish", Cache::varnish(port)),
        ("squid", Cache::squid(port)),
        ("collapse", Cache::nginx("collapse", port)),
        ("stream", Cache::nginx("stream", port)),
    ]
}

async fn ask(cache: &Cache, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let body = if method == Method::POST { "x" } else { "" };
    let answer = request(&cache.address(), method, path, headers, body.into()).await;
    answer.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Checks the headers that a page of another site needs to read an answer, with credentials and
/// without.
fn assert_readable(answer: &Answer, page: Option<&str>, what: &str) {
    let header = |name| answer.header(name);
    assert_eq!(header("access-control-allow-origin"), Some(page.unwrap_or("*")), "{what}");
    let credentials = page.map(|_| "true");
    assert_eq!(header("access-control-allow-credentials"), credentials, "{what}");
    assert_eq!(header("access-control-expose-headers"), Some(EXPOSED), "{what}");
    let varies = answer.headers.get_all(VARY).iter().any(|value| value == "Origin");
    assert_eq!(varies, page.is_some(), "{what}: an answer for one page is no other page's");
    let count = answer.headers.get_all("access-control-allow-origin").iter().count();
    assert_eq!(count, 1, "{what}");
}

/// Checks an answer that sheds an `EventSource`: every client library finds data in it.
fn assert_shed(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 200, "{what}");
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"), "{what}");
    assert_eq!(answer.header("cache-control"), Some("public, max-age=1"), "{what}");
    assert_eq!(answer.header("headwater-shed"), Some("edge"), "{what}");
    let lines: Vec<&str> = answer.body.split('\n').collect();
    let [retry, "event: shed", data, "", ""] = lines[..] else {
        panic!("{what}: {:?}", answer.body)
    };
    let retry: u64 = retry.strip_prefix("retry: ").expect("a wait").parse().expect("a number");
    assert!((2_000..=5_000).contains(&retry), "{what}: {retry}");
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).unwrap();
    assert_eq!(data, serde_json::json!({ "reason": "edge", "retry_ms": retry }), "{what}");
}

// protocol §16.5
#[tokio::test]
async fn what_an_edge_says_for_a_dead_origin_every_page_can_read() {
    let mut origin = Origin::start();
    let caches = caches(origin.listen.port());
    origin.kill();
    for (name, cache) in &caches {
        // Varnish and Squid keep an answer for one second; within it, one cached object serves all
        // pages.
        for page in [Some(PAGE), Some("https://other.example"), None] {
            let headers: Vec<_> = page.iter().map(|page| ("origin", *page)).collect();
            let what = format!("{name}, a stream, {page:?}");
            let answer = ask(cache, Method::GET, "/channels/a", &headers).await;
            assert_shed(&answer, &what);
            assert_readable(&answer, page, &what);
            for (method, path) in [
                (Method::GET, "/channels/a/history"),
                (Method::GET, "/channels/a/state"),
                (Method::POST, "/channels/a"),
                (Method::DELETE, "/channels/a"),
                (Method::OPTIONS, "/channels/a"),
                (Method::GET, "/healthz"),
            ] {
                let what = format!("{name}, {method} {path}, {page:?}");
                let answer = ask(cache, method, path, &headers).await;
                answer.assert_problem(503, "origin-unreachable");
                assert_eq!(answer.header("retry-after"), Some("2"), "{what}");
                assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
                assert_readable(&answer, page, &what);
            }
        }
    }
}

#[tokio::test]
async fn what_an_edge_refuses_by_itself_every_page_can_read() {
    let origin = Origin::start();
    let headers = [("origin", PAGE)];
    for (name, cache) in caches(origin.listen.port()) {
        let purge = Method::from_bytes(b"PURGE").unwrap();
        let answer = ask(&cache, purge, "/channels/..", &headers).await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.status);
        assert_readable(&answer, Some(PAGE), name);
        if name == "varnish" {
            continue;
        }
        answer.assert_problem(405, "method");
        let large = vec![b'x'; 10 * 1024 * 1024];
        let address = cache.address();
        let answer = request(&address, Method::POST, "/channels/a", &headers, large.into()).await;
        let answer = answer.expect("an answer");
        answer.assert_problem(413, "too-large");
        assert_readable(&answer, Some(PAGE), name);
    }
}

// protocol §16.1
#[tokio::test]
async fn one_cohort_is_one_request_however_it_sends_its_cursor() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    let tap = Tap::to(origin.listen.port()).await;
    for (name, cache) in [
        ("varnish", Cache::varnish(tap.port)),
        ("squid", Cache::squid(tap.port)),
        ("collapse", Cache::nginx("collapse", tap.port)),
    ] {
        let before = tap.count();
        origin.publish(name, "1").await;
        let first = origin.log(name).await[0].0.clone();
        origin.publish(name, "2").await;
        let path = format!("/channels/{name}");
        let ways = [
            (path.clone(), Some(first.clone())),
            (format!("{path}?lastEventId={first}&after=0-0"), None),
            (format!("{path}?since=-1h&after={first}&last=3"), None),
            (format!("{path}?after=0-0&utm=x"), Some(first.clone())),
        ];
        let mut clients = JoinSet::new();
        for (path, cursor) in ways {
            let mut source = cache.source(&path, cursor.as_deref());
            clients.spawn(async move { crate::kit::next_message(&mut source).await.data });
        }
        while let Some(data) = clients.join_next().await {
            assert_eq!(data.expect("it reads"), "2", "{name}");
        }
        assert_eq!(tap.count() - before, 1, "{name}: {:#?}", tap.asked());
        assert_eq!(tap.asked()[before].cursor.as_deref(), Some(first.as_str()), "{name}");
        // There are two formats, and the cache sorts the parameters, so these four URLs cause two
        // requests.
        let ways = ["last=1&format=json", "format=json&last=1&_=17", "last=1", "format=raw&last=1"];
        let mut clients = JoinSet::new();
        for query in ways {
            let mut source = cache.source(&format!("{path}?{query}"), None);
            clients.spawn(async move { crate::kit::next_message(&mut source).await.data });
        }
        while let Some(data) = clients.join_next().await {
            assert!(data.expect("it reads").contains('2'), "{name}");
        }
        assert_eq!(tap.count() - before, 3, "{name}: {:#?}", tap.asked());
    }
}

/// A page of another origin follows a private channel in a browser, with credentials. Its stream
/// survives an origin that is killed and stays away for a while.
async fn survives_with_credentials(engine: Engine, site: Site, cache: fn(u16) -> Cache) {
    let data = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", data.path().display());
    let flags = ["--store", &store, "--segment", "2s", "--private", "desk"];
    let secret = ["--token-secret", crate::protocol::access::SECRET];
    let home = Home::start().await;
    let allowed = ["--cors-origin", &home.origin(site)];
    let mut origin = Origin::with(&[&flags[..], &secret, &allowed].concat());
    let cache = cache(origin.listen.port());
    let token = crate::protocol::access::minted(&["--publish", "*", "--subscribe", "desk"]);
    let path = format!("/channels/desk?access_token={token}");
    let mut page = Page::open_with_credentials(home, engine, site, &cache, &path).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    page.until("it opens", |seen| !seen.opened.is_empty()).await;
    let posted = origin.post("/channels/desk", &headers, "1").await;
    assert_eq!(posted.status, 201);
    page.until("it gets an event", |seen| seen.last() == 1).await;
    let killed = now_ms();
    origin.kill();
    tokio::time::sleep(Duration::from_secs(6)).await;
    page.until("it meets the outage", |seen| seen.has_tried_in_vain_since(killed)).await;
    origin.start_again();
    page.until("it comes back", |seen| seen.opened.iter().any(|at| *at > killed + 6_000)).await;
    assert_eq!(origin.post("/channels/desk", &headers, "2").await.status, 201);
    page.until("it goes on", |seen| seen.last() == 2).await;
}

#[tokio::test]
async fn a_chromium_page_with_credentials_survives_an_outage_behind_nginx() {
    let cache = |port| Cache::nginx("stream", port);
    survives_with_credentials(Engine::Chromium, Site::Cross, cache).await;
}

#[tokio::test]
async fn a_firefox_page_with_credentials_survives_an_outage_behind_varnish() {
    let cache = |port| {
        let vcl = crate::kit::edge::edge(&[
            "varnish",
            "--origin",
            &format!("127.0.0.1:{port}"),
            "--private",
            "desk",
        ]);
        Cache::varnish_with(&vcl)
    };
    survives_with_credentials(Engine::Firefox, Site::Other, cache).await;
}
