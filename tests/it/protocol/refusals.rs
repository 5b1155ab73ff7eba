//! Every refusal of the HTTP contract: its status, its problem type and members, and that the
//! refused request stored nothing.

use crate::hardening::assert_sane;
use crate::kit::{Answer, Origin, read_until};
use crate::protocol::access::SECRET;
use hyper::Method;
use serde_json::{Value, json};

const BATCH: (&str, &str) = ("content-type", "application/x-ndjson");
const RESERVED: [&str; 5] = ["segment", "gap", "end", "open", "error"];

/// An expected refusal: the status, the last part of the problem type, and the members `field`,
/// `limit` and `line`.
type Refusal<'a> = (u16, &'a str, Value);

fn assert_refused(answer: &Answer, (status, slug, members): &Refusal, what: &str) {
    let problem = answer.assert_problem(*status, slug);
    for name in ["field", "limit", "line"] {
        assert_eq!(problem[name], members[name], "{name} of {what:?}: {problem}");
    }
}

fn bad_field(field: &str) -> Refusal<'static> {
    (400, "bad-field", json!({ "field": field }))
}

/// Checks that the history and the state of `channel` are empty.
async fn assert_untouched(origin: &Origin, channel: &str) {
    for leaf in ["history", "state"] {
        let answer = origin.get(&format!("/channels/{channel}/{leaf}")).await;
        assert_eq!(answer.json()["events"], json!([]), "{leaf}");
    }
}

fn small_limits() -> Origin {
    let limits = ["--max-event", "1KiB", "--max-batch", "4KiB", "--max-batch-events", "3"];
    Origin::with(&[&["--store", "memory"], &limits[..]].concat())
}

// protocol §2.2
#[tokio::test]
async fn a_refused_event_names_its_field_and_its_limit_and_is_not_stored() {
    let origin = small_limits();
    let kept = origin.publish("kept", "x").await;
    let mut cases: Vec<(String, Vec<u8>, Refusal)> = Vec::new();
    for field in ["event", "key"] {
        for bad in ["a%0Ab", "a%0Db", "a%0D%0Aid:%209", "%00", "%ff"] {
            cases.push((format!("{field}={bad}"), b"x".to_vec(), bad_field(field)));
        }
        let members = json!({ "field": field, "limit": 256 });
        let long = format!("{field}={}", "x".repeat(257));
        cases.push((long, b"x".to_vec(), (400, "bad-field", members)));
        cases.push((format!("{field}=a&{field}=b"), b"x".to_vec(), bad_field(field)));
    }
    for reserved in RESERVED {
        cases.push((format!("event={reserved}"), b"x".to_vec(), bad_field("event")));
    }
    let members = json!({ "field": "data", "line": 2 });
    cases.push((String::new(), b"fine\nnot \xf0\x9f\x91".to_vec(), (400, "bad-field", members)));
    let members = json!({ "limit": 1024 });
    cases.push((String::new(), vec![b'x'; 1025], (413, "too-large", members)));
    for (query, body, refusal) in cases {
        let path = format!("/channels/a?{query}");
        let answer = origin.request(Method::POST, &path, &[], body).await;
        assert_refused(&answer, &refusal, &query);
    }
    assert_untouched(&origin, "a").await;
    // Values exactly at the limits are accepted, and a reserved event type is an allowed key.
    let most = format!("event={0}&key={0}", "x".repeat(256));
    origin.publish_with("a", &most, &"x".repeat(1024)).await;
    origin.publish_with("a", "key=gap", "x").await;
    assert_sane(&origin, "kept", &[kept]).await;
}

