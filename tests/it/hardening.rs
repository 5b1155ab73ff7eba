//! Attacks and bad clients: after each of them the origin publishes, serves, and has every event
//! that it acknowledged.

use crate::kit::{self, Origin, get, read_until};
use hyper::Method;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No test may be helped on by a heartbeat or by the end of a segment.
pub const QUIET: [&str; 6] = ["--store", "memory", "--heartbeat", "10m", "--segment", "10m"];

/// That the origin takes events into `channel`, streams them, and still has `acknowledged`.
pub async fn assert_sane(origin: &Origin, channel: &str, acknowledged: &[String]) {
    let after = origin.publish(channel, "still here").await;
    let path = format!("/channels/{channel}");
    let mut stream = origin.raw(&get(&path, Some("0-0"))).await;
    let until = format!("id: {after}\ndata: still here\n\n");
    let text = read_until(&mut stream, |text| text.contains(&until)).await;
    let history = origin.get(&format!("{path}/history?limit=1000")).await.body;
    for id in acknowledged {
        assert!(text.contains(&format!("id: {id}\n")), "{id} is not streamed: {text}");
        assert!(history.contains(&format!("\"{id}\"")), "{id} is not in {history}");
    }
}

/// Sends what the origin may not want to read to its end; all that it answers.
async fn attack(origin: &Origin, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(origin.listen).await.expect("it listens");
    // The origin may answer and close before it has read all of it.
    let _cut = stream.write_all(bytes).await;
    read_until(&mut stream, |_| false).await
}

