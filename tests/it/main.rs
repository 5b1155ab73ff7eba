//! One binary for all tests against the real one; `kit` starts it on free ports.

mod browser;
mod kit;
mod page;
mod stores;
mod streams;
