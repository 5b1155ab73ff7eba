//! Requests that are invalid, that hide other requests, or that end too soon.

use super::{QUIET, assert_calm, assert_sane, attack, wait_for, wait_until_no_stream_is_open};
use crate::kit::{self, Origin, get, read_until};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn malformed_requests_are_refused_without_effect_on_other_clients() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let get = "GET /channels/a HTTP/1.1\r\nHost: localhost\r\n";
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    let long = "x".repeat(200_000);
    for (text, status) in [
        (format!("{get}X: {}\r\n\r\n", &long[..100_000]), "431"),
        (format!("{get}{many}\r\n"), "431"),
        (format!("GET /channels/a?{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), "4?1"),
        (format!("GET /channels/{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), "4?1"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}ClientHello".to_owned(), "400"),
        ("hello there\r\n\r\n".to_owned(), "400"),
        ("\r\n\r\n\0\0\0\0\r\n\r\n".to_owned(), "400"),
        ("GET /channels/a HTTP/9.9\r\n\r\n".to_owned(), "400"),
        (format!("{get}X: a\0b\r\n\r\n"), "400"),
        (format!("{get}X: a\r\n folded\r\n\r\n"), "400"),
        (format!("{get}X : a\r\n\r\n"), "400"),
    ] {
        let answer = attack(&origin, text.as_bytes()).await;
        let expected = answer.get(9..12).unwrap_or_default();
        // A URL that is too long may also be refused as a head that is too large.
        let is_refused =
            expected == status || status == "4?1" && ["414", "431"].contains(&expected);
        assert!(is_refused, "{:?} is answered {answer:?}", &text[..text.len().min(80)]);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert_sane(&origin, "a", &[kept]).await;
}

#[tokio::test]
async fn requests_with_one_byte_changed_leave_the_origin_whole() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let seed = "POST /channels/fuzz?event=e&key=k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\
                Content-Type: application/x-ndjson\r\nConnection: close\r\n\r\n{\"data\":12}";
    for (place, byte) in (0..seed.len()).zip(b"\0\n\r :/%\x7f\xff".iter().cycle()) {
        let mut bytes = seed.as_bytes().to_vec();
        bytes[place] = *byte;
        let mut stream = origin.raw(&bytes).await;
        // The shutdown also ends a body whose announced length is now too large.
        stream.shutdown().await.expect("it is open");
        read_until(&mut stream, |_| false).await;
    }
    assert_sane(&origin, "a", &[kept]).await;
}

const POST: &str = "POST /channels/s HTTP/1.1\r\nHost: localhost\r\n";
/// A request inside the body of another one, for a server that sees the end of the body before it.
const HIDDEN: &str =
    "0\r\n\r\nPOST /channels/hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";

/// Checks that the hidden request was not executed and, unless the answer was `201`, that nothing
/// was stored at all.
async fn assert_no_second_request(origin: &Origin, text: &str, statuses: &[&str]) {
    let answer = attack(origin, text.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{text:?} is answered {answer}");
    let status = answer.get(9..12).unwrap_or_default();
    assert!(statuses.contains(&status), "{text:?} is answered {answer}");
    let stored = ["hidden", "s"].map(|channel| format!("/channels/{channel}/history"));
    let count = if status == "201" { 1 } else { 2 };
    for path in stored.iter().take(count) {
        assert_eq!(origin.get(path).await.json()["next"], "0-0", "{text:?} stored in {path}");
    }
}

#[tokio::test]
async fn request_smuggling_with_two_lengths() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let length = HIDDEN.len();
    let chunked = "Transfer-Encoding: chunked\r\n";
    for head in [
        "Content-Length: 3\r\nContent-Length: 5\r\n".to_owned(),
        format!("Content-Length: 5\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: 5, {length}\r\n"),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: +5\r\n".to_owned(),
        "Content-Length: 0x5\r\n".to_owned(),
        "Content-Length: 5 5\r\n".to_owned(),
        "Content-Length: \r\n".to_owned(),
        "Content-Length: 18446744073709551621\r\n".to_owned(),
        format!("Content-Length : 5\r\nContent-Length: {length}\r\n"),
        "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, gzip\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\u{b}\r\n".to_owned(),
        "Transfer-Encoding: identity\r\n".to_owned(),
        format!("{chunked}Transfer-Encoding: identity\r\n"),
    ] {
        let text = format!("{POST}{head}\r\n{HIDDEN}");
        assert_no_second_request(&origin, &text, &["400"]).await;
    }
    // HTTP/1.0 has no chunks.
    let old = format!("POST /channels/s HTTP/1.0\r\nHost: localhost\r\n{chunked}\r\n{HIDDEN}");
    assert!(attack(&origin, old.as_bytes()).await.starts_with("HTTP/1.1 400"));
    // A proxy that follows the length would forward the remaining bytes as another client's
    // request.
    for both in [
        format!("Content-Length: {length}\r\n{chunked}"),
        format!("{chunked}Content-Length: {length}\r\n"),
    ] {
        let text = format!("{POST}{both}\r\n{HIDDEN}");
        assert_no_second_request(&origin, &text, &["201", "400"]).await;
    }
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn request_smuggling_with_bad_chunks() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    for body in [
        "zz\r\nabc\r\n",
        "fffffffffffffffff\r\nabc\r\n",
        "10000000000000003\r\nabc\r\n",
        "-3\r\nabc\r\n",
        "+3\r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "3\nabc\r\n",
        "3\rabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc",
        "3\r\nabcXX",
        "3\r\nabc\n\n",
        "\r\n",
        " 3\r\nabc\r\n",
        "3;a=\n0\r\nabc\r\n",
    ] {
        let text = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}{HIDDEN}");
        assert_no_second_request(&origin, &text, &["400"]).await;
    }
    // Trailers are limited in size, and are not headers.
    let trailers = "X: y\r\n".repeat(20_000);
    let endless = format!("{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{trailers}\r\n");
    assert_no_second_request(&origin, &endless, &["400"]).await;
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn old_and_unusual_requests_are_answered() {
    let origin = Origin::start();
    let history = |rest: &str| format!("GET {rest}\r\n\r\n");
    let id = origin.publish("a", "x").await;
    for (text, count) in [
        (history("/channels/a/history HTTP/1.0"), 1),
        (
            history(
                "http://localhost/channels/a/history HTTP/1.1\r\nHost: localhost\r\nConnection: close",
            ),
            1,
        ),
        (history("/channels/a/history HTTP/1.1\r\nHost: localhost").repeat(50), 50),
    ] {
        let mut stream = origin.raw(text.as_bytes()).await;
        let place = format!("\"{id}\",");
        let answer = read_until(&mut stream, |text| text.matches(&place).count() == count).await;
        assert_eq!(answer.matches(" 200 OK\r\n").count(), count, "{answer}");
    }
    // A client that sends `Expect: 100-continue` receives `100 Continue` before it sends the body.
    let head = "POST /channels/e HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n";
    let mut stream = origin.raw(format!("{head}\r\n").as_bytes()).await;
    read_until(&mut stream, |text| text.contains("HTTP/1.1 100 Continue\r\n")).await;
    stream.write_all(b"x").await.expect("it is open");
    read_until(&mut stream, |text| text.contains("{\"id\":")).await;
    // Pipelined publishes are stored in the order of the requests.
    let publish = |data: u32| {
        format!("POST /channels/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{data}")
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
    let head = "POST /channels/cut HTTP/1.1\r\nHost: localhost\r\n";
    let cuts = [
        format!("{head}Content-Length: 10\r\n\r\nabcde"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        format!(
            "{head}Content-Type: application/x-ndjson\r\nContent-Length: 99\r\n\r\n{{\"data\":1}}\n"
        ),
    ];
    for cut in &cuts {
        // The client closes only its sending side, so it still receives the answer.
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
async fn a_client_that_half_closes_after_a_request_gets_the_response() {
    let origin = Origin::with(&QUIET);
    let large = "x".repeat(1_000_000);
    let kept = origin.publish("a", &large).await;
    let mut ids = vec![kept];
    for _ in 0..20 {
        let publish = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
        let mut stream = origin.raw(publish.as_bytes()).await;
        stream.shutdown().await.expect("it is open");
        let answer = read_until(&mut stream, |_| false).await;
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let id = answer.split("{\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        ids.push(id.expect("an id").to_owned());
    }
    // This also holds for an answer that is larger than the socket buffers.
    let mut stream = origin.raw(&get("/channels/a/history?limit=1", None)).await;
    stream.shutdown().await.expect("it is open");
    let answer = read_until(&mut stream, |_| false).await;
    assert!(answer.contains(&large) && answer.ends_with('}'), "{} bytes came", answer.len());
    assert_sane(&origin, "a", &ids).await;
}

#[tokio::test]
async fn a_client_that_half_closes_during_a_stream_is_disconnected() {
    let origin = Origin::with(&QUIET);
    let kept = origin.publish("a", "x").await;
    for round in 0..100 {
        let version = ["1.1", "1.0", "1.1\r\nConnection: close"][round % 3];
        let head = format!("GET /channels/a?after=0-0 HTTP/{version}\r\nHost: localhost\r\n\r\n");
        let mut stream = origin.raw(head.as_bytes()).await;
        // The client stops after the first event, or while the stream is still being opened.
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

/// Reads the connection to its end. Returns the received text and how the connection ended.
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
    // A pump sends this stream.
    let mut pumped = origin.raw(&kit::get("/channels/a", None)).await;
    read_until(&mut pumped, |text| text.contains("ends_at")).await;
    origin.signal("TERM");
    let admin = format!("http://{}", origin.admin).parse().expect("an address");
    let is_draining = async || {
        let ready = kit::request(&admin, Method::GET, "/readyz", &[], "".into()).await;
        ready.expect("operators are answered").status == 503
    };
    wait_for("it does not drain", is_draining).await;
    // The second signal cuts open responses. Only a reset distinguishes this body from a complete
    // one.
    origin.signal("TERM");
    let (rest, end) = read_to_end(&mut cut).await;
    let error = end.expect_err(&rest);
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    origin.logs("2 streams were cut").await;
}

#[tokio::test]
async fn no_header_of_a_stream_keeps_a_cache_from_sharing_it() {
    // An origin without a key answers pages of this machine and of others differently.
    let secret = ["--token-secret", crate::protocol::access::SECRET];
    let origin = Origin::with(&[&["--store", "memory"], &secret[..]].concat());
    let bearer = format!("Bearer {}", crate::protocol::access::minted(&["--publish", "*"]));
    let id = origin.post("/channels/a", &[("authorization", &bearer)], "x").await;
    let id = id.json()["id"].as_str().expect("an id").to_owned();
    let cursor = [("last-event-id", id.as_str())];
    for (path, headers) in [
        ("/channels/a", &[][..]),
        ("/channels/a", &cursor),
        ("/channels/a?mode=hold&after=0-0", &[]),
        ("/channels/a,b", &[("accept-encoding", "gzip, br"), ("cookie", "a=b")]),
    ] {
        let head = origin.request(Method::HEAD, path, headers, "").await;
        assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
        let mut stream = origin.raw((request + "\r\n").as_bytes()).await;
        let answer = read_until(&mut stream, |text| text.contains("ends_at")).await;
        let got = answer.split_once("\r\n\r\n").expect("a head").0;
        for name in ["set-cookie", "content-encoding", "pragma", "expires"] {
            assert!(head.header(name).is_none() && !got.contains(name), "{name} in {got}");
        }
        let vary: Vec<_> = head.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Last-Event-ID"], "{path}");
        for (name, value) in &head.headers {
            let line = format!("{name}: {}\r\n", value.to_str().expect("text"));
            // Time passes between the two requests, and each answer has a name of its own.
            let is_own = ["date", "cache-control", "content-length"].contains(&name.as_str())
                || ["headwater-fresh", "headwater-response"].contains(&name.as_str());
            assert!(is_own || answer.contains(&line), "{line:?} is not in {got}");
        }
    }
}

#[tokio::test]
async fn a_parameter_with_a_very_long_name_is_refused_in_few_words() {
    let origin = Origin::start();
    let name = "a".repeat(30_000);
    let answer = origin.get(&format!("/channels/a/history?{name}")).await;
    answer.assert_problem(400, "bad-field");
    assert!(answer.body.len() < 400, "{}", answer.body.len());
}

#[tokio::test]
async fn a_head_has_the_headers_of_the_stream_and_costs_no_state() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    origin.publish_with("a", "key=k", "v").await;
    let head = origin.request(Method::HEAD, "/channels/a", &[], "").await;
    assert_eq!(head.status, 200);
    // `HEAD` does not load the channel into memory, because no reader needs its state.
    assert_eq!(origin.metric("headwater_channels_live").await, 0.0);
    let mut stream = origin.raw(&get("/channels/a", None)).await;
    let text = read_until(&mut stream, |text| text.contains("\r\n\r\n")).await;
    for name in ["content-type", "vary", "x-accel-buffering"] {
        let line = format!("{name}: {}\r\n", head.header(name).expect(name));
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert_eq!(origin.metric("headwater_channels_live").await, 1.0);
}
