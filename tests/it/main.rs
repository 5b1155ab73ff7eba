//! One binary for all tests against the real one; `kit` starts it on free ports.

mod kit;
mod stores;
mod streams;