/// Waits until something holds.
pub async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(kit::PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn wait_until_no_stream_is_open(origin: &Origin) {
    let is_free = async || origin.metric("headwater_streams_open").await == 0.0;
    wait_for("a stream is still held", is_free).await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_costs_nobody_else_anything() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let get = "GET /channels/a HTTP/1.1\r\nHost: x\r\n";
    let post = "POST /channels/s HTTP/1.1\r\nHost: x\r\n";
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    let long = "x".repeat(200_000);
    for (text, status) in [
        (format!("{get}X: {}\r\n\r\n", &long[..100_000]), "431"),
        (format!("{get}{many}\r\n"), "431"),
        (format!("GET /channels/a?{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "4?1"),
        (format!("GET /channels/{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "4?1"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}ClientHello".to_owned(), "400"),
        ("hello there\r\n\r\n".to_owned(), "400"),
        ("\r\n\r\n\0\0\0\0\r\n\r\n".to_owned(), "400"),
        ("GET /channels/a HTTP/9.9\r\n\r\n".to_owned(), "400"),
        (format!("{get}X: a\0b\r\n\r\n"), "400"),
        (format!("{get}X: a\r\n folded\r\n\r\n"), "400"),
        (format!("{get}X : a\r\n\r\n"), "400"),
        (format!("{post}Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"), "400"),
        (format!("{post}Content-Length: -1\r\n\r\nabcde"), "400"),
        (format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"), "400"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"), "400"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n"), "400"),
    ] {
        let answer = attack(&origin, text.as_bytes()).await;
        let expected = answer.get(9..12).unwrap_or_default();
        // A URL that is too long may also be a head that is too large.
        let is_refused =
            expected == status || status == "4?1" && ["414", "431"].contains(&expected);
        assert!(is_refused, "{:?} is answered {answer:?}", &text[..text.len().min(80)]);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert_eq!(origin.get("/channels/s/history").await.json()["next"], "0-0");
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn requests_with_one_byte_changed_leave_the_origin_whole() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let seed = "POST /channels/fuzz?event=e&key=k HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\
                Content-Type: application/x-ndjson\r\nConnection: close\r\n\r\n{\"data\":12}";
    for (place, byte) in (0..seed.len()).zip(b"\0\n\r :/%\x7f\xff".iter().cycle()) {
        let mut bytes = seed.as_bytes().to_vec();
        bytes[place] = *byte;
        let mut stream = origin.raw(&bytes).await;
        // So that a body that seems to be longer now ends here too.
        stream.shutdown().await.expect("it is open");
        read_until(&mut stream, |_| false).await;
    }
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn no_request_hides_inside_another_one() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let hidden = "0\r\n\r\nPOST /channels/hidden HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
    let both = format!(
        "POST /channels/s HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n{hidden}",
        hidden.len()
    );
    // A proxy that goes by the length would send what follows as another client's request.
    let answer = attack(&origin, both.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let old = hidden.replace("0\r\n\r\nPOST", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST");
    let old = format!("POST /channels/s HTTP/1.0\r\nHost: x\r\n{old}");
    assert!(attack(&origin, old.as_bytes()).await.starts_with("HTTP/1.1 400"));
    assert_eq!(origin.get("/channels/hidden/history").await.json()["next"], "0-0");
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn old_and_unusual_requests_are_answered() {
    let origin = Origin::start();
    let history = |rest: &str| format!("GET {rest}\r\n\r\n");
    let id = origin.publish("a", "x").await;
    for (text, count) in [
        (history("/channels/a/history HTTP/1.0"), 1),
        (history("http://elsewhere.example/channels/a/history HTTP/1.1\r\nConnection: close"), 1),
        (history("/channels/a/history HTTP/1.1\r\nHost: x").repeat(50), 50),
    ] {
        let mut stream = origin.raw(text.as_bytes()).await;
        let place = format!("\"{id}\",");
        let answer = read_until(&mut stream, |text| text.matches(&place).count() == count).await;
        assert_eq!(answer.matches(" 200 OK\r\n").count(), count, "{answer}");
    }
    // Whoever asks first whether to send a body is told to.
    let head =
        "POST /channels/e HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n";
    let mut stream = origin.raw(format!("{head}\r\n").as_bytes()).await;
    read_until(&mut stream, |text| text.contains("HTTP/1.1 100 Continue\r\n")).await;
    stream.write_all(b"x").await.expect("it is open");
    read_until(&mut stream, |text| text.contains("{\"id\":")).await;
    // Pipelined publishes are stored in their order.
    let publish = |data: u32| {
        format!("POST /channels/p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{data}")
    };
    let all: String = (10..60).map(publish).collect();
    let mut stream = origin.raw(all.as_bytes()).await;
    read_until(&mut stream, |text| text.matches("\"id\"").count() == 50).await;
    let history = origin.get("/channels/p/history").await.json();
    let stored = history["events"].as_array().expect("events").iter();
    let stored: Vec<_> = stored.map(|event| event["data"].as_str().expect("data")).collect();
    assert_eq!(stored, (10..60).map(|data: u32| data.to_string()).collect::<Vec<_>>());
    assert_sane(&origin, "a", &[id]).await;
}

#[tokio::test]
async fn a_publish_that_is_cut_off_stores_nothing_and_holds_nothing() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    let head = "POST /channels/cut HTTP/1.1\r\nHost: x\r\n";
    let cuts = [
        format!("{head}Content-Length: 10\r\n\r\nabcde"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        format!(
            "{head}Content-Type: application/x-ndjson\r\nContent-Length: 99\r\n\r\n{{\"data\":1}}\n"
        ),
    ];
    for cut in &cuts {
        // Half-closed: whoever still listens is told.
        let mut stream = origin.raw(cut.as_bytes()).await;
        stream.shutdown().await.expect("it is open");
        let answer = read_until(&mut stream, |_| false).await;
        assert!(answer.contains("urn:headwater:problem:body-cut"), "{answer}");
        drop(origin.raw(cut.as_bytes()).await);
    }
    let refused = "headwater_publishes_refused_total{problem=\"body-cut\"}";
    let all = 2.0 * cuts.len() as f64;
    wait_for("a cut publish is still held", async || origin.metric(refused).await == all).await;
    assert_eq!(origin.get("/channels/cut/history").await.json()["next"], "0-0");
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn who_stops_sending_after_a_request_still_gets_the_answer() {
    let origin = Origin::with(&QUIET);
    let large = "x".repeat(1_000_000);
    let kept = origin.publish("a", &large).await;
    let mut ids = vec![kept];
    for _ in 0..20 {
        let publish = "POST /channels/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
        let mut stream = origin.raw(publish.as_bytes()).await;
        stream.shutdown().await.expect("it is open");
        let answer = read_until(&mut stream, |_| false).await;
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let id = answer.split("{\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        ids.push(id.expect("an id").to_owned());
    }
    // Also an answer that is larger than what the sockets hold.
    let mut stream = origin.raw(&get("/channels/a/history?limit=1", None)).await;
    stream.shutdown().await.expect("it is open");
    let answer = read_until(&mut stream, |_| false).await;
    assert!(answer.contains(&large) && answer.ends_with('}'), "{} bytes came", answer.len());
    assert_sane(&origin, "a", &ids).await;
}

#[tokio::test]
async fn a_reader_that_stops_sending_is_let_go_at_once() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    for round in 0..100 {
        let version = ["1.1", "1.0", "1.1\r\nConnection: close"][round % 3];
        let head = format!("GET /channels/a?after=0-0 HTTP/{version}\r\nHost: x\r\n\r\n");
        let mut stream = origin.raw(head.as_bytes()).await;
        // Behind the first event, and also while the stream is still being begun.
        if round % 2 == 0 {
            read_until(&mut stream, |text| text.contains("data: x\n\n")).await;
        }
        stream.shutdown().await.expect("it is open");
        let rest = read_until(&mut stream, |_| false).await;
        assert!(!rest.contains("\r\n0\r\n"), "it ends as if it were whole: {rest:?}");
    }
    wait_until_no_stream_is_open(&origin).await;
    assert_sane(&origin, "a", &[kept]).await;
}

/// How a connection ends, and what came before.
async fn read_to_end(stream: &mut TcpStream) -> (String, std::io::Result<()>) {
    let mut all = Vec::new();
    let read = tokio::time::timeout(kit::PATIENCE, stream.read_to_end(&mut all));
    let end = read.await.expect("it ends").map(|_| ());
    (String::from_utf8_lossy(&all).into_owned(), end)
}

#[tokio::test]
async fn a_stream_over_http_1_0_that_is_cut_does_not_look_whole() {
    let old = b"GET /channels/a HTTP/1.0\r\n\r\n";
    let origin = Origin::with(&["--store", "memory", "--segment", "1s"]);
    let (whole, end) = read_to_end(&mut origin.raw(old).await).await;
    assert!(whole.contains("retry: 100\nevent: segment\nid: ") && end.is_ok(), "{whole} {end:?}");
    let origin = Origin::with(&QUIET);
    let mut cut = origin.raw(old).await;
    read_until(&mut cut, |text| text.contains("ends_at")).await;
    origin.signal("TERM");
    let admin = format!("http://{}", origin.admin).parse().expect("an address");
    let is_draining = async || {
        let ready = kit::request(&admin, Method::GET, "/readyz", &[], "".into()).await;
        ready.expect("operators are answered").status == 503
    };
    wait_for("it does not drain", is_draining).await;
    // The second signal cuts what runs, and nothing but a reset tells this body from a whole one.
    origin.signal("TERM");
    let (rest, end) = read_to_end(&mut cut).await;
    let error = end.expect_err(&rest);
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn pages_of_all_origins_may_read_unless_they_are_named() {
    let named = ["--cors-origin", "https://a.example,https://b.example"];
    let some = Origin::with(&[&["--store", "memory"], &named[..]].concat());
    let all = Origin::start();
    let asked = |origin| [("origin", origin)];
    let paths = ["/channels/a", "/channels/a/history", "/channels/..", "/channels/a?after=x"];
    for path in paths {
        let answer = all.request(Method::HEAD, path, &asked("https://c.example"), "").await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        for (origin, allowed) in [
            ("https://a.example", Some("https://a.example")),
            ("https://b.example", Some("https://b.example")),
            ("https://a.example.evil", None),
            ("null", None),
        ] {
            let answer = some.request(Method::HEAD, path, &asked(origin), "").await;
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{path} {origin}");
            let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
            assert!(vary.iter().any(|value| *value == "Origin"), "{path}: {vary:?}");
        }
    }
    let preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "idempotency-key,content-type"),
    ];
    for (origin, allowed) in [(&all, "*"), (&some, "https://a.example")] {
        let answer = origin.request(Method::OPTIONS, "/channels/a", &preflight, "").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""));
        assert_eq!(answer.header("access-control-allow-origin"), Some(allowed));
        let methods = answer.header("access-control-allow-methods").expect("methods");
        assert!(methods.contains("POST") && methods.contains("DELETE"), "{methods}");
        let taken = answer.header("access-control-allow-headers").expect("headers").to_lowercase();
        assert!(
            ["last-event-id", "idempotency-key", "content-type"]
                .iter()
                .all(|name| taken.contains(name))
        );
    }
}

#[tokio::test]
async fn no_header_of_a_stream_keeps_a_cache_from_sharing_it() {
    let origin = Origin::start();
    let id = origin.publish("a", "x").await;
    let cursor = [("last-event-id", id.as_str())];
    for (path, headers) in [
        ("/channels/a", &[][..]),
        ("/channels/a", &cursor),
        ("/channels/a?mode=hold&after=0-0", &[]),
        ("/channels/a,b", &[("accept-encoding", "gzip, br"), ("cookie", "a=b")]),
    ] {
        let head = origin.request(Method::HEAD, path, headers, "").await;
        assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n");
        headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
        let mut stream = origin.raw((request + "\r\n").as_bytes()).await;
        let answer = read_until(&mut stream, |text| text.contains("ends_at")).await;
        let got = answer.split_once("\r\n\r\n").expect("a head").0;
        for name in ["set-cookie", "content-encoding", "x-accel-buffering", "pragma", "expires"] {
            assert!(head.header(name).is_none() && !got.contains(name), "{name} in {got}");
        }
        let vary: Vec<_> = head.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Last-Event-ID"], "{path}");
        for (name, value) in &head.headers {
            let line = format!("{name}: {}\r\n", value.to_str().expect("text"));
            // Age and date go on between the two, and each answer has a name.
            let is_own = ["date", "cache-control", "content-length", "headwater-response"];
            let is_own = is_own.contains(&name.as_str());
            assert!(is_own || answer.contains(&line), "{line:?} is not in {got}");
        }
    }
}
