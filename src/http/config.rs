//! The settings of the HTTP layer.

use super::files::ExtraFile;
use crate::limits::rates::RatesConfig;
use std::num::NonZeroU32;
use std::time::Duration;

/// The limits, times and options of requests and responses.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The time after which a stream that has sent nothing sends a comment.
    pub heartbeat: Duration,
    /// The bytes of events after which a stream ends early.
    pub segment_bytes: usize,
    /// The longest time that a long poll waits for an event.
    pub long_poll_timeout: Duration,
    /// How long a long poll waits for more events after its first one.
    pub long_poll_linger: Duration,
    /// The most bytes of events in the response to a long poll, which is built in memory.
    pub long_poll_bytes: usize,
    /// The most bytes of data in one event.
    pub event_bytes: usize,
    /// The most bytes in a batch.
    pub batch_bytes: usize,
    /// The most events in a batch.
    pub batch_events: usize,
    /// The most bytes of memory for publish bodies that are being read at the same time.
    pub publish_buffer: usize,
    /// The longest time for the body of a publish to arrive.
    pub body_timeout: Duration,
    /// The rate limits for publishing.
    pub publish_rates: RatesConfig,
    /// The limits of each WebSocket.
    pub websocket: WebSocketLimits,
    /// The longest time for which a client may leave its response unread.
    pub write_timeout: Duration,
    /// The web origins whose pages may read responses; empty: all origins.
    pub cors_origins: Vec<String>,
    /// The host names that a loopback listener without a key accepts, beside its own.
    pub allowed_hosts: Vec<String>,
    /// Whether to send `Surrogate-Key` and `Cache-Tag`.
    pub surrogate_keys: bool,
    /// Files to serve at paths outside of `/channels/`; one at `/` replaces the home page.
    pub files: Vec<ExtraFile>,
}

/// The limits of one WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketLimits {
    /// The time between two pings of the origin.
    pub ping: Duration,
    /// The most bytes in a message from the client.
    pub message_bytes: usize,
    /// The most messages a second from the client.
    pub frames_per_second: NonZeroU32,
    /// The most bytes a second from the client.
    pub bytes_per_second: NonZeroU32,
    /// The most channels that the client may be subscribed to at the same time.
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
            files: Vec::new(),
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