#[tokio::test]
async fn a_refused_batch_names_its_line_and_nothing_of_it_is_stored() {
    let origin = small_limits();
    let kept = origin.publish("kept", "x").await;
    let line = |field: &str, text: &str| json!({ "data": 1, field: text }).to_string();
    let at = |field: &str| json!({ "field": field, "line": 2 });
    let limited = |field: &str, limit: u64| json!({ "field": field, "line": 2, "limit": limit });
    let mut cases: Vec<(String, Refusal)> = Vec::new();
    for field in ["event", "key"] {
        for bad in ["a\nb", "a\rb", "a\0b", ""] {
            cases.push((line(field, bad), (400, "bad-field", at(field))));
        }
        let long = line(field, &"x".repeat(257));
        cases.push((long, (400, "bad-field", limited(field, 256))));
    }
    for reserved in RESERVED {
        cases.push((line("event", reserved), (400, "bad-field", at("event"))));
    }
    for bad in ["[]", "{", "1", "{}", "{\"dat\":1}", "{\"data\":1}{}", "{\"data\":1,\"data\":2}"] {
        cases.push((bad.to_owned(), (400, "bad-field", at("batch"))));
    }
    let large = json!({ "data": "x".repeat(1025) }).to_string();
    cases.push((large, (413, "too-large", limited("data", 1024))));
    for (line, refusal) in cases {
        let batch = format!("{{\"data\":\"good\",\"key\":\"k\"}}\n{line}\n{{\"data\":3}}\n");
        let answer = origin.post("/channels/a", &[BATCH], &batch).await;
        assert_refused(&answer, &refusal, &line);
    }
    let whole: [(&[u8], Refusal); 5] = [
        (b"", (400, "bad-field", json!({ "field": "batch" }))),
        (b"\n \r\n", (400, "bad-field", json!({ "field": "batch" }))),
        (b"{\"data\":1}\n\xff", (400, "bad-field", at("data"))),
        (&b"{\"data\":1}\n".repeat(4), (413, "too-large", json!({ "limit": 3, "line": 4 }))),
        (&[b'\n'; 4097], (413, "too-large", json!({ "limit": 4096 }))),
    ];
    for (batch, refusal) in whole {
        let answer = origin.request(Method::POST, "/channels/a", &[BATCH], batch.to_vec()).await;
        assert_refused(&answer, &refusal, &String::from_utf8_lossy(batch));
    }
    assert_untouched(&origin, "a").await;
    assert_sane(&origin, "kept", &[kept]).await;
}

// protocol §2.1
#[tokio::test]
async fn a_name_that_is_no_channel_is_refused_whatever_is_asked_of_it() {
    let origin = Origin::start();
    let kept = origin.publish("kept", "x").await;
    let long = "x".repeat(129);
    for name in [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc",
        "a%00",
        "%00",
        "a%20b",
        "a+b",
        "%C3%A9",
        "%ff",
        "a%0A",
        "-a",
        "_a",
        "",
        "a,",
        ",a",
        "a,a",
        "a%2Fb",
        long.as_str(),
    ] {
        for leaf in ["", "/history", "/state"] {
            let path = format!("/channels/{name}{leaf}");
            let problem = origin.get(&path).await.assert_problem(400, "bad-field");
            assert_eq!(problem["field"], "channel");
        }
        for method in [Method::POST, Method::DELETE] {
            let path = format!("/channels/{name}");
            let refused = origin.request(method, &path, &[], "x").await;
            assert_eq!(refused.assert_problem(400, "bad-field")["field"], "channel");
        }
    }
    for path in ["/channels/a/b", "/channels/a//history", "/channels/a/state/x"] {
        origin.get(path).await.assert_problem(404, "not-found");
    }
    origin.post("/channels/a,b", &[], "x").await.assert_problem(400, "bad-field");
    // A request with bytes that a URL may not contain is refused before its channel name is parsed.
    for (raw, status) in [(" ", "400"), ("é", "40"), ("\0", "400"), ("../../etc", "404")] {
        let head =
            format!("POST /channels/a{raw}b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n");
        let request = format!("{head}Connection: close\r\n\r\n");
        let mut stream = origin.raw(request.as_bytes()).await;
        let answer = read_until(&mut stream, |_| false).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{raw:?}: {answer}");
    }
    origin.publish(&"x".repeat(128), "a name of the greatest length").await;
    assert_sane(&origin, "kept", &[kept]).await;
}

#[tokio::test]
async fn a_closed_channel_takes_nothing_until_it_is_opened_again() {
    let origin = Origin::start();
    let kept = origin.publish("kept", "x").await;
    origin.publish("a", "x").await;
    origin.request(Method::DELETE, "/channels/a", &[], "").await;
    for headers in [&[][..], &[BATCH], &[("idempotency-key", "k")]] {
        let answer = origin.post("/channels/a", headers, "{\"data\":1}").await;
        answer.assert_problem(409, "channel-closed");
    }
    let path = "/channels/a?reopen=2";
    let answer = origin.request(Method::DELETE, path, &[], "").await;
    assert_refused(&answer, &bad_field("reopen"), path);
    let history = origin.get("/channels/a/history").await.json();
    assert_eq!(history["events"].as_array().expect("events").len(), 2, "{history}");
    origin.request(Method::DELETE, "/channels/a?reopen=1", &[], "").await;
    origin.publish("a", "y").await;
    assert_sane(&origin, "kept", &[kept]).await;
}

