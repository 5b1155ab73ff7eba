//! Requests that pages of other sites can make a browser send.

use super::{assert_calm, assert_sane};
use crate::kit::{Origin, read_until};
use crate::protocol::access::{SECRET, minted};
use crate::websocket::raw::{Peer, handshake};
use hyper::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn pages_of_all_origins_may_read_unless_they_are_named() {
    let named = ["--cors-origin", "https://a.example,https://b.example"];
    let some = Origin::with(&[&["--store", "memory"], &named[..]].concat());
    // This origin has a key, because one without a key is open to pages of its own machine only.
    let all = Origin::with(&["--store", "memory", "--token-secret", SECRET]);
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
        assert!(["idempotency-key", "content-type"].iter().all(|name| taken.contains(name)));
    }
}

/// Pages that are not of `https://a.example`, although they look alike.
const STRANGE: [&str; 16] = [
    "null",
    "",
    "https://a.example.evil",
    "https://evil-a.example",
    "https://evila.example",
    "https://x.a.example",
    "https://a.example.",
    "https://a.example:443",
    "https://a.example:8443",
    "https://a.example/",
    "https://A.example",
    "http://a.example",
    "https://user@a.example",
    "https://a.example https://evil",
    "https://a.example\u{e9}",
    "file://",
];

#[tokio::test]
async fn strange_origin_headers_get_no_cors_permission() {
    let named = ["--cors-origin", "https://a.example"];
    let origin = Origin::with(&[&["--store", "memory"], &named[..]].concat());
    let kept = origin.publish("a", "x").await;
    let open = Origin::with(&["--store", "memory", "--token-secret", SECRET]);
    for page in STRANGE {
        for (method, path) in [
            (Method::GET, "/channels/a/history"),
            (Method::HEAD, "/channels/a"),
            (Method::OPTIONS, "/channels/a"),
            (Method::POST, "/channels/b"),
        ] {
            let headers = [("origin", page), ("cookie", "headwater=x")];
            let answer = origin.request(method.clone(), path, &headers, "").await;
            for name in ["access-control-allow-origin", "access-control-allow-credentials"] {
                assert_eq!(answer.header(name), None, "{page:?} {method} {path}");
            }
            // With `*`, a browser lets no page read an answer to a request with credentials.
            let answer = open.request(method.clone(), path, &headers, "").await;
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.header("access-control-allow-credentials"), None, "{page:?}");
        }
        let stream = TcpStream::connect(origin.listen).await.expect("it listens");
        let shaken = Peer::on(stream, &handshake("/ws", &[("origin", page)])).await;
        let refusal = shaken.err().expect(page);
        assert!(refusal.starts_with("HTTP/1.1 403 "), "{page:?}: {refusal}");
    }
    let own = [("origin", "https://a.example")];
    let answer = origin.request(Method::GET, "/channels/a/history", &own, "").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    Peer::with(&origin, "/ws", &own).await.assert_open().await;
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_cookie_gives_no_right_to_publish_from_another_site() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "*"];
    let origin = Origin::with(&flags);
    let token = minted(&["--publish", "*", "--subscribe", "*"]);
    let cookie = format!("headwater={token}");
    // Requests that a form of any site can send, with the headers that the browser adds.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/x-ndjson"] {
        for page in ["https://evil.example", "null"] {
            let headers = [("cookie", cookie.as_str()), ("origin", page), ("content-type", kind)];
            for (method, path) in [
                (Method::POST, "/channels/a".to_owned()),
                (Method::DELETE, "/channels/a".to_owned()),
                (Method::POST, format!("/channels/a?access_token={token}")),
            ] {
                let answer = origin.request(method, &path, &headers, "{\"data\":1}").await;
                answer.assert_problem(401, "token");
            }
        }
    }
    let publish = r#"{"type":"publish","channel":"a","data":"x"}"#;
    let subscribe = r#"{"type":"subscribe","channels":["a"]}"#;
    // A socket of another site's page gets no rights from the cookie that the browser sends along.
    for page in STRANGE.into_iter().chain(["https://evil.example", "http://x.evil", "http://xx"]) {
        let headers = [("cookie", cookie.as_str()), ("origin", page)];
        let mut peer = Peer::with(&origin, "/ws", &headers).await;
        for wants in [publish, subscribe] {
            let answer = peer.ask(wants).await;
            assert_eq!(answer["problem"]["status"], 401, "{page:?}: {answer}");
        }
    }
    // A socket of a page of this host gets the rights of the cookie.
    for headers in
        [&[("cookie", cookie.as_str()), ("origin", "http://localhost")][..], &[("cookie", &cookie)]]
    {
        let mut peer = Peer::with(&origin, "/ws", headers).await;
        assert_eq!(peer.ask(subscribe).await["type"], "ack");
    }
    let headers = [("authorization", format!("Bearer {token}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let page = origin.request(Method::GET, "/channels/a/history", &headers, "").await.json();
    assert_eq!(page["next"], "0-0", "something was published: {page}");
    assert_calm(&origin).await;
}

#[tokio::test]
async fn a_handshake_may_offer_other_protocols_too() {
    let origin = Origin::start();
    let whole = String::from_utf8(handshake("/ws", &[])).expect("text");
    for offer in ["Upgrade: h2c, WebSocket", "Upgrade: h2c\r\nUpgrade: websocket"] {
        let offer = whole.replace("Upgrade: websocket", offer);
        let mut stream = origin.raw(offer.as_bytes()).await;
        let answer = read_until(&mut stream, |text| text.contains("\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
}

#[tokio::test]
async fn an_invalid_websocket_handshake_is_refused() {
    let origin = Origin::start();
    let kept = origin.publish("a", "x").await;
    let whole = String::from_utf8(handshake("/ws", &[])).expect("text");
    for (from, to) in [
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade", "Connection: keep-alive"),
        ("Upgrade: websocket", "Upgrade: websocket2, h2c"),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("/ws", "/channels/a/history"),
        ("/ws", "/ws/"),
    ] {
        let mut stream = origin.raw(whole.replace(from, to).as_bytes()).await;
        stream.shutdown().await.expect("it is open");
        let answer = read_until(&mut stream, |_| false).await;
        assert!(answer.starts_with("HTTP/1.") && !answer.contains(" 101 "), "{to:?}: {answer}");
        // Only a handshake whose other headers are right has a wrong key.
        let blames_key = answer.contains("takes 16 bytes in base64");
        assert_eq!(blames_key, from.starts_with("Sec-WebSocket-Key"), "{to:?}: {answer}");
    }
    let refused = origin.get("/ws").await;
    assert!(refused.assert_problem(426, "websocket")["request_id"].is_string());
    assert_eq!(refused.header("sec-websocket-version"), Some("13"));
    assert_eq!(refused.header("upgrade"), Some("websocket"));
    assert_sane(&origin, "a", &[kept]).await;
    assert_calm(&origin).await;
}
