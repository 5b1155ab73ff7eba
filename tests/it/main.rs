//! One binary for all tests against the real servers and browsers, in folders by subject. `kit` starts
//! the servers on free ports.

mod browsers;
mod caches;
mod cli;
mod deploy;
mod docs;
mod examples;
mod fanout;
mod fuzz;
mod hardening;
mod hunt;
mod kit;
mod protocol;
mod redis;
mod soak;
mod stores;
mod stranger;
mod tidy;
mod websocket;
