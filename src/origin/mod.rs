//! An origin, put together.

pub mod config;
