//! Headwater: the SSE-first broadcast origin for CDN fan-out.
#![forbid(unsafe_code)]

pub mod alarms;
pub mod body;
pub mod caching;
pub mod channel;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod cursor;
pub mod demo;
pub mod event;
pub mod event_log;
pub mod http;
pub mod hub;
pub mod join;
pub mod live;
pub mod metrics;
pub mod ndjson;
pub mod process;
pub mod reader;
pub mod segment;
pub mod server;
pub mod socket;
pub mod sse;
pub mod store;
pub mod wakers;
