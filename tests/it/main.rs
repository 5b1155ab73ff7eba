//! One binary for all tests against the real one; `kit` starts it on free ports.

mod browser;
mod commands;
mod crowd;
mod docs;
mod doctor;
mod durability;
mod edge_kit;
mod endings;
mod engine_kit;
mod engines;
mod failover;
mod hardening;
mod headers;
mod hold;
mod kit;
mod nginx;
mod overload;
mod page;
mod redis;
mod redis_kit;
mod refusals;
mod stores;
mod streams;
mod tidy;
mod varnish;
mod vcl;
