//! What `headwater doctor` must be able to see from the far side of a cache.
//!
//! `Headwater-Response` names the origin's answer, so that two clients can tell whether they were
//! given one and the same, and says how the request for it arrived: which HTTP version, which mode,
//! and whether a cache let through what it should have dropped. It repeats nothing that a client
//! sent, so it is safe in a shared answer. [`FAULT_CHANNEL`] fails on purpose.

use crate::core::event::ChannelName;
use hyper::header::{ACCEPT_ENCODING, COOKIE, HeaderName, HeaderValue};
use hyper::{Request, Version};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The header, an RFC 8941 token with parameters: `r5f3c1a-42;http=1.1;mode=stream`.
pub const RESPONSE_HEADER: HeaderName = HeaderName::from_static("headwater-response");
/// A channel whose streams always fail with `503`, so that anyone can see what the edge in front
/// makes of a failing origin. It takes no events.
pub const FAULT_CHANNEL: &str = "headwater.fault";

/// What a publisher to it is told.
pub const TAKES_NO_EVENTS: &str = "this channel takes no events, it is there to fail";

/// Names answers. One a process.
pub struct Responses {
    run: u64,
    count: AtomicU64,
}

impl Default for Responses {
    /// A name that no other process will have.
    fn default() -> Self {
        Self { run: RandomState::new().build_hasher().finish(), count: AtomicU64::new(0) }
    }
}

impl Responses {
    /// The next answer's name, and how its request arrived.
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

/// Whether a stream of these channels is to fail.
pub fn is_fault(names: &[ChannelName]) -> bool {
    names.iter().any(|name| name.as_str() == FAULT_CHANNEL)
}
