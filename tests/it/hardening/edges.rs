//! Attacks of one client on the other clients of a shared cache.

use crate::kit::edge::{Cache, Certificate, Tap, edge};
use crate::kit::{Origin, get, read_until, request};
use hyper::Method;
use std::net::{IpAddr, SocketAddr};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// The address of another client than the test itself, which is 127.0.0.1.
const GREEDY: &str = "127.0.0.2";
const BOUNDED: [&str; 8] = [
    "--store",
    "memory",
    "--segment",
    "10m",
    "--max-connections-per-client",
    "3",
    "--trusted-proxy",
    "127.0.0.1/32",
];

/// Opens a connection to a cache from an address.
async fn connect(port: u16, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let address: IpAddr = address.parse().expect("an address");
    socket.bind(SocketAddr::new(address, 0)).expect("it is free");
    socket.connect(([127, 0, 0, 1], port).into()).await.expect("it listens")
}

async fn ask(stream: &mut TcpStream, bytes: &[u8], enough: impl Fn(&str) -> bool) -> String {
    stream.write_all(bytes).await.expect("it reads");
    read_until(stream, enough).await
}

#[tokio::test]
async fn a_client_with_too_many_streams_takes_none_from_others_behind_a_cache() {
    let collapse = |port| Cache::nginx("collapse", port);
    // nginx's answers here end at once, so no client keeps a stream open.
    for (make, holds_streams) in [(Cache::varnish as fn(u16) -> Cache, true), (collapse, false)] {
        let origin = Origin::with(&BOUNDED);
        let mut ids = Vec::new();
        for n in 0..8 {
            ids.push(origin.publish("a", &n.to_string()).await);
        }
        let cache = make(origin.listen.port());
        // Each stream begins at another cursor, so each is an origin request.
        let mut held = Vec::new();
        for id in &ids[..7] {
            let mut stream = connect(cache.port, GREEDY).await;
            ask(&mut stream, &get("/channels/a", Some(id)), |text| text.contains("data: ")).await;
            held.push(stream);
        }
        // The cursor that all clients will send.
        let everyones = get("/channels/a", Some(&ids[6]));
        for address in [GREEDY, "127.0.0.3", "127.0.0.4"] {
            let mut stream = connect(cache.port, address).await;
            let is_whole = |text: &str| text.contains("data: 7\n") || text.contains("retry_ms");
            let text = ask(&mut stream, &everyones, is_whole).await;
            assert!(text.contains("data: 7\n"), "{address}: {text}");
        }
        if !holds_streams {
            continue;
        }
        // A request for one client alone is counted for that client, and its refusal is not shared.
        let own =
            b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer none\r\n\r\n";
        let mut last = String::new();
        for _ in 0..4 {
            let mut stream = connect(cache.port, GREEDY).await;
            last = ask(&mut stream, own, |text| text.contains("retry: ")).await;
            held.push(stream);
        }
        assert!(last.contains("headwater-shed: client"), "{last}");
        assert!(last.contains("private, no-store"), "{last}");
    }
}

/// A request with only some headers of a handshake.
const HALF_A_HANDSHAKE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n";
/// A request with a forged header. If the cache piped the connection, it would reach the origin
/// unchanged.
const FORGED: &[u8] =
    b"GET /channels/a/state HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";

