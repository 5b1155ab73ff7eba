//! The parsers of replies, for `tools/fuzz`.

pub use super::pages::{Entry, entries, head, stored_state};
pub use super::publish::{ScriptReply, checksum, script_reply};
pub use super::reply::stored_batch;
pub use super::tail::{News, entries as firehose_entries};
pub use fred::types::Value;
