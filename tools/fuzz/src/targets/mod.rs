//! The targets, and the choice of one of them.

mod batch;
mod body;
mod client_address;
mod config_file;
mod cursor;
mod index;
mod key_set;
mod log_file;
mod log_open;
mod planted;
mod record;
mod redis_reply;
mod request;
mod sse_client;
mod sse_encoder;
mod token;
mod websocket_command;
mod websocket_frames;

use crate::memory;
use std::sync::OnceLock;

/// A target: its name, and the function that runs one input.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 17] = [
    ("batch", batch::run),
    ("body", body::run),
    ("client_address", client_address::run),
    ("config_file", config_file::run),
    ("cursor", cursor::run),
    ("index", index::run),
    ("key_set", key_set::run),
    ("log_file", log_file::run),
    ("log_open", log_open::run),
    ("record", record::run),
    ("redis_reply", redis_reply::run),
    ("request", request::run),
    ("sse_client", sse_client::run),
    ("sse_encoder", sse_encoder::run),
    ("token", token::run),
    ("websocket_command", websocket_command::run),
    ("websocket_frames", websocket_frames::run),
];
/// Has a bug, to show that the coverage guides the choice of inputs.
const PLANTED: Target = ("planted", planted::run);

/// The most memory that one run may take: a part for tables and buffers of the parsers, and a part
/// for each byte of the input.
const MEMORY_BYTES: usize = 8 * 1024 * 1024;
const MEMORY_PER_BYTE: usize = 256;

static CHOSEN: OnceLock<Target> = OnceLock::new();

/// Chooses the target that the variable `FUZZ_TARGET` names. With `list`, prints all names.
pub fn choose() {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if name == "list" {
        TARGETS.iter().for_each(|(name, _)| println!("{name}"));
        std::process::exit(0);
    }
    let mut all = TARGETS.into_iter().chain([PLANTED]);
    let Some(target) = all.find(|(known, _)| *known == name) else {
        eprintln!("there is no target {name:?}; FUZZ_TARGET=list prints all");
        std::process::exit(2);
    };
    CHOSEN.get_or_init(|| target);
    // Tables that are made once must not count as memory of the first input.
    (target.1)(&[]);
}

/// Runs the target with one input.
pub fn run(bytes: &[u8]) {
    let Some((_, run)) = CHOSEN.get() else { return };
    memory::limited(MEMORY_BYTES + MEMORY_PER_BYTE * bytes.len(), || run(bytes));
}
