//! The rules of docs/protocol.md for publishers, clients and caches, checked against a running origin.

pub mod access;
pub mod beginnings;
pub mod endings;
pub mod files;
pub mod formats;
pub mod h2spec;
pub mod headers;
pub mod long_poll;
pub mod publishing;
pub mod refusals;
pub mod streams;
pub mod tls;
