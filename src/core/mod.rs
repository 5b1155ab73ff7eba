//! What follows from the protocol alone: no tokio, no sockets, no clock, no environment. Time is an
//! argument.

pub mod caching;
pub mod cursor;
pub mod event;
pub mod event_json;
pub mod log_state;
pub mod ndjson;
pub mod resume;
pub mod segment;
pub mod since;
pub mod sse;
pub mod tail_buffer;
