//! WebSockets over HTTP/2 (RFC 8441), over TLS and with prior knowledge. The client is the crate
//! `h2`, and Chromium.

use crate::browsers::browser::Browser;
use crate::kit::edge::Certificate;
use crate::kit::socket::{self, Socket};
use crate::kit::{Origin, PATIENCE};
use crate::protocol::access::{SECRET, minted};
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use hyper::{Method, Request, Response, Version};
use serde_json::{Value, json};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const OPEN: &str = "headwater_websockets_open";
const VERSION: (&str, &str) = ("sec-websocket-version", "13");

/// A connection over HTTP/2. The task ends with the connection.
struct Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
    authority: String,
}

/// A response, and the way to its stream.
type Answered = (Response<RecvStream>, SendStream<Bytes>);

impl Client {
    /// Connects with prior knowledge.
    async fn connect(origin: &Origin) -> Self {
        Self::with(origin.listen, &Builder::new()).await
    }

    async fn with(server: SocketAddr, settings: &Builder) -> Self {
        let stream = TcpStream::connect(server).await.expect("it listens");
        Self::on(stream, server, settings).await
    }

    /// Connects over TLS.
    async fn connect_over_tls(origin: &Origin, certificate: &Certificate) -> Self {
        let stream = socket::tls(origin.listen, certificate, &["h2"]).await;
        Self::on(stream, origin.listen, &Builder::new()).await
    }

    async fn on(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        server: SocketAddr,
        settings: &Builder,
    ) -> Self {
        let (requests, connection) = settings.handshake(stream).await.expect("HTTP/2");
        let connection = tokio::spawn(async move { connection.await.unwrap_or_default() });
        let settings = async {
            while !requests.is_extended_connect_protocol_enabled() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, settings).await.expect("the origin offers extended CONNECT");
        Self { requests, connection, authority: server.to_string() }
    }