#[tokio::test]
async fn a_channel_over_its_rate_says_when_it_takes_events_again() {
    let rate = ["--publish-rate", "5"];
    let origin = Origin::with(&[&["--store", "memory"], &rate[..]].concat());
    let lines = "{\"data\":1}\n";
    let kept = origin.publish_lines("a", &lines.repeat(5)).await;
    let answer = origin.post("/channels/a", &[BATCH], &lines.repeat(3)).await;
    answer.assert_problem(429, "rate");
    let wait = answer.header("retry-after").and_then(|wait| wait.parse().ok());
    let wait: u64 = wait.expect("whole seconds");
    assert_eq!(wait, 1, "three events at five a second");
    // A batch that can never fit into the rate is refused as too large instead of delayed.
    let answer = origin.post("/channels/c", &[BATCH], &lines.repeat(6)).await;
    assert_eq!(answer.assert_problem(413, "too-large")["limit"], 5);
    // Each channel has its own rate.
    origin.publish_lines("b", &lines.repeat(5)).await;
    // The sleep does not order anything: it is the time that the answer told the publisher to wait.
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    let later = origin.publish_lines("a", &lines.repeat(3)).await;
    let history = origin.get("/channels/a/history").await.json();
    let ids = history["events"].as_array().expect("events").iter();
    let ids: Vec<_> = ids.map(|event| event["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, [kept, later].concat());
}

#[tokio::test]
async fn a_repeated_publish_is_answered_as_the_first_one_and_another_one_is_refused() {
    let origin = Origin::start();
    let key = [("idempotency-key", "k 1")];
    let first = origin.post("/channels/a?event=e", &key, "x").await;
    assert_eq!(first.status, 201);
    let again = origin.post("/channels/a?event=e", &key, "x").await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &first.body));
    for (path, headers, body) in [
        ("/channels/a?event=e", &key[..], "y"),
        ("/channels/a?event=f", &key, "x"),
        ("/channels/a?event=e&key=x", &key, "x"),
        ("/channels/a", &[key[0], BATCH], "{\"data\":\"x\",\"event\":\"e\"}"),
    ] {
        let problem = origin.post(path, headers, body).await;
        let problem = problem.assert_problem(422, "idempotency-key-reused");
        assert_eq!(problem["field"], "Idempotency-Key");
    }
    // An idempotency key is scoped to a channel, and a batch is repeated as a whole.
    let batch = [key[0], BATCH];
    let first = origin.post("/channels/b", &batch, "{\"data\":1}\n{\"data\":2}").await;
    let again = origin.post("/channels/b", &batch, "{\"data\":1}\n{\"data\":2}").await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(first.body, again.body);
    for bad in ["", &"k".repeat(257)] {
        let answer = origin.post("/channels/a", &[("idempotency-key", bad)], "x").await;
        let members = json!({ "field": "Idempotency-Key", "limit": 256 });
        assert_refused(&answer, &(400, "bad-field", members), bad);
    }
    let twice = [("idempotency-key", "k1"), ("idempotency-key", "k2")];
    let answer = origin.post("/channels/a", &twice, "x").await;
    let members = json!({ "field": "Idempotency-Key", "limit": 256 });
    assert_refused(&answer, &(400, "bad-field", members), "two keys");
    for (channel, count) in [("a", 1), ("b", 2)] {
        let history = origin.get(&format!("/channels/{channel}/history")).await.json();
        assert_eq!(history["events"].as_array().expect("events").len(), count, "{history}");
    }
    origin.post("/channels/a", &[("idempotency-key", &"k".repeat(256))], "x").await;
    assert_sane(&origin, "a", &[]).await;
}

#[tokio::test]
async fn of_many_publishes_with_one_key_at_once_one_is_stored() {
    let origin = Origin::start();
    let (head, key) = ("/channels/a", [("idempotency-key", "k")]);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let address = origin.address();
        all.spawn(async move {
            crate::kit::request(&address, Method::POST, head, &key, "x".into()).await
        });
    }
    let answers: Vec<_> = all.join_all().await.into_iter().map(|answer| answer.unwrap()).collect();
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    let history = origin.get("/channels/a/history").await.json();
    assert_eq!(history["events"].as_array().expect("events").len(), 1);
}

