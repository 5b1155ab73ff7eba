//! The response headers of a stream, on which all caches depend.

use crate::kit::{Origin, get, now_ms, read_until, wait_for_phase};
use hyper::Method;

/// Returns the status line and headers of an answer, in lower case.
async fn head_of(origin: &Origin, path: &str) -> Vec<String> {
    let mut stream = origin.raw(&get(path, None)).await;
    let text = read_until(&mut stream, |text| text.contains("\r\n\r\n")).await;
    let head = text.split("\r\n\r\n").next().unwrap().to_lowercase();
    head.split("\r\n").map(str::to_owned).collect()
}

#[tokio::test]
async fn max_age_is_a_second_less_than_what_is_left_all_through_a_segment() {
    let origin = Origin::with(&["--store", "memory", "--segment", "6s"]);
    for phase in [100, 1_100, 2_600, 3_900, 4_500, 5_500] {
        wait_for_phase(6_000, phase, phase + 400).await;
        let before = now_ms();
        let answer = origin.request(Method::HEAD, "/channels/a", &[], "").await;
        let after = now_ms();
        let left = |at: u64| match 6_000 - at % 6_000 {
            little if little < 2_000 => little + 6_000,
            enough => enough,
        };
        let fresh: f64 = answer.header("headwater-fresh").unwrap().parse().unwrap();
        let fresh_ms = (fresh * 1_000.0).round() as u64;
        assert!((before..=after).any(|at| left(at) == fresh_ms), "{phase}: {fresh}");
        let expected = format!("public, max-age={}, no-transform", (fresh_ms / 1_000 - 1).max(1));
        assert_eq!(answer.header("cache-control"), Some(&*expected), "{phase}");
    }
}

// protocol §10.1
#[tokio::test]
async fn a_stream_has_the_headers_with_which_a_cache_can_share_it() {
    // An origin without a key answers pages of this machine and of others differently.
    let secret = ["--token-secret", crate::protocol::access::SECRET];
    let origin = Origin::with(&[&["--store", "memory", "--surrogate-keys"], &secret[..]].concat());
    let head = head_of(&origin, "/channels/a,b").await;
    assert_eq!(head[0], "http/1.1 200 ok");
    for wanted in [
        "content-type: text/event-stream; charset=utf-8",
        "x-accel-buffering: no",
        "incremental: ?1",
        "access-control-expose-headers: headwater-shed, headwater-response, headwater-fresh, retry-after",
        "vary: last-event-id",
        "transfer-encoding: chunked",
        "surrogate-key: headwater headwater-a headwater-b",
        "cache-tag: headwater,headwater-a,headwater-b",
    ] {
        assert!(head.contains(&wanted.to_owned()), "{wanted} is missing in {head:?}");
    }
    for forbidden in ["set-cookie", "content-encoding", "connection", "age", "etag"] {
        let name = format!("{forbidden}:");
        assert!(!head.iter().any(|line| line.starts_with(&name)), "{forbidden} in {head:?}");
    }
    assert_eq!(head.iter().filter(|line| line.starts_with("vary:")).count(), 1);
}

/// A purge by key must reach the history and the state too: a full page of the history stays in a
/// cache for an hour.
#[tokio::test]
async fn history_and_state_can_be_purged_by_key() {
    let origin = Origin::with(&["--store", "memory", "--surrogate-keys"]);
    origin.publish("a", "x").await;
    for path in ["/channels/a/history", "/channels/a/history?limit=1", "/channels/a/state"] {
        let answer = origin.get(path).await;
        assert_eq!(answer.header("surrogate-key"), Some("headwater headwater-a"), "{path}");
        assert_eq!(answer.header("cache-tag"), Some("headwater,headwater-a"), "{path}");
    }
}

#[tokio::test]
async fn a_shed_response_has_the_key_of_all_responses_alone() {
    let flags = ["--store", "memory", "--surrogate-keys", "--max-connections", "1"];
    let origin = Origin::with(&flags);
    let mut stream = origin.raw(&get("/channels/a", None)).await;
    read_until(&mut stream, |text| text.contains("ends_at")).await;
    let accept = [("accept", "text/event-stream")];
    let shed = origin.request(Method::GET, "/channels/a", &accept, "").await;
    assert_eq!(shed.header("headwater-shed"), Some("connections"));
    assert_eq!(shed.header("surrogate-key"), Some("headwater"), "{}", shed.body);
    assert_eq!(shed.header("cache-tag"), Some("headwater"));
}

#[tokio::test]
async fn a_long_poll_has_no_headers_of_a_stream() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    let answer = origin.get("/channels/a?mode=hold&after=0-0").await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    for name in ["x-accel-buffering", "incremental", "headwater-fresh"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_preflight_response_allows_at_most_a_kilobyte_of_requested_headers() {
    let origin = Origin::start();
    let allowed = async |requested: &str| {
        let headers = [
            ("origin", "http://localhost:3000"),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", requested),
        ];
        let answer = origin.request(Method::OPTIONS, "/channels/a", &headers, "").await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        answer.header("access-control-allow-headers").expect("headers").to_owned()
    };
    let tracing = "baggage,pragma,sentry-trace,traceparent,x-requested-with";
    assert_eq!(allowed(tracing).await, tracing);
    let long = "x-long,".repeat(200);
    assert!(allowed(&long).await.contains("Last-Event-ID"));
}

#[tokio::test]
async fn a_page_of_a_browser_may_send_the_headers_of_its_tracing_library() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    let browser = crate::browsers::browser::Browser::start().await;
    // A page of another web origin: the loopback host by its name.
    let page = format!("http://localhost:{}/healthz", origin.listen.port());
    browser.open(&page).await;
    let script = format!(
        r#"const headers = {{ traceparent: "00-1", baggage: "a=b", "sentry-trace": "1",
                              "X-Requested-With": "XMLHttpRequest", Pragma: "no-cache" }};
           return fetch("http://{}/channels/a?mode=hold&after=0-0", {{ headers }})
               .then((answer) => answer.headers.get("Headwater-Response"), String)"#,
        origin.listen
    );
    let name = browser.run(&script).await;
    assert!(name.as_str().is_some_and(|name| name.starts_with('r')), "{name}");
}

// protocol §13.3
#[tokio::test]
async fn history_pages_are_immutable_when_full_and_short_lived_when_not() {
    let origin = Origin::start();
    let ids = origin.publish_lines("a", &"{\"data\":\"x\"}\n".repeat(5)).await;
    let full = origin.get("/channels/a/history?limit=2").await;
    assert_eq!(full.header("cache-control"), Some("public, max-age=3600, immutable"));
    assert_eq!(full.json()["next"], ids[1].as_str());
    let last = origin.get(&format!("/channels/a/history?limit=9&after={}", ids[1])).await;
    assert_eq!(last.header("cache-control"), Some("public, max-age=1"));
    assert_eq!(last.json()["events"].as_array().unwrap().len(), 3);
    let none = origin.get(&format!("/channels/a/history?after={}", ids[4])).await.json();
    assert_eq!((&none["events"], &none["next"]), (&serde_json::json!([]), &ids[4].as_str().into()));
}
