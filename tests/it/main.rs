//! One binary for all tests against the real one; `kit` starts it on free ports.

mod browser;
mod commands;
mod crowd;
mod docs;
mod durability;
mod endings;
mod failover;
mod headers;
mod hold;
mod kit;
mod page;
mod redis;
mod redis_kit;
mod stores;
mod streams;
mod tidy;