    /// Sends a request, and returns its stream and the response to come.
    async fn send(
        &mut self,
        (method, path, protocol): (Method, &str, Option<&'static str>),
        headers: &[(&str, &str)],
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let is_end = method != Method::CONNECT;
        let mut request = Request::builder()
            .method(method)
            .version(Version::HTTP_2)
            .uri(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).expect("a request");
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        let ready = timeout(PATIENCE, poll_fn(|context| self.requests.poll_ready(context))).await;
        ready.expect("a stream is free").expect("it is open");
        self.requests.send_request(request, is_end).expect("a request")
    }

    async fn answered(
        &mut self,
        line: (Method, &str, Option<&'static str>),
        headers: &[(&str, &str)],
    ) -> Answered {
        let (response, stream) = self.send(line, headers).await;
        let response = timeout(PATIENCE, response).await.expect("an answer in time");
        (response.expect("an answer"), stream)
    }

    /// Asks for a WebSocket at a path.
    async fn handshake(&mut self, path: &str, headers: &[(&str, &str)]) -> Answered {
        let headers = [&[VERSION], headers].concat();
        self.answered((Method::CONNECT, path, Some("websocket")), &headers).await
    }

    /// Opens a WebSocket.
    async fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> Socket {
        let (response, stream) = self.handshake(path, headers).await;
        assert_eq!(response.status(), 200);
        carried(stream, response.into_body()).await
    }

    /// Asks for a WebSocket, and returns the status and the problem of the refusal.
    async fn refused(
        &mut self,
        line: (Method, &str, Option<&'static str>),
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let (response, _stream) = self.answered(line, headers).await;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(chunk) = body.data().await {
            text.extend_from_slice(&chunk.expect("a chunk"));
        }
        (status, serde_json::from_slice(&text).expect("a problem"))
    }
}

/// A WebSocket on a stream, whose bytes pass through a pipe.
async fn carried(send: SendStream<Bytes>, receive: RecvStream) -> Socket {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (read, write) = tokio::io::split(far);
    tokio::spawn(send_all(read, send));
    tokio::spawn(receive_all(receive, write));
    Socket::after_handshake(near).await
}

async fn send_all(mut from: tokio::io::ReadHalf<DuplexStream>, mut to: SendStream<Bytes>) {
    let mut buffer = [0; 4 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send_data(Bytes::copy_from_slice(&buffer[..count]), false).is_err() {
            return;
        }
    }
    to.send_data(Bytes::new(), true).ok();
}

async fn receive_all(mut from: RecvStream, mut to: tokio::io::WriteHalf<DuplexStream>) {
    while let Some(Ok(chunk)) = from.data().await {
        from.flow_control().release_capacity(chunk.len()).ok();
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}

/// Waits until a metric has a value.
async fn becomes(origin: &Origin, metric: &str, value: f64) {
    let becomes = async {
        while origin.metric(metric).await != value {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, becomes).await.is_ok(), "{metric} becomes {value}");
}

// protocol §14.1
#[tokio::test]
async fn sockets_and_requests_share_a_connection() {
    let certificate = Certificate::new();
    let (chain, key) = (certificate.path("chain.pem"), certificate.path("key.pem"));
    let log = ["--store", "memory", "--log", "debug"];
    let plain = Origin::with(&log);
    let over_tls = Origin::with(&[&log[..], &["--tls-cert", &chain, "--tls-key", &key]].concat());
    let mut of_plain = Client::connect(&plain).await;
    let mut of_tls = Client::connect_over_tls(&over_tls, &certificate).await;
    for (origin, client) in [(&plain, &mut of_plain), (&over_tls, &mut of_tls)] {
        let protocols = [("sec-websocket-protocol", "chat, headwater")];
        let (response, stream) = client.handshake("/ws", &protocols).await;
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers().get(name).map(|value| value.as_bytes());
        assert_eq!(header("sec-websocket-protocol"), Some(&b"headwater"[..]));
        for none in ["sec-websocket-accept", "upgrade", "connection"] {
            assert_eq!(header(none), None, "{none}");
        }
        let mut one = carried(stream, response.into_body()).await;
        let mut other = client.open("/ws", &[]).await;
        assert_eq!(one.subscribe("a", None).await.len(), 1);
        let published = other.publish("a", "hello").await;
        let event =
            json!({ "type": "event", "channel": "a", "id": published["id"], "data": "hello" });
        assert_eq!(one.hear().await, event);
        // An event that needs many frames of HTTP/2, in both directions.
        let large = "x".repeat(60_000);
        other.say(json!({ "type": "publish", "channel": "a", "data": large })).await;
        assert_eq!(one.hear().await["data"], large);
        assert_eq!(other.hear().await["type"], "ack");
        // A request between them.
        let line = (Method::GET, "/channels/a/history", None);
        let (status, page) = client.refused(line, &[]).await;
        assert_eq!((status, page["events"].as_array().map(Vec::len)), (200, Some(2)));
        assert_eq!(origin.metric(OPEN).await, 2.0);
        one.close().await;
        assert_eq!(one.closed().await, None);
        becomes(origin, OPEN, 1.0).await;
        assert_eq!(other.publish("a", "still there").await["type"], "ack");
        origin.logs("a connection was opened client=127.0.0.1 transport=websocket+h2").await;
        origin.logs("reason=websocket-gone").await;
        // The client is asked to leave when the process ends, and the connection ends with it.
        origin.signal("TERM");
        let (code, reason) = other.closed().await.expect("a reason");
        assert!(code == 1012 && reason.contains("connect again"), "{code} {reason}");
        let ended = timeout(PATIENCE, &mut client.connection).await;
        ended.expect("the connection ends").expect("no panic");
    }
}

#[tokio::test]
async fn the_checks_of_the_handshake_are_those_of_http_1() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "desk.*"];
    let limits = ["--cors-origin", "https://app.example", "--max-ws-message", "4KiB"];
    let origin = Origin::with(&[&flags[..], &limits].concat());
    let mut client = Client::connect(&origin).await;
    let connect = |path| (Method::CONNECT, path, Some("websocket"));
    // A page of another site.
    let page = [VERSION, ("origin", "https://evil.example")];
    let (status, problem) = client.refused(connect("/ws"), &page).await;
    assert_eq!((status, &problem["type"]), (403, &json!("urn:headwater:problem:origin")));
    client.open("/ws", &[("origin", "https://app.example")]).await;
    // Another version, or none.
    for headers in [&[][..], &[("sec-websocket-version", "8")]] {
        let (status, problem) = client.refused(connect("/ws"), headers).await;
        assert_eq!((status, &problem["field"]), (400, &json!("Sec-WebSocket-Version")));
    }
    // A token that is not valid, and one that is.
    let mut socket = client.open("/ws?access_token=forged", &[]).await;
    let (code, reason) = socket.closed().await.expect("a reason");
    assert!(code == 1008 && reason.contains("the token is not signed"), "{code} {reason}");
    let bearer = format!("headwater, bearer.{}", minted(&["--subscribe", "desk.*"]));
    let mut socket = client.open("/ws", &[("sec-websocket-protocol", &bearer)]).await;
    assert_eq!(socket.subscribe("desk.a", None).await[0]["type"], "ack");
    let mut socket = client.open("/ws", &[]).await;
    assert_eq!(socket.subscribe("desk.a", None).await[0]["type"], "error");
    // A message that is too long.
    socket.say(json!({ "type": "ping", "ref": "x".repeat(5_000) })).await;
    let (code, reason) = socket.closed().await.expect("a reason");
    assert!(code == 1009 && reason.contains("4096 bytes (--max-ws-message)"), "{code} {reason}");
}

#[tokio::test]
async fn a_connect_that_is_no_handshake_changes_nothing() {
    let origin = Origin::start();
    let id = origin.publish("a", "x").await;
    let mut client = Client::connect(&origin).await;
    for (path, protocol) in [
        ("/ws", Some("connect-udp")),
        ("/ws", Some("websocket, websocket")),
        ("/channels/a", Some("websocket")),
        ("/channels/a", Some("bytestream")),
        ("/healthz", Some("websocket")),
        ("/", Some("websocket")),
        // The target is a host and a port only, as for a proxy.
        ("", None),
    ] {
        let (status, problem) = client.refused((Method::CONNECT, path, protocol), &[VERSION]).await;
        let expected = (501, &json!("urn:headwater:problem:connect"));
        assert_eq!((status, &problem["type"]), expected, "{path} {protocol:?}");
    }
    let (status, problem) = client.refused((Method::GET, "/ws", None), &[VERSION]).await;
    assert_eq!(status, 426);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("CONNECT")));
    // A reset before the answer, after it, and within a message.
    let headers = [VERSION];
    for bytes in [None, Some(&b""[..]), Some(b"\x81\xfe"), Some(b"\x01\x85\0\0\0\0hello")] {
        let line = (Method::CONNECT, "/ws", Some("websocket"));
        let (response, mut stream) = client.send(line, &headers).await;
        if let Some(bytes) = bytes {
            let response = timeout(PATIENCE, response).await.expect("in time").expect("an answer");
            assert_eq!(response.status(), 200);
            becomes(&origin, OPEN, 1.0).await;
            stream.send_data(Bytes::from_static(bytes), false).expect("it is open");
        }
        stream.send_reset(Reason::INTERNAL_ERROR);
        becomes(&origin, OPEN, 0.0).await;
    }
    // hyper ends the connection of a CONNECT with a length, and no other one.
    let mut other = Client::connect(&origin).await;
    let line = (Method::CONNECT, "/ws", Some("websocket"));
    let (response, _stream) = other.send(line, &[VERSION, ("content-length", "5")]).await;
    assert!(timeout(PATIENCE, response).await.expect("in time").is_err());
    // The same connection still serves.
    let mut socket = client.open("/ws", &[]).await;
    assert_eq!(socket.subscribe("a", Some("0-0")).await.len(), 1);
    assert_eq!(socket.hear().await["id"], id);
}

