//! An origin without a key is open to programs on its own machine, but not to web pages of other
//! sites in a browser on that machine.

use super::assert_calm;
use crate::browsers::browser::Browser;
use crate::kit::edge::Cache;
use crate::kit::{Origin, read_until};
use crate::protocol::access::SECRET;
use crate::websocket::raw::{Peer, handshake};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A host name that the test's browser resolves to this machine, as after DNS rebinding.
const FOREIGN: &str = "evil.example";

// protocol §17.4
#[tokio::test]
async fn a_page_of_another_site_changes_nothing_and_reads_nothing() {
    let origin = Origin::start();
    origin.publish("a", "x").await;
    for page in ["https://evil.example", "null", "http://localhost.evil.example", "file://"] {
        let headers = [("origin", page), ("sec-fetch-site", "cross-site")];
        for (method, path) in
            [(Method::POST, "/channels/a"), (Method::DELETE, "/channels/a"), (Method::GET, "/ws")]
        {
            let answer = origin.request(method.clone(), path, &headers, "x").await;
            let problem = answer.assert_problem(403, "origin");
            let detail = problem["detail"].as_str().unwrap();
            // No flag can allow the web origin of a file.
            let advice = if page == "null" { "over HTTP" } else { "--cors-origin" };
            assert!(detail.contains(advice), "{method} {path} {page}: {detail}");
        }
        for path in ["/channels/a/history", "/channels/a/state", "/channels/a?mode=hold&after=0-0"]
        {
            let answer = origin.request(Method::GET, path, &headers, "").await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{path} {page}");
            assert!(answer.headers.get_all("vary").iter().any(|one| one == "Origin"), "{path}");
        }
        let asked = [headers[0], ("access-control-request-headers", "x-forwarded-for")];
        let answer = origin.request(Method::OPTIONS, "/channels/a", &asked, "").await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{page}");
    }
    assert_eq!(origin.log("a").await.len(), 1);
    assert_calm(&origin).await;
}

#[tokio::test]
async fn pages_of_this_machine_and_of_named_origins_may_do_all() {
    let flags = ["--store", "memory", "--cors-origin", "https://app.example"];
    for (origin, page) in [
        (Origin::start(), "http://localhost:3000"),
        (Origin::start(), "http://127.0.0.1:5173"),
        (Origin::start(), "http://[::1]:3000"),
        (Origin::with(&flags), "https://app.example"),
        (Origin::with(&flags), "http://localhost:3000"),
    ] {
        let headers = [("origin", page), ("sec-fetch-site", "cross-site")];
        let answer = origin.request(Method::POST, "/channels/a", &headers, "x").await;
        assert_eq!(answer.status, 201, "{page}");
        assert!(answer.header("access-control-allow-origin").is_some(), "{page}");
        Peer::with(&origin, "/ws", &headers).await.assert_open().await;
        let answer = origin.request(Method::DELETE, "/channels/a", &headers, "").await;
        assert_eq!(answer.status, 200, "{page}");
    }
}

