//! Headwater: the SSE-first broadcast origin for CDN fan-out.
//!
//! # Code map
//!
//! Each folder imports only folders that stand above it in this list; the table in
//! `tests/it/tidy.rs` holds every file to that.
//!
//! - [`core`]: what follows from the protocol alone (events, cursors, segments, the text of a
//!   stream, caching headers). No I/O and no clock; time is an argument.
//! - [`sync`]: the clock, timers, lists of waiters and background threads.
//! - [`access`]: tokens and their scopes; [`limits`]: how much one client or publisher may take.
//! - [`store`]: where events are kept, on disk, in memory or in Redis.
//! - [`telemetry`] has the metrics.
//! - [`hub`]: the channels in memory, and the streams that read them.
//! - [`http`]: requests, answers and WebSockets; [`server`]: listeners and connections.
//! - [`demo`]: the events of `serve --demo`; [`origin`]: the parts put together.
//! - [`edge_config`]: the files for caches; [`client`]: an `EventSource`; [`cli`]: the commands.
//!
//! # The way of an event and of a stream
//!
//! A publish goes through `http::publish` and the hub to the store. The store gives the event an
//! id, keeps it, and calls the registry of channels, which appends the event to the tail buffer of
//! its channel and wakes the waiting streams. A stream goes through `http::subscribe` to
//! `hub::Hub::join`, which decides where it starts (`core::resume`) and when it ends
//! (`core::segment`). Its body then reads from a `hub::reader::Reader`: from the tail buffer as far
//! as that reaches, and from the store before it. There is no queue for each subscriber.
//!
//! # Invariants
//!
//! - A reader is a position in the log; replay and live delivery are the same read.
//! - No lock is held across an await.
//! - A response ends cleanly only where its cursor is right (`core::caching::Ending::is_whole`).
//! - An `EventSource` never receives an error status for a fault that will pass.
//! - Only `sync::clock` reads the time, and no end of a response is random: all responses of a lane
//!   end at the same instants.
//! - Nothing is acknowledged or shown to a reader before the store has it durably.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod access;
pub mod cli;
pub mod client;
pub mod core;
pub mod demo;
pub mod edge_config;
pub mod http;
pub mod hub;
pub mod limits;
pub mod origin;
pub mod server;
pub mod store;
pub mod sync;
pub mod telemetry;