#[tokio::test]
async fn each_socket_counts_against_the_limits_of_connections() {
    let origin = Origin::with(&["--store", "memory", "--max-connections-per-client", "4"]);
    let mut client = Client::connect(&origin).await;
    let mut open = Vec::new();
    // The connection itself is one of the four.
    for _ in 0..3 {
        let mut socket = client.open("/ws", &[]).await;
        assert_eq!(socket.publish("a", "x").await["type"], "ack");
        open.push(socket);
    }
    let mut one_more = client.open("/ws", &[]).await;
    let (code, reason) = one_more.closed().await.expect("a reason");
    assert!(code == 1013 && reason.contains("--max-connections-per-client"), "{code} {reason}");
    // The place of one that has left is free.
    open.pop().expect("a socket").close().await;
    becomes(&origin, OPEN, 2.0).await;
    let another = async {
        loop {
            let mut socket = client.open("/ws", &[]).await;
            socket.try_say(json!({ "type": "ping" })).await.ok();
            if let socket::Heard::Frame(_) = socket.next().await {
                return;
            }
        }
    };
    timeout(PATIENCE, another).await.expect("a place is free");
    // All streams over HTTP/2 together are limited, too.
    let origin = Origin::with(&["--store", "memory", "--max-connections", "2"]);
    let mut client = Client::connect(&origin).await;
    let mut first = client.open("/ws", &[]).await;
    let mut second = client.open("/ws", &[]).await;
    assert_eq!(first.publish("a", "x").await["type"], "ack");
    assert_eq!(second.publish("a", "x").await["type"], "ack");
    let (code, reason) = client.open("/ws", &[]).await.closed().await.expect("a reason");
    assert!(code == 1013 && reason.contains("(--max-connections)"), "{code} {reason}");
}

