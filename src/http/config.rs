//! The settings of the HTTP layer.

use crate::limits::rates::RatesConfig;
use std::num::NonZeroU32;
use std::time::Duration;

/// What a client is sent, and may send.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Quiet time after which a stream sends a comment.
    pub heartbeat: Duration,
    /// Most bytes of events in one response.
    pub segment_bytes: usize,
    /// Longest wait of a long poll for an event.
    pub long_poll_timeout: Duration,
    /// How long the answer to a long poll waits for more events after its first.
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

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            segment_bytes: 8 * MIB,
            long_poll_timeout: Duration::from_secs(20),
            long_poll_linger: Duration::from_millis(20),
            long_poll_bytes: MIB,
            event_bytes: MIB,
            batch_bytes: 8 * MIB,
            batch_events: 10_000,
            publish_buffer: 64 * MIB,
            body_timeout: Duration::from_secs(30),
            publish_rates: RatesConfig::default(),
            websocket: WebSocketLimits::default(),
            write_timeout: Duration::from_secs(30),
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            surrogate_keys: false,
            demo: false,
        }
    }
}

impl Default for WebSocketLimits {
    fn default() -> Self {
        const FRAMES: NonZeroU32 = NonZeroU32::new(100).expect("more than 0");
        const BYTES: NonZeroU32 = NonZeroU32::new(MIB as u32).expect("more than 0");
        Self {
            ping: Duration::from_secs(20),
            message_bytes: 64 * KIB,
            frames_per_second: FRAMES,
            bytes_per_second: BYTES,
            channels: 100,
        }
    }
}