// protocol §14.5
#[tokio::test]
async fn a_refused_handshake_leaves_no_pipe_to_the_origin() {
    let origin = Origin::with(&["--store", "memory"]);
    for refused in [
        HALF_A_HANDSHAKE,
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        b"OPTIONS /ws HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ] {
        // The origin does not read the bytes that follow.
        let mut stream = TcpStream::connect(origin.listen).await.expect("it listens");
        let both = [refused, FORGED].concat();
        let text = ask(&mut stream, &both, |_| false).await;
        let shown = String::from_utf8_lossy(refused);
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{shown}: {text}");
        assert!(text.to_lowercase().contains("close\r\n"), "{shown}: {text}");
    }
    let varnish = Cache::varnish(origin.listen.port());
    // Varnish itself answers the request that follows.
    let mut stream = TcpStream::connect(("127.0.0.1", varnish.port)).await.expect("it listens");
    let refused = ask(&mut stream, HALF_A_HANDSHAKE, |text| text.contains("\r\n\r\n{")).await;
    assert!(refused.starts_with("HTTP/1.1 426 "), "{refused}");
    stream.write_all(FORGED).await.ok();
    let next = read_until(&mut stream, |text| text.contains("cursor")).await.to_lowercase();
    assert!(next.is_empty() || next.contains("\r\nx-varnish: "), "{next}");
    // nginx does not reuse such a connection for the requests of others.
    let certificate = Certificate::new();
    let nginx = Cache::nginx_tls(varnish.port, &certificate);
    for n in 0..40 {
        let handshake = n < 20;
        let mut words = vec!["-sk", "-i", "-m", "5"];
        if handshake {
            words.extend(["-H", "Upgrade: websocket"]);
        }
        let path = if handshake { "ws" } else { "channels/a/state" };
        let url = format!("https://127.0.0.1:{}/{path}", nginx.port);
        let output = std::process::Command::new("curl").args(words).arg(url).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
        if !handshake {
            assert!(text.contains("\nx-varnish: "), "{text}");
        }
    }
}

#[tokio::test]
async fn a_page_of_history_is_kept_under_the_request_that_made_it() {
    let origin = Origin::with(&["--store", "memory"]);
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(origin.publish("a", &n.to_string()).await);
    }
    let cache = Cache::nginx("collapse", origin.listen.port());
    let page = async |query: &str| {
        let path = format!("/channels/a/history?{query}");
        let answer = request(&cache.address(), Method::GET, &path, &[], "".into()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["events"][0]["data"].as_str().expect("an event").to_owned()
    };
    // nginx compares the names of parameters without regard to case, and so does the origin.
    let poison = format!("AFTER=0-0&after={}&LIMIT=5&limit=5", ids[14]);
    page(&poison).await;
    assert_eq!(page("after=0-0&limit=5").await, "0");
    assert_eq!(page(&format!("after={}&limit=5", ids[14])).await, "15");
    // A name that ends with a line break does not address the channel without it.
    let path = "/channels/a%0a/history?after=0-0&limit=5";
    let answer = request(&cache.address(), Method::GET, path, &[], "".into()).await.unwrap();
    assert!(answer.status.is_client_error(), "{}", answer.status);
}

#[tokio::test]
async fn requests_with_unknown_origin_headers_share_one_response() {
    let page = "https://page.example";
    let flags = ["--store", "memory", "--segment", "10m", "--cors-origin", page];
    let origin =
        Origin::with(&[&flags[..], &["--token-secret", crate::protocol::access::SECRET]].concat());
    let tap = Tap::to(origin.listen.port()).await;
    let at = format!("127.0.0.1:{}", tap.port);
    let varnish = edge(&["varnish", "--origin", &at, "--cors-origin", page]);
    let varnish = Cache::varnish_with(&varnish);
    let collapse = Cache::nginx_own(|port| {
        let listen = format!("127.0.0.1:{port}");
        let directory = tempfile::tempdir().expect("a directory").keep();
        let path = directory.display().to_string();
        let words = ["nginx", "--profile", "collapse", "--origin", &at, "--listen", &listen];
        edge(&[&words[..], &["--cache-dir", &path, "--cors-origin", page]].concat())
    });
    let bearer = format!("Bearer {}", crate::protocol::access::minted(&["--publish", "*"]));
    let publish = origin.post("/channels/a", &[("authorization", &bearer)], "x").await;
    assert_eq!(publish.status, 201);
    // A full page of the history never changes.
    let page_path = "/channels/a/history?after=0-0&limit=1";
    for (cache, path) in [(&varnish, "/channels/a"), (&collapse, page_path)] {
        let before = tap.count();
        let mut held = Vec::new();
        for n in 0..50 {
            let origin = if n == 0 { page.to_owned() } else { format!("https://{n}.example") };
            let head =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
            let mut stream = TcpStream::connect(("127.0.0.1", cache.port)).await.unwrap();
            let text = ask(&mut stream, head.as_bytes(), |text| text.contains("\r\n\r\n")).await;
            let allowed = format!("access-control-allow-origin: {page}\r\n");
            assert_eq!(text.to_lowercase().contains(&allowed), n == 0, "{origin}: {text}");
            held.push(stream);
        }
        assert_eq!(tap.count() - before, 2, "{path}: {:?}", tap.asked());
    }
}

