//! The scripts of the Redis store.

use super::connection::Script;

/// The scripts, each with its digest.
pub struct Scripts {
    pub publish: Script,
    pub read: Script,
    pub read_back: Script,
    pub position_back: Script,
    pub log_state: Script,
    pub before: Script,
    pub state: Script,
    pub head: Script,
    pub reopen: Script,
    pub erase: Script,
    pub self_test: Script,
    pub settings: Script,
    pub size: Script,
    pub counts: Script,
    pub recount: Script,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            publish: Script::of_channel(include_str!("publish.lua")),
            read: Script::of_channel(include_str!("read.lua")),
            read_back: Script::of_channel(include_str!("read_back.lua")),
            position_back: Script::of_channel(include_str!("position_back.lua")),
            log_state: Script::of_channel(include_str!("log_state.lua")),
            before: Script::of_channel(include_str!("before.lua")),
            state: Script::of_channel(include_str!("state.lua")),
            head: Script::new(include_str!("head.lua")),
            reopen: Script::new(include_str!("reopen.lua")),
            erase: Script::of_channel(include_str!("erase.lua")),
            self_test: Script::new(include_str!("self_test.lua")),
            settings: Script::new(include_str!("settings.lua")),
            size: Script::new(include_str!("size.lua")),
            counts: Script::new(include_str!("counts.lua")),
            recount: Script::new(include_str!("recount.lua")),
        }
    }
}
