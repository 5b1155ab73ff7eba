//! Real browsers, and client libraries of other projects.

pub mod animation;
pub mod boards;
pub mod browser;
pub mod client_matrix;
pub mod client_module;
pub mod console;
pub mod demo;
pub mod demo_audit;
pub mod demo_cache;
pub mod engines;
pub mod page;
pub mod pauses;