#[tokio::test]
async fn nginx_limits_the_connections_of_each_client() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    origin.publish("a", "x").await;
    let limit = ["--max-connections-per-client", "3"];
    let at = origin.listen.to_string();
    let stream = Cache::nginx_own(|port| {
        let listen = format!("127.0.0.1:{port}");
        let words = ["nginx", "--profile", "stream", "--origin", &at, "--listen", &listen];
        edge(&[&words[..], &limit].concat())
    });
    let squid = Cache::squid_with(origin.listen.port(), [&[], &limit], |text| text);
    for cache in [&stream, &squid] {
        let live = get("/channels/a?after=0-0", None);
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut stream = connect(cache.port, GREEDY).await;
            ask(&mut stream, &live, |text| text.contains("data: x")).await;
            held.push(stream);
        }
        // The refusal does not close an EventSource.
        let mut fourth = connect(cache.port, GREEDY).await;
        let text = ask(&mut fourth, &live, |text| text.contains("retry_ms")).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("retry: "), "{text}");
        let head = "GET /channels/a/history HTTP/1.1\r\nHost: localhost\r\n\
                    Origin: https://page.example\r\n\r\n";
        let mut reader = connect(cache.port, GREEDY).await;
        let text = ask(&mut reader, head.as_bytes(), |text| text.contains("limit_conn")).await;
        assert!(text.starts_with("HTTP/1.1 429 "), "{text}");
        assert!(text.contains("Access-Control-Allow-Origin: https://page.example"), "{text}");
        let mut other = connect(cache.port, "127.0.0.3").await;
        ask(&mut other, &live, |text| text.contains("data: x")).await;
    }
}

#[tokio::test]
async fn a_client_cannot_vouch_for_itself_through_nginx() {
    const EDGE_SECRET: &str = "what the edge and the origin know";
    let flags = ["--store", "memory", "--private", "secret", "--edge-auth", EDGE_SECRET];
    let origin =
        Origin::with(&[&flags[..], &["--token-secret", crate::protocol::access::SECRET]].concat());
    let vouched = [("headwater-edge-auth", EDGE_SECRET)];
    let path = "/channels/secret/history";
    assert_eq!(origin.request(Method::GET, path, &vouched, "").await.status, 200);
    let cache = Cache::nginx("collapse", origin.listen.port());
    for path in [path, "/channels/secret"] {
        let answer =
            request(&cache.address(), Method::GET, path, &vouched, "".into()).await.unwrap();
        assert_eq!(answer.status, 401, "{path}");
    }
}

// protocol §16.1
#[tokio::test]
async fn a_client_cannot_drop_last_event_id_with_a_connection_header() {
    let origin = Origin::with(&["--store", "memory", "--segment", "10m"]);
    let first = origin.publish("a", "1").await;
    origin.publish("a", "2").await;
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::varnish(tap.port);
    let head = format!(
        "GET /channels/a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {first}\r\n\
         Connection: keep-alive, Last-Event-ID\r\n\r\n"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", cache.port)).await.expect("it listens");
    let text = ask(&mut stream, head.as_bytes(), |text| text.contains("data: 2\n")).await;
    assert!(!text.contains("data: 1\n"), "{text}");
    assert_eq!(tap.asked().last().unwrap().cursor, Some(first));
}

#[test]
fn nginx_bounds_the_long_polls_that_clients_leave_behind() {
    let words = ["nginx", "--profile", "collapse", "--origin", "127.0.0.1:8080"];
    assert!(edge(&words).contains("limit_conn headwater_clients 1000;"));
    let own = edge(&[&words[..], &["--max-connections-per-client", "50"]].concat());
    assert!(own.contains("limit_conn headwater_clients 50;"), "{own}");
    assert!(!own.contains("limit_conn headwater_clients 1000;"), "{own}");
}
