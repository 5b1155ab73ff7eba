//! The connection of a WebSocket: its limits, its failures and its end.

use super::CloseReason;
use super::rate_limited::RateLimited;
use crate::http::WebSocketLimits;
use crate::limits::intake_pace::ByteCredit;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};

/// The size of the read buffer of each connection.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames are collected up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// The longest time for closing a connection, and the most bytes that are read during it. Unread
/// bytes would reset the connection, and the client might not receive the close reason.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
const DISCARDED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A connection that reads and writes WebSocket frames.
pub type Wire = WebSocketStream<RateLimited<TokioIo<Upgraded>>>;

/// Turns an upgraded connection into a WebSocket with these limits. `credit` is that of the
/// HTTP/2 connection, if the WebSocket is a stream of one.
pub async fn wire(
    upgraded: Upgraded,
    limits: &WebSocketLimits,
    credit: Option<Arc<ByteCredit>>,
) -> Wire {
    let config = wire_config(limits.message_bytes);
    let stream = RateLimited::new(TokioIo::new(upgraded), limits.bytes_per_second, credit);
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

/// The settings of the library for messages of at most `message_bytes` bytes.
pub fn wire_config(message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes))
}

/// The close reason for a failed connection; `None` if the client cannot receive one.
pub fn failed(error: &Error, limits: &WebSocketLimits) -> Option<CloseReason> {
    match error {
        Error::Capacity(_) => {
            let limit = limits.message_bytes;
            let reason = format!("a message has at most {limit} bytes (--max-ws-message)");
            Some(CloseReason::new(CloseCode::Size, reason))
        }
        Error::Utf8(_) => Some(CloseReason::new(CloseCode::Invalid, "text is UTF-8")),
        Error::Io(error) if error.kind() == ErrorKind::QuotaExceeded => {
            let limit = limits.bytes_per_second;
            let reason = format!("at most {limit} bytes a second (--ws-byte-rate)");
            Some(CloseReason::later(&reason, 1))
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(error) => Some(CloseReason::new(CloseCode::Protocol, error.to_string())),
        _ => None,
    }
}

/// Sends the close reason, and waits at most one second for the client to close too.
pub async fn close(wire: &mut Wire, close_reason: CloseReason) {
    let frame =
        CloseFrame { code: close_reason.code, reason: Utf8Bytes::from(short(close_reason.reason)) };
    let close = async {
        if wire.close(Some(frame)).await.is_ok() {
            wire.get_mut().discard(DISCARDED_BYTES_MAX).await;
        }
    };
    timeout(CLOSE_TIME_MAX, close).await.ok();
}

/// Cuts a reason to the 123 bytes that fit into a close frame (RFC 6455, section 5.5).
fn short(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(123));
    reason
}
