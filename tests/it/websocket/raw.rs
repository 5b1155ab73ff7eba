//! WebSockets on the level of bytes, so that a test can send frames that no client library would
//! send.

use crate::kit::{Origin, PATIENCE};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub const TEXT: u8 = 0x81;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
pub const CLOSE: u8 = 0x88;
/// The bit in the first byte of a frame that marks the last frame of a message.
const FIN: u8 = 0x80;

/// One frame from the origin: its first byte and its payload.
pub type Frame = (u8, Vec<u8>);

/// The client side of a WebSocket after the handshake.
pub struct Peer {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// Encodes a masked frame (RFC 6455, section 5.2). `first` has its flags and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut bytes = head(first, payload.len() as u64);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Encodes the header of a masked frame up to the masking key, which is not included.
pub fn head(first: u8, length: u64) -> Vec<u8> {
    match length {
        0..=125 => vec![first, 0x80 | length as u8],
        126..=65_535 => [&[first, 0x80 | 126], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, 0x80 | 127], &length.to_be_bytes()[..]].concat(),
    }
}

/// Builds the handshake request.
pub fn handshake(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    (text + "\r\n").into_bytes()
}

/// Connects from another local address, so that the origin sees another client. With `narrow`, the
/// receive buffer is 4 KiB.
pub async fn connect_from(origin: &Origin, address: &str, narrow: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let address: IpAddr = address.parse().expect("an address");
    socket.bind(SocketAddr::new(address, 0)).expect("it is free");
    if narrow {
        socket.set_recv_buffer_size(4_096).expect("it can be small");
    }
    socket.connect(origin.listen).await.expect("it listens")
}

impl Peer {
    /// Performs a handshake with the required headers only.
    pub async fn connect(origin: &Origin) -> Self {
        Self::with(origin, "/ws", &[]).await
    }

    /// Performs a handshake at `path` with these additional headers.
    pub async fn with(origin: &Origin, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(origin.listen).await.expect("it listens");
        Self::on(stream, &handshake(path, headers)).await.expect("it shakes hands")
    }

    /// Sends the handshake on a connection. Returns the origin's answer as the error if it is not a
    /// 101.
    pub async fn on(mut stream: TcpStream, handshake: &[u8]) -> Result<Self, String> {
        stream.write_all(handshake).await.expect("it reads");
        let mut peer = Self { stream, unread: Vec::new() };
        let end = loop {
            let place = peer.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(place) = place {
                break place + 4;
            }
            if !peer.read().await {
                return Err(String::from_utf8_lossy(&peer.unread).into_owned());
            }
        };
        if peer.unread.starts_with(b"HTTP/1.1 101 ") {
            peer.unread.drain(..end);
            return Ok(peer);
        }
        Err(String::from_utf8_lossy(&peer.unread).into_owned())
    }

    /// Sends bytes. The origin may have closed the connection, which is no error.
    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        let _cut = sent.expect("it reads, or closes");
    }

    /// Sends a text frame.
    pub async fn say(&mut self, text: &str) {
        self.send(&frame(TEXT, text.as_bytes())).await;
    }

    /// Sends a text frame and returns the next message.
    pub async fn ask(&mut self, text: &str) -> Value {
        self.say(text).await;
        self.message().await
    }

    /// Returns the next frame, or `None` when the connection has ended.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Returns the next message, assembled from its frames. Answers pings meanwhile.
    pub async fn message(&mut self) -> Value {
        let message = tokio::time::timeout(PATIENCE, self.next_message()).await;
        message.expect("a message comes")
    }

    async fn next_message(&mut self) -> Value {
        let mut text = Vec::new();
        loop {
            let next = self.frame().await;
            let (first, payload) = next.expect("more than the end of the connection");
            match first {
                PING => self.send(&frame(PONG, &payload)).await,
                PONG => {}
                CLOSE => panic!("closed: {:?}", closing(&payload)),
                _ => text.extend(payload),
            }
            if first & FIN != 0 && first & 0x08 == 0 {
                return serde_json::from_slice(&text).expect("a JSON object");
            }
        }
    }

    /// Reads up to the close frame and returns its code and reason, or `None` if the connection
    /// ends without one.
    pub async fn goodbye(&mut self) -> Option<(u16, String)> {
        let closed = async {
            while let Some((first, payload)) = self.frame().await {
                if first == CLOSE {
                    return Some(closing(&payload));
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("it is closed")
    }

    /// Checks that the origin still answers on this socket.
    pub async fn assert_open(&mut self) {
        self.say(r#"{"type":"ping","ref":"still here"}"#).await;
        while self.message().await["ref"] != "still here" {}
    }

    /// Reads the available bytes. Returns `false` when the connection has ended.
    async fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        match read.expect("the origin says something in time") {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let (first, second) = (*self.unread.first()?, *self.unread.get(1)?);
        assert!(second & 0x80 == 0, "a server masks nothing");
        let (begin, length) = match second {
            126 => (4, number(self.unread.get(2..4)?)),
            127 => (10, number(self.unread.get(2..10)?)),
            short => (2, usize::from(short)),
        };
        let payload = self.unread.get(begin..begin + length)?.to_vec();
        self.unread.drain(..begin + length);
        Some((first, payload))
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn closing(payload: &[u8]) -> (u16, String) {
    let code = payload.get(..2).map_or(1005, number);
    let reason = String::from_utf8(payload.get(2..).unwrap_or_default().to_vec());
    (code as u16, reason.expect("text"))
}