#[tokio::test]
async fn a_connection_has_a_hundred_streams() {
    let flags = ["--store", "memory", "--max-connections-per-client", "1000"];
    let origin = Origin::with(&flags);
    let mut client = Client::connect(&origin).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(client.open("/ws", &[]).await);
    }
    becomes(&origin, OPEN, 100.0).await;
    assert_eq!(client.requests.current_max_send_streams(), 100);
    let next = tokio::spawn(async move { client.open("/ws", &[]).await.publish("a", "x").await });
    assert_eq!(open[0].publish("a", "y").await["type"], "ack");
    assert_eq!(origin.metric(OPEN).await, 100.0);
    assert!(!next.is_finished());
    open.pop().expect("a socket").close().await;
    let published = timeout(PATIENCE, next).await.expect("a stream is free").expect("no panic");
    assert_eq!(published["type"], "ack");
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection() {
    let flags = ["--store", "memory", "--write-timeout", "1s", "--log", "debug"];
    let origin = Origin::with(&flags);
    let mut settings = Builder::new();
    settings.initial_window_size(1_000);
    let mut client = Client::with(origin.listen, &settings).await;
    let (response, mut stream) = client.handshake("/ws", &[]).await;
    // The stream is kept, and never read.
    let _body = response.into_body();
    let subscribe = br#"{"type":"subscribe","channels":["a"]}"#;
    stream
        .send_data(crate::websocket::raw::frame(0x81, subscribe).into(), false)
        .expect("it is open");
    becomes(&origin, "headwater_websocket_frames_in_total", 1.0).await;
    for _ in 0..10 {
        origin.publish("a", &"x".repeat(50_000)).await;
    }
    let ended = timeout(PATIENCE, client.connection).await;
    ended.expect("the connection is closed").expect("no panic");
    becomes(&origin, OPEN, 0.0).await;
    origin.logs("transport=h2 seconds=").await;
    origin.logs("reason=unread").await;
}

#[tokio::test]
async fn a_page_in_chromium_uses_the_connection_that_it_has() {
    let certificate = Certificate::new();
    let (chain, key) = (certificate.path("chain.pem"), certificate.path("key.pem"));
    let tls = ["--store", "memory", "--tls-cert", &chain, "--tls-key", &key, "--log", "debug"];
    let origin = Origin::with(&tls);
    let browser = Browser::start_with(&["--ignore-certificate-errors"]).await;
    let host = format!("localhost:{}", origin.listen.port());
    browser.open(&format!("https://{host}/")).await;
    let talk = format!(
        r#"const done = arguments[0];
        const socket = new WebSocket("wss://{host}/ws", ["headwater"]);
        socket.onopen = () => socket.send('{{"type":"publish","channel":"a","data":"x"}}');
        socket.onmessage = (message) => done(JSON.parse(message.data).type);
        socket.onclose = (close) => done(close.code);"#
    );
    assert_eq!(browser.run_async(&talk).await, "ack");
    origin.logs("transport=websocket+h2").await;
}
