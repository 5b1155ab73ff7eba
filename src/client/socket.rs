//! A WebSocket client for programs. It subscribes to one channel. `bench` uses it for its
//! measurements.

use super::http::{Address, Connection, HttpError};
use futures_util::SinkExt;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio_stream::StreamExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Size of the read buffer, in bytes.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// An open WebSocket.
pub struct Socket {
    wire: WebSocketStream<TokioIo<Upgraded>>,
}

/// A message from the origin to a subscriber.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Frame {
    /// The subscription is acknowledged; events follow.
    Ack,
    /// An event of the channel.
    Event {
        /// The data of the event.
        data: String,
    },
    /// Events are missing.
    Gap,
    /// Any other message.
    #[serde(other)]
    Other,
}

impl Socket {
    /// Connects to `/ws` and makes the handshake.
    ///
    /// # Errors
    /// Fails when there is no connection, or the server refuses the handshake.
    pub async fn open(address: &Address) -> Result<Self, HttpError> {
        let mut connection = Connection::open_http1(address).await?;
        let request = connection.request(Method::GET, "/ws").header(CONNECTION, "Upgrade");
        let request = request.header(UPGRADE, "websocket").header(SEC_WEBSOCKET_VERSION, "13");
        let request = request.header(SEC_WEBSOCKET_KEY, generate_key());
        let answer = connection.send(request, Default::default()).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            return Err(HttpError(format!("{address}/ws is no WebSocket: it answers {status}")));
        }
        let upgraded = hyper::upgrade::on(answer).await;
        let upgraded = upgraded.map_err(|error| HttpError(error.to_string()))?;
        // With the library's 128 KiB each, the thousands of sockets of `bench` would take a
        // gigabyte.
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let upgraded = TokioIo::new(upgraded);
        let wire = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        Ok(Self { wire })
    }

    /// Subscribes to a channel, without a cursor.
    ///
    /// # Errors
    /// Fails when the connection is broken.
    pub async fn subscribe(&mut self, channel: &str) -> Result<(), HttpError> {
        let frame = json!({ "type": "subscribe", "channels": [channel] });
        let sent = self.wire.send(Message::text(frame.to_string())).await;
        sent.map_err(|error| HttpError(error.to_string()))
    }

    /// Waits for the next message; `None` when the connection has ended. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.wire.next().await?.ok()? {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Close(_) => return None,
                // The library answers pings during the next read.
                _ => {}
            }
        }
    }
}
