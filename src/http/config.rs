//! The settings of the HTTP layer.

use crate::limits::rates::RatesConfig;
use std::num::NonZeroU32;
use std::time::Duration;

/// What a client is sent, and may send.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Quiet time after which a stream sends a comment.
    pub heartbeat: Duration,
    /// Longest wait for the store, and for memory.
    pub store_timeout: Duration,
    /// Most streams over HTTP/2.
    pub streams_max: usize,
    /// Most bytes of events in one response.
    pub segment_bytes: usize,
    /// Longest wait of a long poll for an event.
    pub long_poll_timeout: Duration,
    /// How long a answer of a long poll waits for more events after its first.
    pub long_poll_linger: Duration,
    /// Most bytes of events in one answer of a long poll, which is built in memory.
    pub long_poll_bytes: usize,
    /// Most bytes of one event's data.
    pub event_bytes: usize,
    /// Most bytes of a batch.
    pub batch_bytes: usize,
    /// Most events in a batch.
    pub batch_events: usize,
    /// Most bytes of publishes being read at once.
    pub publish_buffer: usize,
    /// Longest time that the body of a publish may take.
    pub body_timeout: Duration,
    /// How fast events may come in.
    pub publish_rates: RatesConfig,
    /// What a WebSocket may do.
    pub websocket: WebSocketLimits,
    /// Longest time that a client may take nothing of what it is sent.
    pub write_timeout: Duration,
    /// Origins that may read; empty: all.
    pub cors_origins: Vec<String>,
    /// Hosts that a listener without a key answers to on a loopback address, beside its own.
    pub allowed_hosts: Vec<String>,
    /// Send `Surrogate-Key` and `Cache-Tag`.
    pub surrogate_keys: bool,
    /// Serve the demo page at `/`.
    pub demo: bool,
}

/// What a WebSocket may do.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketLimits {
    /// Pause between two pings.
    pub ping: Duration,
    /// Most bytes of a message from a client.
    pub message_bytes: usize,
    /// Most messages a second from a client.
    pub frames_per_second: NonZeroU32,
    /// Most bytes a second from a client.
    pub bytes_per_second: NonZeroU32,
    /// Most channels that a client listens to.
    pub channels: usize,
}
