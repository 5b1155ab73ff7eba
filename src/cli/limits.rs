//! Flags about how much clients may have and send, to the values that bound them.

use super::units::{bytes, duration, positive};
use crate::http::WebSocketLimits;
use crate::limits::client_address::Network;
use crate::limits::connections::ClientsConfig;
use crate::limits::rates::{Allowance, RatesConfig};
use clap::Args;
use hyper::header::HeaderName;
use std::num::NonZeroU32;
use std::time::Duration;

#[derive(Args, Clone, Debug)]
pub struct LimitArguments {
    /// Most connections served at once; above it streams and WebSockets are shed, other requests are
    /// answered, and the connection is closed after that (count)
    #[arg(long, env = "HEADWATER_MAX_CONNECTIONS", default_value_t = 50_000)]
    pub max_connections: usize,
    /// Most connections of one client, by its address or IPv6 /64; 0 = no limit (count)
    #[arg(long, env = "HEADWATER_MAX_CONNECTIONS_PER_CLIENT", default_value_t = 0)]
    max_connections_per_client: usize,
    /// Proxy or cache that connects for clients, as 10.0.0.0/8; repeat for more. Each of its requests
    /// counts for the client that --client-header names, except requests whose answer is shared
    #[arg(long = "trusted-proxy", env = "HEADWATER_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxies: Vec<Network>,
    /// Header in which trusted proxies say for whom they ask, as Fastly-Client-IP
    #[arg(long, env = "HEADWATER_CLIENT_HEADER", default_value = "X-Forwarded-For")]
    client_header: HeaderName,
    /// Longest time that the head of a request may take (time)
    #[arg(long, env = "HEADWATER_HEAD_TIMEOUT", default_value = "10s", value_parser = duration)]
    head_timeout: Duration,
    /// How long a connection stays open without a request; longer than what the cache or load
    /// balancer in front keeps its idle connections for (time)
    #[arg(long, env = "HEADWATER_IDLE_TIMEOUT", default_value = "75s", value_parser = duration)]
    idle_timeout: Duration,
    /// Longest time that the body of a publish may take (time)
    #[arg(long, env = "HEADWATER_BODY_TIMEOUT", default_value = "30s", value_parser = duration)]
    body_timeout: Duration,
    /// Longest time that a client may take nothing of what it is sent (time)
    #[arg(long, env = "HEADWATER_WRITE_TIMEOUT", default_value = "30s", value_parser = duration)]
    write_timeout: Duration,
    /// Most events a second, and at once, into one channel of this origin; 0 = no limit (count)
    #[arg(long, env = "HEADWATER_PUBLISH_RATE", default_value_t = 0)]
    publish_rate: u32,
    /// Most events a second, and at once, from all tokens with one `sub`; 0 = no limit (count)
    #[arg(long, env = "HEADWATER_PUBLISH_RATE_PER_SUBJECT", default_value_t = 0)]
    publish_rate_per_subject: u32,
    /// Most channels that tokens with one `sub` make at this origin at once; they are given back evenly
    /// over --channel-idle; 0 = no limit (count)
    #[arg(long, env = "HEADWATER_NEW_CHANNELS_PER_SUBJECT", default_value_t = 0)]
    new_channels_per_subject: u32,
    /// Most publishes with an Idempotency-Key from tokens with one `sub` at this origin at once; they
    /// are given back evenly over --idempotency-age; 0 = no limit (count)
    #[arg(long, env = "HEADWATER_IDEMPOTENCY_KEYS_PER_SUBJECT", default_value_t = 0)]
    idempotency_keys_per_subject: u32,
    /// Most channels that one WebSocket listens to (count)
    #[arg(long, env = "HEADWATER_MAX_WS_CHANNELS", default_value_t = 100)]
    max_ws_channels: usize,
    /// Most bytes of one message that comes in over a WebSocket (size)
    #[arg(long, env = "HEADWATER_MAX_WS_MESSAGE", default_value = "64KiB", value_parser = bytes)]
    max_ws_message: u64,
    /// Most messages a second that come in over one WebSocket (count)
    #[arg(long, env = "HEADWATER_WS_FRAME_RATE", default_value = "100")]
    ws_frame_rate: NonZeroU32,
    /// Most bytes a second that come in over one WebSocket (size)
    #[arg(long, env = "HEADWATER_WS_BYTE_RATE", default_value = "1MiB", value_parser = bytes)]
    ws_byte_rate: u64,
    /// Pause between two pings of a WebSocket; who leaves two unanswered is let go (time)
    #[arg(long, env = "HEADWATER_WS_PING", default_value = "20s", value_parser = duration)]
    ws_ping: Duration,
}

/// Checked values.
pub struct ClientLimits {
    pub clients: ClientsConfig,
    pub head_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub publish_rates: RatesConfig,
    pub websocket: WebSocketLimits,
}

impl LimitArguments {
    /// Checked values; how long a channel and an idempotency key are remembered.
    ///
    /// # Errors
    /// Names the flag.
    pub fn finish(
        &self,
        channel_idle: Duration,
        idempotency_age: Duration,
    ) -> Result<ClientLimits, String> {
        let allowance = |count, time| NonZeroU32::new(count).map(|count| Allowance { count, time });
        let bytes_per_second = u32::try_from(self.ws_byte_rate).ok().and_then(NonZeroU32::new);
        let bytes_per_second = bytes_per_second.ok_or("--ws-byte-rate takes 1 to 4GiB")?;
        if self.max_ws_message == 0 || self.max_ws_message > self.ws_byte_rate {
            return Err("--max-ws-message takes 1 or more, and at most --ws-byte-rate".to_owned());
        }
        if self.max_connections == 0 {
            return Err("--max-connections takes 1 or more".to_owned());
        }
        Ok(ClientLimits {
            clients: ClientsConfig {
                most: self.max_connections_per_client,
                proxies: self.trusted_proxies.clone(),
                header: self.client_header.as_str().to_owned(),
            },
            head_timeout: positive(self.head_timeout, "--head-timeout")?,
            idle_timeout: positive(self.idle_timeout, "--idle-timeout")?,
            body_timeout: positive(self.body_timeout, "--body-timeout")?,
            write_timeout: positive(self.write_timeout, "--write-timeout")?,
            publish_rates: RatesConfig {
                channel: NonZeroU32::new(self.publish_rate),
                subject: NonZeroU32::new(self.publish_rate_per_subject),
                new_channels: allowance(self.new_channels_per_subject, channel_idle),
                idempotency_keys: allowance(self.idempotency_keys_per_subject, idempotency_age),
            },
            websocket: WebSocketLimits {
                ping: positive(self.ws_ping, "--ws-ping")?,
                message_bytes: usize::try_from(self.max_ws_message).unwrap_or(usize::MAX),
                frames_per_second: self.ws_frame_rate,
                bytes_per_second,
                channels: self.max_ws_channels,
            },
        })
    }
}