#[tokio::test]
async fn an_unsupported_method_gets_405_with_the_allowed_methods() {
    let origin = Origin::start();
    let (all, read) = ("GET, HEAD, POST, DELETE, OPTIONS", "GET, HEAD, OPTIONS");
    for (method, path, allowed) in [
        ("PUT", "/channels/a", all),
        ("PUT", "/channels/headwater.fault", all),
        ("PATCH", "/channels/a", all),
        ("TRACE", "/channels/a", all),
        ("PURGE", "/channels/a,b", all),
        ("POST", "/channels/a/history", read),
        ("DELETE", "/channels/a/state", read),
        ("POST", "/healthz", read),
        ("POST", "/", read),
        ("DELETE", "/headwater.js", read),
        ("PUT", "/readyz", read),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = origin.request(method, path, &[], "").await;
        answer.assert_problem(405, "method");
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
    // A path that has nothing here has no methods either.
    origin.post("/metrics", &[], "").await.assert_problem(404, "not-found");
    assert_untouched(&origin, "a").await;
}

// protocol §5.4
#[tokio::test]
async fn an_invalid_parameter_gets_400() {
    let origin = Origin::with(&["--store", "memory", "--lanes", "4"]);
    let field = |name: &str| bad_field(name);
    let limited = |name: &str, limit: u64| -> Refusal<'static> {
        (400, "bad-field", json!({ "field": name, "limit": limit }))
    };
    for (path, refusal) in [
        ("/channels/a?since=x", field("since")),
        ("/channels/a?last=x", limited("last", 1000)),
        ("/channels/a?format=xml", field("format")),
        ("/channels/a?lane=64", limited("lane", 63)),
        ("/channels/a?lane=-1", limited("lane", 63)),
        ("/channels/a?lane=x", limited("lane", 63)),
        ("/channels/a?lane=99999999999999999999", limited("lane", 63)),
        ("/channels/a?mode=Hold", field("mode")),
        ("/channels/a?mode=%ff", field("mode")),
        ("/channels/a/history?after=x", field("after")),
        ("/channels/a/history?after=1-0_2-0", field("after")),
        ("/channels/a/history?limit=0", limited("limit", 1000)),
        ("/channels/a/history?limit=1001", limited("limit", 1000)),
        ("/channels/a/history?limit=-5", limited("limit", 1000)),
        ("/channels/a/history?limit=all", limited("limit", 1000)),
    ] {
        let answer = origin.get(path).await;
        assert_refused(&answer, &refusal, path);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    // A cursor that the client cannot correct is no error, and unknown parameters are ignored.
    let foreign = [("last-event-id", "not ours")];
    for path in ["/channels/a?after=x", "/channels/a?lane=3&_=12345"] {
        assert_eq!(origin.request(Method::HEAD, path, &foreign, "").await.status, 200, "{path}");
    }
    assert_untouched(&origin, "a").await;
}

/// Starts an origin with one limit, and checks that the limit refuses the last publish and that
/// this publish stores nothing.
async fn assert_limit(flags: [&str; 2], limit: u64, before: &[&str], path: &str, body: &str) {
    let origin = Origin::with(&["--store", "memory", flags[0], flags[1]]);
    let kept = origin.publish("kept", "x").await;
    for path in before {
        let answer = origin.post(path, &[("idempotency-key", *path)], "x").await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.body);
    }
    let headers = [BATCH, ("idempotency-key", "last")];
    let problem = origin.post(path, &headers, body).await.assert_problem(507, "limit-reached");
    assert_eq!(problem["limit"], limit);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(flags[0])));
    let channel = path.trim_start_matches("/channels/");
    let history = origin.get(&format!("/channels/{channel}/history")).await.json();
    assert!(!history.to_string().contains("too much"), "{history}");
    // A publish that needs no more room is still accepted, also for the keys that exist.
    assert_sane(&origin, "kept", &[kept]).await;
    for path in before {
        assert_eq!(origin.post(path, &[], "y").await.status, 201, "{path}");
    }
}

#[tokio::test]
async fn a_full_store_refuses_what_needs_more_room_and_keeps_what_it_has() {
    let two = ["/channels/a?key=1", "/channels/a?key=2"];
    let too_much = "{\"data\":\"too much\",\"key\":\"1\"}\n{\"data\":\"too much\",\"key\":\"3\"}";
    assert_limit(["--max-keys", "2"], 2, &two, "/channels/a", too_much).await;
    assert_limit(["--max-channels", "2"], 2, &two, "/channels/b", too_much).await;
    let large = format!("{{\"data\":\"too much{}\",\"key\":\"3\"}}", "x".repeat(10_000));
    assert_limit(["--max-store-bytes", "10KiB"], 10_240, &two, "/channels/a", &large).await;
    assert_limit(["--max-state-bytes", "8KiB"], 8_192, &two, "/channels/a", &large).await;
    assert_limit(["--max-idempotency-keys", "2"], 2, &two, "/channels/a", too_much).await;
}

// protocol §15.1
#[tokio::test]
async fn a_refused_publish_over_http_2_has_its_response_in_curl() {
    let origin = Origin::with(&["--store", "memory", "--token-secret", SECRET]);
    let url = format!("http://{}/channels/a", origin.listen);
    for _ in 0..40 {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "--http2-prior-knowledge", "-w", "%{http_code}", "-d", "no", &url]);
        let output = command.output().await.expect("curl runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.ends_with("401"), "{output:?}");
    }
}
