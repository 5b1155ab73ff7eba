//! The parts of Headwater that follow from the protocol alone: no tokio, no sockets, no clock and
//! no environment. Functions that depend on the time take it as an argument.

pub mod caching;
pub mod cursor;
pub mod event;
pub mod event_json;
pub mod log_state;
pub mod ndjson;
pub mod pattern;
pub mod resume;
pub mod segment;
pub mod since;
pub mod sse;
pub mod tail_buffer;
pub mod trace_context;
