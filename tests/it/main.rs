//! One binary for all tests against the real one; `kit` starts it on free ports.

mod crowd;
mod durability;
mod endings;
mod hold;
mod kit;
mod stores;
mod streams;
