//! Lets `headwater doctor` observe, from behind a cache, how requests reach the origin.
//!
//! The header `Headwater-Response` names each response to a request for a stream or a long poll, so
//! that two clients can tell whether they received the same response. It also says how the request
//! arrived: the HTTP version, the mode, and whether a cache forwarded headers that it should have
//! dropped. It repeats no value that a client sent, so it is safe in a shared response. Streams of
//! [`FAULT_CHANNEL`] fail on purpose.

use crate::core::event::ChannelName;
use crate::sync::random::random;
use hyper::header::{ACCEPT_ENCODING, COOKIE, HeaderName, HeaderValue};
use hyper::{Request, Version};
use std::sync::atomic::{AtomicU64, Ordering};

/// The header that names a response: an RFC 8941 token with parameters, such as
/// `r5f3c1a07-42;http=1.1;mode=stream`.
pub const RESPONSE_HEADER: HeaderName = HeaderName::from_static("headwater-response");
/// A channel whose streams always fail with `503`, so that the behaviour of a cache with a failing
/// origin can be observed. It takes no events.
pub const FAULT_CHANNEL: &str = "headwater.fault";

/// The error text for a publish to [`FAULT_CHANNEL`].
pub const TAKES_NO_EVENTS: &str = "this channel takes no events, it is there to fail";

/// Generates the names of responses. Each process has one.
pub struct Responses {
    run: u64,
    count: AtomicU64,
}

impl Default for Responses {
    /// Starts with a random number, so that two processes do not generate the same names.
    fn default() -> Self {
        Self { run: random(), count: AtomicU64::new(0) }
    }
}

impl Responses {
    /// The header value of the next response: its name, and how its request arrived.
    pub fn next<B>(&self, request: &Request<B>, mode: &str) -> HeaderValue {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let version = match request.version() {
            Version::HTTP_2 => "2.0",
            Version::HTTP_10 | Version::HTTP_09 => "1.0",
            _ => "1.1",
        };
        let has = |name, text| if request.headers().contains_key(name) { text } else { "" };
        let (cookie, encoding) = (has(COOKIE, ";cookie"), has(ACCEPT_ENCODING, ";accept-encoding"));
        let run = self.run & 0xffff_ffff;
        super::header(&format!("r{run:08x}-{number};http={version};mode={mode}{cookie}{encoding}"))
    }
}

/// Whether [`FAULT_CHANNEL`] is one of these channels.
pub fn is_fault(names: &[ChannelName]) -> bool {
    names.iter().any(|name| name.as_str() == FAULT_CHANNEL)
}
