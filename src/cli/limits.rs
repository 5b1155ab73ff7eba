//! The flags that limit clients and publishers, and the checked limits that are built from them.

use super::headings;
use super::units::{bytes, duration, positive};
use crate::http::WebSocketLimits;
use crate::limits::client_address::Network;
use crate::limits::connections::ClientsConfig;
use crate::limits::rates::{Allowance, EVENT_RATE, RatesConfig};
use clap::Args;
use hyper::header::HeaderName;
use std::num::NonZeroU32;
use std::time::Duration;

#[derive(Args, Clone, Debug)]
pub struct LimitArguments {
    /// Most connections served at once; over the limit streams and WebSockets are shed, other
    /// requests are answered, and the connection is closed after its response. By default 50000, or
    /// fewer where an eighth of the memory of the machine or its container has less than 8KiB for
    /// each (count)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Most connections of one client (an IPv4 address or an IPv6 /64); 0 = no limit (count)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_MAX_CONNECTIONS_PER_CLIENT", default_value_t = 0)]
    max_connections_per_client: usize,
    /// Address or network (10.0.0.0/8) of a proxy or cache; repeat for more. Each of its requests
    /// counts for the client that --client-header names, except requests whose response may be
    /// shared
    #[arg(help_heading = headings::LIMITS, long = "trusted-proxy", env = "HEADWATER_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxies: Vec<Network>,
    /// Header in which trusted proxies send the address of the client, such as Fastly-Client-IP
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_CLIENT_HEADER", default_value = "X-Forwarded-For")]
    client_header: HeaderName,
    /// Longest time that the head of a request may take to arrive (time)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_HEAD_TIMEOUT", default_value = "10s", value_parser = duration)]
    head_timeout: Duration,
    /// Longest time that a connection stays open without a request; must be longer than the cache
    /// or load balancer in front keeps its idle connections (time)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_IDLE_TIMEOUT", default_value = "75s", value_parser = duration)]
    idle_timeout: Duration,
    /// Longest time that the body of a publish may take to arrive (time)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_BODY_TIMEOUT", default_value = "30s", value_parser = duration)]
    body_timeout: Duration,
    /// Longest time that a client may read none of the data that is sent to it (time)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_WRITE_TIMEOUT", default_value = "30s", value_parser = duration)]
    write_timeout: Duration,
    /// Most events per second, and at once, into one channel at this origin; 0 = no limit (count)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_PUBLISH_RATE", default_value_t = EVENT_RATE.get())]
    publish_rate: u32,
    /// Most events per second, and at once, from tokens with the same `sub`, also refused ones; all
    /// tokens without a `sub` share one limit; 0 = no limit (count)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_PUBLISH_RATE_PER_SUBJECT", default_value_t = EVENT_RATE.get())]
    publish_rate_per_subject: u32,
    /// Most new channels at once from tokens with the same `sub`, at this origin; the allowance
    /// is restored evenly over --channel-idle; 0 = no limit (count)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_NEW_CHANNELS_PER_SUBJECT", default_value_t = 0)]
    new_channels_per_subject: u32,
    /// Most publishes at once with an Idempotency-Key from tokens with the same `sub`, at this
    /// origin; the allowance is restored evenly over --idempotency-age; 0 = no limit (count)
    #[arg(help_heading = headings::LIMITS, long, env = "HEADWATER_IDEMPOTENCY_KEYS_PER_SUBJECT", default_value_t = 0)]
    idempotency_keys_per_subject: u32,
    /// Most channels that one WebSocket subscribes to (count)
    #[arg(help_heading = headings::WEBSOCKET, long, env = "HEADWATER_MAX_WS_CHANNELS", default_value_t = 100)]
    max_ws_channels: usize,
    /// Most bytes of one message from a client over a WebSocket (size)
    #[arg(help_heading = headings::WEBSOCKET, long, env = "HEADWATER_MAX_WS_MESSAGE", default_value = "64KiB", value_parser = bytes)]
    max_ws_message: u64,
    /// Most messages per second from a client over one WebSocket (count)
    #[arg(help_heading = headings::WEBSOCKET, long, env = "HEADWATER_WS_FRAME_RATE", default_value = "100")]
    ws_frame_rate: NonZeroU32,
    /// Most bytes per second from a client over one WebSocket (size)
    #[arg(help_heading = headings::WEBSOCKET, long, env = "HEADWATER_WS_BYTE_RATE", default_value = "1MiB", value_parser = bytes)]
    ws_byte_rate: u64,
    /// Time between two pings of a WebSocket, which is closed after two unanswered pings (time)
    #[arg(help_heading = headings::WEBSOCKET, long, env = "HEADWATER_WS_PING", default_value = "20s", value_parser = duration)]
    ws_ping: Duration,
}

/// The limits of clients and publishers, after the checks.
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
    /// Checks the flags, and returns the limits. The allowances of new channels and idempotency
    /// keys are restored over `channel_idle` and `idempotency_age`.
    ///
    /// # Errors
    /// Fails when a flag has a wrong value; the text names the flag.
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
        if self.max_connections == Some(0) {
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
