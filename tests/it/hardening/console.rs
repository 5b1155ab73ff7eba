//! Attacks on the console of the admin listener: by pages of other web origins, by names that lead
//! to this machine, and by clients without a token.

use super::QUIET;
use crate::kit::{self, Answer, BINARY, Origin, get, read_until};
use hyper::Method;
use hyper::header::HeaderMap;
use std::process::Command;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The header with which the console publishes.
const MARK: (&str, &str) = ("headwater-console", "1");
const PUBLISH: &str = "/console/api/channels/desk.a";

/// Sends a request to the admin listener.
async fn ask(origin: &Origin, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let address = format!("http://{}", origin.admin).parse().expect("an address");
    let body = if method == Method::POST { "data" } else { "" };
    let answer = kit::request(&address, method, path, headers, body.into()).await;
    answer.expect("it answers")
}

fn has_cors_header(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str() == "access-control-allow-origin")
}

/// A token with these rights.
fn token(rights: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.args(["token", "--token-secret", SECRET]).args(rights);
    let output = command.output().expect("it starts");
    format!("Bearer {}", String::from_utf8(output.stdout).expect("text").trim())
}

/// The head of the answer to a request for a stream.
async fn stream_head(origin: &Origin, path: &str) -> String {
    let mut stream = TcpStream::connect(origin.admin).await.expect("it listens");
    stream.write_all(&get(path, None)).await.expect("it reads");
    read_until(&mut stream, |text| text.contains("\r\n\r\n")).await.to_lowercase()
}

