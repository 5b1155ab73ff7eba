//! WebSockets: messages, client libraries, raw frames, and HTTP/2.

pub mod autobahn;
pub mod clients;
pub mod http2;
pub mod messages;
pub mod raw;
