//! Headwater: the SSE-first broadcast origin for CDN fan-out.
//!
//! # From above
//!
//! A publish goes `http/publish` → `hub` → `store`, which gives it an id, keeps it, and tells
//! `live`; that appends it to the channel's recent run and wakes the readers. A stream goes
//! `http/subscribe` → `hub::join`, which decides where it begins (`join`) and when it ends
//! (`segment`), and becomes a `body` that pulls from a `reader`: the recent run where that reaches,
//! the store before it. Nothing is queued for anyone.
//!
//! # Code map
//!
//! Arrows run one way, edges → spine → core; `tests/it/tidy.rs` keeps it so.
//!
//! - Core, pure (no tokio, no sockets, no clock): `event` what a publisher may say, `cursor` where a
//!   client stands, `ndjson` batches, `sse` bytes, `event_log` the recent run, `segment` where
//!   responses end, `caching` what a cache may do, `join` where a stream begins, `config`,
//!   `edge` the configurations of caches, `scope` and `token` what a token grants, `frame` what is
//!   said over a WebSocket, `client_address` whose request it is.
//! - Spine (tokio's synchronisation, no sockets): `clock`, `wakers`, `alarms`, `channel`, `live`,
//!   `reader`, `store`, `metrics`, `hub`, `access` who may publish and listen, `rates` and `clients`
//!   how much of it.
//! - Edges: `socket` and `server` (connections), `http` (requests, WebSockets), `body` (streams to hyper),
//!   `client` (our `EventSource`), `cli` (commands), `demo`, `process`.
//!
//! # Invariants, most of them absences
//!
//! - No queue for a subscriber: a reader is a position, and replay and live are the same read.
//! - No lock across an await.
//! - No clean end but where the cursor is right (`caching::Ending::is_whole`).
//! - No error answer to an `EventSource` for a fault that will pass.
//! - No clock but in `clock`, no random cut: all responses of a lane end at the same instants.
//! - No acknowledgement before the store has it for good, and nothing shown before that either.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod access;
pub mod alarms;
pub mod background;
pub mod body;
pub mod budget;
pub mod caching;
pub mod channel;
pub mod cli;
pub mod client;
pub mod client_address;
pub mod clients;
pub mod clock;
pub mod config;
pub mod cursor;
pub mod demo;
pub mod edge;
pub mod event;
pub mod event_json;
pub mod event_log;
pub mod frame;
pub mod http;
pub mod hub;
pub mod intake_pace;
pub mod join;
pub mod listener;
pub mod live;
pub mod metrics;
pub mod ndjson;
pub mod paced;
pub mod process;
pub mod rates;
pub mod reader;
pub mod scope;
pub mod segment;
pub mod server;
pub mod since;
pub mod socket;
pub mod sse;
pub mod store;
pub mod token;
pub mod wakers;
