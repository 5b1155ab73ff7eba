//! A WebSocket for programs: listens to one channel, as `bench` does to measure it.

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

/// What is read at once.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// An open socket.
pub struct Socket {
    wire: WebSocketStream<TokioIo<Upgraded>>,
}

/// A frame that concerns who listens.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Frame {
    /// Subscribed: from here on events follow.
    Ack,
    /// An event.
    Event {
        /// Its data.
        data: String,
    },
    /// Something is missing.
    Gap,
    /// What is of no interest here.
    #[serde(other)]
    Other,
}

impl Socket {
    /// Connects to `/ws`.
    ///
    /// # Errors
    /// When nobody listens there, or shakes no hands.
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
        // Thousands of these are opened at once; the library's own 128 KiB each would be a gigabyte.
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let upgraded = TokioIo::new(upgraded);
        let wire = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        Ok(Self { wire })
    }

    /// Asks for a channel, from now on.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn subscribe(&mut self, channel: &str) -> Result<(), HttpError> {
        let frame = json!({ "type": "subscribe", "channels": [channel] });
        let sent = self.wire.send(Message::text(frame.to_string())).await;
        sent.map_err(|error| HttpError(error.to_string()))
    }

    /// The next frame; `None` when there are no more. Cancel safe.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.wire.next().await?.ok()? {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Close(_) => return None,
                // Pings are answered with the next read.
                _ => {}
            }
        }
    }
}