#[tokio::test]
async fn a_page_of_another_web_origin_cannot_use_the_console() {
    let origin = Origin::with(&QUIET);
    origin.publish("desk.a", "kept").await;
    let own = format!("http://{}", origin.admin);
    // Pages of this machine may use the public listener, but not the console.
    let foreign = ["https://evil.example", "http://localhost:3000", "http://127.0.0.1:1", "null"];
    let by_origin = foreign.iter().map(|page| ("origin", *page));
    let by_site = ["cross-site", "same-site"].map(|site| ("sec-fetch-site", site));
    for header in by_origin.chain(by_site) {
        for (method, path) in [
            (Method::POST, PUBLISH),
            (Method::GET, "/console/api/channels/desk.a/history"),
            (Method::GET, "/console/api/channels/desk.a"),
            (Method::GET, "/console/api/ws"),
            (Method::GET, "/console/origin.json"),
        ] {
            let answer = ask(&origin, method, path, &[header, MARK]).await;
            answer.assert_problem(403, "origin");
            assert!(!has_cors_header(&answer.headers), "{path}");
        }
    }
    // A form, or a request without a preflight, cannot have the header of the console.
    ask(&origin, Method::POST, PUBLISH, &[]).await.assert_problem(400, "bad-field");
    ask(&origin, Method::OPTIONS, PUBLISH, &[("origin", &own)]).await.assert_problem(405, "method");
    ask(&origin, Method::DELETE, PUBLISH, &[MARK]).await.assert_problem(405, "method");
    assert_eq!(origin.log("desk.a").await.len(), 1);
    let headers = [("origin", own.as_str()), ("sec-fetch-site", "same-origin"), MARK];
    let answer = ask(&origin, Method::POST, PUBLISH, &headers).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(!has_cors_header(&answer.headers));
    assert_eq!(origin.log("desk.a").await.len(), 2);
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_opens_no_console() {
    let keyed = ["--token-secret", SECRET];
    let named = ["--allowed-host", "ops.example"];
    let origin = Origin::with(&[&QUIET[..], &keyed, &named].concat());
    let status_of = async |host: &str, path: &str| {
        let mut stream = TcpStream::connect(origin.admin).await.expect("it listens");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        read_until(&mut stream, |text| text.contains("\r\n\r\n")).await[9..12].to_owned()
    };
    let paths = ["/console", "/console/console.js", "/console/origin.json", "/console/api/ws"];
    for path in paths {
        assert_eq!(status_of("evil.example", path).await, "403", "{path}");
        for host in ["localhost", "127.0.0.1:1", "ops.example"] {
            assert_ne!(status_of(host, path).await, "403", "{path} {host}");
        }
    }
}

#[tokio::test]
async fn the_console_needs_the_tokens_of_the_public_listener() {
    let flags = ["--token-secret", SECRET, "--private", "desk.*"];
    let origin = Origin::with(&[&QUIET[..], &flags].concat());
    let history = "/console/api/channels/desk.a/history";
    let stream = "/console/api/channels/desk.a";
    ask(&origin, Method::POST, PUBLISH, &[MARK]).await.assert_problem(401, "token");
    ask(&origin, Method::GET, history, &[]).await.assert_problem(401, "token");
    ask(&origin, Method::GET, stream, &[]).await.assert_problem(401, "token");
    let reader = token(&["--subscribe", "desk.*"]);
    let with_reader = [MARK, ("authorization", reader.as_str())];
    ask(&origin, Method::POST, PUBLISH, &with_reader).await.assert_problem(403, "scope");
    let publisher = token(&["--publish", "desk.*"]);
    let with_publisher = [MARK, ("authorization", publisher.as_str())];
    let answer = ask(&origin, Method::POST, PUBLISH, &with_publisher).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    ask(&origin, Method::GET, history, &with_publisher).await.assert_problem(403, "scope");
    let answer = ask(&origin, Method::GET, history, &with_reader).await;
    assert_eq!(answer.json()["events"][0]["data"], "data");
    // The list of channels needs no token, as for `headwater channels`.
    assert_eq!(ask(&origin, Method::GET, "/channels", &[]).await.status, 200);
}

#[tokio::test]
async fn the_console_leads_to_channels_and_the_client_module_alone() {
    let origin = Origin::with(&[&QUIET[..], &["--demo"]].concat());
    for path in ["/", "/demo/chat", "/healthz", "/metrics", "/reload", "/channels", "//", "/x"] {
        let path = format!("/console/api{path}");
        ask(&origin, Method::GET, &path, &[]).await.assert_problem(404, "not-found");
    }
    for path in ["/console/", "/console/api", "/console/x.js"] {
        ask(&origin, Method::GET, path, &[]).await.assert_problem(404, "not-found");
    }
    let module = ask(&origin, Method::GET, "/console/api/headwater.js", &[]).await;
    let version = module.body.split('"').nth(1).expect("a path").trim_start_matches("./");
    let path = format!("/console/api/{version}");
    assert!(ask(&origin, Method::GET, &path, &[]).await.body.contains("export const connect"));
    let home = ask(&origin, Method::GET, "/", &[]).await;
    assert_eq!((home.status.as_u16(), home.header("location")), (302, Some("/console")));
    let page = ask(&origin, Method::GET, "/console", &[]).await;
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    // The public listener has no console.
    assert_eq!(origin.get("/console").await.status, 404);
}

#[tokio::test]
async fn streams_of_the_console_are_not_shared_and_do_not_count_as_shareable() {
    let origin = Origin::with(&QUIET);
    let head = stream_head(&origin, "/console/api/channels/a").await;
    assert!(head.contains("cache-control: private, no-store\r\n"), "{head}");
    let requests = async |kind| {
        origin.metric(&format!("headwater_shareable_requests_total{{kind=\"{kind}\"}}")).await
    };
    let shareable = async || (requests("first").await, requests("repeat").await);
    assert_eq!(shareable().await, (0.0, 0.0));
    let mut public = origin.raw(&get("/channels/a", None)).await;
    read_until(&mut public, |text| text.contains("\r\n\r\n")).await;
    assert_eq!(shareable().await, (1.0, 0.0));
}

#[tokio::test]
async fn the_console_keeps_no_ending_process_alive() {
    let flags = ["--store", "memory", "--segment", "3s", "--drain-delay", "5s"];
    let mut origin = Origin::with(&flags);
    let mut stream = TcpStream::connect(origin.admin).await.expect("it listens");
    stream.write_all(&get("/console/api/channels/a", None)).await.expect("it reads");
    read_until(&mut stream, |text| text.contains("event: segment")).await;
    origin.signal("TERM");
    origin.logs("draining").await;
    // The running stream ends at its boundary, and no stream of the console begins any more.
    let head = stream_head(&origin, "/console/api/channels/a").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_eq!(origin.ended().await.code(), Some(0));
}
