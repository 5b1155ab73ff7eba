//! WebSockets: messages, client libraries and raw frames.

pub mod autobahn;
pub mod clients;
pub mod messages;
pub mod raw;
