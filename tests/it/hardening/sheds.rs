//! Shed streams, for each reason and at each edge. A refusal that concerns all clients costs the
//! origin one request, and a refusal that concerns one client is given to no other. Afterwards,
//! clients share streams as before.

use super::wait_for;
use crate::kit::edge::{Cache, Tap};
use crate::kit::redis::RedisServer;
use crate::kit::{Origin, get, now_ms, read_until};
use crate::protocol::access::{SECRET, signed};
use crate::websocket::raw::connect_from;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use std::time::Instant;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// An edge: its name, a function that starts it in front of a port, and whether it shares streams
/// or long polls.
type Edge = (&'static str, fn(u16) -> Cache, bool);

const EDGES: [Edge; 4] = [
    ("varnish", Cache::varnish, true),
    ("squid", Cache::squid, true),
    ("collapse", |port| Cache::nginx("collapse", port), true),
    ("stream", |port| Cache::nginx("stream", port), false),
];
const CLIENTS: usize = 6;

/// The request for a stream.
struct Asked {
    channel: String,
    /// Additional lines of the head.
    headers: String,
}

impl Asked {
    fn of(channel: &str) -> Self {
        Self { channel: channel.to_owned(), headers: String::new() }
    }

    fn with(channel: &str, token: &str) -> Self {
        let headers = format!("Authorization: Bearer {token}\r\n");
        Self { channel: channel.to_owned(), headers }
    }

    fn path(&self) -> String {
        format!("/channels/{}", self.channel)
    }

    /// Opens a stream, and reads until `enough` is true of the received text.
    async fn begin(&self, port: u16, enough: impl Fn(&str) -> bool) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let (path, headers) = (self.path(), &self.headers);
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        let text = read_until(&mut stream, enough).await;
        (stream, text.to_lowercase())
    }
}

/// Counts the requests for a channel that reached the origin.
fn reached(tap: &Tap, asked: &Asked) -> usize {
    let path = asked.path();
    let is_it = |target: &str| target.split(['?', ' ']).next() == Some(&path);
    tap.asked().iter().filter(|one| is_it(&one.target)).count()
}

/// The number of requests for which an edge may ask the origin since `begun`, if it needs `at_once`
/// for clients that come together. A shared answer is kept for a second, so the edge may ask again
/// for each second that a busy machine takes.
fn requests_max(edge: &Edge, at_once: usize, begun: Instant) -> usize {
    if edge.2 { at_once + begun.elapsed().as_secs() as usize } else { CLIENTS }
}

/// Lets several clients request the stream at the same time, and checks that each is shed for this
/// reason. Returns the number of requests that reached the origin.
async fn shed(
    edge: &Edge,
    cache: &Cache,
    tap: &Tap,
    asked: &Asked,
    (reason, is_shared): (&str, bool),
) -> usize {
    let before = reached(tap, asked);
    let clients = (0..CLIENTS).map(|_| asked.begin(cache.port, |text| text.contains("retry_ms")));
    for (_, text) in futures_util::future::join_all(clients).await {
        let shown = format!("{} {reason}: {text}", edge.0);
        assert!(text.starts_with("http/1.1 200 "), "{shown}");
        assert!(text.contains(&format!("\"reason\":\"{reason}\"")), "{shown}");
        assert!(text.contains("retry: "), "{shown}");
        let kept = if is_shared { "public, max-age=1" } else { "private, no-store" };
        assert!(text.contains(kept), "{shown}");
    }
    reached(tap, asked) - before
}

/// Checks a refusal that all clients share, and that streams are shared again afterwards.
async fn shared_by_all(
    reason: &str,
    edge: &Edge,
    origin: &Origin,
    asked: &Asked,
    end: impl AsyncFnOnce(),
) {
    let tap = Tap::to(origin.listen.port()).await;
    let cache = edge.1(tap.port);
    let begun = Instant::now();
    let requests = shed(edge, &cache, &tap, asked, (reason, true)).await;
    // There is a second request if the first answer, which is kept for a second, has expired when
    // the last client comes.
    let most = requests_max(edge, 2, begun);
    assert!((1..=most).contains(&requests), "{} {reason}: {requests} requests", edge.0);
    end().await;
    origin.becomes(200).await;
    origin.publish(&asked.channel, "after").await;
    // The edge may still serve the last refusal, so repeat until it has expired.
    let open = async {
        loop {
            let (stream, text) = asked.begin(cache.port, |text| text.contains("data:")).await;
            if !text.contains("retry_ms") {
                return stream;
            }
        }
    };
    let first = tokio::time::timeout(crate::kit::PATIENCE, open).await.expect("it is served");
    let (before, begun) = (reached(&tap, asked), Instant::now());
    let clients = (0..CLIENTS).map(|_| asked.begin(cache.port, |text| text.contains("data:")));
    let streams = futures_util::future::join_all(clients).await;
    let requests = reached(&tap, asked) - before;
    assert!(requests <= requests_max(edge, 1, begun), "{} {reason}: {requests} more", edge.0);
    drop((first, streams));
}

