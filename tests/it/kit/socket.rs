//! A WebSocket client for tests. It sends and receives JSON frames, and reports how the connection
//! was closed.

use crate::kit::PATIENCE;
use crate::kit::edge::Certificate;
use futures_util::SinkExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_stream::StreamExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

pub struct Socket {
    wire: WebSocketStream<Box<dyn Connection>>,
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Connects over TLS, trusts the given certificate chain, and offers these protocols.
pub async fn tls(
    server: SocketAddr,
    certificate: &Certificate,
    protocols: &[&str],
) -> TlsStream<TcpStream> {
    let mut trusted = RootCertStore::empty();
    let chain = CertificateDer::pem_file_iter(certificate.path("chain.pem")).expect("a file");
    chain.for_each(|one| trusted.add(one.expect("PEM")).expect("a certificate"));
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        config.expect("versions").with_root_certificates(trusted).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(server).await.expect("it listens");
    let name = ServerName::from(server.ip());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

/// What a socket receives: a JSON frame, or the end of the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Frame(Value),
    Closed(Option<(u16, String)>),
}

impl Socket {
    pub async fn connect(server: SocketAddr) -> Self {
        Self::connect_with(server, "/ws", &[]).await.expect("a handshake")
    }

    /// Connects with a token in the header `Authorization`.
    pub async fn connect_as(server: SocketAddr, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        Self::connect_with(server, "/ws", &headers).await.expect("a handshake")
    }

    /// Connects to `path` with additional headers. Returns the status if the origin does not accept
    /// the handshake.
    pub async fn connect_with(
        server: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://{server}{path}").into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        let stream = TcpStream::connect(server).await.expect("it listens");
        let stream: Box<dyn Connection> = Box::new(stream);
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((wire, _)) => Ok(Self { wire }),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Connects over TLS, and trusts the given certificate chain.
    pub async fn connect_over_tls(server: SocketAddr, certificate: &Certificate) -> Self {
        let stream: Box<dyn Connection> = Box::new(tls(server, certificate, &[]).await);
        let url = format!("wss://{server}/ws");
        let (wire, _) = tokio_tungstenite::client_async(url, stream).await.expect("a handshake");
        Self { wire }
    }

    /// Goes on after a handshake that was made elsewhere.
    pub async fn after_handshake(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let stream: Box<dyn Connection> = Box::new(stream);
        Self { wire: WebSocketStream::from_raw_socket(stream, Role::Client, None).await }
    }

    /// Closes the socket.
    pub async fn close(&mut self) {
        self.wire.close(None).await.expect("it is open");
    }

    pub async fn say(&mut self, frame: Value) {
        self.try_say(frame).await.expect("it is open");
    }

    pub async fn try_say(&mut self, frame: Value) -> Result<(), Error> {
        self.wire.send(Message::text(frame.to_string())).await
    }

    /// Returns the next frame or the end of the connection. Cancellation-safe.
    pub async fn next(&mut self) -> Heard {
        loop {
            match self.wire.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Frame(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(frame))) => {
                    let said = |CloseFrame { code, reason }| (code.into(), reason.to_string());
                    return Heard::Closed(frame.map(said));
                }
                // The answers to pings are sent with the next read.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Closed(None),
            }
        }
    }

    /// Returns the next frame, and panics if none arrives in time.
    pub async fn hear(&mut self) -> Value {
        match timeout(PATIENCE, self.next()).await.expect("a frame") {
            Heard::Frame(frame) => frame,
            Heard::Closed(why) => panic!("closed: {why:?}"),
        }
    }

    /// Returns the next `count` frames.
    pub async fn hear_all(&mut self, count: usize) -> Vec<Value> {
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            frames.push(self.hear().await);
        }
        frames
    }

    /// Reads up to the end of the connection, and returns its close code and reason.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            if let Heard::Closed(why) = timeout(PATIENCE, self.next()).await.expect("an end") {
                return why;
            }
        }
    }

    /// Subscribes to a channel, and returns the frames up to and including the `ack` or `error`.
    pub async fn subscribe(&mut self, channel: &str, after: Option<&str>) -> Vec<Value> {
        let mut frame = json!({ "type": "subscribe", "channels": [channel] });
        if let Some(after) = after {
            frame["after"] = after.into();
        }
        self.say(frame).await;
        let mut frames = Vec::new();
        loop {
            frames.push(self.hear().await);
            let last = &frames[frames.len() - 1];
            if last["type"] == "ack" || last["type"] == "error" {
                return frames;
            }
        }
    }

    /// Publishes and returns the next frame, which is the answer if no other frame is in flight.
    pub async fn publish(&mut self, channel: &str, data: &str) -> Value {
        self.say(json!({ "type": "publish", "channel": channel, "data": data })).await;
        self.hear().await
    }
}