/// Sends a request with this host, and returns the whole answer.
async fn of_host(origin: &Origin, host: &str) -> String {
    let head =
        format!("GET /channels/a/history HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut stream = origin.raw(head.as_bytes()).await;
    read_until(&mut stream, |_| false).await
}

// protocol §17.4
#[tokio::test]
async fn a_host_that_is_not_this_machine_is_refused_until_it_is_named() {
    let open = Origin::start();
    let named = Origin::with(&["--store", "memory", "--allowed-host", "live.example.com"]);
    let keyed = Origin::with(&["--store", "memory", "--token-secret", SECRET]);
    for host in ["localhost", "localhost:99", "127.0.0.1", "[::1]:80", "a.localhost", "127.1.2.3"] {
        assert!(of_host(&open, host).await.starts_with("HTTP/1.1 200"), "{host}");
    }
    for host in ["evil.example", "live.example.com:80", "localhost.evil.example", "10.0.0.1"] {
        let answer = of_host(&open, host).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {answer}");
        assert!(answer.contains("--allowed-host"), "{answer}");
        assert!(of_host(&keyed, host).await.starts_with("HTTP/1.1 200"), "{host}");
    }
    for host in ["live.example.com", "LIVE.example.com:80"] {
        assert!(of_host(&named, host).await.starts_with("HTTP/1.1 200"), "{host}");
    }
    assert!(of_host(&named, "evil.example").await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn the_shipped_edges_serve_pages_of_any_site_in_front_of_an_open_origin() {
    let origin = Origin::start();
    let port = origin.listen.port();
    for cache in
        [Cache::varnish(port), Cache::nginx("collapse", port), Cache::nginx("stream", port)]
    {
        let through = async |request: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", cache.port)).await.expect("a cache");
            let head = "Host: live.example.com\r\nConnection: close\r\n";
            let page = "Origin: https://www.example.com\r\nSec-Fetch-Site: cross-site\r\n";
            let text = request.replacen("\r\n", &format!("\r\n{head}{page}"), 1);
            stream.write_all(text.as_bytes()).await.expect("it reads");
            let answer = read_until(&mut stream, |_| false).await;
            assert!(answer.to_lowercase().contains("access-control-allow-origin: "), "{answer}");
            answer
        };
        let posted = "POST /channels/a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
        assert!(through(posted).await.starts_with("HTTP/1.1 201"));
        for path in ["/channels/a/history", "/channels/a?mode=hold&after=0-0"] {
            let answer = through(&format!("GET {path} HTTP/1.1\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
        // A page of the public host is of the same origin there.
        let mut shaken = TcpStream::connect(("127.0.0.1", cache.port)).await.expect("a cache");
        let own = String::from_utf8(handshake("/ws", &[("Origin", "https://live.example.com")]));
        let own = own.expect("text").replace("Host: localhost", "Host: live.example.com");
        shaken.write_all(own.as_bytes()).await.expect("it reads");
        let answer = read_until(&mut shaken, |text| text.contains("\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    }
}

/// Serves one page repeatedly, on a port of its own, and returns the port.
async fn serve_page() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let _request = stream.read(&mut [0; 4096]).await;
                let page = "<!doctype html><title>a page of another site</title>";
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
                let answer = format!("{head}Content-Length: {}\r\n\r\n{page}", page.len());
                stream.write_all(answer.as_bytes()).await.ok();
            });
        }
    });
    port
}

#[tokio::test]
async fn a_browser_cannot_be_used_against_an_open_origin() {
    let origin = Origin::start();
    origin.publish("a", "classified").await;
    let browser = Browser::start().await;
    // A page of another site sends requests that need no preflight, and tries to read the answers.
    browser.open(&format!("http://{FOREIGN}:{}/", serve_page().await)).await;
    let attack = format!(
        r#"const at = "http://{}";
        const posted = fetch(at + "/channels/a", {{ method: "POST", mode: "no-cors", body: "x" }});
        const read = fetch(at + "/channels/a/history").then(() => "read", () => "shut out");
        const source = new EventSource(at + "/channels/a?after=0-0");
        const streamed = new Promise((resolve) => {{
            source.onmessage = () => resolve("read");
            source.onerror = () => resolve("shut out");
        }});
        const socket = new WebSocket("ws://{}/ws");
        const shaken = new Promise((resolve) => {{
            socket.onopen = () => resolve("open");
            socket.onerror = () => resolve("shut out");
        }});
        return Promise.all([posted.then(() => "sent", () => "sent"), read, streamed, shaken]);"#,
        origin.listen, origin.listen
    );
    let outcome = browser.run(&attack).await;
    assert_eq!(outcome, serde_json::json!(["sent", "shut out", "shut out", "shut out"]));
    // The same name now leads to the origin, so the browser takes the page for one of the same
    // site.
    browser.open(&format!("http://{FOREIGN}:{}/channels/a/history", origin.listen.port())).await;
    let text = browser.run("return document.body.textContent").await;
    let text = text.as_str().expect("a text");
    assert!(text.contains("urn:headwater:problem:host") && !text.contains("classified"), "{text}");
    assert_eq!(origin.log("a").await.len(), 1);
    // A page of this machine is allowed, which shows that the browser does reach the origin.
    browser.open(&format!("http://localhost:{}/", serve_page().await)).await;
    let allowed = format!(
        r#"return fetch("http://{}/channels/a", {{ method: "POST", body: "x" }})
            .then((answer) => answer.status)"#,
        origin.listen
    );
    assert_eq!(browser.run(&allowed).await, 201);
}