/// Checks a refusal that is for one client only: each request reaches the origin.
async fn of_one_client(reason: &str, edge: &Edge, origin: &Origin, asked: &Asked) {
    let tap = Tap::to(origin.listen.port()).await;
    let cache = edge.1(tap.port);
    let requests = shed(edge, &cache, &tap, asked, (reason, false)).await;
    assert_eq!(requests, CLIENTS, "{} {reason}", edge.0);
}

// protocol §11.1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_with_too_many_connections_sheds_through_every_edge() {
    for edge in EDGES {
        let limits = ["--max-connections", "8", "--head-timeout", "60s", "--segment", "10m"];
        let origin = Origin::with(&[&["--store", "memory"], &limits[..]].concat());
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(TcpStream::connect(origin.listen).await.expect("it listens"));
        }
        shared_by_all("connections", &edge, &origin, &Asked::of("a"), async || drop(held)).await;
    }
}

// protocol §11.1, §17.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_an_origin_without_its_store() {
    for edge in EDGES {
        let mut redis = RedisServer::with(&["--appendonly", "yes"]);
        let flags = ["--store-timeout", "1s", "--segment", "10m"];
        let origin = Origin::with(&[&["--store", &*redis.url()], &flags[..]].concat());
        origin.publish("a", "before").await;
        redis.kill();
        let back = async || redis.start_again();
        shared_by_all("store", &edge, &origin, &Asked::of("b"), back).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_an_origin_without_memory_for_answers() {
    let _alone = crate::kit::alone().await;
    for edge in EDGES {
        let flags = ["--store", "memory", "--answer-bytes", "16MiB", "--live-bytes", "64KiB"];
        let times = ["--store-timeout", "1s", "--segment", "10m", "--write-timeout", "5m"];
        let origin = Origin::with(&[&flags[..], &times].concat());
        for _ in 0..40 {
            origin.publish("large", &"y".repeat(50_000)).await;
        }
        origin.publish_with("a", "key=k", "v").await;
        // These streams are not read, and each holds a page of old events, until there is no memory
        // left for another page.
        let mut held = Vec::new();
        for _ in 0..250 {
            let mut stream = connect_from(&origin, "127.0.0.1", true).await;
            stream.write_all(&get("/channels/large?after=0-0", None)).await.expect("it reads");
            held.push(stream);
        }
        // The origin may read these requests after those of later clients.
        let is_used_up =
            async || origin.get("/channels/large/history?after=0-0").await.status == 503;
        wait_for("the memory is used up", is_used_up).await;
        let end = async || drop(held);
        shared_by_all("memory", &edge, &origin, &Asked::of("a"), end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_an_expired_token_is_shed_through_every_edge() {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "exp": now_ms() / 1_000 - 3_600, "scope": "subscribe:*" });
    let asked = Asked::with("a", &signed(Algorithm::HS256, &key, &claims));
    for edge in EDGES {
        let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "a"];
        of_one_client("token-expired", &edge, &Origin::with(&flags), &asked).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_client_whose_token_cannot_be_checked_yet() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("missing.json").display().to_string();
    let asked = Asked::with("a", "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.e30.AA");
    for edge in EDGES {
        let flags = ["--store", "memory", "--token-jwks", &file, "--private", "a"];
        of_one_client("keys", &edge, &Origin::with(&flags), &asked).await;
    }
}

// protocol §17.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_over_its_connection_limit_is_shed_through_every_edge() {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "exp": now_ms() / 1_000 + 3_600, "scope": "subscribe:*" });
    let asked = Asked::with("a", &signed(Algorithm::HS256, &key, &claims));
    for edge in EDGES {
        let limits = ["--max-connections-per-client", "4", "--trusted-proxy", "127.0.0.1/32"];
        let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "a"];
        let origin = Origin::with(&[&flags[..], &limits, &["--segment", "10m"]].concat());
        // These streams go straight to the origin, and count for the address that the edge will
        // report.
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(asked.begin(origin.listen.port(), |text| text.contains("ends_at")).await);
        }
        of_one_client("client", &edge, &origin, &asked).await;
    }
}
