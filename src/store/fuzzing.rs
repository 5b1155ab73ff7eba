//! The encoding of events, for `tools/fuzz`.

pub use super::record::{read_event, write_event};
